"""The chain of manifests of each database: who is next, and where the head stands.

The head lies in ``state/chain/<identity>.json``, apart from the archives and outside every database,
so that neither a rolled-back store nor a rolled-back catalogue can move it. The row of a backup is
written before its head: after a crash in between the head lags by one, and the row tells.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .. import conf
from ..core import manifest as manifests
from ..core.chain import Head, read_head, write_head
from ..core.errors import BackupError, translated
from ..core.files import file_lock
from ..core.manifest import Manifest
from ..core.ranges import Range, merged, single
from ..core.verify import Check
from ..models import Backup, Database
from .audit import Actor
from .signing import signing_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A manifest with its place in the chain, and its signature; both ready to be stored."""

    manifest: Manifest
    content: bytes
    signature: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest."""
        return manifests.digest(self.content)

    @property
    def key_id(self) -> str:
        """The key that signed it."""
        return self.manifest.key.key_id


def seal_manifest(manifest: Manifest, *, database: Database, actor: Actor) -> Sealed:
    """Make ``manifest`` the next one of the chain of ``database``, and sign it.

    The caller holds the lock of jobs on that database until :func:`advance_head`, so that no two
    manifests get one number. Nothing is written here but, on first use, the signing key.

    Raises:
        BackupError: there is no usable signing key, or the head cannot be read.
    """
    key = signing_key(actor=actor)
    head = head_of(database)
    sealed = replace(
        manifest,
        sequence=head.sequence + 1 if head else 1,
        previous=head.manifest_sha256 if head else None,
        pruned=head.pruned if head else (),
        public_key=key.public.text,
    )
    content = sealed.to_bytes()
    return Sealed(manifest=sealed, content=content, signature=key.sign(content))


def advance_head(sealed: Sealed, *, database: Database) -> None:
    """Let the chain end with ``sealed``, whose row is recorded. What was pruned meanwhile stays noted.

    A head that cannot be written is logged: the row tells where the chain ends, and the next
    backup writes it.
    """
    manifest = sealed.manifest
    try:
        with _locked(database) as path:
            head = Head(
                sequence=manifest.sequence or 0,
                manifest_sha256=sealed.digest,
                backup=manifest.id,
                pruned=merged(manifest.pruned, _noted(path)),
            )
            write_head(path, head)
    except BackupError as exc:
        logger.error("The head of the chain of %s could not be written: %s", database.name, exc)  # noqa: TRY400


def adopt_head(head: Head, *, database: Database) -> None:
    """Let the chain end with a manifest that a rescan has found and trusts; never moves it back.

    What the manifests say of deletions on purpose is noted either way.
    """
    with _locked(database) as path:
        known = head_of(database)
        newest = head if known is None or known.sequence < head.sequence else known
        write_head(path, replace(newest, pruned=merged(head.pruned, known.pruned if known else ())))


def kept_head(identity: str) -> Head | None:
    """The head file of a database by its identity, which may be all that is left of a catalogue; None without one.

    Raises:
        BackupError: the file is damaged or cannot be read.
    """
    return read_head(_path(identity))


def head_of(database: Database) -> Head | None:
    """Where the chain of ``database`` ends: by its head file or by the catalogue, whichever is further.

    Raises:
        BackupError: the file is damaged or cannot be read.
    """
    kept = kept_head(database.identity)
    newest = Backup.objects.filter(database=database, sequence__isnull=False).exclude(manifest_sha256="")
    row = newest.order_by("-sequence").values_list("sequence", "manifest_sha256", "pk").first()
    if row is None or row[0] is None or (kept is not None and kept.sequence >= row[0]):
        return kept
    return Head(sequence=row[0], manifest_sha256=row[1], backup=row[2], pruned=kept.pruned if kept else ())


def note_pruned(database: Database, numbers: Iterable[int]) -> None:
    """Note numbers of the chain that are about to be deleted on purpose: the next manifest will name them.

    Call it before their objects are removed, so that no crash makes a deletion look like an attack.

    Raises:
        BackupError: the note could not be written; nothing may be removed then.
    """
    with _locked(database) as path:
        head = head_of(database)
        if head is not None:
            write_head(path, replace(head, pruned=merged(head.pruned, single(numbers))))


def check_chain(backup: Backup, manifest: Manifest) -> Check:
    """Whether a stored manifest is at its place in the chain, by catalogue and head.

    Raises:
        BackupError: the head cannot be read.
    """
    name, number = "chain", manifest.sequence
    if number is None or number != backup.sequence:
        return Check(name=name, ok=False, evidence=f"number {number}, the catalogue knows {backup.sequence}")
    if number == 1:
        is_first = manifest.previous is None
        return Check(name=name, ok=is_first, evidence="the first one" if is_first else "number 1, yet it has a past")
    head = head_of(backup.database)
    if head is not None and head.sequence == number and head.manifest_sha256 != backup.manifest_sha256:
        return Check(name=name, ok=False, evidence=f"the head of the chain knows another number {number}")
    before = Backup.objects.filter(database=backup.database_id, sequence=number - 1).exclude(manifest_sha256="")
    digests = list(before.values_list("manifest_sha256", flat=True))
    if digests and manifest.previous not in digests:
        return Check(name=name, ok=False, evidence=f"number {number} does not follow the known number {number - 1}")
    more = "" if digests else ", which is no longer in the catalogue"
    return Check(name=name, ok=True, evidence=f"number {number}, after {manifest.previous}{more}")


def _noted(path: Path) -> tuple[Range, ...]:
    head = read_head(path)
    return head.pruned if head else ()


def _path(identity: str) -> Path:
    return conf.state_folder() / "chain" / f"{identity}.json"


@contextmanager
def _locked(database: Database) -> Iterator[Path]:
    path = _path(database.identity)
    with translated("locking the head of a chain"), file_lock(path.with_suffix(".lock")):
        yield path
