"""The way back: at once for the two people of a restore, by a request for everybody else."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.core.errors import BusyError, RefusedError, VerificationError
from backups_app.core.pages import content_digest_of
from backups_app.core.progress import Watch
from backups_app.core.snapshot import take_snapshot
from backups_app.jobs.claim import job_lock
from backups_app.models import AuditEvent, Backup, Database, Restore
from backups_app.services.audit import Actor
from backups_app.services.restores import approve_restore, request_restore, run_restore, undo_restore
from tests.services.restores.conftest import ANNA, BEN, CARL
from tests.services.restores.test_run import fail_first_check
from tests.support import connected, content_through


def live(path: Path) -> dict[str, object]:
    with connected(path) as connection:
        return content_through(connection)


@pytest.fixture
def before(approved: Restore, shop_file: Path) -> dict[str, object]:
    """What the live database held before the restore. Ask for it before ``done``."""
    return live(shop_file)


def make_index_stale(path: Path) -> None:
    """An index lacks a row of its table: found by ``integrity_check`` alone."""
    with connected(path) as connection:
        connection.execute("CREATE INDEX by_name ON product (name)")
        root, sql = connection.execute("SELECT rootpage, sql FROM sqlite_schema WHERE name = 'by_name'").fetchone()
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("DELETE FROM sqlite_schema WHERE name = 'by_name'")
    with connected(path) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('unseen')")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("INSERT INTO sqlite_schema VALUES ('index', 'by_name', 'product', ?, ?)", (root, sql))


def empty_index(path: Path) -> None:
    """An index whose page is not one any more: found by ``quick_check`` as well."""
    with connected(path) as connection:
        connection.execute("CREATE INDEX by_name ON product (name)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'by_name'").fetchone()
    content = bytearray(path.read_bytes())
    content[(root - 1) * 4096 : root * 4096] = bytes(4096)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(("actor", "other"), [(ANNA, "ben"), (BEN, "anna")])
def test_either_person_undoes_at_once(before, done: Restore, shop_file: Path, actor: Actor, other: str):
    restored = live(shop_file)
    undo = undo_restore(done, actor=actor)
    undo.refresh_from_db()
    assert (undo.state, undo.undo_of_id, undo.backup_id) == ("succeeded", done.pk, done.safety_backup_id)
    assert (undo.requested_by_name, undo.approved_by_name, undo.is_self_approved) == (actor.name, other, False)
    assert live(shop_file) == before != restored
    event = AuditEvent.objects.filter(action="approve-restore").latest("id")
    assert (event.actor_name, event.subject) == (actor.name, undo.pk)
    assert done.pk in event.detail


def test_what_was_written_since_is_in_the_safety_backup_of_the_undo(done: Restore, shop_file: Path):
    with connected(shop_file) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('since')")
    undo = undo_restore(done, actor=ANNA)
    assert undo.safety_backup.tables == {"product": 4, "sale": 4}
    assert undo.safety_backup.is_held


def test_an_undo_can_be_undone(before, done: Restore, shop_file: Path):
    restored = live(shop_file)
    undo = undo_restore(done, actor=ANNA)
    redo = undo_restore(undo, actor=BEN)
    assert (redo.state, redo.undo_of_id) == ("succeeded", undo.pk)
    assert live(shop_file) == restored
    assert undo_restore(redo, actor=ANNA).state == "succeeded"
    assert live(shop_file) == before


def test_a_restore_is_undone_once(done: Restore, shop_file: Path):
    undo_restore(done, actor=ANNA)
    with connected(shop_file) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('work since')")
    now = live(shop_file)
    with pytest.raises(RefusedError, match="succeeded"):
        undo_restore(done, actor=ANNA)
    assert live(shop_file) == now


def test_a_third_person_files_a_request(done: Restore, shop_file: Path):
    now = live(shop_file)
    undo = undo_restore(done, actor=CARL)
    assert (undo.state, undo.requested_by_name, undo.approved_by_name) == ("requested", "carl", "")
    assert live(shop_file) == now
    assert {each["name"]: (each["now"], each["after"]) for each in undo.preview["tables"]} == {
        "product": (3, 4),
        "sale": (4, 0),
    }


def test_the_request_of_a_third_person_is_approved_and_run_like_any(before, done: Restore, shop_file: Path):
    undo = undo_restore(done, actor=CARL)
    with pytest.raises(RefusedError, match="somebody else"):
        approve_restore(undo, actor=CARL)
    assert run_restore(approve_restore(undo, actor=ANNA), actor=ANNA).state == "succeeded"
    assert live(shop_file) == before


def test_a_request_that_waits_does_not_hold_up_who_may_undo_at_once(before, done: Restore, shop_file: Path):
    waiting = undo_restore(done, actor=CARL)
    with pytest.raises(RefusedError, match="requested"):
        undo_restore(done, actor=CARL)
    assert undo_restore(done, actor=ANNA).state == "succeeded"
    assert live(shop_file) == before
    waiting.refresh_from_db()
    assert (waiting.state, waiting.rejected_by_name) == ("rejected", "anna")
    assert AuditEvent.objects.filter(action="reject-restore", subject=waiting.pk).exists()


def test_a_request_that_waits_stays_when_the_window_is_over(done: Restore):
    Restore.objects.filter(pk=done.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    waiting = undo_restore(done, actor=CARL)
    with pytest.raises(RefusedError, match="requested"):
        undo_restore(done, actor=ANNA)
    waiting.refresh_from_db()
    assert waiting.state == "requested"


def test_after_the_window_both_only_file_a_request(done: Restore, shop_file: Path):
    Restore.objects.filter(pk=done.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    now = live(shop_file)
    undo = undo_restore(done, actor=ANNA)
    assert undo.state == "requested"
    assert undo.expires_at > timezone.now()
    assert live(shop_file) == now
    assert not Restore.objects.filter(state="expired").exists()


def test_somebody_with_the_name_of_one_of_the_two_is_not_that_person(done: Restore):
    assert undo_restore(done, actor=Actor(id="77", name="anna")).state == "requested"


def test_no_guard_keeps_an_undo_back(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup], restored: Callable[..., Restore], monkeypatch
):
    """The content before was a schema without data, and the disk is said to be full."""
    good = make_backup(shop)
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM sale")
        connection.execute("DELETE FROM product")
    empty = live(shop_file)
    done = restored(good)
    free_bytes = 25_000  # enough for the staged copy and the safety backup, less than 2.1 times the size
    assert shop_file.stat().st_size == 16_384
    with monkeypatch.context() as patch:
        usage = type("usage", (), {"free": free_bytes, "total": free_bytes, "used": 0})
        patch.setattr("shutil.disk_usage", lambda _: usage)
        undo = undo_restore(done, actor=ANNA)
    assert undo.state == "succeeded", undo.outcome
    assert live(shop_file) == empty


# Of what was not sound


@pytest.fixture(params=[0, 1 << 40], ids=["quick_check only", "integrity_check"])
def checked_up_to(request: pytest.FixtureRequest, settings: Settings) -> int:
    """Up to which size a backup is checked thoroughly when it is made: a stale index is found, or is not."""
    settings.BACKUPS = {**settings.BACKUPS, "INTEGRITY_CHECK_MAX_BYTES": request.param}
    return int(request.param)


def findings(path: Path) -> list[tuple[str]]:
    """What ``integrity_check`` says, or what ends it."""
    with connected(path) as connection:
        try:
            return list(connection.execute("PRAGMA integrity_check"))
        except sqlite3.DatabaseError as exc:
            return [(str(exc),)]


def content_digest(path: Path, folder: Path) -> str:
    """Digest of all pages of a live database, but for the header bytes that a copy changes."""
    folder.mkdir()
    snapshot = take_snapshot(path, folder / "snapshot", watch=Watch())
    return content_digest_of(snapshot.path, watch=Watch())


@pytest.mark.parametrize("spoil", [make_index_stale, empty_index])
def test_a_database_that_was_not_sound_comes_back_page_by_page(
    shop: Database,
    shop_file: Path,
    tmp_path: Path,
    make_backup: Callable[..., Backup],
    restored: Callable[..., Restore],
    checked_up_to: int,
    spoil: Callable[[Path], None],
):
    good = make_backup(shop)
    spoil(shop_file)
    wrong, before = findings(shop_file), content_digest(shop_file, tmp_path / "before")
    assert wrong != [("ok",)]
    done = restored(good)
    assert done.state == "succeeded", done.outcome
    assert findings(shop_file) == [("ok",)]
    undo = undo_restore(done, actor=ANNA)
    assert undo.state == "succeeded", undo.outcome
    assert "was not sound when it was live: integrity_check" in "".join(undo.report["notes"])
    assert findings(shop_file) == wrong
    assert content_digest(shop_file, tmp_path / "after") == before


@pytest.mark.parametrize("spoil", [make_index_stale, empty_index])
def test_a_roll_back_gives_a_database_that_was_not_sound_back(
    shop: Database,
    shop_file: Path,
    tmp_path: Path,
    make_backup: Callable[..., Backup],
    restored: Callable[..., Restore],
    monkeypatch: pytest.MonkeyPatch,
    checked_up_to: int,
    spoil: Callable[[Path], None],
):
    good = make_backup(shop)
    spoil(shop_file)
    wrong, before = findings(shop_file), content_digest(shop_file, tmp_path / "before")
    fail_first_check(monkeypatch)
    restore = restored(good)
    assert restore.state == "rolled_back", restore.outcome
    assert "was not sound when it was live" in "".join(restore.report["notes"])
    assert findings(shop_file) == wrong
    assert content_digest(shop_file, tmp_path / "after") == before


def test_the_undo_of_what_was_not_sound_is_put_into_a_file_that_went_missing(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup], restored: Callable[..., Restore]
):
    good = make_backup(shop)
    empty_index(shop_file)
    wrong = findings(shop_file)
    done = restored(good)
    for suffix in ("", "-wal", "-shm"):
        shop_file.with_name(shop_file.name + suffix).unlink(missing_ok=True)
    undo = undo_restore(done, actor=ANNA)
    assert undo.state == "succeeded", undo.outcome
    assert findings(shop_file) == wrong


def test_a_request_to_undo_says_what_was_not_sound(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup], restored: Callable[..., Restore]
):
    good = make_backup(shop)
    make_index_stale(shop_file)
    undo = undo_restore(restored(good), actor=CARL)
    assert undo.state == "requested"
    assert "missing from index" in "".join(undo.preview["warnings"])


def test_damage_that_came_with_the_copy_is_no_finding_of_the_safety_backup(
    shop: Database,
    shop_file: Path,
    make_backup: Callable[..., Backup],
    restored: Callable[..., Restore],
    monkeypatch: pytest.MonkeyPatch,
):
    good = make_backup(shop)
    empty_index(shop_file)
    done = restored(good)
    restored_content = live(shop_file)
    fail_first_check(monkeypatch)
    undo = undo_restore(done, actor=ANNA)
    assert undo.state == "rolled_back"
    assert live(shop_file) == restored_content
    assert findings(shop_file) == [("ok",)]


def test_only_a_safety_backup_goes_back_as_it_was(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup], checked_up_to: int
):
    make_index_stale(shop_file)
    unsound = make_backup(shop)
    before = live(shop_file)
    with pytest.raises(VerificationError, match="missing from index"):
        request_restore(unsound, shop, reason="x", actor=ANNA, overrides={"unverified": "we try"})
    assert live(shop_file) == before


# What cannot be undone


@pytest.mark.parametrize("state", ["requested", "approved"])
def test_what_has_not_run_cannot_be_undone(requested: Restore, outside_transactions: None, state: str):
    if state == "approved":
        approve_restore(requested, actor=BEN)
    with pytest.raises(RefusedError, match="nothing to undo"):
        undo_restore(requested, actor=ANNA)
    assert Restore.objects.count() == 1


def test_a_failed_restore_cannot_be_undone(approved: Restore, outside_transactions: None):
    run_restore(approved, actor=BEN, is_cancelled=lambda: True)
    with pytest.raises(RefusedError, match="nothing to undo"):
        undo_restore(approved, actor=ANNA)


def test_a_busy_database_leaves_no_open_undo_behind(done: Restore, shop_file: Path):
    now = live(shop_file)
    with job_lock(done.database), pytest.raises(BusyError):
        undo_restore(done, actor=ANNA)
    assert live(shop_file) == now
    assert [each.state for each in done.undos.all()] == ["cancelled"]
    assert undo_restore(done, actor=ANNA).state == "succeeded"


def test_a_lone_person_undoes_at_once_while_one_is_enough(
    backup: Backup, outside_transactions: None, settings: Settings
):
    settings.BACKUPS = {**settings.BACKUPS, "FOUR_EYES": False}
    restore = request_restore(backup, backup.database, reason="x", actor=ANNA)
    done = run_restore(approve_restore(restore, actor=ANNA), actor=ANNA)
    undo = undo_restore(done, actor=ANNA)
    assert (undo.state, undo.is_self_approved) == ("succeeded", True)


def test_a_lone_person_files_a_request_when_two_are_needed_again(
    backup: Backup, outside_transactions: None, settings: Settings, shop_file: Path
):
    settings.BACKUPS = {**settings.BACKUPS, "FOUR_EYES": False}
    restore = request_restore(backup, backup.database, reason="x", actor=ANNA)
    done = run_restore(approve_restore(restore, actor=ANNA), actor=ANNA)
    settings.BACKUPS = {**settings.BACKUPS, "FOUR_EYES": True}
    now = live(shop_file)
    assert undo_restore(done, actor=ANNA).state == "requested"
    assert live(shop_file) == now
