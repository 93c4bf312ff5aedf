"""A command does its job itself, under the same claim, and waits its turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from backups_app.core.errors import BusyError, CancelledError
from backups_app.jobs.claim import job_lock
from backups_app.models import Backup, Database, Job
from backups_app.services.create import create_backup
from backups_app.services.verify import verify_backup
from tests.services.jobs.conftest import ANNA
from tests.support import names_in


@contextmanager
def held(database: Database, *, seconds: float):
    """Somebody else holds the lock of a database for a while."""
    taken = threading.Event()

    def hold() -> None:
        with job_lock(database) as is_ours:
            assert is_ours
            taken.set()
            time.sleep(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    assert taken.wait(5)
    yield
    thread.join()


def test_a_backup_of_a_command_is_a_job_that_ends_with_it(shop: Database):
    backup = create_backup(shop, actor=ANNA, trigger=Backup.Trigger.COMMAND, note="now")
    job = Job.objects.get()
    assert backup.job_id == job.pk
    assert (job.kind, job.state, job.is_inline, job.attempts, job.options) == (
        "create",
        "succeeded",
        True,
        1,
        {"note": "now"},
    )
    assert job.owner.startswith("command:")


def test_a_verification_too(shop: Database, make_backup):
    backup = make_backup(shop)
    (found,) = verify_backup(backup, level="quick", actor=ANNA)
    job = Job.objects.get(kind="verify")
    assert (found.job_id, job.state, job.options) == (job.pk, "succeeded", {"backups": [backup.pk], "level": "quick"})


def test_a_failure_is_that_of_the_job(shop: Database, shop_file: Path):
    shop_file.unlink()
    backup = create_backup(shop, actor=ANNA, trigger=Backup.Trigger.COMMAND)
    job = Job.objects.get()
    assert (job.state, job.outcome, job.failure_code) == ("failed", backup.reason, backup.failure_code)


def test_it_waits_its_turn(shop: Database):
    with held(shop, seconds=0.5):
        assert create_backup(shop, actor=ANNA, trigger=Backup.Trigger.COMMAND).state == "verified"


def test_it_does_not_wait_for_ever(shop: Database, settings, home: Path):
    settings.BACKUPS = {**settings.BACKUPS, "QUEUE_WAIT_SECONDS": 0.1}
    with held(shop, seconds=1):
        backup = create_backup(shop, actor=ANNA, trigger=Backup.Trigger.COMMAND)
    assert (backup.state, backup.failure_code) == ("failed", "busy")
    assert not Job.objects.exists()
    assert names_in(home / "scratch") == set()


def test_ctrl_c_ends_the_waiting(shop: Database):
    with held(shop, seconds=1):
        backup = create_backup(shop, actor=ANNA, trigger=Backup.Trigger.COMMAND, is_cancelled=lambda: True)
    assert (backup.state, backup.failure_code) == ("cancelled", "cancelled")
    assert not Job.objects.exists()


def test_nothing_waits_for_a_restore(shop: Database, make_backup, orphan: Callable[..., Job]):
    from backups_app.services.restores import request_restore

    backup = make_backup(shop)
    restore = request_restore(backup, shop, reason="x", actor=ANNA)
    running = orphan("restore", restore=restore)
    started = time.monotonic()
    with held(shop, seconds=1):
        with pytest.raises(BusyError, match=f"A restore of shop is running .job {running.pk}"):
            verify_backup(backup, level="quick", actor=ANNA)
        assert time.monotonic() - started < 0.9


def test_an_interrupt_in_the_middle_is_recorded(shop: Database, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backups_app.services.create.create_unless_unchanged", interrupt)
    with pytest.raises(KeyboardInterrupt):
        create_backup(shop, actor=ANNA, trigger=Backup.Trigger.COMMAND)
    assert Job.objects.get().state == "cancelled"
    assert Backup.objects.get().state == "cancelled"


def test_a_cancel_of_the_caller_is_that_of_the_job(shop: Database):
    asked: list[bool] = []

    def is_cancelled() -> bool:
        asked.append(True)
        return len(asked) > 3

    backup = create_backup(shop, actor=ANNA, trigger=Backup.Trigger.COMMAND, is_cancelled=is_cancelled)
    assert (backup.state, Job.objects.get().state) == ("cancelled", "cancelled")
    assert CancelledError.code == Job.objects.get().failure_code
