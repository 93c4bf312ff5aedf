"""Creating a backup: verified only after proof, and every outcome on the record."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connections
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.core.manifest import Manifest
from backups_app.inert_text import inert
from backups_app.models import AuditEvent, Backup, Copy, Database, Verification
from backups_app.services.create import create_backup
from backups_app.services.databases import add_database
from tests.conftest import ACTOR
from tests.services.test_names import HARD_NAMES
from tests.support import (
    build,
    build_ledger,
    build_shop,
    bytes_in,
    connected,
    content_of,
    holding,
    integrity_of,
    leave_behind,
    mounted_tmpfs,
    names_in,
    needs_tool,
    rows_of,
    writing,
)

MakeBackup = Callable[..., Backup]


def stored_objects(home: Path) -> set[str]:
    return set(bytes_in(home / "archives")) if (home / "archives").exists() else set()


def assert_nothing_left(home: Path) -> None:
    assert stored_objects(home) == set()
    assert names_in(home / "scratch") == set()
    assert not Copy.objects.exists()


def unpacked(archive: Path, target: Path) -> Path:
    """Decompress with the stock tool: no part of ours."""
    subprocess.run([needs_tool("zstd"), "-dq", str(archive), "-o", str(target)], check=True)
    return target


def test_a_backup_is_verified_with_its_evidence(shop: Database, make_backup: MakeBackup, archive_of):
    before = timezone.now()
    backup = make_backup(shop, note="before the sale")
    backup.refresh_from_db()
    assert (backup.state, backup.verdict, backup.failure_code, backup.reason) == ("verified", "passed", "", "")
    assert backup.tables == {"product": 3, "sale": 4}
    assert backup.row_count == 7
    assert backup.note == "before the sale"
    assert (backup.requested_by_id, backup.requested_by_name, backup.trigger) == ("7", "anna", "command")
    assert backup.taken_at is not None
    assert backup.finished_at is not None
    assert before <= backup.created_at <= backup.taken_at <= backup.finished_at <= timezone.now()
    assert archive_of(backup).stat().st_size == backup.archive_bytes
    for digest in (backup.sha256, backup.archive_sha256, backup.content_sha256, backup.manifest_sha256):
        assert re.fullmatch("[0-9a-f]{64}", digest)


def test_the_stock_tools_restore_an_archive(
    shop: Database, shop_file: Path, make_backup: MakeBackup, archive_of, tmp_path: Path
):
    restored = unpacked(archive_of(make_backup(shop)), tmp_path / "restored.sqlite3")
    assert integrity_of(restored) == "ok"
    assert content_of(restored) == content_of(shop_file)


def test_a_backup_has_one_verified_copy_and_one_verification(shop: Database, make_backup: MakeBackup):
    backup = make_backup(shop)
    copy = backup.copies.get()
    assert (copy.destination, copy.name, copy.state, copy.reason) == ("local", backup.archive_name, "verified", "")
    verification = backup.verifications.get()
    assert (verification.level, verification.verdict, verification.requested_by_name) == ("creation", "passed", "anna")
    names = {check["name"] for check in verification.checks}
    assert {"integrity_check", "census", "stored bytes", "content digest", "manifest", "signature", "chain"} <= names
    assert all(check["ok"] for check in verification.checks)


def test_creating_is_recorded_once(shop: Database, make_backup: MakeBackup):
    backup = make_backup(shop)
    event = AuditEvent.objects.get(action="create")
    assert (event.outcome, event.subject, event.database_name, event.detail) == ("done", backup.pk, "shop", "")


def test_nothing_but_archive_and_manifest_remains(shop: Database, make_backup: MakeBackup, home: Path):
    backup = make_backup(shop)
    stem = backup.archive_name.removesuffix(".sqlite3.zst")
    assert stored_objects(home) == {f"{stem}.sqlite3.zst", f"{stem}.manifest.json", f"{stem}.manifest.sig"}
    assert names_in(home / "scratch") == set()


def test_what_is_written_is_private(shop: Database, make_backup: MakeBackup, home: Path):
    make_backup(shop)
    for path in [home, *home.rglob("*")]:
        allowed = 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o777 == allowed, path


def test_the_name_says_database_time_and_id(shop: Database, make_backup: MakeBackup):
    backup = make_backup(shop)
    created = backup.created_at.astimezone(UTC)
    stem = f"shop-{created:%Y%m%dT%H%M%SZ}-{backup.pk}"
    assert backup.archive_name == f"shop/{created:%Y}/{stem}.sqlite3.zst"


def test_the_manifest_says_what_the_catalogue_says(shop: Database, make_backup: MakeBackup, archive_of):
    backup = make_backup(shop)
    path = Path(str(archive_of(backup)).removesuffix(".sqlite3.zst") + ".manifest.json")
    manifest = Manifest.from_bytes(path.read_bytes())
    assert (manifest.id, manifest.database, manifest.identity) == (backup.pk, "shop", shop.identity)
    assert (manifest.sha256, manifest.archive_sha256) == (backup.sha256, backup.archive_sha256)
    assert manifest.census.as_dict() == backup.census
    assert manifest.archive_name == backup.archive_name
    assert (manifest.created_at, manifest.taken_at) == (backup.created_at, backup.taken_at)


def test_rows_that_are_only_in_the_wal_are_in_the_backup(
    shop: Database, shop_file: Path, make_backup: MakeBackup, archive_of, tmp_path: Path
):
    with connected(shop_file) as application:
        application.execute("PRAGMA wal_autocheckpoint=0")
        application.execute("INSERT INTO sale (note) VALUES ('only in the wal')")
        assert rows_of(shop_file)["sale"] == 4, "the row must not be in the main file for this test"
        backup = make_backup(shop)
    assert backup.tables["sale"] == 5
    assert rows_of(unpacked(archive_of(backup), tmp_path / "restored.sqlite3"))["sale"] == 5


def test_rows_that_a_killed_process_left_in_the_wal_are_in_the_backup(
    shop: Database, shop_file: Path, make_backup: MakeBackup
):
    leave_behind(shop_file, "PRAGMA wal_autocheckpoint=0", "INSERT INTO sale (note) VALUES ('acknowledged')")
    assert make_backup(shop).tables["sale"] == 5


def test_rows_that_are_not_committed_are_not_in_the_backup(shop: Database, shop_file: Path, make_backup: MakeBackup):
    with holding(shop_file, "BEGIN", "INSERT INTO sale (note) VALUES ('draft')"):
        assert make_backup(shop).tables["sale"] == 4


def test_a_backup_beside_a_writer_holds_one_committed_state(
    home: Path, db_catalog: None, tmp_path: Path, make_backup: MakeBackup, archive_of
):
    (tmp_path / "ledger").mkdir()
    ledger = build_ledger(tmp_path / "ledger" / "ledger.sqlite3", filler_bytes=8 << 20)
    database = add_database("ledger", ledger, actor=ACTOR)
    with writing(ledger) as writer:
        at_least = writer.wait_for(20)
        backup = make_backup(database)
        at_most = writer.acknowledged + 1
        assert writer.refusals == []
    assert backup.state == "verified"
    with closing(sqlite3.connect(unpacked(archive_of(backup), tmp_path / "restored.sqlite3"))) as connection:
        (value,) = connection.execute("SELECT value FROM counter").fetchone()
    assert backup.tables["events"] == value
    assert at_least <= value <= at_most


def test_a_rollback_journal_source_is_backed_up_and_its_cost_is_said(
    home: Path, db_catalog: None, tmp_path: Path, make_backup: MakeBackup
):
    file = build_shop(tmp_path / "old.sqlite3", journal_mode="delete")
    backup = make_backup(add_database("old", file, actor=ACTOR))
    assert backup.state == "verified"
    assert "rollback journal" in " ".join(backup.remarks)
    assert names_in(tmp_path) == {"old.sqlite3", "home"}


@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_database_with_a_hard_name_is_backed_up_inside_the_archives(
    home: Path, db_catalog: None, tmp_path: Path, shop_file: Path, make_backup: MakeBackup, archive_of, name: str
):
    before = names_in(tmp_path)
    backup = make_backup(add_database(name, shop_file, actor=ACTOR))
    assert backup.state == "verified"
    assert archive_of(backup).resolve().is_relative_to(home / "archives")
    assert names_in(tmp_path) <= before | {"home"}


def test_an_empty_database_is_backed_up(home: Path, db_catalog: None, tmp_path: Path, make_backup: MakeBackup):
    (tmp_path / "empty.sqlite3").touch()
    backup = make_backup(add_database("empty", tmp_path / "empty.sqlite3", actor=ACTOR))
    assert (backup.state, backup.size_bytes, backup.tables) == ("verified", 0, {})


@pytest.mark.parametrize("statement", ["DELETE FROM sale", "DROP TABLE sale"])
def test_a_required_table_without_rows_is_not_verified(
    shop: Database, shop_file: Path, make_backup: MakeBackup, archive_of, statement: str
):
    Database.objects.filter(pk=shop.pk).update(required_tables=["product", "sale"])
    shop.refresh_from_db()
    with connected(shop_file) as connection:
        connection.execute(statement)
    backup = make_backup(shop)
    backup.refresh_from_db()
    assert (backup.state, backup.verdict, backup.failure_code) == ("failed", "failed", "verification_failed")
    assert "sale" in backup.reason
    assert "product" not in backup.reason
    assert backup.hint
    assert backup.verified_at is None
    assert backup.copies.get().state == "failed"
    assert backup.verifications.get().verdict == "failed"
    assert archive_of(backup).exists(), "it is a true copy, and evidence"
    assert AuditEvent.objects.get(action="create").outcome == "failed"


def test_a_table_required_by_the_settings_counts_too(
    shop: Database, shop_file: Path, settings: Settings, make_backup: MakeBackup
):
    settings.BACKUPS = {**settings.BACKUPS, "REQUIRED_TABLES": {"shop": ["sale"], "other": ["nowhere"]}}
    assert make_backup(shop).state == "verified"
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM sale")
    backup = make_backup(shop)
    assert backup.state == "failed"
    assert "sale" in backup.reason


def test_a_foreign_key_violation_is_shown_and_does_not_spoil_the_backup(
    shop: Database, shop_file: Path, make_backup: MakeBackup
):
    with connected(shop_file) as connection:
        connection.execute("INSERT INTO sale (product) VALUES (999)")
    backup = make_backup(shop)
    assert backup.state == "verified"
    (check,) = [each for each in backup.verifications.get().checks if each["name"] == "foreign_key_check"]
    assert (check["ok"], check["advisory"]) == (False, True)
    assert "sale" in check["evidence"]


def corrupt_a_page(path: Path) -> None:
    """Wreck an interior part of a closed rollback-journal database."""
    with open(path, "r+b") as file:
        file.seek(4096 * 5)
        file.write(b"\xff" * 4096)


def test_a_damaged_source_is_never_verified(
    home: Path, db_catalog: None, tmp_path: Path, make_backup: MakeBackup, archive_of
):
    file = build_ledger(tmp_path / "ledger.sqlite3", journal_mode="delete", filler_bytes=100_000)
    database = add_database("ledger", file, actor=ACTOR)
    corrupt_a_page(file)
    backup = make_backup(database)
    assert (backup.state, backup.verdict, backup.failure_code) == ("failed", "failed", "verification_failed")
    assert backup.reason
    assert archive_of(backup).exists(), "the copy may be the best there is"
    assert not Backup.objects.filter(state="verified").exists()
    assert names_in(home / "scratch") == set()


def test_a_source_with_a_damaged_index_is_kept_as_failed_evidence(
    home: Path, db_catalog: None, tmp_path: Path, make_backup: MakeBackup, archive_of
):
    file = build_shop(tmp_path / "shop.sqlite3", journal_mode="delete")
    with connected(file) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, '(product)', '(note)') WHERE type = 'index'")
    backup = make_backup(add_database("shop", file, actor=ACTOR))
    assert (backup.state, backup.verdict) == ("failed", "failed")
    assert "integrity_check" in backup.reason
    assert archive_of(backup).exists()
    assert backup.copies.get().state == "failed"


def test_a_missing_source_fails_and_is_not_created(
    shop: Database, shop_file: Path, make_backup: MakeBackup, home: Path
):
    shop_file.unlink()
    backup = make_backup(shop)
    assert (backup.state, backup.failure_code, backup.verdict) == ("failed", "not_found", "")
    assert not shop_file.exists()
    assert_nothing_left(home)


def test_a_folder_in_place_of_the_source_fails(shop: Database, shop_file: Path, make_backup: MakeBackup, home: Path):
    shop_file.unlink()
    shop_file.mkdir()
    assert make_backup(shop).failure_code == "usage"
    assert_nothing_left(home)


def test_a_locked_source_is_busy(settings: Settings, home: Path, db_catalog: None, tmp_path: Path, make_backup):
    settings.BACKUPS = {**settings.BACKUPS, "BUSY_TIMEOUT_SECONDS": 0.2}
    file = build_shop(tmp_path / "shop.sqlite3", journal_mode="delete")
    database = add_database("shop", file, actor=ACTOR)
    with holding(file, "BEGIN EXCLUSIVE"):
        backup = make_backup(database)
    assert (backup.state, backup.failure_code) == ("failed", "busy")
    assert_nothing_left(home)
    assert make_backup(database).state == "verified"


def test_a_root_that_was_withdrawn_refuses(shop: Database, settings: Settings, make_backup: MakeBackup, home: Path):
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": []}
    backup = make_backup(shop)
    assert (backup.state, backup.failure_code) == ("failed", "refused")
    assert "BACKUPS['ROOTS']" in backup.hint
    assert_nothing_left(home)


def test_a_deadline_ends_the_backup(shop: Database, settings: Settings, make_backup: MakeBackup, home: Path):
    settings.BACKUPS = {**settings.BACKUPS, "DEADLINE_SECONDS": 0.000001}
    backup = make_backup(shop)
    assert (backup.state, backup.failure_code) == ("failed", "deadline")
    assert_nothing_left(home)


def test_a_cancel_is_no_failure_and_leaves_nothing(shop: Database, make_backup: MakeBackup, home: Path):
    backup = make_backup(shop, is_cancelled=lambda: True)
    backup.refresh_from_db()
    assert (backup.state, backup.failure_code, backup.verdict) == ("cancelled", "cancelled", "")
    assert backup.reason
    assert_nothing_left(home)


@pytest.mark.parametrize("phase", ["copy", "compress", "read back"])
def test_a_cancel_in_any_phase_leaves_nothing(shop: Database, make_backup: MakeBackup, home: Path, phase: str):
    asked = threading.Event()

    def on_progress(current: str, _done: int, _total: int) -> None:
        if current == phase:
            asked.set()

    backup = make_backup(shop, on_progress=on_progress, is_cancelled=asked.is_set)
    assert asked.is_set()
    assert backup.state == "cancelled"
    assert_nothing_left(home)


def test_an_unexpected_error_is_on_the_record_with_its_kind(
    shop: Database, make_backup: MakeBackup, home: Path, caplog: pytest.LogCaptureFixture
):
    def on_progress(*_report: object) -> None:
        raise ZeroDivisionError("a defect")

    backup = make_backup(shop, on_progress=on_progress)
    backup.refresh_from_db()
    assert (backup.state, backup.failure_code) == ("failed", "failed")
    assert "ZeroDivisionError: a defect" in backup.reason
    assert "An unexpected error" in caplog.text
    assert_nothing_left(home)


@pytest.mark.sqlite_catalog
def test_an_outcome_that_cannot_be_recorded_is_a_failure_that_leaves_nothing(
    shop: Database, make_backup: MakeBackup, home: Path
):
    with connections["catalog"].cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TRIGGER no_room BEFORE INSERT ON backups_app_verification "
            "BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    backup = make_backup(shop)
    backup.refresh_from_db()
    assert (backup.state, backup.verdict, backup.verified_at) == ("failed", "", None)
    assert "no room" in backup.reason
    assert AuditEvent.objects.get(action="create").outcome == "failed"
    assert_nothing_left(home)


def test_the_end_of_the_process_is_recorded_and_goes_on(shop: Database, make_backup: MakeBackup, home: Path):
    def on_progress(*_report: object) -> None:
        raise SystemExit(15)

    with pytest.raises(SystemExit):
        make_backup(shop, on_progress=on_progress)
    assert Backup.objects.get().state == "cancelled"
    assert_nothing_left(home)


def test_the_end_of_the_process_after_the_record_leaves_what_was_recorded(
    shop: Database, make_backup: MakeBackup, monkeypatch: pytest.MonkeyPatch, archive_of
):
    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("backups_app.services.publish.advance_head", end)
        with pytest.raises(KeyboardInterrupt):
            make_backup(shop)
    backup = Backup.objects.get()
    assert (backup.state, backup.reason, backup.copies.get().state) == ("verified", "", "verified")
    assert archive_of(backup).exists()
    assert not AuditEvent.objects.filter(action="create", outcome="failed").exists()
    assert make_backup(shop).sequence == 2


def test_progress_goes_through_the_phases_to_the_end(shop: Database, make_backup: MakeBackup):
    last: dict[str, tuple[int, int]] = {}
    make_backup(shop, on_progress=lambda phase, done, total: last.update({phase: (done, total)}))
    assert list(last) == ["copy", "compress", "read back"]
    assert all(done == total > 0 for done, total in last.values())


def test_a_full_disk_fails_leaves_nothing_and_works_when_freed(
    db_catalog: None, settings: Settings, tmp_path: Path, make_backup: MakeBackup
):
    file = build_ledger(tmp_path / "ledger.sqlite3", filler_bytes=2 << 20)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=6 << 20) as disk:
        home = disk / "home"
        settings.BACKUPS = {"HOME": home, "ROOTS": [tmp_path]}
        database = add_database("ledger", file, actor=ACTOR)
        filling = disk / "filling"
        filling.write_bytes(b"x" * (5 << 20))
        backup = make_backup(database)
        assert (backup.state, backup.failure_code) == ("failed", "disk_full")
        assert "Free" in backup.hint
        assert_nothing_left(home)
        filling.unlink()
        assert make_backup(database).state == "verified"


def test_a_disk_that_fills_while_the_archive_is_written_leaves_nothing(
    db_catalog: None, settings: Settings, tmp_path: Path, make_backup: MakeBackup
):
    file = build_ledger(tmp_path / "ledger.sqlite3", filler_bytes=4 << 20)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=6 << 20) as disk:
        home = disk / "home"
        settings.BACKUPS = {"HOME": home, "ROOTS": [tmp_path]}
        backup = make_backup(add_database("ledger", file, actor=ACTOR))
        assert (backup.state, backup.failure_code) == ("failed", "disk_full")
        assert_nothing_left(home)


def test_an_unusable_scratch_folder_is_a_recorded_failure(shop: Database, make_backup: MakeBackup, home: Path):
    (home / "scratch").rmdir()
    (home / "scratch").write_text("in the way")
    backup = make_backup(shop)
    assert Backup.objects.get(pk=backup.pk).state == "failed"
    assert backup.reason
    assert stored_objects(home) == set()


def test_an_unusable_archives_folder_is_a_recorded_failure(shop: Database, make_backup: MakeBackup, home: Path):
    (home / "archives").write_text("in the way")
    backup = make_backup(shop)
    assert Backup.objects.get(pk=backup.pk).state == "failed"
    assert backup.reason
    assert names_in(home / "scratch") == set()
    assert not Copy.objects.exists()


def test_archives_on_another_disk_arrive_whole(
    shop: Database, make_backup: MakeBackup, home: Path, tmp_path: Path, archive_of
):
    with mounted_tmpfs(tmp_path / "disk", size_bytes=8 << 20) as disk:
        (home / "archives").symlink_to(disk)
        backup = make_backup(shop)
        assert backup.state == "verified"
        assert archive_of(backup).stat().st_mode & 0o777 == 0o600
        assert names_in(disk / ".incoming") == set()
        assert names_in(home / "scratch") == set()


def test_two_backups_of_one_instant_are_two(shop: Database, make_backup: MakeBackup, home: Path, monkeypatch):
    instant = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    ticks = iter(range(1000))
    monkeypatch.setattr(timezone, "now", lambda: instant + timedelta(microseconds=next(ticks)))
    first, second = make_backup(shop), make_backup(shop)
    assert (first.state, second.state) == ("verified", "verified")
    assert first.archive_name != second.archive_name
    assert first.archive_name[:-24] == second.archive_name[:-24], "the same second"
    assert len(stored_objects(home)) == 6


def test_a_failed_backup_never_touches_an_older_one(
    shop: Database, shop_file: Path, make_backup: MakeBackup, home: Path
):
    good = make_backup(shop)
    before = bytes_in(home / "archives")
    shop_file.unlink()
    make_backup(shop)
    good.refresh_from_db()
    assert good.state == "verified"
    assert bytes_in(home / "archives") == before


def test_the_source_is_not_changed(home: Path, db_catalog: None, tmp_path: Path, make_backup: MakeBackup):
    folder = tmp_path / "site"
    folder.mkdir()
    build_shop(folder / "shop.sqlite3")
    before = bytes_in(folder)
    make_backup(add_database("shop", folder / "shop.sqlite3", actor=ACTOR))
    assert bytes_in(folder) == before


def test_a_table_name_that_is_not_utf8_is_survived(
    home: Path, db_catalog: None, tmp_path: Path, make_backup: MakeBackup
):
    file = build(tmp_path / "odd.sqlite3", "CREATE TABLE odd (x); INSERT INTO odd VALUES (1);")
    with connected(file) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute(
            "UPDATE sqlite_schema SET name = CAST(x'6FFF' AS TEXT), tbl_name = CAST(x'6FFF' AS TEXT), "
            "sql = CAST(x'435245415445205441424C45206FFF20287829' AS TEXT)"
        )
    backup = make_backup(add_database("odd", file, actor=ACTOR))
    backup.refresh_from_db()
    assert backup.state == "verified"
    assert backup.census is not None
    is_spelled_out = connections["catalog"].vendor == "postgresql"  # which holds no half of a character
    expected = inert("o\udcff") if is_spelled_out else "o\udcff"
    assert [*backup.census["tables"], *backup.census["uncounted"]] == [expected]


def test_a_database_with_json_columns_is_backed_up(
    home: Path, db_catalog: None, tmp_path: Path, make_backup: MakeBackup
):
    # What Django writes for a JSONField, an index on a key of it, and a generated column.
    script = """
        CREATE TABLE page (id INTEGER PRIMARY KEY, data TEXT NOT NULL CHECK ((JSON_VALID("data") OR "data" IS NULL)),
            title TEXT GENERATED ALWAYS AS (json_extract(data, '$.title')) STORED);
        CREATE INDEX page_kind ON page (json_extract(data, '$.kind'));
        INSERT INTO page (data) VALUES ('{"title": "one", "kind": 1}'), ('{"title": "two"}');
    """
    backup = make_backup(add_database("pages", build(tmp_path / "pages.sqlite3", script), actor=ACTOR))
    assert (backup.state, backup.reason) == ("verified", "")
    assert backup.tables == {"page": 2}


def test_a_verified_row_always_has_a_verification(shop: Database, make_backup: MakeBackup):
    make_backup(shop)
    assert not Backup.objects.filter(state="verified").exclude(verifications__verdict="passed").exists()
    assert Verification.objects.count() == 1


@pytest.mark.usefixtures("home")
def test_an_interrupt_signal_without_our_handler_is_recorded(shop: Database):
    def on_progress(*_report: object) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        create_backup(shop, actor=ACTOR, trigger=Backup.Trigger.ADMIN, on_progress=on_progress)
    assert Backup.objects.get().state == "cancelled"
