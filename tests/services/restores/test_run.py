"""Carrying out an approved restore, and saying truthfully how it ended."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from django.db import OperationalError, connections
from pytest_django.fixtures import Settings

from backups_app.core import restore as core_restore
from backups_app.core.errors import BusyError, RefusedError
from backups_app.core.files import scratch_folder
from backups_app.core.verify import Check
from backups_app.jobs.claim import job_lock
from backups_app.models import AuditEvent, Backup, Database, Restore
from backups_app.services import swapping
from backups_app.services.create import create_backup
from backups_app.services.databases import add_database
from backups_app.services.extract import extract_backup
from backups_app.services.restores import approve_restore, heal_restores, request_restore, run_restore
from backups_app.services.restores import run as run_module
from backups_app.services.swapping import is_swapping
from tests.services.restores.conftest import ANNA, BEN, CARL
from tests.services.restores.test_request import SPOILED
from tests.support import (
    build,
    build_ledger,
    connected,
    content_of,
    content_through,
    holding,
    leave_behind,
    mounted_tmpfs,
    names_in,
)


def live(path: Path) -> dict[str, object]:
    """The content of a live database."""
    with connected(path) as connection:
        return content_through(connection)


@pytest.fixture
def extracted(tmp_path: Path) -> Callable[[Backup], dict[str, object]]:
    """A function that says what a backup holds."""

    def read(backup: Backup) -> dict[str, object]:
        target = tmp_path / f"extracted-{backup.pk}.db"
        extract_backup(backup, target, actor=ANNA)
        return content_of(target)

    return read


# Success


def test_the_live_database_holds_the_backup(approved, outside_transactions, shop_file, extracted, home):
    before = live(shop_file)
    restore = run_restore(approved, actor=BEN)
    restore.refresh_from_db()
    assert (restore.state, restore.outcome, restore.failure_code) == ("succeeded", "", "")
    assert live(shop_file) == extracted(restore.backup) != before
    assert names_in(home / "scratch") == set()


def test_the_report_says_what_was_done(done: Restore):
    done.refresh_from_db()
    report = done.report
    assert report["tables"] == {"product": 3, "sale": 4}
    assert {each["name"]: each["ok"] for each in report["checks"]} == {"quick_check": True, "census": True}
    assert report["blocked_seconds"] >= 0
    assert report["waited_seconds"] >= 0
    assert report["others_wrote"] is False
    assert report["notes"] == []
    assert done.started_at < done.finished_at


def test_the_safety_backup_is_verified_held_and_holds_what_was_there(done: Restore, extracted):
    safety = done.safety_backup
    safety.refresh_from_db()
    assert (safety.state, safety.trigger, safety.is_held) == ("verified", "safety", True)
    assert safety.tables == {"product": 4, "sale": 0}
    assert done.pk in safety.note
    assert safety.requested_by_name == "ben"


def test_the_safety_backup_holds_rows_that_were_only_in_the_wal(
    approved: Restore, outside_transactions: None, shop_file: Path, extracted
):
    leave_behind(shop_file, "PRAGMA wal_autocheckpoint=0", "INSERT INTO product (name) VALUES ('only in the wal')")
    main_file_only = shop_file.read_bytes()
    assert b"only in the wal" not in main_file_only
    restore = run_restore(approved, actor=BEN)
    assert restore.state == "succeeded"
    assert "only in the wal" in repr(extracted(restore.safety_backup))
    assert "only in the wal" not in repr(live(shop_file))


def test_commits_that_neither_the_safety_backup_nor_the_database_holds_are_told(
    approved: Restore, outside_transactions: None, shop_file: Path, monkeypatch: pytest.MonkeyPatch
):
    make = run_module.create_claimed_backup

    def make_and_let_others_write(*arguments: object, **options: object) -> Backup:
        safety = make(*arguments, **options)  # type: ignore[arg-type]
        with connected(shop_file) as connection:
            connection.execute("INSERT INTO product (name) VALUES ('too late')")
        return safety

    monkeypatch.setattr(run_module, "create_claimed_backup", make_and_let_others_write)
    restore = run_restore(approved, actor=BEN)
    assert restore.state == "succeeded"
    assert any("after the safety backup" in note for note in restore.report["notes"])


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_commit_that_the_exchange_waited_for_is_told(
    approved: Restore,
    outside_transactions: None,
    shop_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    extracted,
    journal_mode: str,
):
    """It was begun before the safety backup, and acknowledged before the content was exchanged."""
    with connected(shop_file) as connection:
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
    make = run_module.create_claimed_backup
    with closing(sqlite3.connect(shop_file, isolation_level=None, check_same_thread=False)) as writer:

        def make_beside_a_writer(*arguments: object, **options: object) -> Backup:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("INSERT INTO product (name) VALUES ('acknowledged')")
            safety = make(*arguments, **options)  # type: ignore[arg-type]
            timer.start()
            return safety

        timer = threading.Timer(1, writer.execute, ["COMMIT"])
        monkeypatch.setattr(run_module, "create_claimed_backup", make_beside_a_writer)
        restore = run_restore(approved, actor=BEN)
        timer.join()
    assert restore.state == "succeeded"
    assert "acknowledged" not in repr(live(shop_file)) + repr(extracted(restore.safety_backup))
    assert any("after the safety backup" in note for note in restore.report["notes"])


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_nothing_is_told_of_commits_that_nobody_made(
    approved: Restore, outside_transactions: None, shop_file: Path, journal_mode: str
):
    with connected(shop_file) as connection:
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
    restore = run_restore(approved, actor=BEN)
    assert restore.state == "succeeded"
    assert not any("after the safety backup" in note for note in restore.report["notes"])


def test_every_step_is_in_the_audit_trail(done: Restore):
    found = [(each.action, each.actor_name, each.outcome) for each in AuditEvent.objects.order_by("id")]
    assert found[-4:] == [
        ("request-restore", "anna", "done"),
        ("approve-restore", "ben", "done"),
        ("create", "ben", "done"),
        ("restore", "ben", "done"),
    ]


def test_an_approval_is_used_once(done: Restore, shop_file: Path):
    with connected(shop_file) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('after')")
    before = live(shop_file)
    with pytest.raises(RefusedError, match="used once"):
        run_restore(done, actor=BEN)
    assert live(shop_file) == before
    assert AuditEvent.objects.filter(action="restore", outcome="refused").count() == 1


def test_a_request_without_approval_does_not_run(requested: Restore, outside_transactions: None, shop_file: Path):
    before = live(shop_file)
    with pytest.raises(RefusedError, match="is requested"):
        run_restore(requested, actor=BEN)
    assert live(shop_file) == before
    assert not Backup.objects.filter(trigger="safety").exists()


def test_nothing_runs_inside_a_transaction_of_the_site(approved: Restore):
    assert connections["default"].in_atomic_block  # the test's own
    with pytest.raises(RefusedError, match="inside a transaction"):
        run_restore(approved, actor=BEN)
    assert Restore.objects.get(pk=approved.pk).state == "approved"


TAMPERED = {
    "archive": ("UPDATE backups_app_backup SET archive_sha256 = '{zeros}' WHERE id = '{backup}'"),
    "target": "UPDATE backups_app_restore SET database_id = (SELECT id FROM backups_app_database WHERE name = 'b')",
    "path": "UPDATE backups_app_database SET path = path || '2' WHERE name = 'shop'",
    "identity": "UPDATE backups_app_database SET identity = '{zeros32}' WHERE name = 'shop'",
    "overrides": 'UPDATE backups_app_restore SET overrides = \'{{"empty": "x"}}\'',
    "migrate": "UPDATE backups_app_restore SET is_migrating = true",
    "backup": "UPDATE backups_app_restore SET backup_id = '{other}'",
    "binding": "UPDATE backups_app_restore SET binding_sha256 = '{zeros}', approved_binding = '{zeros}'",
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_was_changed_after_the_approval_does_not_run(
    approved: Restore,
    outside_transactions: None,
    shop_file: Path,
    tmp_path: Path,
    make_backup: Callable[..., Backup],
    what: str,
):
    second = add_database("b", build(tmp_path / "b.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1)"), actor=ANNA)
    values = {
        "zeros": "0" * 64,
        "zeros32": "0" * 32,
        "backup": approved.backup_id,
        "other": make_backup(approved.database).pk,
    }
    with connections["catalog"].cursor() as cursor:
        cursor.execute(TAMPERED[what].format(**values))
        assert cursor.rowcount == 1
    before = (live(shop_file), live(Path(second.path)))
    with pytest.raises(RefusedError, match="not those that were approved"):
        run_restore(Restore.objects.get(pk=approved.pk), actor=BEN)
    assert (live(shop_file), live(Path(second.path))) == before
    assert Restore.objects.get(pk=approved.pk).state == "approved"
    assert not Backup.objects.filter(trigger="safety").exists()


# Failures that leave everything as it was


@pytest.mark.parametrize("spoil", SPOILED)
def test_an_archive_that_was_spoiled_since_the_approval_changes_nothing(
    approved: Restore, outside_transactions: None, shop_file: Path, home: Path, archive_of, spoil
):
    spoil(archive_of(approved.backup))
    before = (shop_file.read_bytes(), shop_file.stat().st_mtime_ns)
    restore = run_restore(approved, actor=BEN)
    restore.refresh_from_db()
    assert restore.state == "failed"
    assert restore.failure_code in ("verification_failed", "unreachable")
    assert restore.safety_backup is None
    assert (shop_file.read_bytes(), shop_file.stat().st_mtime_ns) == before
    assert names_in(home / "scratch") == set()


def test_a_lock_for_too_long_fails_and_keeps_the_safety_backup(
    approved: Restore, outside_transactions: None, shop_file: Path, home: Path, settings: Settings
):
    settings.BACKUPS = {**settings.BACKUPS, "RESTORE_WAIT_SECONDS": 0.5}
    before = live(shop_file)
    with holding(shop_file, "BEGIN IMMEDIATE"):
        restore = run_restore(approved, actor=BEN)
    assert (restore.state, restore.failure_code) == ("failed", "busy")
    assert "nothing was changed" in restore.outcome
    assert restore.safety_backup.state == "verified"
    assert live(shop_file) == before
    assert names_in(home / "scratch") == set()


def test_a_lock_for_a_while_is_waited_for(
    approved: Restore, outside_transactions: None, shop_file: Path, tmp_path: Path
):
    program = ("BEGIN IMMEDIATE", "INSERT INTO product (name) VALUES ('in flight')")
    with holding(shop_file, *program) as process:
        timer = threading.Timer(1.5, process.kill)
        timer.start()
        restore = run_restore(approved, actor=BEN)
        timer.join()
    assert restore.state == "succeeded"
    assert 0 < restore.report["waited_seconds"] < 10


def test_a_cancel_leaves_everything_as_it_was(
    approved: Restore, outside_transactions: None, shop_file: Path, home: Path
):
    before = live(shop_file)
    restore = run_restore(approved, actor=BEN, is_cancelled=lambda: True)
    assert (restore.state, restore.failure_code) == ("cancelled", "cancelled")
    assert live(shop_file) == before
    assert names_in(home / "scratch") == set()


def test_a_cancel_during_the_wait_for_a_writer_keeps_the_safety_backup(
    approved: Restore, outside_transactions: None, shop_file: Path
):
    before = live(shop_file)
    with holding(shop_file, "BEGIN IMMEDIATE"):
        restore = run_restore(approved, actor=BEN, is_cancelled=lambda: is_swapping_anything(approved))
    assert restore.state == "cancelled"
    assert restore.safety_backup is not None
    assert live(shop_file) == before


def is_swapping_anything(restore: Restore) -> bool:
    """Whether the run has come past its safety backup."""
    return bool(Restore.objects.get(pk=restore.pk).safety_backup_id)


def test_a_run_that_an_unexpected_error_ends_is_failed_with_the_reason(
    approved: Restore, outside_transactions: None, shop_file: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_args: object, **_options: object) -> None:
        raise ZeroDivisionError("unheard of")

    monkeypatch.setattr(run_module, "fit_to_live", broken)
    before = live(shop_file)
    restore = run_restore(approved, actor=BEN)
    assert (restore.state, restore.failure_code) == ("failed", "failed")
    assert "ZeroDivisionError: unheard of" in restore.outcome
    assert live(shop_file) == before


def test_a_full_disk_at_staging_changes_nothing(
    approved: Restore, outside_transactions: None, shop_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = live(shop_file)
    with mounted_tmpfs(tmp_path / "small", size_bytes=4096) as disk:
        monkeypatch.setattr("backups_app.conf.scratch_folder", lambda: disk)
        restore = run_restore(approved, actor=BEN)
        assert names_in(disk) == set()
    assert (restore.state, restore.failure_code) == ("failed", "disk_full")
    assert "free" in restore.outcome + restore.hint
    assert live(shop_file) == before


def test_a_full_disk_at_the_safety_backup_changes_nothing(
    home: Path, tmp_path: Path, db_catalog: None, outside_transactions: None, make_backup: Callable[..., Backup]
):
    database = add_database("grown", build_ledger(tmp_path / "grown.db"), actor=ANNA)
    backup = make_backup(database)
    with connected(Path(database.path)) as connection:
        connection.execute("INSERT INTO filler (payload) SELECT randomblob(6000000)")
    before = live(Path(database.path))
    with mounted_tmpfs(tmp_path / "small", size_bytes=3 << 20) as disk:
        archives = home / "archives"
        archives.rename(tmp_path / "archives-before")
        archives.symlink_to(disk)
        for each in (tmp_path / "archives-before").iterdir():
            if each.is_dir() and not each.name.startswith("."):
                shutil.copytree(each, disk / each.name)
        restore = request_restore(
            backup, database, reason="x", actor=ANNA, overrides={"empty": "made so", "free_space": "a test"}
        )
        stored = {str(each) for each in disk.rglob("*") if each.is_file()}
        restore = run_restore(approve_restore(restore, actor=BEN), actor=BEN)
        assert {str(each) for each in disk.rglob("*") if each.is_file()} == stored
    assert (restore.state, restore.failure_code) == ("failed", "disk_full")
    assert "safety backup could not be made" in restore.outcome
    assert restore.safety_backup is None
    assert live(Path(database.path)) == before
    assert names_in(home / "scratch") == set()


def test_a_full_disk_at_the_swap_changes_nothing(
    home: Path, tmp_path: Path, db_catalog: None, restored: Callable[..., Restore], make_backup: Callable[..., Backup]
):
    with mounted_tmpfs(tmp_path / "disk", size_bytes=9 << 20) as disk:
        path = Path(shutil.copy(build_ledger(tmp_path / "built.db", filler_bytes=4 << 20), disk / "live.db"))
        database = add_database("ledger", path, actor=ANNA)
        backup = make_backup(database)
        with connected(path) as connection:
            connection.execute("UPDATE counter SET value = 5")
        before = live(path)
        restore = restored(backup, overrides={"free_space": "we try"})
        assert (restore.state, restore.failure_code) == ("failed", "disk_full")
        assert restore.safety_backup.state == "verified"
        assert live(path) == before
        with connected(path) as connection:
            connection.execute("UPDATE counter SET value = 6")
        assert names_in(disk) == {"live.db"}
    assert names_in(home / "scratch") == set()


# Rolling back


def fail_first_check(monkeypatch: pytest.MonkeyPatch, *, times: int = 1) -> None:
    """The check after the copy finds damage, that many times."""
    original, left = core_restore.check_live, [times]

    def check(*args: object) -> list[Check]:
        if left[0]:
            left[0] -= 1
            return [Check(name="quick_check", ok=False, evidence="row 1 missing from index")]
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(core_restore, "check_live", check)


def test_a_failed_check_rolls_back_and_reports_both(
    approved: Restore, outside_transactions: None, shop_file: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    fail_first_check(monkeypatch)
    before = live(shop_file)
    restore = run_restore(approved, actor=BEN)
    restore.refresh_from_db()
    assert (restore.state, restore.failure_code) == ("rolled_back", "verification_failed")
    assert live(shop_file) == before
    assert "row 1 missing from index" in restore.outcome
    assert f"The safety backup {restore.safety_backup_id} was put back and checked" in restore.outcome
    assert [each["ok"] for each in restore.report["failed_checks"]] == [False]
    assert all(each["ok"] for each in restore.report["roll_back_checks"])
    assert names_in(home / "scratch") == set()
    assert AuditEvent.objects.get(action="restore").outcome == "failed"


def test_a_roll_back_that_fails_too_is_told_with_the_way_out(
    approved: Restore, outside_transactions: None, shop_file: Path, monkeypatch: pytest.MonkeyPatch
):
    fail_first_check(monkeypatch, times=2)
    restore = run_restore(approved, actor=BEN)
    restore.refresh_from_db()
    assert (restore.state, restore.failure_code) == ("failed", "verification_failed")
    assert "Rolling back failed too" in restore.outcome
    assert restore.safety_backup_id in restore.hint
    assert restore.report["roll_back_error"]
    assert [each["ok"] for each in restore.report["roll_back_checks"]] == [False]


def test_a_safety_archive_that_vanished_makes_the_roll_back_fail_loudly(
    approved: Restore, outside_transactions: None, archive_of, monkeypatch: pytest.MonkeyPatch
):
    def check(*_: object) -> list[Check]:
        for backup in Backup.objects.filter(trigger="safety"):
            archive_of(backup).unlink()
        return [Check(name="quick_check", ok=False, evidence="damage")]

    monkeypatch.setattr(core_restore, "check_live", check)
    restore = run_restore(approved, actor=BEN)
    assert restore.state == "failed"
    assert "Rolling back failed too" in restore.outcome


# Failures after the copy


def test_migrations_that_cannot_be_looked_at_are_a_note_and_not_a_failed_restore(
    backup: Backup, restored: Callable[..., Restore], shop_file: Path, extracted, monkeypatch: pytest.MonkeyPatch
):
    def broken(_alias: str) -> list[str]:
        raise OperationalError("database is locked")

    monkeypatch.setattr(run_module, "pending_migrations", broken)
    monkeypatch.setattr(run_module.connections["default"], "close", lambda: None, raising=False)
    Database.objects.filter(pk=backup.database_id).update(alias="default")
    restore = restored(Backup.objects.get(pk=backup.pk), overrides={"lock_out": "no users here"})
    assert restore.state == "succeeded", restore.outcome
    assert "database is locked" in "".join(restore.report["notes"])
    assert live(shop_file) == extracted(backup)


def test_a_catalogue_that_cannot_be_written_at_the_end_never_calls_a_restore_failed(
    approved: Restore, outside_transactions: None, shop_file: Path, monkeypatch: pytest.MonkeyPatch, extracted
):
    original = run_module.finish_restore

    def broken(*_args: object, **_options: object) -> bool:
        raise OperationalError("database is locked")

    monkeypatch.setattr(run_module, "finish_restore", broken)
    with pytest.raises(OperationalError):
        run_restore(approved, actor=BEN)
    assert Restore.objects.get(pk=approved.pk).state == "running"
    assert live(shop_file) == extracted(approved.backup)
    monkeypatch.setattr(run_module, "finish_restore", original)
    assert [each.pk for each in heal_restores()] == [approved.pk]
    healed = Restore.objects.get(pk=approved.pk)
    assert healed.state == "succeeded"
    assert "the check was not made" in "".join(healed.report["notes"])


# One at a time


def test_a_backup_that_runs_keeps_a_restore_out_and_the_approval_stays(
    approved: Restore, outside_transactions: None, shop_file: Path
):
    before = live(shop_file)
    with job_lock(approved.database):
        with pytest.raises(BusyError) as raised:
            run_restore(approved, actor=BEN)
    assert raised.value.exit_code == 4
    assert Restore.objects.get(pk=approved.pk).state == "approved"
    assert live(shop_file) == before
    assert run_restore(approve_restore(approved, actor=BEN), actor=BEN).state == "succeeded"


def test_a_restore_that_runs_keeps_backups_and_restores_out(
    approved: Restore, outside_transactions: None, monkeypatch: pytest.MonkeyPatch, make_backup
):
    seen: list[object] = []

    def look(*args: object, **options: object) -> object:
        backup = create_backup(approved.database, actor=CARL, trigger=Backup.Trigger.COMMAND)
        seen.append((backup.state, backup.failure_code))
        with pytest.raises(BusyError):
            run_restore(other, actor=BEN)
        return original(*args, **options)  # type: ignore[arg-type]

    other = approve_restore(request_restore(approved.backup, approved.database, reason="x", actor=ANNA), actor=BEN)
    original = run_module.stage_backup
    monkeypatch.setattr(run_module, "stage_backup", look)
    assert run_restore(approved, actor=BEN).state == "succeeded"
    assert seen == [("failed", "busy")]
    assert Restore.objects.get(pk=other.pk).state == "approved"


def test_the_swap_is_announced_for_the_time_of_the_copy_only(
    approved: Restore, outside_transactions: None, monkeypatch: pytest.MonkeyPatch
):
    """For a database of the site; others have no visitors."""
    seen: list[bool] = []
    original = run_module.restore_in_place

    @contextmanager
    def announced(database: Database):
        with swapping.swapping(Database(name="x", alias="default")):
            yield

    def look(*args: object, **options: object) -> object:
        seen.append(is_swapping("default"))
        return original(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "swapping", announced)
    monkeypatch.setattr(run_module, "restore_in_place", look)
    assert not is_swapping("default")
    run_restore(approved, actor=BEN)
    assert seen == [True]
    assert not is_swapping("default")


# A live database that is missing or damaged


def test_a_missing_database_is_made_anew(approved: Restore, outside_transactions: None, shop_file: Path, extracted):
    shop_file.unlink()
    restore = run_restore(approved, actor=BEN)
    restore.refresh_from_db()
    assert restore.state == "succeeded", restore.outcome
    assert restore.safety_backup is None
    assert restore.report["moved_aside"] == []
    assert all(each["ok"] for each in restore.report["checks"])
    assert "made anew" in restore.report["notes"][0]
    assert live(shop_file) == extracted(restore.backup)


def damage_garbage(path: Path) -> None:
    path.write_bytes(os.urandom(9000))


def damage_truncated(path: Path) -> None:
    with connected(path) as connection:
        connection.execute("CREATE TABLE big AS SELECT randomblob(200000) AS x")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes()[:6000])


def damage_emptied(path: Path) -> None:
    leave_behind(path, "PRAGMA wal_autocheckpoint=0", "INSERT INTO product (name) VALUES ('only in the wal')")
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [damage_garbage, damage_truncated, damage_emptied])
def test_a_damaged_database_is_moved_aside_and_made_anew(
    backup: Backup, restored: Callable[..., Restore], shop_file: Path, extracted, damage: Callable[[Path], None]
):
    shop_file.chmod(0o640)
    damage(shop_file)
    wal = shop_file.with_name("shop.sqlite3-wal")
    before = {"": shop_file.read_bytes(), "-wal": wal.read_bytes() if wal.exists() else None}
    restore = restored(backup)
    assert restore.state == "succeeded", restore.outcome
    aside = Path(restore.report["moved_aside"][0])
    assert aside.name.startswith("shop.sqlite3.damaged-")
    assert aside.read_bytes() == before[""]
    if before["-wal"]:
        assert aside.with_name(aside.name + "-wal").read_bytes() == before["-wal"]
    assert shop_file.stat().st_mode & 0o777 == 0o640
    assert live(shop_file) == extracted(backup)


def test_a_sound_database_is_never_moved_aside_because_its_safety_backup_cannot_be_stored(
    approved: Restore, outside_transactions: None, shop_file: Path, monkeypatch: pytest.MonkeyPatch
):
    """A store that gives back something else says nothing about the live database."""
    failed = Check(name="stored bytes", ok=False, evidence="something else came back")
    monkeypatch.setattr("backups_app.services.publish.prove_stored", lambda *_a, **_o: [failed])
    before = live(shop_file)
    restore = run_restore(approved, actor=BEN)
    assert restore.state == "failed"
    assert "safety backup could not be made" in restore.outcome
    assert live(shop_file) == before
    assert names_in(shop_file.parent) >= {"shop.sqlite3"}
    assert not list(shop_file.parent.glob("*.damaged-*"))


def test_an_empty_live_file_is_filled_and_cannot_be_wiped_by_an_undo(
    backup: Backup, restored: Callable[..., Restore], shop_file: Path, extracted
):
    shop_file.write_bytes(b"")
    for suffix in ("-wal", "-shm"):
        shop_file.with_name(shop_file.name + suffix).unlink(missing_ok=True)
    restore = restored(backup)
    assert restore.state == "succeeded", restore.outcome
    assert live(shop_file) == extracted(backup)


def test_a_damaged_but_readable_database_has_a_safety_backup_that_says_so(
    home: Path, tmp_path: Path, db_catalog: None, restored: Callable[..., Restore], make_backup: Callable[..., Backup]
):
    path = build_ledger(tmp_path / "ledger.db", filler_bytes=1 << 20)
    database = add_database("ledger", path, actor=ANNA)
    with connected(path) as connection:
        connection.execute("UPDATE counter SET value = 3")
        connection.execute("CREATE INDEX by_what ON events (what)")
        connection.execute("INSERT INTO events (what) VALUES ('x')")
    backup = make_backup(database)
    content = bytearray(path.read_bytes())
    with connected(path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'by_what'").fetchone()
    content[(root - 1) * 4096 + 3 : (root - 1) * 4096 + 5] = b"\0\0"  # the index has no cell now
    path.write_bytes(bytes(content))
    restore = restored(backup)
    assert restore.state == "succeeded", restore.outcome
    assert restore.safety_backup.state == "failed"
    assert restore.safety_backup.archive_sha256
    assert "not sound before the restore" in "".join(restore.report["notes"])


# Page sizes, through the whole way


def test_another_page_size_is_noted_in_the_report(
    shop: Database, tmp_path: Path, make_backup: Callable[..., Backup], restored: Callable[..., Restore], shop_file
):
    path = build(tmp_path / "wide.db", "PRAGMA page_size=65536; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    wide = make_backup(add_database("wide", path, actor=ANNA))
    restore = restored(wide, shop, overrides={"wrong_database": "a test"})
    assert restore.state == "succeeded", restore.outcome
    assert "from 65536 to 4096" in "".join(restore.report["notes"])
    assert live(shop_file)["page_size"] == (4096,)


# Healing


def orphaned(restore: Restore, **facts: object) -> Restore:
    """The row of a run whose process died."""
    from django.utils import timezone

    Restore.objects.filter(pk=restore.pk).update(state="running", started_at=timezone.now(), **facts)
    restore.refresh_from_db()
    return restore


def test_a_run_that_died_before_its_safety_backup_is_failed_as_interrupted(approved: Restore, shop_file: Path):
    before = live(shop_file)
    orphaned(approved)
    assert [each.pk for each in heal_restores()] == [approved.pk]
    approved.refresh_from_db()
    assert (approved.state, approved.failure_code) == ("failed", "interrupted")
    assert "is as it was" in approved.outcome
    assert live(shop_file) == before
    assert heal_restores() == []
    assert AuditEvent.objects.filter(action="restore").count() == 1


def noted(restore: Restore, shop_file: Path, make_backup: Callable[..., Backup]) -> Restore:
    """A run that died somewhere between its safety backup and its record."""
    safety = make_backup(restore.database)
    return orphaned(
        restore,
        safety_backup=safety,
        report={"notes": [], "schema_version_before": core_restore.schema_version(shop_file)},
    )


def test_a_run_that_died_before_the_copy_was_committed_is_failed(approved: Restore, shop_file: Path, make_backup):
    noted(approved, shop_file, make_backup)
    with connected(shop_file) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('life goes on')")
    heal_restores()
    approved.refresh_from_db()
    assert (approved.state, approved.failure_code) == ("failed", "interrupted")


@pytest.mark.parametrize("statement", ["VACUUM", "CREATE TABLE migrated (x)", "ALTER TABLE sale ADD COLUMN x"])
def test_a_schema_that_others_changed_since_is_not_taken_for_the_copy(
    approved: Restore, shop_file: Path, make_backup, statement: str
):
    noted(approved, shop_file, make_backup)
    with connected(shop_file) as connection:
        connection.execute(statement)
    heal_restores()
    approved.refresh_from_db()
    assert (approved.state, approved.failure_code) == ("failed", "interrupted")


@pytest.mark.parametrize("later", ["SELECT 1", "INSERT INTO sale (note) VALUES ('later')", "VACUUM"])
def test_a_run_that_died_after_the_copy_is_succeeded(
    approved: Restore, shop_file: Path, make_backup, tmp_path: Path, later: str
):
    noted(approved, shop_file, make_backup)
    staged = tmp_path / "staged.db"
    extract_backup(approved.backup, staged, actor=ANNA)
    from tests.core.test_restore import put

    put(staged, shop_file)
    with connected(shop_file) as connection:
        connection.execute(later)
    heal_restores()
    approved.refresh_from_db()
    assert approved.state == "succeeded"


def test_a_living_run_is_left_alone(approved: Restore, home: Path):
    orphaned(approved)
    with scratch_folder(home / "scratch", f"restore-{approved.pk}"):
        assert heal_restores() == []
        assert Restore.objects.get(pk=approved.pk).state == "running"
    assert len(heal_restores()) == 1


def test_a_locked_database_is_asked_again_later(
    approved: Restore, shop_file: Path, make_backup, settings: Settings, outside_transactions: None
):
    settings.BACKUPS = {**settings.BACKUPS, "BUSY_TIMEOUT_SECONDS": 0.2}
    noted(approved, shop_file, make_backup)
    with connected(shop_file) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    other = approve_restore(request_restore(approved.backup, approved.database, reason="x", actor=ANNA), actor=BEN)
    started = time.monotonic()
    with holding(shop_file, "BEGIN EXCLUSIVE"):
        assert heal_restores() == []
        assert Restore.objects.get(pk=approved.pk).state == "running"
        with pytest.raises(BusyError):
            run_restore(other, actor=BEN)
    assert time.monotonic() - started < 30
    assert Restore.objects.get(pk=other.pk).state == "approved"
    assert len(heal_restores()) == 1


def test_a_run_that_died_while_making_a_database_anew_is_told_by_what_is_there(approved: Restore, shop_file: Path):
    orphaned(approved, report={"notes": [], "recreating": "it was missing"})
    shop_file.unlink()
    draft = shop_file.with_name(f".{shop_file.name}.restoring-{approved.pk}")
    draft.write_bytes(b"half a database")
    heal_restores()
    approved.refresh_from_db()
    assert (approved.state, approved.failure_code) == ("failed", "interrupted")
    assert "cannot be read" in approved.outcome
    assert ".damaged-" in approved.hint
    assert not draft.exists()
    orphaned(approved, report={"notes": [], "recreating": "it was missing"})
    extract_backup(approved.backup, shop_file, actor=ANNA)
    heal_restores()
    approved.refresh_from_db()
    assert approved.state == "succeeded"


@pytest.mark.parametrize("made_by_others", ["PRAGMA journal_mode=WAL", "CREATE TABLE product (id, name)"])
def test_a_file_that_others_made_where_one_was_missing_is_not_taken_for_the_backup(
    approved: Restore, shop_file: Path, made_by_others: str
):
    """The process died before it wrote anything, and the site has connected again."""
    orphaned(approved, report={"notes": [], "recreating": "it was missing"})
    for suffix in ("", "-wal", "-shm"):
        shop_file.with_name(shop_file.name + suffix).unlink(missing_ok=True)
    with connected(shop_file) as connection:
        connection.execute(made_by_others)
    before = live(shop_file)
    heal_restores()
    approved.refresh_from_db()
    assert (approved.state, approved.failure_code) == ("failed", "interrupted")
    assert "cannot be told" in approved.outcome
    assert "as it was" not in approved.outcome
    assert approved.backup_id in approved.hint
    assert live(shop_file) == before


@pytest.fixture
def updated(shop: Database, shop_file: Path, make_backup: Callable[..., Backup]) -> Restore:
    """The run of a restore that died: backup and safety backup hold as many rows, with other values."""
    good = make_backup(shop)
    with connected(shop_file) as connection:
        connection.execute("UPDATE product SET name = upper(name)")
    restore = approve_restore(request_restore(good, shop, reason="upper case", actor=ANNA), actor=BEN)
    noted(restore, shop_file, make_backup)
    assert restore.safety_backup.tables == good.tables
    return restore


@pytest.mark.parametrize("fragmented", [False, True])
def test_equal_counts_after_a_vacuum_are_not_taken_for_the_copy(
    updated: Restore, shop_file: Path, make_backup: Callable[..., Backup], fragmented: bool
):
    """Its pages are those of the safety backup, when there was nothing to move; else nothing tells."""
    if fragmented:
        with connected(shop_file) as connection:
            connection.execute("CREATE TABLE gone AS SELECT randomblob(9000)")
            connection.execute("CREATE TABLE stays (x)")
            connection.execute("DROP TABLE gone")
            connection.execute("DROP TABLE stays")
    else:
        with connected(shop_file) as connection:
            connection.execute("VACUUM")
        noted(updated, shop_file, make_backup)
    with connected(shop_file) as connection:
        connection.execute("VACUUM")
        connection.execute("UPDATE product SET name = name || '!'" if fragmented else "SELECT 1")
    heal_restores()
    updated.refresh_from_db()
    assert (updated.state, updated.failure_code) == ("failed", "interrupted")
    assert ("cannot be told" in updated.outcome) == fragmented
    assert ("as it was" in updated.outcome) == (not fragmented)
    assert (updated.safety_backup_id in updated.hint) == fragmented


def test_equal_counts_after_the_copy_are_told_by_the_pages(
    updated: Restore, shop_file: Path, tmp_path: Path, extracted
):
    staged = tmp_path / "staged.db"
    extract_backup(updated.backup, staged, actor=ANNA)
    from tests.core.test_restore import put

    put(staged, shop_file)
    heal_restores()
    updated.refresh_from_db()
    assert updated.state == "succeeded", updated.outcome
    assert live(shop_file) == extracted(updated.backup)


def test_what_the_dead_left_in_scratch_is_removed(approved: Restore, home: Path):
    orphaned(approved)
    folder = home / "scratch" / f"restore-{approved.pk}"
    folder.mkdir(parents=True)
    (folder / "staged.sqlite3").write_bytes(b"rows of people")
    folder.with_name(folder.name + ".lock").touch()
    heal_restores()
    assert names_in(home / "scratch") == set()


def test_checks_are_those_of_this_backup(done: Restore):
    """Evidence, not a constant: the census line counts the rows of the backup."""
    census = next(each for each in done.report["checks"] if each["name"] == "census")
    assert "7 rows in 2 tables" in census["evidence"]
