"""Hand a backup out: its archive as it is stored, its manifest and signature, or the database inside.

The database is proven in scratch before its first byte goes out. The stored archive is read once,
with constant memory, and arrives whole only when it has the digest that the catalogue knows.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import BinaryIO

from .. import conf
from ..core.archive import read_at_most, stem_of
from ..core.beside import open_archive_file
from ..core.download import ProvenStream
from ..core.errors import (
    BackupError,
    BusyError,
    InputError,
    NotFoundError,
    RefusedError,
    VerificationError,
    translated,
)
from ..core.files import file_lock, scratch_folder
from ..core.progress import Watch
from ..core.signature import SIGNATURE_BYTES
from ..destinations import reach
from ..encryption import Keyring
from ..models import AuditEvent, Backup, Copy
from . import audit
from .audit import Actor
from .copies import from_first_good_copy, refuse_pruned
from .links import object_name
from .names import manifest_name, signature_name
from .restores.staging import stage_backup
from .signing import check_signature, read_stored_manifest, signature_problem

ARCHIVE, MANIFEST, SIGNATURE, DATABASE = "archive", "manifest", "signature", "database"
PARTS = (ARCHIVE, MANIFEST, SIGNATURE, DATABASE)

_PREPARING_SECONDS = 600.0
"""Somebody waits at a browser. What takes longer is a matter for the command line."""

_SLOTS = 2
"""So many databases lie in scratch for downloads at once, on one host."""


class Download:
    """Something that is handed out. Closing it removes what lies in scratch for it."""

    def __init__(self, read: Callable[[], bytes], *, name: str, size_bytes: int) -> None:
        self._read = read
        self.name = name
        """A plain file name."""
        self.size_bytes = size_bytes
        self._stack = ExitStack()

    def read(self, _size: int = -1) -> bytes:
        """The next piece, of whatever size; empty at the end.

        Raises:
            BackupError: see :meth:`.ProvenStream.read`.
        """
        return self._read()

    def close(self) -> None:
        """End it, wherever it is; may be called again."""
        self._stack.close()

    def keep_open(self, stack: ExitStack) -> None:
        """Close ``stack`` with it."""
        self._stack = stack


@dataclass(frozen=True, kw_only=True)
class _Found:
    download: Download
    source: str


def refuse_database(backup: Backup) -> None:
    """Refuse what need not be tried: a pruned backup, one too large, one that no key of this host opens.

    Raises:
        RefusedError, NotFoundError. KeyMissingError: no configured identity opens it.
    """
    refuse_pruned(backup)
    most = conf.get("DOWNLOAD_MAX_BYTES")
    if most is not None and (backup.size_bytes or 0) > most:
        raise RefusedError(
            f"The database has {backup.size_bytes or 0:,} bytes; at most {most:,} are unpacked for a download.",
            f"Download the archive, or run `manage.py backup restore {backup.pk} --to FILE` on the server.",
        )
    if backup.is_encrypted:
        Keyring.configured().require_any(backup.key_ids)


def open_download(backup: Backup, *, what: str, actor: Actor) -> Download:
    """Open one of :data:`PARTS` of ``backup`` for sending; the caller closes it. The attempt is recorded.

    Copies are tried in turn, verified ones first. For the database, the file lies in scratch until
    it is closed.

    Raises:
        InputError: ``what`` is none of them. NotFoundError: there is no stored copy, or no signature.
        RefusedError: it was pruned; or the database is too large, or its manifest does not count
            as signed. VerificationError: no copy can be trusted or reached. KeyMissingError: no
            configured identity opens it. BusyError: others are served. BackupError: any other kind.
            Nothing is left in scratch, and no byte went out.
    """
    fail = partial(_record_failure, backup, what, actor=actor)
    try:
        if what not in _OPENERS:
            raise InputError(f"{what!r} cannot be downloaded.", f"Choose one of: {', '.join(PARTS)}.")
        with ExitStack() as stack:
            found = _OPENERS[what](backup, stack, fail)
            audit.record(
                "download",
                actor=actor,
                database_name=backup.database.name,
                subject=backup.pk,
                detail=f"{what}: {found.download.name}, {found.download.size_bytes:,} bytes, from {found.source}",
            )
            found.download.keep_open(stack.pop_all())
            return found.download
    except BackupError as exc:
        fail(exc)
        raise


def read_manifest_text(backup: Backup) -> str:
    """The stored manifest of ``backup``, when it is the one that the catalogue knows.

    Raises:
        NotFoundError, RefusedError, VerificationError.
    """
    return from_first_good_copy(backup, partial(_manifest, backup)).decode()


Fail = Callable[[BackupError], None]


def _archive(backup: Backup, stack: ExitStack, fail: Fail) -> _Found:
    def use(copy: Copy) -> tuple[Copy, BinaryIO]:
        destination, name = reach(copy.destination), object_name(backup, copy)
        found = destination.size(name)
        if found != backup.archive_bytes:
            raise VerificationError(
                f"The archive at {copy.destination} has {found:,} bytes in place of {backup.archive_bytes or 0:,}.",
                "Verify this backup, and use another copy.",
            )
        return copy, stack.enter_context(destination.open(name))

    copy, stream = from_first_good_copy(backup, use)
    size_bytes = backup.archive_bytes or 0
    proven = ProvenStream(stream, size_bytes=size_bytes, sha256=backup.archive_sha256, on_failure=fail)
    download = Download(proven.read, name=_plain(object_name(backup, copy)), size_bytes=size_bytes)
    return _Found(download=download, source=copy.destination)


def _manifest_of(backup: Backup, _stack: ExitStack, _fail: Fail) -> _Found:
    return _small(backup, manifest_name, _manifest)


def _signature_of(backup: Backup, _stack: ExitStack, _fail: Fail) -> _Found:
    if backup.sequence is None:
        refuse_pruned(backup)
        raise NotFoundError("This backup is not signed.", "It was made before manifests were signed.")
    return _small(backup, signature_name, _signature)


def _small(backup: Backup, name_of: Callable[[str], str], read: Callable[[Backup, Copy], bytes]) -> _Found:
    copy, content = from_first_good_copy(backup, lambda copy: (copy, read(backup, copy)))
    pieces = iter((content,))
    download = Download(lambda: next(pieces, b""), name=_plain(name_of(copy.name)), size_bytes=len(content))
    return _Found(download=download, source=copy.destination)


def _manifest(backup: Backup, copy: Copy) -> bytes:
    return read_stored_manifest(copy, expected_sha256=backup.manifest_sha256).content


def _signature(backup: Backup, copy: Copy) -> bytes:
    stored = read_stored_manifest(copy, expected_sha256=backup.manifest_sha256)
    check = check_signature(backup, copy, stored)
    if not check.ok:
        raise VerificationError(
            f"The signature at {copy.destination} cannot be trusted ({check.evidence}).", "Use another copy."
        )
    with reach(copy.destination).open(signature_name(copy.name)) as stream:
        return read_at_most(stream, SIGNATURE_BYTES + 1)


def _database(backup: Backup, stack: ExitStack, fail: Fail) -> _Found:
    refuse_database(backup)
    _take_slot(stack)
    problem = signature_problem(backup)
    if problem:
        raise RefusedError(
            f"Its manifest does not count as signed: {problem}.",
            f"Verify it. `manage.py backup restore {backup.pk} --to FILE` can be told to take it all the same.",
        )
    with translated("preparing the scratch folder"):
        scratch = stack.enter_context(scratch_folder(conf.scratch_folder(), f"download-{uuid.uuid4().hex}"))
    staged, _census = stage_backup(backup, scratch, watch=Watch(deadline_seconds=_PREPARING_SECONDS))
    stream = stack.enter_context(open_archive_file(staged))
    size_bytes = backup.size_bytes or 0
    proven = ProvenStream(stream, size_bytes=size_bytes, sha256=backup.sha256, on_failure=fail)
    name = f"{stem_of(_plain(backup.archive_name))}.sqlite3"
    return _Found(download=Download(proven.read, name=name, size_bytes=size_bytes), source="a proven copy")


def _take_slot(stack: ExitStack) -> None:
    for number in range(_SLOTS):
        with translated("taking a lock"), ExitStack() as own:
            lock = conf.state_folder() / f"download-{number}.lock"
            if own.enter_context(file_lock(lock, blocking=False)):
                stack.push(own.pop_all())
                return
    raise BusyError(
        f"{_SLOTS} databases are being downloaded from this host.", "Try again when one of them has arrived."
    )


def _plain(name: str) -> str:
    return PurePosixPath(name).name


def _record_failure(backup: Backup, what: str, exc: BackupError, *, actor: Actor) -> None:
    is_refused = isinstance(exc, RefusedError | InputError)
    audit.record(
        "download",
        actor=actor,
        outcome=AuditEvent.Outcome.REFUSED if is_refused else AuditEvent.Outcome.FAILED,
        database_name=backup.database.name,
        subject=backup.pk,
        detail=f"{what}: {exc.message}",
    )


_OPENERS: dict[str, Callable[[Backup, ExitStack, Fail], _Found]] = {
    ARCHIVE: _archive,
    MANIFEST: _manifest_of,
    SIGNATURE: _signature_of,
    DATABASE: _database,
}
