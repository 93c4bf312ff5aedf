"""The jobs of the dead: queued again, closed with the truth, and those of the living left alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone

from backups_app.jobs.claim import job_lock
from backups_app.models import AuditEvent, Backup, Database, Job, Notification, Restore
from backups_app.services.create import create_backup
from backups_app.services.jobs import ask_create, reap, run
from backups_app.services.jobs.reap import MAX_ATTEMPTS, reap_jobs
from backups_app.services.restores import approve_restore, request_restore
from tests.services.jobs.conftest import ANNA, BEN
from tests.support import PROJECT, names_in

Orphan = Callable[..., Job]


@pytest.fixture(autouse=True)
def woken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that a worker was called for; no queue is reached."""
    calls: list[str] = []
    for module in (reap, run):
        monkeypatch.setattr(module, "wake", calls.append)
    return calls


def again(job: Job) -> Job:
    return Job.objects.get(pk=job.pk)


@pytest.mark.parametrize("kind", ["create", "verify", "prune", "drill"])
def test_work_that_can_be_repeated_is_queued_again_once_and_a_worker_called(
    orphan: Orphan, woken: list[str], kind: str
):
    job = orphan(kind)
    assert [each.pk for each in reap_jobs()] == [job.pk]
    found = again(job)
    assert (found.state, found.attempts, found.owner, found.phase) == ("queued", 1, "", "")
    assert woken == [job.pk]
    assert reap_jobs() == []


def test_it_runs_then_and_the_older_owner_could_write_no_more(orphan: Orphan):
    job = orphan()
    reap_jobs()
    run.run_job(job.pk)
    found = again(job)
    assert (found.state, found.attempts, found.token) == ("succeeded", 2, 2)
    assert Backup.objects.get().job_id == job.pk


def test_the_living_are_left_alone(orphan: Orphan, shop: Database, woken: list[str]):
    job = orphan()
    with job_lock(shop):
        assert reap_jobs() == []
    assert again(job).state == "running"
    assert woken == []


def test_what_kills_its_worker_each_time_is_given_up(orphan: Orphan, settings):
    settings.BACKUPS = {**settings.BACKUPS, "NOTIFY_EMAILS": ["a@example.org"]}
    job = orphan(attempts=MAX_ATTEMPTS)
    reap_jobs()
    found = again(job)
    assert (found.state, found.failure_code) == ("interrupted", "interrupted")
    assert f"tried {MAX_ATTEMPTS} times" in found.outcome
    assert Notification.objects.filter(job=job, event="failed", channel="mail").count() == 1
    assert AuditEvent.objects.filter(action="create-job", subject=job.pk, outcome="failed").count() == 1


def test_a_command_that_was_killed_is_not_repeated_by_a_worker(orphan: Orphan, woken: list[str]):
    job = orphan(is_inline=True)
    reap_jobs()
    assert again(job).state == "interrupted"
    assert woken == []


def test_one_that_was_told_to_stop_is_cancelled(orphan: Orphan):
    job = orphan(cancel_requested_at=timezone.now())
    reap_jobs()
    assert again(job).state == "cancelled"


def test_one_whose_successor_waits_already_is_closed(orphan: Orphan, shop: Database):
    waiting = ask_create(shop, actor=BEN, trigger=Job.Trigger.ADMIN)
    job = orphan()
    reap_jobs()
    assert again(job).state == "interrupted"
    assert again(waiting).state == "queued"


def test_a_backup_that_was_recorded_before_the_end_is_not_made_twice(orphan: Orphan, shop: Database, make_backup):
    backup = make_backup(shop)
    job = orphan()
    Backup.objects.filter(pk=backup.pk).update(job=job)
    reap_jobs()
    assert (again(job).state, Backup.objects.count()) == ("succeeded", 1)


def test_what_the_dead_have_left_is_removed(orphan: Orphan, shop: Database, home: Path):
    job = orphan()
    backup = Backup.objects.create(database=shop, trigger="admin", job=job, archive_name="shop/x.sqlite3.zst")
    program = (
        "import os, signal, sys; from pathlib import Path; from backups_app.core.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1]), sys.argv[2]) as folder:\n"
        "    (folder / 'snapshot.sqlite3').write_bytes(b'rows of people')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(home / "scratch"), backup.pk], cwd=PROJECT, check=False)
    reap_jobs()
    assert again(job).state == "queued"
    assert Backup.objects.get().state == "failed"
    assert names_in(home / "scratch") == set()


def test_the_next_command_settles_the_dead_before_its_turn(orphan: Orphan, shop: Database):
    job = orphan()
    backup = create_backup(shop, actor=ANNA, trigger=Backup.Trigger.COMMAND)
    assert backup.state == "verified"
    assert again(job).state == "queued"


# Restores


@pytest.fixture
def approved(shop: Database, make_backup) -> Restore:
    return approve_restore(request_restore(make_backup(shop), shop, reason="x", actor=ANNA), actor=BEN)


def test_a_restore_that_had_not_begun_is_queued_again(orphan: Orphan, approved: Restore):
    job = orphan("restore", restore=approved)
    reap_jobs()
    assert again(job).state == "queued"


def test_a_restore_that_had_begun_is_interrupted_after_a_look_at_the_live_database(orphan: Orphan, approved: Restore):
    Restore.objects.filter(pk=approved.pk).update(state="running", started_at=timezone.now(), report={})
    job = orphan("restore", restore=approved)
    reap_jobs()
    found = again(job)
    approved.refresh_from_db()
    assert (found.state, approved.state) == ("interrupted", "failed")
    assert "as it was" in found.outcome


def test_a_restore_that_had_ended_gives_its_job_the_same_end(orphan: Orphan, approved: Restore):
    Restore.objects.filter(pk=approved.pk).update(
        state="failed", finished_at=timezone.now(), outcome="no space", failure_code="disk_full"
    )
    job = orphan("restore", restore=approved)
    reap_jobs()
    found = again(job)
    assert (found.state, found.outcome, found.failure_code) == ("failed", "no space", "disk_full")


def test_jobs_of_another_machine_are_left_to_it(orphan: Orphan, settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backups_app.conf.is_catalog_local", lambda: False)
    settings.BACKUPS = {**settings.BACKUPS, "HOST": "here"}
    theirs = orphan(host="there")
    assert reap_jobs() == []
    Job.objects.filter(pk=theirs.pk).update(host="here")
    assert [each.pk for each in reap_jobs()] == [theirs.pk]
