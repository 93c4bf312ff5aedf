"""Handing a backup out: the right bytes, recorded once, and nothing left behind."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.core.errors import (
    BackupError,
    BusyError,
    InputError,
    KeyMissingError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from backups_app.models import AuditEvent, Backup, Database
from backups_app.services.delete import delete_backup
from backups_app.services.download import Download, open_download, read_manifest_text
from tests.conftest import ACTOR
from tests.keys import Key
from tests.support import names_in


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    return make_backup(shop)


def taken(download: Download) -> bytes:
    with closing(download):
        pieces = []
        while piece := download.read():
            pieces.append(piece)
        return b"".join(pieces)


def events() -> list[tuple[str, str]]:
    return list(AuditEvent.objects.filter(action="download").order_by("pk").values_list("outcome", "subject"))


def scratch_of(home: Path) -> list[str]:
    return [name for name in names_in(home / "scratch") if name.startswith("download-")]


def refuses(backup: Backup, error: type[BackupError], text: str, *, home: Path, what: str = "archive") -> None:
    """It is refused with this text, recorded once, and leaves nothing."""
    before = len(events())
    with pytest.raises(error, match=text):
        open_download(backup, what=what, actor=ACTOR)
    assert [outcome for outcome, _subject in events()[before:]] in (["refused"], ["failed"])
    assert scratch_of(home) == []


@pytest.mark.parametrize(
    ("what", "suffix"), [("archive", ".sqlite3.zst"), ("manifest", ".manifest.json"), ("signature", ".manifest.sig")]
)
def test_what_is_stored_goes_out_byte_for_byte_and_is_recorded_once(
    backup: Backup, archive_of: Callable[[Backup], Path], home: Path, what: str, suffix: str
):
    download = open_download(backup, what=what, actor=ACTOR)
    stem = archive_of(backup).name.removesuffix(".sqlite3.zst")
    assert download.name == stem + suffix
    content = taken(download)
    assert content == (archive_of(backup).parent / download.name).read_bytes()
    assert len(content) == download.size_bytes
    (event,) = AuditEvent.objects.filter(action="download")
    assert (event.outcome, event.actor_name, event.subject) == ("done", "anna", backup.pk)
    assert event.detail == f"{what}: {download.name}, {len(content):,} bytes, from local"


def test_the_database_is_proven_in_scratch_and_gone_when_it_has_arrived(backup: Backup, home: Path, tmp_path: Path):
    download = open_download(backup, what="database", actor=ACTOR)
    assert len(scratch_of(home)) == 2, "its folder and the lock beside it"
    content = taken(download)
    assert hashlib.sha256(content).hexdigest() == backup.sha256
    assert download.name.endswith(f"{backup.pk}.sqlite3")
    assert scratch_of(home) == []
    (tmp_path / "got.sqlite3").write_bytes(content)
    with closing(sqlite3.connect(f"file:{tmp_path / 'got.sqlite3'}?mode=ro&immutable=1", uri=True)) as found:
        assert found.execute("SELECT count(*) FROM product").fetchone() == (3,)


def test_a_client_that_goes_away_leaves_nothing(backup: Backup, home: Path):
    download = open_download(backup, what="database", actor=ACTOR)
    download.read()
    download.close()
    download.close()
    assert scratch_of(home) == []


def test_so_many_databases_at_once_and_no_more(backup: Backup, home: Path):
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(closing(open_download(backup, what="database", actor=ACTOR)))
        with pytest.raises(BusyError, match="2 databases are being downloaded"):
            open_download(backup, what="database", actor=ACTOR)
    taken(open_download(backup, what="database", actor=ACTOR))
    assert scratch_of(home) == []


def test_altered_bytes_never_arrive_whole_and_that_is_recorded(backup: Backup, archive_of: Callable[[Backup], Path]):
    path = archive_of(backup)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    download = open_download(backup, what="archive", actor=ACTOR)
    with pytest.raises(VerificationError, match="not those that were proven"):
        taken(download)
    assert [outcome for outcome, _subject in events()] == ["done", "failed"]


def test_altered_bytes_are_refused_before_a_byte_of_the_database_goes_out(
    backup: Backup, archive_of: Callable[[Backup], Path], home: Path
):
    path = archive_of(backup)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    refuses(backup, VerificationError, "cannot be trusted", home=home, what="database")


def test_another_size_is_refused_before_the_first_byte(
    backup: Backup, archive_of: Callable[[Backup], Path], home: Path
):
    with open(archive_of(backup), "ab") as file:
        file.write(b"x")
    refuses(backup, VerificationError, "in place of", home=home)


def test_what_is_not_there_is_unreachable(backup: Backup, archive_of: Callable[[Backup], Path], home: Path):
    archive_of(backup).unlink()
    refuses(backup, UnreachableError, "is not at the destination local", home=home)


def test_what_was_pruned_is_refused_with_the_reason(
    shop: Database, backup: Backup, make_backup: Callable[..., Backup], home: Path
):
    make_backup(shop)
    delete_backup(backup, reason="an end", actor=ACTOR)
    for what in ("archive", "manifest", "signature", "database"):
        refuses(backup, RefusedError, "was pruned", home=home, what=what)
    with pytest.raises(RefusedError):
        read_manifest_text(backup)


def test_anything_else_cannot_be_had(backup: Backup, home: Path):
    refuses(backup, InputError, "cannot be downloaded", home=home, what="../state/signing.key")


def test_an_altered_manifest_or_signature_is_refused(backup: Backup, archive_of: Callable[[Backup], Path], home: Path):
    folder = archive_of(backup).parent
    (signature,) = folder.glob("*.manifest.sig")
    signature.write_bytes(bytes(64))
    refuses(backup, VerificationError, "cannot be trusted", home=home, what="signature")
    refuses(backup, RefusedError, "does not count as signed", home=home, what="database")
    (manifest,) = folder.glob("*.manifest.json")
    manifest.write_bytes(manifest.read_bytes() + b" ")
    refuses(backup, VerificationError, "not the one that was written", home=home, what="manifest")


def test_without_a_signature_there_is_none_to_have(backup: Backup, home: Path):
    Backup.objects.filter(pk=backup.pk).update(sequence=None, signing_key_id="")
    refuses(Backup.objects.get(pk=backup.pk), NotFoundError, "not signed", home=home, what="signature")


def test_a_database_that_is_too_large_is_for_the_command_line(backup: Backup, home: Path, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "DOWNLOAD_MAX_BYTES": 4096}
    refuses(backup, RefusedError, "at most 4,096 are unpacked", home=home, what="database")
    assert taken(open_download(backup, what="archive", actor=ACTOR))


def test_an_encrypted_database_needs_an_identity_of_this_host(
    shop: Database,
    make_backup: Callable[..., Backup],
    encrypting: Callable[..., None],
    key: Key,
    other: Key,
    home: Path,
    archive_of: Callable[[Backup], Path],
):
    encrypting(key)
    backup = make_backup(shop)
    refuses(backup, KeyMissingError, "no identity is at hand", home=home, what="database")
    encrypting(key, identity=other.path)
    refuses(backup, KeyMissingError, "No identity at hand opens this archive", home=home, what="database")
    archive = taken(open_download(backup, what="archive", actor=ACTOR))
    assert archive == archive_of(backup).read_bytes()
    encrypting(key, identity=key.path)
    content = taken(open_download(backup, what="database", actor=ACTOR))
    assert hashlib.sha256(content).hexdigest() == backup.sha256


def test_the_manifest_can_be_read(backup: Backup):
    assert backup.archive_sha256 in read_manifest_text(backup)
