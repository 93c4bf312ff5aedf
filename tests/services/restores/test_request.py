"""Asking for a restore: what is filed, what is refused, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.core.errors import BackupError, InputError, NotFoundError, RefusedError, VerificationError
from backups_app.models import AuditEvent, Backup, Database, Restore
from backups_app.services.audit import Actor
from backups_app.services.databases import add_database
from backups_app.services.restores import request_restore
from backups_app.services.restores.guards import GuardError
from tests.services.restores.conftest import ANNA
from tests.support import build, names_in


def test_a_request_waits_with_who_why_and_until_when(backup: Backup):
    restore = request_restore(backup, backup.database, reason="  the sales are gone ", actor=ANNA)
    restore.refresh_from_db()
    assert (restore.state, restore.reason) == ("requested", "the sales are gone")
    assert (restore.requested_by_id, restore.requested_by_name) == ("1", "anna")
    assert restore.expires_at - restore.requested_at == timedelta(hours=24)
    assert restore.archive_sha256 == backup.archive_sha256
    assert (restore.approved_by_name, restore.approved_binding, restore.safety_backup) == ("", "", None)


def test_how_long_it_waits_is_a_setting(backup: Backup, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "APPROVAL_HOURS": 2}
    restore = request_restore(backup, backup.database, reason="x", actor=ANNA)
    assert restore.expires_at - restore.requested_at == timedelta(hours=2)


def test_the_live_database_is_not_touched(backup: Backup, shop_file: Path, home: Path):
    before = (shop_file.stat(), shop_file.read_bytes())
    request_restore(backup, backup.database, reason="x", actor=ANNA)
    assert shop_file.read_bytes() == before[1]
    assert shop_file.stat().st_mtime_ns == before[0].st_mtime_ns
    assert names_in(home / "scratch") == set()


def test_the_request_is_in_the_audit_trail(backup: Backup):
    restore = request_restore(backup, backup.database, reason="the sales are gone", actor=ANNA)
    event = AuditEvent.objects.get(action="request-restore")
    assert (event.actor_name, event.outcome, event.subject, event.database_name) == ("anna", "done", restore.pk, "shop")
    assert "the sales are gone" in event.detail


@pytest.mark.parametrize("reason", ["", "  \n"])
def test_a_reason_is_needed(backup: Backup, reason: str):
    with pytest.raises(InputError, match="reason"):
        request_restore(backup, backup.database, reason=reason, actor=ANNA)
    assert not Restore.objects.exists()


@pytest.mark.parametrize(
    ("overrides", "message"), [({"empty": " "}, "needs a reason"), ({"gravity": "no"}, "no guard 'gravity'")]
)
def test_an_override_needs_a_guard_and_a_reason(backup: Backup, overrides: dict[str, str], message: str):
    with pytest.raises(RefusedError, match=message):
        request_restore(backup, backup.database, reason="x", actor=ANNA, overrides=overrides)
    assert not Restore.objects.exists()
    assert AuditEvent.objects.get(action="request-restore").outcome == "refused"


def test_an_override_that_nothing_asked_for_is_not_kept(backup: Backup):
    restore = request_restore(backup, backup.database, reason="x", actor=ANNA, overrides={"empty": "in case"})
    assert restore.overrides == {}


def spoil_truncated(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:-40])


def spoil_flipped(archive: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 4
    archive.write_bytes(content)


def spoil_empty(archive: Path) -> None:
    archive.write_bytes(b"")


def spoil_missing(archive: Path) -> None:
    archive.unlink()


SPOILED = [spoil_truncated, spoil_flipped, spoil_empty, spoil_missing]


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_spoiled_archive_is_refused_and_nothing_is_touched(
    backup: Backup, shop_file: Path, home: Path, archive_of: Callable[[Backup], Path], spoil: Callable[[Path], None]
):
    spoil(archive_of(backup))
    before = (shop_file.read_bytes(), shop_file.stat().st_mtime_ns)
    with pytest.raises(VerificationError) as raised:
        request_restore(backup, backup.database, reason="x", actor=ANNA)
    assert raised.value.exit_code == 3
    assert (shop_file.read_bytes(), shop_file.stat().st_mtime_ns) == before
    assert not Restore.objects.exists()
    assert names_in(home / "scratch") == set()
    assert AuditEvent.objects.get(action="request-restore").outcome == "failed"


def test_the_archive_of_another_database_in_its_place_is_refused(
    backup: Backup,
    home: Path,
    tmp_path: Path,
    archive_of: Callable[[Backup], Path],
    make_backup: Callable[..., Backup],
):
    """Also when its manifest comes along."""
    build(tmp_path / "evil.db", "CREATE TABLE product (id, name); INSERT INTO product VALUES (1, 'evil')")
    other = make_backup(add_database("evil", tmp_path / "evil.db", actor=ANNA))
    ours, theirs = archive_of(backup), archive_of(other)
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(VerificationError):
        request_restore(backup, backup.database, reason="x", actor=ANNA)
    suffix = ".sqlite3.zst"
    manifest = Path(str(theirs).replace(suffix, ".manifest.json")).read_bytes()
    Path(str(ours).replace(suffix, ".manifest.json")).write_bytes(manifest)
    with pytest.raises(VerificationError, match="manifest"):
        request_restore(backup, backup.database, reason="x", actor=ANNA)
    # … and when the catalogue was changed to match that manifest, but not the archive's digest:
    Backup.objects.filter(pk=backup.pk).update(manifest_sha256=other.manifest_sha256)
    backup.refresh_from_db()
    with pytest.raises(VerificationError, match="another archive"):
        request_restore(backup, backup.database, reason="x", actor=ANNA)
    assert not Restore.objects.exists()


def test_a_backup_without_a_copy_is_not_found(backup: Backup):
    backup.copies.all().delete()
    with pytest.raises(NotFoundError, match="no stored copy"):
        request_restore(backup, backup.database, reason="x", actor=ANNA)


def test_another_encoding_is_refused_before_anybody_is_asked(
    home: Path, tmp_path: Path, make_backup: Callable[..., Backup], shop: Database
):
    build(tmp_path / "wide.db", "PRAGMA encoding='UTF-16le'; CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    wide = make_backup(add_database("wide", tmp_path / "wide.db", actor=ANNA))
    with pytest.raises(RefusedError, match="UTF-16le") as raised:
        request_restore(wide, shop, reason="x", actor=ANNA, overrides={"wrong_database": "on purpose"})
    assert "--to" in raised.value.hint
    assert not isinstance(raised.value, GuardError)
    assert not Restore.objects.exists()


def test_a_backup_without_a_page_is_refused_whatever_is_overridden(
    shop: Database, shop_file: Path, home: Path, tmp_path: Path, make_backup: Callable[..., Backup]
):
    (tmp_path / "void.db").touch()
    void = make_backup(add_database("void", tmp_path / "void.db", actor=ANNA))
    before = shop_file.read_bytes()
    everything = dict.fromkeys(("wrong_database", "empty", "unverified", "lock_out"), "all of it")
    with pytest.raises(BackupError) as raised:
        request_restore(void, shop, reason="x", actor=ANNA, overrides=everything)
    assert raised.value.exit_code == 7
    assert shop_file.read_bytes() == before
    assert not Restore.objects.exists()


def test_a_cancel_files_nothing(backup: Backup, home: Path):
    with pytest.raises(BackupError) as raised:
        request_restore(backup, backup.database, reason="x", actor=ANNA, is_cancelled=lambda: True)
    assert raised.value.exit_code == 130
    assert not Restore.objects.exists()
    assert names_in(home / "scratch") == set()


def test_the_system_account_may_ask(backup: Backup):
    restore = request_restore(backup, backup.database, reason="x", actor=Actor.system())
    assert (restore.requested_by_id, restore.requested_by_name) == ("", "system")
