"""Cleaning up after the dead, and never after the living."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone

from backups_app.core.files import scratch_folder
from backups_app.models import AuditEvent, Backup, Copy, Database
from backups_app.services.heal import heal_interrupted
from backups_app.services.names import archive_name, stored_names
from tests.support import PROJECT, bytes_in, names_in


def running(database: Database) -> Backup:
    """The row of a backup that has begun."""
    backup = Backup(database=database, trigger="command", created_at=timezone.now())
    backup.archive_name = archive_name(database.name, created_at=backup.created_at, backup_id=backup.pk)
    backup.save(force_insert=True)
    return backup


def left_by_the_dead(home: Path, backup: Backup) -> None:
    """A process takes the scratch folder of a backup, half-stores it, and is killed."""
    program = (
        "import os, signal, sys; from pathlib import Path; from backups_app.core.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1]), sys.argv[2]) as folder:\n"
        "    (folder / 'snapshot.sqlite3').write_bytes(b'rows of people')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(home / "scratch"), backup.pk], cwd=PROJECT, check=False)
    for name in stored_names(backup.archive_name):
        path = home / "archives" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"unproven")
    Copy.objects.create(backup=backup, destination="local", name=backup.archive_name)


def test_a_backup_of_a_dead_process_is_failed_as_interrupted(shop: Database, home: Path):
    backup = running(shop)
    left_by_the_dead(home, backup)
    assert len(names_in(home / "scratch")) == 2
    assert [each.pk for each in heal_interrupted()] == [backup.pk]
    backup.refresh_from_db()
    assert (backup.state, backup.failure_code, backup.verdict) == ("failed", "interrupted", "")
    assert backup.reason
    assert backup.finished_at is not None
    assert not backup.copies.exists()
    assert bytes_in(home / "archives") == {}
    assert names_in(home / "scratch") == set()


def test_the_dead_process_of_a_job_is_no_exception(shop: Database, home: Path, make_backup: Callable[..., Backup]):
    made = make_backup(shop)
    assert made.job is not None
    backup = running(shop)
    Backup.objects.filter(pk=backup.pk).update(job=made.job)
    left_by_the_dead(home, backup)
    assert [each.pk for each in heal_interrupted()] == [backup.pk]
    assert not backup.copies.exists()
    assert set(bytes_in(home / "archives")) == set(stored_names(made.archive_name))


def test_healing_is_recorded_once(shop: Database, home: Path):
    backup = running(shop)
    left_by_the_dead(home, backup)
    heal_interrupted()
    assert heal_interrupted() == []
    event = AuditEvent.objects.get(action="create")
    assert (event.outcome, event.subject, event.actor_name) == ("failed", backup.pk, "system")


def test_the_next_backup_heals(shop: Database, home: Path, make_backup: Callable[..., Backup]):
    dead = running(shop)
    left_by_the_dead(home, dead)
    good = make_backup(shop)
    dead.refresh_from_db()
    assert (dead.state, good.state) == ("failed", "verified")
    assert set(bytes_in(home / "archives")) == set(stored_names(good.archive_name))


def test_the_backup_of_a_living_process_is_left_alone(shop: Database, home: Path):
    backup = running(shop)
    program = (
        "import sys; from pathlib import Path; from backups_app.core.files import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1]), sys.argv[2]) as folder:\n"
        "    (folder / 'snapshot.sqlite3').write_bytes(b'rows'); print('ready', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(home / "scratch"), backup.pk]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        assert living.stdout is not None
        assert living.stdout.readline() == b"ready\n"
        before = bytes_in(home / "scratch")
        assert heal_interrupted() == []
        assert bytes_in(home / "scratch") == before
        assert Backup.objects.get().state == "running"
    assert [each.pk for each in heal_interrupted()] == [backup.pk]


def test_the_backup_of_another_thread_is_left_alone(shop: Database, home: Path):
    backup = running(shop)
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with scratch_folder(home / "scratch", backup.pk):
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert entered.wait(20)
        assert heal_interrupted() == []
    finally:
        leave.set()
        thread.join()


def test_finished_backups_are_left_alone(shop: Database, home: Path, make_backup: Callable[..., Backup]):
    good = make_backup(shop)
    before = bytes_in(home / "archives")
    assert heal_interrupted() == []
    assert Backup.objects.get(pk=good.pk).state == "verified"
    assert bytes_in(home / "archives") == before


def test_half_stored_objects_of_the_dead_are_swept(shop: Database, home: Path):
    incoming = home / "archives" / ".incoming"
    incoming.mkdir(parents=True)
    (incoming / "abc.lock").touch()
    (incoming / "abc").mkdir()
    (incoming / "abc" / "copy").write_bytes(b"half")
    heal_interrupted()
    assert names_in(incoming) == set()


def test_healing_an_empty_home_creates_nothing(shop: Database, home: Path):
    before = set(home.rglob("*"))
    heal_interrupted()
    assert set(home.rglob("*")) == before


@pytest.mark.parametrize("count", [3])
def test_each_dead_backup_is_healed(shop: Database, home: Path, count: int):
    backups = [running(shop) for _ in range(count)]
    for backup in backups:
        left_by_the_dead(home, backup)
    assert {each.pk for each in heal_interrupted()} == {each.pk for each in backups}
    assert not Backup.objects.filter(state="running").exists()
    assert names_in(home / "scratch") == set()


def test_files_that_cannot_be_removed_keep_the_row_and_stop_nobody(
    shop: Database, home: Path, make_backup: Callable[..., Backup], caplog: pytest.LogCaptureFixture
):
    dead = running(shop)
    (home / "archives" / dead.archive_name / "in the way").mkdir(parents=True)
    assert heal_interrupted() == []
    assert "could not be cleaned up" in caplog.text
    assert Backup.objects.get(pk=dead.pk).state == "running", "it is looked at again next time"
    assert make_backup(shop).state == "verified"
    (home / "archives" / dead.archive_name / "in the way").rmdir()
    (home / "archives" / dead.archive_name).rmdir()
    assert [each.pk for each in heal_interrupted()] == [dead.pk]


def test_scratch_that_cannot_be_swept_stops_nobody(
    shop: Database, home: Path, make_backup: Callable[..., Backup], caplog: pytest.LogCaptureFixture
):
    (home / "scratch" / "odd.lock").mkdir(parents=True)
    assert make_backup(shop).state == "verified"
    assert "could not be removed" in caplog.text
