"""Runs that failed, and schedules that were missed and made up for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from backups_app.models import Database, Job, Schedule, ScheduledRun, Verification
from backups_app.services.health import check_health
from tests.services.health.rows import verified

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def ended(database: Database, *, kind: str = "verify", state: str = "failed", age: timedelta = timedelta()) -> Job:
    at = timezone.now() - age
    outcome = "" if state == "succeeded" else "It went wrong."
    return Job.objects.create(
        database=database,
        kind=kind,
        state=state,
        trigger="schedule",
        outcome=outcome,
        created_at=at,
        started_at=at,
        finished_at=at,
    )


@pytest.fixture
def safe(shop: Database) -> Database:
    """A database with a verified backup."""
    verified(shop).save()
    return shop


@pytest.mark.parametrize("kind", ["verify", "drill", "prune"])
@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_the_last_run_of_each_kind_must_have_ended_well(safe: Database, kind: str, state: str):
    ended(safe, kind=kind, state="succeeded", age=timedelta(hours=2))
    bad = ended(safe, kind=kind, state=state, age=timedelta(hours=1))
    (problem,) = check_health().problems
    assert (problem.code, problem.database, problem.subject) == ("run_failed", "shop", kind)
    assert bad.pk in problem.message
    ended(safe, kind=kind, state="cancelled")
    assert not check_health().is_ok, "what somebody cancelled says nothing"
    ended(safe, kind=kind, state="succeeded")
    assert check_health().is_ok


def test_a_verification_with_a_verdict_is_told_by_the_backup(safe: Database):
    job, now = ended(safe), timezone.now()
    Verification.objects.create(
        backup=safe.backups.get(),
        job=job,
        destination="local",
        level="full",
        verdict="failed",
        reason="rotten",
        started_at=now,
        finished_at=now,
    )
    assert check_health().is_ok


def test_missed_runs_that_were_made_up_for_are_a_note_until_one_is_on_time(safe: Database):
    now = timezone.now()
    schedule = Schedule.objects.create(database=safe, cron="0 3 * * *", handled_until=now)
    ScheduledRun.objects.create(schedule=schedule, due_at=now - timedelta(days=1), is_late=True, missed=3)
    health = check_health(now=now)
    assert health.is_ok
    assert any("stands for 3 missed" in each for each in health.notices)
    ScheduledRun.objects.create(schedule=schedule, due_at=now)
    assert not any("missed" in each for each in check_health(now=now).notices)


def test_a_job_without_a_database_may_wait_for_another_one(safe: Database):
    long_ago = timezone.now() - timedelta(minutes=10)
    owned = {"owner": "life:7", "token": 1, "started_at": long_ago, "heartbeat_at": long_ago}
    first = Job.objects.create(kind="triage", trigger="admin", state="running", created_at=long_ago, **owned)
    Job.objects.create(kind="triage", trigger="admin", created_at=long_ago)
    assert check_health().is_ok
    Job.objects.filter(pk=first.pk).update(state="succeeded", finished_at=long_ago)
    assert [each.code for each in check_health().problems] == ["jobs_wait"]


def test_a_job_without_a_database_does_not_wait_for_one_of_another_host(safe: Database, as_host: Callable[[str], None]):
    as_host("alpha")
    long_ago = timezone.now() - timedelta(minutes=10)
    owned = {"owner": "life:7", "token": 1, "started_at": long_ago, "heartbeat_at": long_ago}
    facts = {"kind": "triage", "trigger": "admin", "created_at": long_ago}
    Job.objects.create(state="running", host="alpha", **facts, **owned)
    Job.objects.create(host="alpha", **facts)
    assert "jobs_wait" not in [each.code for each in check_health().problems]
    Job.objects.create(host="beta", **facts)
    assert [each.subject for each in check_health().problems if each.code == "jobs_wait"] == ["beta"]
