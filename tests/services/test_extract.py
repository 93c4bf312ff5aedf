"""The database of a backup as a new file: proven, or not there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.core.errors import (
    CancelledError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from backups_app.core.extract import extract_file, inspect_file
from backups_app.core.progress import Watch
from backups_app.models import AuditEvent, Backup, Copy, Database
from backups_app.services.extract import extract_backup
from backups_app.services.names import stored_names
from tests.conftest import ACTOR
from tests.support import connected, content_of, integrity_of, names_in

ArchiveOf = Callable[[Backup], Path]


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    return make_backup(shop)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where extractions go; it holds nothing else."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def test_the_new_file_holds_what_the_source_held(backup: Backup, shop_file: Path, folder: Path):
    before = content_of(shop_file)
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM sale")
    extraction = extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert extraction.target == folder / "new.sqlite3"
    assert all(check.ok for check in extraction.checks)
    assert content_of(folder / "new.sqlite3") == before
    assert integrity_of(folder / "new.sqlite3") == "ok"
    assert names_in(folder) == {"new.sqlite3"}


def test_the_new_file_is_private(backup: Backup, folder: Path):
    extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert (folder / "new.sqlite3").stat().st_mode & 0o777 == 0o600


def test_extracting_is_recorded(backup: Backup, folder: Path):
    extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    event = AuditEvent.objects.get(action="extract")
    assert (event.outcome, event.subject, event.actor_name) == ("done", backup.pk, "anna")
    assert str(folder / "new.sqlite3") in event.detail


def test_an_existing_file_is_refused_and_untouched(backup: Backup, folder: Path):
    target = folder / "precious.sqlite3"
    target.write_bytes(b"precious")
    before = target.stat()
    with pytest.raises(RefusedError):
        extract_backup(backup, target, actor=ACTOR)
    assert target.read_bytes() == b"precious"
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names_in(folder) == {"precious.sqlite3"}
    assert AuditEvent.objects.get(action="extract").outcome == "refused"


def test_the_live_database_itself_is_refused(backup: Backup, shop_file: Path):
    before = shop_file.read_bytes()
    with pytest.raises(RefusedError):
        extract_backup(backup, shop_file, actor=ACTOR)
    assert shop_file.read_bytes() == before


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_a_left_over_beside_the_target_is_refused(backup: Backup, folder: Path, suffix: str):
    (folder / f"new.sqlite3{suffix}").write_bytes(b"stale")
    with pytest.raises(RefusedError, match=suffix):
        extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert names_in(folder) == {f"new.sqlite3{suffix}"}


def test_a_dangling_link_is_refused_and_not_followed(backup: Backup, folder: Path):
    (folder / "new.sqlite3").symlink_to(folder / "elsewhere")
    with pytest.raises(RefusedError):
        extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert names_in(folder) == {"new.sqlite3"}


def test_a_missing_folder_is_not_found_and_not_created(backup: Backup, folder: Path):
    with pytest.raises(NotFoundError):
        extract_backup(backup, folder / "missing" / "new.sqlite3", actor=ACTOR)
    assert names_in(folder) == set()


def test_a_missing_archive_is_unreachable_and_writes_nothing(backup: Backup, folder: Path, archive_of: ArchiveOf):
    archive_of(backup).unlink()
    with pytest.raises(UnreachableError):
        extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert names_in(folder) == set()
    assert AuditEvent.objects.get(action="extract").outcome == "failed"


@pytest.mark.parametrize("place", [0.0, 0.2, 0.5, 0.8, 0.999])
def test_an_altered_archive_writes_nothing(backup: Backup, folder: Path, archive_of: ArchiveOf, place: float):
    content = bytearray(archive_of(backup).read_bytes())
    content[int(len(content) * place)] ^= 0x40
    archive_of(backup).write_bytes(content)
    with pytest.raises(VerificationError):
        extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert names_in(folder) == set()


def test_a_truncated_archive_writes_nothing(backup: Backup, folder: Path, archive_of: ArchiveOf):
    archive_of(backup).write_bytes(archive_of(backup).read_bytes()[:-1])
    with pytest.raises(VerificationError):
        extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert names_in(folder) == set()


def test_an_altered_manifest_writes_nothing(backup: Backup, folder: Path, archive_of: ArchiveOf):
    manifest = Path(str(archive_of(backup)).removesuffix(".sqlite3.zst") + ".manifest.json")
    manifest.write_bytes(manifest.read_bytes().replace(b'"sale":4', b'"sale":5'))
    with pytest.raises(VerificationError):
        extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert names_in(folder) == set()


def test_a_cancel_writes_nothing(backup: Backup, folder: Path):
    with pytest.raises(CancelledError):
        extract_backup(backup, folder / "new.sqlite3", actor=ACTOR, is_cancelled=lambda: True)
    assert names_in(folder) == set()


def test_a_backup_without_a_copy_is_not_found(backup: Backup, folder: Path):
    Copy.objects.all().delete()
    with pytest.raises(NotFoundError):
        extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert names_in(folder) == set()


def test_a_true_copy_that_failed_its_policy_can_still_be_extracted(
    shop: Database, make_backup: Callable[..., Backup], folder: Path, shop_file: Path
):
    shop.required_tables = ["refund"]
    backup = make_backup(shop)
    assert backup.state == "failed"
    extract_backup(backup, folder / "new.sqlite3", actor=ACTOR)
    assert content_of(folder / "new.sqlite3") == content_of(shop_file)
    assert Backup.objects.get().state == "failed"


def test_the_engine_alone_looks_at_the_signature_that_lies_beside(backup: Backup, archive_of: ArchiveOf, folder: Path):
    archive, target = archive_of(backup), folder / "new.sqlite3"
    *_others, signature = (archive.parent / Path(name).name for name in stored_names(archive.name))

    def said() -> list[bool]:
        inspection = inspect_file(archive, scratch=folder, watch=Watch())
        return [check.ok for check in inspection.checks if check.name == "signature"]

    assert said() == [True]
    signature.write_bytes(os.urandom(64))
    assert said() == [False]
    with pytest.raises(VerificationError, match="signature"):
        extract_file(archive, target, watch=Watch())
    assert names_in(folder) == set()
    signature.unlink()  # who has only two of the three files goes on without
    assert said() == []
    extract_file(archive, target, watch=Watch())
    assert names_in(folder) == {"new.sqlite3"}
