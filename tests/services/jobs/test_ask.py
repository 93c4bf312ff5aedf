"""However many ask, one job waits; and what they asked for is not lost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import transaction
from django.utils import timezone

from backups_app.core.errors import BusyError, NotFoundError, RefusedError
from backups_app.models import Backup, Database, Job, Restore
from backups_app.services.databases import add_database
from backups_app.services.jobs import ask_create, ask_job, ask_restore, ask_verify
from backups_app.services.jobs.ask import joined_options
from backups_app.services.restores import approve_restore, request_restore
from tests.console import Console, finish
from tests.services.jobs.conftest import ANNA, BEN
from tests.support import build_shop

WAKE = "backups_app.services.jobs.ask.wake"


def test_a_job_waits_with_who_asked_and_what_for(asked: Job, shop: Database):
    assert (asked.kind, asked.state, asked.database, asked.trigger) == ("create", "queued", shop, "admin")
    assert (asked.requested_by_id, asked.requested_by_name, asked.is_inline) == ("1", "anna", False)
    assert (asked.token, asked.attempts, asked.owner) == (0, 0, "")
    assert not Backup.objects.exists()


def test_who_asks_while_one_waits_gets_that_one(asked: Job, shop: Database):
    again = ask_create(shop, actor=BEN, trigger=Job.Trigger.COMMAND)
    assert again.pk == asked.pk
    assert Job.objects.get().requested_by_name == "anna"


def test_both_notes_are_kept(shop: Database):
    for note in ("before the move", "", "nightly", "before the move"):
        ask_create(shop, actor=ANNA, trigger=Job.Trigger.ADMIN, note=note)
    assert Job.objects.get().options == {"note": "before the move; nightly"}


def test_another_kind_or_another_database_is_another_job(asked: Job, shop: Database, tmp_path: Path):
    other = add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ANNA)
    ask_create(other, actor=ANNA, trigger=Job.Trigger.ADMIN)
    ask_job(Job.Kind.VERIFY, shop, actor=ANNA, trigger=Job.Trigger.ADMIN)
    assert Job.objects.count() == 3


def test_one_that_runs_already_may_have_missed_the_newest_rows(orphan: Callable[..., Job], shop: Database):
    running = orphan()
    assert ask_create(shop, actor=ANNA, trigger=Job.Trigger.ADMIN).pk != running.pk
    assert Job.objects.filter(state="queued").count() == 1


def test_backups_to_verify_are_put_together_and_the_deeper_level_counts(shop: Database, make_backup):
    one, two = make_backup(shop), make_backup(shop)
    (job,) = ask_verify([one], level="quick", actor=ANNA, trigger=Job.Trigger.ADMIN)
    (same,) = ask_verify([two, one], level="full", actor=BEN, trigger=Job.Trigger.ADMIN)
    assert same.pk == job.pk
    waiting = Job.objects.get(state="queued")
    assert waiting.options == {"backups": [one.pk, two.pk], "level": "full"}


def test_a_backup_without_a_copy_cannot_be_verified_and_nothing_waits(shop: Database):
    backup = Backup.objects.create(
        database=shop, trigger="command", state="failed", finished_at=timezone.now(), reason="x"
    )
    with pytest.raises(NotFoundError, match="no stored copy"):
        ask_verify([backup], level="full", actor=ANNA, trigger=Job.Trigger.ADMIN)
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        ({}, {}, {}),
        ({"note": "a"}, {"note": "a"}, {"note": "a"}),
        ({"level": "quick"}, {"level": "quick"}, {"level": "quick"}),
        ({"backups": ["1"]}, {"backups": ["1", "2"]}, {"backups": ["1", "2"]}),
    ],
)
def test_options_are_joined(first: dict[str, object], second: dict[str, object], both: dict[str, object]):
    assert joined_options(first, second) == both


def test_a_worker_is_woken_when_the_transaction_commits_and_not_before(
    shop: Database, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks
):
    woken: list[str] = []
    monkeypatch.setattr(WAKE, woken.append)
    with django_capture_on_commit_callbacks(using="catalog", execute=True):
        job = ask_create(shop, actor=ANNA, trigger=Job.Trigger.ADMIN)
        assert woken == []
    assert woken == [job.pk]


def test_nothing_is_asked_for_when_the_transaction_around_it_fails(
    shop: Database, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks
):
    woken: list[str] = []
    monkeypatch.setattr(WAKE, woken.append)

    def ask_and_fail() -> None:
        with transaction.atomic(using="catalog"):
            ask_create(shop, actor=ANNA, trigger=Job.Trigger.ADMIN)
            raise ZeroDivisionError

    with django_capture_on_commit_callbacks(using="catalog", execute=True), pytest.raises(ZeroDivisionError):
        ask_and_fail()
    assert woken == []
    assert not Job.objects.exists()


# Restores


@pytest.fixture
def approved(shop: Database, make_backup) -> Restore:
    restore = request_restore(make_backup(shop), shop, reason="x", actor=ANNA)
    return approve_restore(restore, actor=BEN)


def test_an_approved_restore_waits_once(approved: Restore):
    job = ask_restore(approved, actor=BEN, trigger=Job.Trigger.ADMIN)
    assert (job.kind, job.restore_id, job.database) == ("restore", approved.pk, approved.database)
    assert ask_restore(approved, actor=BEN, trigger=Job.Trigger.ADMIN).pk == job.pk


def test_a_restore_that_nobody_approved_is_refused(shop: Database, make_backup):
    restore = request_restore(make_backup(shop), shop, reason="x", actor=ANNA)
    with pytest.raises(RefusedError, match="only an approved one can run"):
        ask_restore(restore, actor=ANNA, trigger=Job.Trigger.ADMIN)
    assert not Job.objects.filter(kind="restore").exists()


def test_a_restore_is_refused_while_a_backup_runs_or_another_restore_waits(
    approved: Restore, orphan: Callable[..., Job]
):
    running = orphan()
    with pytest.raises(BusyError) as raised:
        ask_restore(approved, actor=BEN, trigger=Job.Trigger.ADMIN)
    assert raised.value.exit_code == 4
    running.delete()
    ask_restore(approved, actor=BEN, trigger=Job.Trigger.ADMIN)
    other = request_restore(approved.backup, approved.database, reason="y", actor=ANNA)
    with pytest.raises(BusyError, match="waits already"):
        ask_restore(approve_restore(other, actor=BEN), actor=BEN, trigger=Job.Trigger.ADMIN)
    assert Job.objects.filter(kind="restore").count() == 1


# Many at once


def test_eight_processes_that_ask_at_once_get_one_job(console: Console, site: Path):
    runs = [console.start("create", "default", "--enqueue", "--json") for _ in range(8)]
    finished = [finish(each) for each in runs]
    assert [each.code for each in finished] == [0] * 8, [each.stderr for each in finished]
    ids = {each.document["jobs"][0]["id"] for each in finished}
    assert len(ids) == 1
    assert console.query("SELECT id, state, attempts FROM backups_app_job") == [(*ids, "queued", 0)]
    assert console.archived() == set()


def test_two_commands_at_once_make_two_backups_one_after_the_other(console: Console, site: Path):
    runs: list[subprocess.Popen[bytes]] = [console.start("create", "default", "--json") for _ in range(2)]
    finished = [finish(each) for each in runs]
    assert [each.code for each in finished] == [0, 0], [each.stderr for each in finished]
    assert len({each.backup()["id"] for each in finished}) == 2
    times = console.query("SELECT started_at, finished_at FROM backups_app_job ORDER BY started_at")
    assert len(times) == 2
    assert times[0][1] <= times[1][0]
