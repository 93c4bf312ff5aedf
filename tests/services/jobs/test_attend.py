"""Calling again, and telling slow workers from dead ones."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from backups_app import conf
from backups_app.models import Database, Job
from backups_app.services.jobs import attend
from backups_app.services.jobs.attend import look_at_workers, ready_jobs, wake_waiting

NOW = timezone.now()
LONG_AGO = NOW - timedelta(minutes=1)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that a worker was called for."""
    found: list[str] = []

    def wake(job_id: str) -> bool:
        found.append(job_id)
        return True

    monkeypatch.setattr(attend, "wake", wake)
    monkeypatch.setattr(attend, "waiting_calls", lambda: 0)
    return found


@pytest.fixture
def overlooked(asked: Job) -> Job:
    """A job that could have run for a minute, and was called for."""
    Job.objects.filter(pk=asked.pk).update(created_at=LONG_AGO, woken_at=LONG_AGO)
    return asked


def test_what_nobody_took_is_called_for_again(overlooked: Job, calls: list[str]):
    assert wake_waiting(now=NOW) == 1
    assert calls == [overlooked.pk]


def test_what_was_never_called_for_is(asked: Job, calls: list[str]):
    assert wake_waiting(now=NOW) == 1
    assert calls == [asked.pk]


def test_who_was_just_called_gets_time(asked: Job, calls: list[str]):
    Job.objects.filter(pk=asked.pk).update(woken_at=NOW - timedelta(seconds=5))
    assert wake_waiting(now=NOW) == 0
    assert calls == []


@pytest.mark.parametrize("waiting", [1, None])
def test_calls_do_not_pile_up(overlooked: Job, calls: list[str], monkeypatch: pytest.MonkeyPatch, waiting: int | None):
    monkeypatch.setattr(attend, "waiting_calls", lambda: waiting)
    assert wake_waiting(now=NOW) == 0
    assert calls == []


def test_what_waits_for_its_database_is_not_ready(overlooked: Job, orphan: Callable[..., Job]):
    assert ready_jobs() == [overlooked]
    orphan("verify")
    assert ready_jobs() == []


def test_jobs_without_a_database_are_ready(db_catalog: None):
    job = Job.objects.create(kind="triage", trigger="admin")
    assert ready_jobs() == [job]


def test_of_jobs_without_a_database_one_runs_on_each_host(
    as_host: Callable[[str], None], db_catalog: None, orphan: Callable[..., Job]
):
    as_host("alpha")
    orphan("triage", database=None, host="alpha")
    waiting = {host: Job.objects.create(kind="triage", trigger="admin", host=host) for host in ("alpha", "beta")}
    assert ready_jobs() == [waiting["beta"]]
    assert wake_waiting(now=NOW) == 0
    as_host("beta")
    assert wake_waiting(now=NOW) == 1


# Stalled?


def test_a_job_that_no_free_worker_takes_means_a_stall(overlooked: Job):
    found = look_at_workers(now=NOW)
    assert found.is_stalled
    assert overlooked.pk in found.reason
    assert found.busy_generations == frozenset()


def test_an_empty_queue_is_no_stall(db_catalog: None):
    assert not look_at_workers(now=NOW).is_stalled


@pytest.mark.parametrize(
    "changed",
    [
        {"created_at": NOW - timedelta(seconds=5)},  # asked for just now
        {"woken_at": None},  # the queue could not be reached: no worker's fault
        {"heartbeat_at": NOW - timedelta(seconds=5)},  # queued again just now
    ],
)
def test_what_was_not_overlooked_is_no_stall(overlooked: Job, changed: dict[str, object]):
    Job.objects.filter(pk=overlooked.pk).update(**changed)
    assert not look_at_workers(now=NOW).is_stalled


@pytest.mark.parametrize("moved", [{"started_at": NOW}, {"finished_at": NOW, "state": "succeeded"}])
def test_while_other_jobs_move_the_workers_live(
    overlooked: Job, other: Database, orphan: Callable[..., Job], moved: dict[str, object]
):
    orphan("verify", database=other, host=conf.host_name(), **{"started_at": LONG_AGO, **moved})
    assert not look_at_workers(now=NOW).is_stalled


def test_one_long_job_does_not_hide_that_its_sibling_is_dead(
    overlooked: Job, other: Database, orphan: Callable[..., Job]
):
    orphan(database=other, host=conf.host_name(), owner="life:7", started_at=LONG_AGO)
    found = look_at_workers(now=NOW)
    assert found.is_stalled
    assert found.busy_generations == {"life"}


def test_what_waits_for_another_job_without_a_database_is_no_stall(
    db_catalog: None, orphan: Callable[..., Job], calls: list[str]
):
    first = orphan("triage", database=None, host=conf.host_name(), owner="life:7", started_at=LONG_AGO)
    second = Job.objects.create(
        kind="triage", trigger="admin", host="its name before", created_at=LONG_AGO, woken_at=LONG_AGO
    )
    assert not look_at_workers(now=NOW).is_stalled
    assert wake_waiting(now=NOW) == 0
    assert calls == []
    Job.objects.filter(pk=first.pk).update(state="succeeded", finished_at=LONG_AGO)
    assert look_at_workers(now=NOW).is_stalled, "nothing is in its way any more"
    assert wake_waiting(now=NOW) == 1
    assert calls == [second.pk]


def test_when_all_workers_are_busy_waiting_is_right(
    overlooked: Job, other: Database, orphan: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(attend, "worker_count", lambda: 1)
    orphan(database=other, host=conf.host_name(), owner="life:7", started_at=LONG_AGO)
    assert not look_at_workers(now=NOW).is_stalled


@pytest.fixture
def other(shop: Database, tmp_path) -> Database:
    return Database.objects.create(name="other", path=str(tmp_path / "other.sqlite3"))
