"""What a worker does: once, whoever else was woken, and never louder than the row."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backups_app.core.errors import BackupError, CancelledError
from backups_app.jobs.claim import claim_queued, job_lock
from backups_app.models import Backup, Database, Job, Notification, Restore
from backups_app.services.jobs import ask_create, ask_job, ask_restore, ask_verify
from backups_app.services.jobs import run as run_module
from backups_app.services.jobs.run import run_job
from backups_app.services.restores import approve_restore, request_restore
from tests.console import Console, environment
from tests.services.jobs.conftest import ANNA, BEN
from tests.site import django_program, run_django
from tests.support import PROJECT, connected, names_in, rows_of


def done(job: Job) -> Job:
    """The job after a worker was called for it."""
    run_job(job.pk)
    return Job.objects.get(pk=job.pk)


def test_a_backup_is_made_and_linked(asked: Job):
    job = done(asked)
    backup = Backup.objects.get()
    assert (job.state, job.attempts, job.token, job.failure_code) == ("succeeded", 1, 1, "")
    assert (backup.state, backup.job_id, backup.trigger, backup.requested_by_name) == (
        "verified",
        job.pk,
        "admin",
        "anna",
    )
    assert backup.verifications.get().job_id == job.pk
    assert backup.pk in job.outcome
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.started_at <= job.finished_at


def test_the_note_of_the_job_is_that_of_the_backup(shop: Database):
    done(ask_create(shop, actor=ANNA, trigger=Job.Trigger.ADMIN, note="before the move"))
    assert Backup.objects.get().note == "before the move"


def test_progress_and_log_stay_with_the_job(asked: Job):
    job = done(asked)
    assert (job.phase, job.percent) == ("read back", 100)
    said = [line.split(" ", 2)[2] for line in job.log.splitlines()]
    assert said[0] == "copy"
    assert said[-1] == f"succeeded: {job.outcome}"


def test_a_second_call_does_nothing(asked: Job):
    first = done(asked)
    assert done(asked) == first
    assert Job.objects.get().attempts == 1
    assert Backup.objects.count() == 1


def test_of_two_who_claim_a_job_one_gets_it(asked: Job):
    assert claim_queued(asked.pk) is not None
    assert claim_queued(asked.pk) is None
    asked.refresh_from_db()
    assert (asked.token, asked.attempts) == (1, 1)


def test_a_call_for_a_job_that_is_no_more_does_nothing(asked: Job):
    asked.delete()
    run_job(asked.pk)
    assert not Backup.objects.exists()


def test_a_job_whose_database_is_occupied_stays_queued(asked: Job, shop: Database):
    with job_lock(shop) as is_ours:
        assert is_ours
        assert done(asked).state == "queued"
    assert not Backup.objects.exists()
    assert done(asked).state == "succeeded"


def test_who_waits_for_the_database_is_called_when_it_is_free(
    asked: Job, shop: Database, monkeypatch: pytest.MonkeyPatch
):
    waiting = ask_job(Job.Kind.VERIFY, shop, actor=ANNA, trigger=Job.Trigger.ADMIN)
    woken: list[str] = []
    monkeypatch.setattr(run_module, "wake", woken.append)
    done(asked)
    assert woken == [waiting.pk]


def test_what_fails_is_told_on_the_row_and_to_people(asked: Job, shop_file: Path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "NOTIFY_EMAILS": ["a@example.org"]}
    shop_file.unlink()
    job = done(asked)
    assert (job.state, job.failure_code) == ("failed", "not_found")
    assert job.outcome
    assert job.hint
    assert [each.event for each in Notification.objects.filter(job=job, channel="mail")] == ["failed"]


def test_an_unexpected_error_ends_the_job_without_a_secret(asked: Job, monkeypatch: pytest.MonkeyPatch, settings):
    def fail(*_args: object, **_options: object) -> None:
        raise RuntimeError(f"the key is {settings.SECRET_KEY}")

    monkeypatch.setitem(run_module._WORK, Job.Kind.CREATE, fail)
    job = done(asked)
    assert (job.state, job.failure_code) == ("failed", "failed")
    assert "RuntimeError" in job.outcome
    assert settings.SECRET_KEY not in job.outcome + job.log + job.hint


def test_a_worker_that_is_told_to_end_says_so(asked: Job, monkeypatch: pytest.MonkeyPatch):
    def leave(*_args: object, **_options: object) -> None:
        raise SystemExit

    monkeypatch.setitem(run_module._WORK, Job.Kind.CREATE, leave)
    with pytest.raises(SystemExit):
        run_job(asked.pk)
    assert Job.objects.get().state == "cancelled"


@pytest.mark.parametrize(
    ("error", "state"), [(BackupError("no", "hint"), "failed"), (CancelledError("stop", "hint"), "cancelled")]
)
def test_an_error_of_ours_is_the_outcome(asked: Job, monkeypatch: pytest.MonkeyPatch, error: BackupError, state: str):
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setitem(run_module._WORK, Job.Kind.CREATE, fail)
    job = done(asked)
    assert (job.state, job.outcome, job.hint, job.failure_code) == (state, error.message, "hint", error.code)


# Verify


def test_each_named_backup_is_verified(shop: Database, make_backup):
    backups = [make_backup(shop), make_backup(shop)]
    (asked,) = ask_verify(backups, level="quick", actor=ANNA, trigger=Job.Trigger.ADMIN)
    job = done(asked)
    assert job.state == "succeeded"
    found = job.verifications.all()
    assert {each.backup_id for each in found} == {each.pk for each in backups}
    assert {(each.level, each.verdict, each.requested_by_name) for each in found} == {("quick", "passed", "anna")}


def test_one_bad_copy_makes_the_job_a_failure_and_the_others_are_looked_at(shop: Database, make_backup, archive_of):
    backups = [make_backup(shop), make_backup(shop)]
    path = archive_of(backups[0])
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-3])
    (asked,) = ask_verify(backups, level="full", actor=ANNA, trigger=Job.Trigger.ADMIN)
    job = done(asked)
    assert (job.state, job.failure_code) == ("failed", "verification_failed")
    assert backups[0].pk in job.outcome
    assert {each.verdict for each in job.verifications.all()} == {"passed", "failed"}


def test_what_an_earlier_attempt_has_verified_is_not_verified_again(shop: Database, make_backup):
    backups = [make_backup(shop), make_backup(shop)]
    (asked,) = ask_verify(backups, level="quick", actor=ANNA, trigger=Job.Trigger.ADMIN)
    job = done(asked)
    Job.objects.filter(pk=job.pk).update(state="queued", finished_at=None)
    assert done(job).state == "succeeded"
    assert job.verifications.count() == 2


# Restore


@pytest.fixture
def approved(shop: Database, make_backup, shop_file: Path) -> Restore:
    backup = make_backup(shop)
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM sale")
    return approve_restore(request_restore(backup, shop, reason="x", actor=ANNA), actor=BEN)


def test_an_approved_restore_is_run_once(approved: Restore, shop_file: Path, home: Path):
    job = done(ask_restore(approved, actor=BEN, trigger=Job.Trigger.ADMIN))
    assert (job.state, job.failure_code) == ("succeeded", "")
    approved.refresh_from_db()
    assert approved.state == "succeeded"
    assert approved.safety_backup is not None
    assert approved.safety_backup.job_id == job.pk
    assert rows_of(shop_file)["sale"] == 4
    assert names_in(home / "scratch") == set()


def test_an_approval_that_was_withdrawn_is_refused_when_its_turn_comes(approved: Restore, shop_file: Path):
    job = ask_restore(approved, actor=BEN, trigger=Job.Trigger.ADMIN)
    Restore.objects.filter(pk=approved.pk).update(state="rejected", outcome="no", finished_at=approved.requested_at)
    job = done(job)
    assert (job.state, job.failure_code) == ("failed", "refused")
    assert rows_of(shop_file)["sale"] == 0


# Many at once


def test_eight_workers_that_claim_at_once_are_one_runner(console: Console, site: Path):
    (job,) = console.ok("create", "default", "--enqueue", "--json").document["jobs"]
    program = django_program(
        console,
        "import sys, time\n"
        "from backups_app.tasks import run_job\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        f"run_job({job['id']!r})\n",
    )
    runs = [
        subprocess.Popen(
            program,
            cwd=PROJECT,
            env=environment(console.home, **console.extra),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(8)
    ]
    for each in runs:
        assert each.stdout is not None
        assert each.stdout.readline() == b"ready\n"
    for each in runs:
        assert each.stdin is not None
        each.stdin.write(b"\n")
        each.stdin.flush()
    for each in runs:
        _, err = each.communicate(timeout=60)
        assert each.returncode == 0, err
    assert console.query("SELECT state, attempts, token FROM backups_app_job") == [("succeeded", 1, 1)]
    assert console.query("SELECT state FROM backups_app_backup") == [("verified",)]
    assert console.scratch() == set()
    assert run_django(console, "from django_q.models import Task; print(Task.objects.count())") == "0\n"
