"""Which endings are told to whom."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Job, Notification
from backups_app.services.notifications import notify, notify_job
from tests.services.notifications.conftest import MakeJob, Tell
from tests.support import NOW, PROJECT

HOOKS = ["https://one.example/token-of-one", "https://two.example/token-of-two"]
PULSE = "https://pulse.example/token-of-pulse"
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def everybody(tell: Tell) -> None:
    """Two mail receivers, two webhooks, a dead man's switch."""
    tell(NOTIFY_EMAILS=["ops@site.example", "boss@site.example"], WEBHOOK_URLS=HOOKS, HEARTBEAT_URL=PULSE)


def told(job: Job, *, at: datetime | None = None) -> dict[str, int]:
    """How many messages the end of a job gives, by channel."""
    notify_job(job, now=at or job.finished_at or NOW)
    rows = Notification.objects.filter(job=job)
    return {
        channel: count for channel in Notification.Channel.values if (count := rows.filter(channel=channel).count())
    }


def events() -> set[str]:
    return set(Notification.objects.values_list("event", flat=True))


def test_a_success_goes_to_webhooks_and_the_heartbeat_only(make_job: MakeJob):
    assert told(make_job()) == {"webhook": 2, "heartbeat": 1}
    assert events() == {"succeeded"}


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_a_failure_goes_to_everybody(make_job: MakeJob, state: str):
    assert told(make_job(state)) == {"mail": 2, "webhook": 2, "heartbeat": 1}
    assert events() == {"failed"}


def test_a_cancelled_job_is_told_to_nobody(make_job: MakeJob):
    assert told(make_job("cancelled")) == {}


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_that_goes_on_is_told_to_nobody(make_job: MakeJob, state: str):
    job = make_job()
    job.state = state
    assert told(job) == {}


def test_an_ending_is_told_once(make_job: MakeJob):
    job = make_job("failed")
    assert notify_job(job, now=NOW) == 5
    assert notify_job(job, now=NOW + HOUR) == 0
    assert Notification.objects.count() == 5


@pytest.mark.parametrize("kind", ["verify", "drill", "prune"])
def test_other_work_does_not_keep_the_switch_quiet_but_its_failure_trips_it(make_job: MakeJob, kind: str):
    assert told(make_job(kind=kind)) == {"webhook": 2}
    assert told(make_job("failed", kind=kind, at=NOW + HOUR))["heartbeat"] == 1


def test_nobody_in_the_settings_means_no_rows(make_job: MakeJob, tell: Tell):
    tell(NOTIFY_EMAILS=None, WEBHOOK_URLS=None, HEARTBEAT_URL=None)
    assert told(make_job("failed")) == {}


def test_without_a_setting_the_admins_get_mail(make_job: MakeJob, tell: Tell, settings: Settings):
    tell(NOTIFY_EMAILS=None, WEBHOOK_URLS=[], HEARTBEAT_URL=None)
    settings.ADMINS = [("anna", "anna@site.example")]
    assert told(make_job("failed")) == {"mail": 1}


# Recovery


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_the_first_success_after_a_failure_is_a_recovery_and_the_next_is_not(make_job: MakeJob, state: str):
    make_job(state)
    make_job("cancelled", at=NOW + HOUR)
    assert told(make_job(at=NOW + 2 * HOUR)) == {"mail": 2, "webhook": 2, "heartbeat": 1}
    assert events() == {"recovered"}
    assert told(make_job(at=NOW + 3 * HOUR)) == {"webhook": 2, "heartbeat": 1}


def test_other_work_and_other_databases_do_not_recover(make_job: MakeJob):
    make_job("failed", kind="verify")
    make_job("failed", kind="triage", database=None)
    told(make_job(at=NOW + HOUR))
    assert events() == {"succeeded"}


def test_work_without_a_database_recovers_by_itself(make_job: MakeJob):
    make_job("failed", kind="triage", database=None)
    told(make_job(kind="triage", database=None, at=NOW + HOUR))
    assert events() == {"recovered"}


# Reminders


def mailed(job: Job) -> bool:
    return "mail" in told(job)


def test_a_failure_that_stays_is_mailed_at_once_and_then_once_a_day(make_job: MakeJob):
    hours = [hour for hour in range(0, 80, 4) if mailed(make_job("failed", at=NOW + hour * HOUR))]
    assert hours == [0, 24, 48, 72]
    assert Notification.objects.filter(channel="webhook").count() == 40, "webhooks hear of each"


def test_the_pause_is_a_setting(make_job: MakeJob, tell: Tell):
    tell(NOTIFY_REMIND_HOURS=8)
    assert [hour for hour in range(0, 20, 4) if mailed(make_job("failed", at=NOW + hour * HOUR))] == [0, 8, 16]


def test_another_failure_is_news(make_job: MakeJob):
    assert mailed(make_job("failed"))
    assert mailed(make_job("failed", failure_code="key_missing", at=NOW + HOUR))
    assert not mailed(make_job("failed", at=NOW + 2 * HOUR))


def test_a_failure_after_a_recovery_is_news(make_job: MakeJob):
    assert mailed(make_job("failed"))
    assert mailed(make_job(at=NOW + HOUR)), "the recovery"
    assert mailed(make_job("failed", at=NOW + 2 * HOUR))


def test_each_kind_of_work_has_its_own_reminder(make_job: MakeJob):
    assert mailed(make_job("failed"))
    assert mailed(make_job("failed", kind="verify", at=NOW + HOUR))
    assert mailed(make_job("failed", kind="triage", database=None, at=NOW + HOUR))
    assert not mailed(make_job("failed", kind="triage", database=None, at=NOW + 2 * HOUR))


# The dead man's switch


def test_a_late_signal_is_overtaken_by_the_next_of_the_same_work(make_job: MakeJob):
    told(make_job("failed"))
    told(make_job("failed", kind="verify", at=NOW + HOUR))
    told(make_job(at=NOW + 2 * HOUR))
    waiting = Notification.objects.filter(channel="heartbeat").order_by("pk")
    assert [(each.event, each.job.kind) for each in waiting if each.job] == [
        ("failed", "verify"),
        ("recovered", "create"),
    ]


# What is told


def test_the_document_holds_the_facts(make_job: MakeJob):
    job = make_job("failed")
    notify_job(job, now=NOW + timedelta(seconds=1))
    row = Notification.objects.filter(channel="webhook").first()
    assert row is not None
    assert row.content == {
        "event": "failed",
        "subject": "Backup of shop failed",
        "at": "2026-03-04T05:06:08.000000Z",
        "kind": "create",
        "database": "shop",
        "job": job.pk,
        "trigger": "schedule",
        "backups": [],
        "restore": None,
        "state": "failed",
        "failure_code": "disk_full",
        "outcome": "The disk is full.",
        "hint": "Free some space.",
        "started_at": "2026-03-04T05:04:07.000000Z",
        "finished_at": "2026-03-04T05:06:07.000000Z",
        "bytes": None,
        "host": "one",
        "chain_head": None,
    }


def test_the_documented_document_is_the_real_one(make_job: MakeJob):
    page = (PROJECT / "docs" / "notifications.md").read_text()
    documented = json.loads(page.partition("```json\n")[2].partition("```")[0])
    notify_job(make_job("failed"), now=NOW)
    row = Notification.objects.first()
    assert row is not None
    assert sorted(documented) == sorted(["id", *row.content])  # PostgreSQL keeps an order of its own
    assert set(documented) <= set(re.findall(r"`([a-z_]+)`", page)), "each key is explained"


def test_the_backups_and_their_bytes_are_told(make_job: MakeJob, make_backup: Any):
    job = make_job()
    backup: Backup = make_backup(job.database)
    Backup.objects.filter(pk=backup.pk).update(job=job)
    notify_job(job, now=NOW)
    content = Notification.objects.first().content  # type: ignore[union-attr]
    assert (content["backups"], content["bytes"]) == ([backup.pk], backup.size_bytes)


def test_the_head_of_the_chain_is_told(make_job: MakeJob, make_backup: Any):
    job = make_job()
    backup: Backup = make_backup(job.database)
    notify_job(job, now=NOW)
    content = Notification.objects.first().content  # type: ignore[union-attr]
    assert content["chain_head"] == {"sequence": 1, "manifest_sha256": backup.manifest_sha256, "backup": backup.pk}


def test_a_damaged_head_keeps_no_news_back(make_job: MakeJob, home: Path):
    job = make_job("failed")
    (home / "state" / "chain").mkdir(parents=True)
    (home / "state" / "chain" / f"{job.database.identity}.json").write_text("{")
    notify_job(job, now=NOW)
    assert Notification.objects.first().content["chain_head"] is None  # type: ignore[union-attr]


def test_hostile_text_is_kept_harmless_and_short(make_job: MakeJob):
    job = make_job("failed")
    job.outcome = "half \udcff\x00 " + "x" * 5000
    notify_job(job, now=NOW)
    outcome = Notification.objects.first().content["outcome"]  # type: ignore[union-attr]
    assert outcome.startswith("half \\udcff\\x00 x")
    assert len(outcome) == 2000


def test_an_ending_that_is_rolled_back_is_not_told(make_job: MakeJob):
    def end() -> None:
        with transaction.atomic(using="catalog"):
            notify_job(make_job("failed"), now=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        end()
    assert not Notification.objects.exists()


def test_receivers_that_cannot_be_read_do_not_stop_the_work_and_are_not_forgotten(
    make_job: MakeJob, tell: Tell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    tell(NOTIFY_EMAILS=[], WEBHOOK_URLS=None, HEARTBEAT_URL=None)
    monkeypatch.setenv("BACKUPS_WEBHOOK_URLS_FILE", str(tmp_path / "missing"))
    assert told(make_job("failed")) == {"webhook": 1}
    assert "BACKUPS_WEBHOOK_URLS_FILE cannot be read" in caplog.text


# News without a job


@pytest.mark.parametrize(("event", "channels"), [("failed", 4), ("recovered", 4), ("succeeded", 2)])
def test_news_without_a_job_go_to_mail_and_webhooks(db_catalog: None, event: str, channels: int):
    assert notify(event, subject="Space is\nscarce", content={"problem": "free_space"}, now=NOW) == channels
    row = Notification.objects.first()
    assert row is not None
    assert row.job is None
    assert row.content == {
        "event": event,
        "subject": "Space is scarce",
        "at": "2026-03-04T05:06:07.000000Z",
        "job": None,
        "problem": "free_space",
    }
    assert not Notification.objects.filter(channel="heartbeat").exists()
