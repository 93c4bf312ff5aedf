"""Verifying again: the verdict follows the bytes, and the states follow the verdict."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.core.errors import CancelledError, DeadlineError, NotFoundError
from backups_app.models import AuditEvent, Backup, Copy, Database, Verification
from backups_app.services.create import create_backup
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.support import connected, names_in

ArchiveOf = Callable[[Backup], Path]


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    return make_backup(shop)


def verify(backup: Backup, level: str = "full") -> Verification:
    (found,) = verify_backup(backup, level=level, actor=ACTOR)
    backup.refresh_from_db()
    return found


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x01
    path.write_bytes(content)


def manifest_of(archive: Path) -> Path:
    return archive.with_name(archive.name.removesuffix(".sqlite3.zst") + ".manifest.json")


@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_good_copy_passes(backup: Backup, level: str):
    verification = verify(backup, level)
    assert (verification.verdict, verification.reason, verification.hint) == ("passed", "", "")
    assert (backup.state, backup.verdict) == ("verified", "passed")
    assert backup.verified_at == verification.finished_at
    assert verification.requested_by_name == "anna"


def test_full_looks_deeper_than_quick(backup: Backup):
    quick = {check["name"] for check in verify(backup, "quick").checks}
    full = {check["name"] for check in verify(backup, "full").checks}
    assert quick == {"manifest", "signature", "chain", "stored bytes"}
    assert full == quick | {"content digest", "integrity_check", "foreign_key_check", "census"}


def test_verifying_is_recorded(backup: Backup):
    verify(backup, "quick")
    event = AuditEvent.objects.get(action="verify")
    assert (event.outcome, event.subject, event.database_name) == ("done", backup.pk, "shop")
    assert event.detail == "quick at local: passed"


def test_verifying_leaves_nothing_in_scratch(backup: Backup, home: Path, archive_of: ArchiveOf):
    verify(backup)
    flip(archive_of(backup), 50)
    verify(backup)
    assert names_in(home / "scratch") == set()


@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize("place", [0.0, 0.1, 0.35, 0.6, 0.85, 0.999])
def test_a_flipped_bit_anywhere_fails(backup: Backup, archive_of: ArchiveOf, level: str, place: float):
    archive = archive_of(backup)
    flip(archive, int(archive.stat().st_size * place))
    verification = verify(backup, level)
    assert verification.verdict == "failed"
    assert verification.reason
    assert verification.hint
    assert (backup.state, backup.verdict, backup.failure_code) == ("failed", "failed", "verification_failed")
    assert backup.reason == verification.reason
    assert backup.copies.get().state == "failed"
    assert AuditEvent.objects.filter(action="verify", outcome="failed").exists()


@pytest.mark.parametrize("level", ["quick", "full"])
@pytest.mark.parametrize("keep", [0, 1, 0.5, -1])
def test_a_truncated_archive_fails(backup: Backup, archive_of: ArchiveOf, level: str, keep: float):
    content = archive_of(backup).read_bytes()
    archive_of(backup).write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    assert verify(backup, level).verdict == "failed"
    assert backup.state == "failed"


@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_longer_archive_fails(backup: Backup, archive_of: ArchiveOf, level: str):
    with open(archive_of(backup), "ab") as file:
        file.write(b"\x00")
    assert verify(backup, level).verdict == "failed"


@pytest.mark.parametrize("level", ["quick", "full"])
def test_the_archive_of_another_backup_fails(
    shop: Database, make_backup: Callable[..., Backup], archive_of: ArchiveOf, level: str
):
    first = make_backup(shop)
    with connected(Path(shop.path)) as connection:
        connection.execute("DELETE FROM sale")
    shutil.copyfile(archive_of(make_backup(shop)), archive_of(first))
    assert verify(first, level).verdict == "failed"


@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_missing_archive_is_unreachable_and_not_failed(backup: Backup, archive_of: ArchiveOf, level: str):
    archive_of(backup).unlink()
    verification = verify(backup, level)
    assert verification.verdict == "unreachable"
    assert "not judged" in verification.hint
    assert backup.copies.get().state == "unreachable"
    assert backup.verdict == "unreachable"
    assert backup.state == "verified", "nothing is known against its content"


def test_a_missing_archives_folder_is_unreachable(backup: Backup, home: Path):
    (home / "archives").rename(home / "unmounted")
    assert verify(backup).verdict == "unreachable"
    assert not (home / "archives").exists()


def test_a_folder_in_place_of_the_archive_is_unreachable(backup: Backup, archive_of: ArchiveOf):
    archive_of(backup).unlink()
    archive_of(backup).mkdir()
    assert verify(backup).verdict == "unreachable"


def test_a_missing_manifest_is_unreachable(backup: Backup, archive_of: ArchiveOf):
    manifest_of(archive_of(backup)).unlink()
    assert verify(backup).verdict == "unreachable"


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b"not JSON", b'{"type":"django-walsafe/backup"}'])
def test_an_altered_manifest_fails(backup: Backup, archive_of: ArchiveOf, content: bytes):
    manifest_of(archive_of(backup)).write_bytes(content)
    verification = verify(backup)
    assert verification.verdict == "failed"
    assert "manifest" in verification.reason
    assert backup.state == "failed"


def test_a_manifest_and_archive_replaced_together_fail(
    shop: Database, make_backup: Callable[..., Backup], archive_of: ArchiveOf
):
    first, second = make_backup(shop), make_backup(shop)
    shutil.copyfile(archive_of(second), archive_of(first))
    shutil.copyfile(manifest_of(archive_of(second)), manifest_of(archive_of(first)))
    assert verify(first).verdict == "failed"


@pytest.mark.parametrize("level_of_failure", ["quick", "full"])
def test_when_the_original_bytes_are_back_quick_proves_the_backup_again(
    backup: Backup, archive_of: ArchiveOf, level_of_failure: str
):
    original = archive_of(backup).read_bytes()
    flip(archive_of(backup), 100)
    verify(backup, level_of_failure)
    assert backup.state == "failed"
    archive_of(backup).write_bytes(original)
    verification = verify(backup, "quick")
    assert verification.verdict == "passed"
    assert (backup.state, backup.verdict, backup.failure_code, backup.reason, backup.hint) == (
        "verified",
        "passed",
        "",
        "",
        "",
    )
    copy = backup.copies.get()
    assert (copy.state, copy.reason) == ("verified", "")


def test_when_the_archive_is_back_from_another_disk_quick_proves_it_again(backup: Backup, archive_of: ArchiveOf):
    archive = archive_of(backup)
    archive.rename(archive.with_name("aside"))
    verify(backup)
    archive.with_name("aside").rename(archive)
    verify(backup, "quick")
    assert backup.copies.get().state == "verified"
    assert backup.verdict == "passed"


@pytest.fixture
def empty_sales(shop: Database, shop_file: Path, make_backup: Callable[..., Backup]) -> Backup:
    """A backup that failed because a required table is empty."""
    Database.objects.filter(pk=shop.pk).update(required_tables=["sale"])
    shop.refresh_from_db()
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM sale")
    return make_backup(shop)


def test_quick_never_proves_what_was_never_proven(empty_sales: Backup):
    assert verify(empty_sales, "quick").verdict == "passed"
    assert empty_sales.state == "failed"
    assert "sale" in empty_sales.reason
    assert empty_sales.copies.get().state == "failed"


def test_full_fails_as_long_as_the_policy_stands(empty_sales: Backup):
    verification = verify(empty_sales)
    assert verification.verdict == "failed"
    assert "sale" in verification.reason
    assert empty_sales.state == "failed"


def test_full_passes_after_the_policy_changed(empty_sales: Backup):
    Database.objects.update(required_tables=[])
    empty_sales = Backup.objects.get(pk=empty_sales.pk)
    assert verify(empty_sales).verdict == "passed"
    assert (empty_sales.state, empty_sales.verdict, empty_sales.reason) == ("verified", "passed", "")
    assert empty_sales.verified_at is not None


@pytest.mark.parametrize("level", ["full", "drill"])
def test_an_old_backup_fails_a_stricter_policy_and_its_copy_stays_good(backup: Backup, level: str):
    Database.objects.update(required_tables=["refund", "sale"])
    backup = Backup.objects.get(pk=backup.pk)
    verification = verify(backup, level)
    assert (verification.verdict, backup.state, backup.copies.get().state) == ("failed", "verified", "verified")
    assert "refund" in verification.reason
    (finding,) = [each for each in verification.checks if not each["ok"]]
    assert finding["name"] == "newer required tables"
    assert "refund" in finding["evidence"]
    assert "sale" not in finding["evidence"]


@pytest.mark.parametrize("level", ["full", "drill"])
def test_nothing_is_required_of_a_safety_backup(shop: Database, level: str):
    Database.objects.update(required_tables=["refund"])
    shop.refresh_from_db()
    safety = create_backup(shop, actor=ACTOR, trigger=Backup.Trigger.SAFETY)
    verification = verify(safety, level)
    assert (verification.verdict, safety.state) == ("passed", "verified")
    assert not [each for each in verification.checks if not each["ok"] or "required" in each["name"]]


def test_a_policy_failure_is_not_undone_by_quick(empty_sales: Backup):
    empty_sales = Backup.objects.get(pk=empty_sales.pk)
    verify(empty_sales, "full")
    Database.objects.update(required_tables=[])
    verify(empty_sales, "quick")
    assert empty_sales.state == "failed"


def test_a_backup_without_a_copy_is_not_found(shop: Database, shop_file: Path, make_backup: Callable[..., Backup]):
    shop_file.unlink()
    failed = make_backup(shop)
    with pytest.raises(NotFoundError):
        verify_backup(failed, level="full", actor=ACTOR)
    assert not Verification.objects.exists()


def test_a_pending_copy_is_not_judged(backup: Backup):
    Copy.objects.update(state=Copy.State.PENDING)
    with pytest.raises(NotFoundError):
        verify_backup(backup, level="full", actor=ACTOR)


def test_a_cancelled_verification_records_nothing(backup: Backup, home: Path):
    with pytest.raises(CancelledError):
        verify_backup(backup, level="full", actor=ACTOR, is_cancelled=lambda: True)
    backup.refresh_from_db()
    assert Verification.objects.count() == 1
    assert backup.state == "verified"
    assert names_in(home / "scratch") == set()


def test_a_verification_over_its_limit_records_nothing(backup: Backup, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "DEADLINE_SECONDS": 0.000001}
    with pytest.raises(DeadlineError):
        verify_backup(backup, level="full", actor=ACTOR)
    assert Verification.objects.count() == 1
    assert Backup.objects.get().state == "verified"


def test_an_unknown_destination_in_the_catalogue_is_named(backup: Backup):
    Copy.objects.update(destination="attic")
    (found,) = verify_backup(Backup.objects.get(), level="quick", actor=ACTOR)
    assert found.verdict == "unreachable", "what nobody can look at is not called bad"
    assert "attic" in found.reason


def test_the_live_database_is_not_needed(backup: Backup, shop_file: Path):
    shop_file.unlink()
    assert verify(backup).verdict == "passed"


def test_verifying_changes_no_stored_byte(backup: Backup, archive_of: ArchiveOf):
    before = archive_of(backup).read_bytes(), archive_of(backup).stat().st_mtime_ns
    verify(backup)
    assert (archive_of(backup).read_bytes(), archive_of(backup).stat().st_mtime_ns) == before
