"""Write the database of a backup to a new file, and its folders to a new folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .. import conf
from ..core.errors import BackupError, InputError, RefusedError
from ..core.extract import extract_archive, extract_together, refuse_one_name
from ..core.media.unpack import extracting_media
from ..core.progress import ProgressCallback, Watch
from ..core.verify import Check
from ..destinations import reach
from ..encryption import Keyring
from ..models import AuditEvent, Backup, Copy
from . import audit
from .audit import Actor
from .copies import from_first_good_copy, require_copies
from .links import links_below, opener
from .names import media_name
from .restores.guards import Objection, refuse_objections, require_reasons
from .signing import signature_problem
from .verify import read_manifest

_GUARD = "unsigned"


@dataclass(frozen=True, kw_only=True)
class Extraction:
    """A finished extraction: the new file, the copy it came from, and what was checked."""

    target: Path
    destination: str
    checks: list[Check]
    media_target: Path | None = None
    media_remarks: tuple[str, ...] = ()


def extract_backup(
    backup: Backup,
    target: Path,
    *,
    actor: Actor,
    media_target: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    keyring: Keyring | None = None,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Extraction:
    """Write the database of ``backup`` to the new file ``target``, proven before it gets its name.

    With ``media_target`` its folders are written to that new folder: both are there afterwards, or neither.

    Copies are tried in turn, verified ones first. ``keyring``: the identities to try in place of
    those of the settings. The attempt is recorded in the audit trail.
    ``overrides`` may hold one guard, ``unsigned``, with why it does not count.

    Raises:
        NotFoundError: the backup has no stored copy. RefusedError: the target exists, or the
            manifest does not count as signed.
        VerificationError: no copy could be proven; the target does not exist.
        KeyMissingError: it is encrypted, and no identity opens it; likewise.
        BackupError: any of its other kinds; likewise. DatabaseError: the attempt could not be
            recorded; likewise.
    """
    target = target.expanduser().absolute()
    media_target = None if media_target is None else media_target.expanduser().absolute()
    keyring = keyring or Keyring.configured()
    watch = Watch(on_progress=on_progress, is_cancelled=is_cancelled, deadline_seconds=conf.get("DEADLINE_SECONDS"))
    chosen = dict(overrides or {})
    try:
        _refuse_unsigned(backup, chosen)
        _require_media(backup, target, media_target)
        extraction = from_first_good_copy(
            backup, lambda copy: _extract_copy(backup, copy, target, media_target, keyring=keyring, watch=watch)
        )
    except BackupError as exc:
        is_refused = isinstance(exc, RefusedError)
        outcome = AuditEvent.Outcome.REFUSED if is_refused else AuditEvent.Outcome.FAILED
        _audit(backup, target, actor=actor, outcome=outcome, detail=exc.message)
        raise
    try:
        _audit(
            backup,
            target,
            actor=actor,
            outcome=AuditEvent.Outcome.DONE,
            detail=f"from {extraction.destination}{_with_media(extraction)}{_why(chosen)}",
        )
    except BaseException:  # no data leaves without a record
        with suppress(OSError):
            target.unlink()
        if media_target is not None:
            shutil.rmtree(media_target, ignore_errors=True)
        raise
    return extraction


def _require_media(backup: Backup, target: Path, media_target: Path | None) -> None:
    if media_target is None:
        return
    if not backup.has_media:
        raise InputError(f"Backup {backup.pk} holds no folders of media.", "Leave --media-to away.")
    refuse_one_name(target, media_target)


def _with_media(extraction: Extraction) -> str:
    return f", its media to {extraction.media_target}" if extraction.media_target else ""


def _refuse_unsigned(backup: Backup, overrides: dict[str, str]) -> None:
    """Ask the one guard that counts where nothing live is touched."""
    if set(overrides) - {_GUARD}:
        raise InputError(
            f"Only the guard {_GUARD!r} can be overridden for a new file.", "The others are for a live database."
        )
    require_reasons(overrides)
    require_copies(backup)
    problem = signature_problem(backup)
    if problem:
        refuse_objections([Objection(code=_GUARD, message=problem)], overrides)


def _why(overrides: dict[str, str]) -> str:
    return "".join(f"; overrides {code}: {reason}" for code, reason in overrides.items())


def _extract_copy(
    backup: Backup, copy: Copy, target: Path, media_target: Path | None, *, keyring: Keyring, watch: Watch
) -> Extraction:
    manifest = read_manifest(copy, expected_sha256=backup.manifest_sha256)
    keys, below = keyring.keys_for(manifest), links_below(copy, manifest, keys_for=keyring.keys_for)

    def extract() -> list[Check]:
        return extract_archive(opener(backup, copy), manifest, target, watch=watch, keys=keys, below=below)

    if media_target is None:
        return Extraction(target=target, destination=copy.destination, checks=extract())
    extracting = extracting_media(
        partial(reach(copy.destination).open, media_name(copy.name)),
        manifest.media,
        media_target,
        encryption=manifest.encryption,
        watch=watch,
        keys=keys,
    )
    checks, media = extract_together(extract, target, extracting)
    return Extraction(
        target=target,
        destination=copy.destination,
        checks=[*checks, *media.checks],
        media_target=media_target,
        media_remarks=media.remarks,
    )


def _audit(backup: Backup, target: Path, *, actor: Actor, outcome: str, detail: str) -> None:
    audit.record(
        "extract",
        actor=actor,
        outcome=outcome,
        database_name=backup.database.name,
        subject=backup.pk,
        detail=f"to {target}: {detail}",
    )
