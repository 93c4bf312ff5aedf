"""Write the database of a backup to a new file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import conf
from ..core.errors import BackupError, RefusedError
from ..core.extract import extract_archive
from ..core.progress import ProgressCallback, Watch
from ..core.verify import Check
from ..destinations import get_destination
from ..models import AuditEvent, Backup, Copy
from . import audit
from .audit import Actor
from .copies import from_first_good_copy
from .verify import read_manifest


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """A finished extraction: the new file, the copy it came from, and what was checked."""

    target: Path
    destination: str
    checks: list[Check]


def extract_backup(
    backup: Backup,
    target: Path,
    *,
    actor: Actor,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Extraction:
    """Write the database of ``backup`` to the new file ``target``, proven before it gets its name.

    Copies are tried in turn, verified ones first. The attempt is recorded in the audit trail.

    Raises:
        NotFoundError: the backup has no stored copy. RefusedError: the target exists.
        VerificationError: no copy could be proven; the target does not exist.
        BackupError: any of its other kinds; likewise. DatabaseError: the attempt could not be
            recorded; likewise.
    """
    target = target.expanduser().absolute()
    watch = Watch(on_progress=on_progress, is_cancelled=is_cancelled, deadline_seconds=conf.get("DEADLINE_SECONDS"))
    try:
        extraction = from_first_good_copy(backup, lambda copy: _extract_copy(backup, copy, target, watch=watch))
    except BackupError as exc:
        is_refused = isinstance(exc, RefusedError)
        outcome = AuditEvent.Outcome.REFUSED if is_refused else AuditEvent.Outcome.FAILED
        _audit(backup, target, actor=actor, outcome=outcome, detail=exc.message)
        raise
    try:
        _audit(backup, target, actor=actor, outcome=AuditEvent.Outcome.DONE, detail=f"from {extraction.destination}")
    except BaseException:  # no data leaves without a record
        with suppress(OSError):
            target.unlink()
        raise
    return extraction


def _extract_copy(backup: Backup, copy: Copy, target: Path, *, watch: Watch) -> Extraction:
    manifest = read_manifest(copy, expected_sha256=backup.manifest_sha256)
    destination = get_destination(copy.destination)
    checks = extract_archive(lambda: destination.open(copy.name), manifest, target, watch=watch)
    return Extraction(target=target, destination=copy.destination, checks=checks)


def _audit(backup: Backup, target: Path, *, actor: Actor, outcome: str, detail: str) -> None:
    audit.record(
        "extract",
        actor=actor,
        outcome=outcome,
        database_name=backup.database.name,
        subject=backup.pk,
        detail=f"to {target}: {detail}",
    )
