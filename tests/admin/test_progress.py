"""Where a job is, in words."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from backups_app.admin.progress import log_tail, progress_of
from backups_app.models import Database, Host, Job
from tests.admin.conftest import job_row

KEYS = {
    "id",
    "state",
    "state_label",
    "phase",
    "percent",
    "done",
    "total",
    "speed",
    "time_left",
    "log",
    "is_open",
    "outcome",
    "hint",
    "cancel_requested",
    "links",
}


@pytest.fixture
def worker(db_catalog: None) -> Host:
    """A machine that works."""
    now = timezone.now()
    return Host.objects.create(name="here", seen_at=now, started_at=now)


@pytest.mark.parametrize("state", Job.State.values)
@pytest.mark.parametrize("kind", ["create", "verify", "prune", "triage", "drill"])
def test_every_state_of_every_kind_is_told_in_words_that_can_be_sent(shop: Database, state: str, kind: str):
    job = job_row(shop, state=state, kind=kind)
    job.save()
    found = progress_of(job, now=timezone.now())
    assert set(found) >= KEYS
    assert found["words"].endswith(".")
    assert found["is_open"] is (state in ("queued", "running"))
    assert json.loads(json.dumps(found)) == found


def test_a_running_job_tells_phase_percent_speed_and_time_left(shop: Database, worker: Host):
    found = progress_of(job_row(shop, state="running"), now=timezone.now())
    assert (found["phase"], found["percent"], found["percent_label"]) == ("Checking and compressing", 25, "25 %")
    assert (found["done"], found["total"]) == ("476.8\xa0MB", "1.9\xa0GB")
    assert found["amount"] == "476.8\xa0MB of 1.9\xa0GB"
    assert found["speed"] == "4.8\xa0MB/s"
    assert found["time_left"] == "5 min 0 s"
    assert found["elapsed"] == "3 min 20 s"
    assert found["warning"] == ""


def test_what_is_unknown_is_not_made_up(shop: Database, worker: Host):
    found = progress_of(job_row(shop, state="running", total_bytes=0, done_bytes=0), now=timezone.now())
    assert found["percent"] is None
    assert (found["percent_label"], found["amount"], found["speed"], found["time_left"]) == ("", "", "", "")


def test_a_job_that_ended_has_no_speed_and_no_time_left(shop: Database):
    job = job_row(shop, state="failed", phase="copy", done_bytes=10, total_bytes=100)
    found = progress_of(job, now=timezone.now())
    assert (found["speed"], found["time_left"]) == ("", "")
    assert (found["outcome"], found["hint"]) == ("It went wrong.", "Try it again.")


def test_a_phase_that_is_not_known_is_shown_as_it_is(shop: Database):
    assert progress_of(job_row(shop, state="running", phase="weigh"), now=timezone.now())["phase"] == "Weigh"


def test_a_queued_job_without_a_worker_says_what_to_do(shop: Database):
    warning = progress_of(job_row(shop), now=timezone.now())["warning"]
    assert "No worker is running." in warning
    assert "manage.py backup serve" in warning


@pytest.mark.parametrize(
    "facts",
    [{"is_inline": True}, {"state": "running"}, {"state": "succeeded"}, {"state": "cancelled"}],
)
def test_a_job_that_needs_no_worker_does_not_warn(shop: Database, facts: dict[str, object]):
    assert progress_of(job_row(shop, **facts), now=timezone.now())["warning"] == ""  # type: ignore[arg-type]


def test_with_a_worker_there_is_no_warning(shop: Database, worker: Host):
    found = progress_of(job_row(shop), now=timezone.now())
    assert (found["warning"], found["words"]) == ("", "It waits for a worker.")
    later = timezone.now() + timedelta(minutes=1)
    assert progress_of(job_row(shop), now=later)["warning"] != ""


def test_a_job_that_waits_for_another_one_says_so(shop: Database, worker: Host):
    job_row(shop, state="running", kind="drill").save()
    words = progress_of(job_row(shop), now=timezone.now())["words"]
    assert words == "It waits for another job on this database to end: drill."


def test_a_job_of_no_database_can_be_told_too(worker: Host):
    found = progress_of(job_row(None, kind="triage"), now=timezone.now())
    assert found["links"]["database"] is None


def test_a_job_that_was_asked_to_stop_says_so(shop: Database):
    job = job_row(shop, state="running", cancel_requested_at=timezone.now())
    found = progress_of(job, now=timezone.now())
    assert found["cancel_requested"] is True
    assert "asked to stop" in found["words"]


def test_a_cancelled_job_names_who_did_it(shop: Database):
    assert progress_of(job_row(shop, state="cancelled", cancelled_by_name="ben"), now=timezone.now())["words"] == (
        "It was cancelled by ben."
    )


def test_only_the_end_of_a_long_log_is_sent():
    log = "\n".join(f"line {number}" for number in range(1000))
    assert log_tail(log).splitlines() == [f"line {number}" for number in range(800, 1000)]
    assert len(log_tail("x" * 10**6)) == 20_000
    assert log_tail("") == ""


def test_a_hostile_log_can_be_sent():
    assert log_tail("a\x00b \udcff") == "a\ufffdb \\udcff"
