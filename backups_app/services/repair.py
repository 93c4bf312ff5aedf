"""Put a good copy in the place of a damaged one, or of one that could not be stored."""

from __future__ import annotations

import uuid
from functools import partial
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from .. import conf
from ..core.errors import (
    BackupError,
    CancelledError,
    DeadlineError,
    UnreachableError,
    VerificationError,
    translated,
)
from ..core.fetch import fetch_stored, gives_back
from ..core.files import scratch_folder
from ..core.progress import Watch
from ..core.verify import failures
from ..destinations import Destination, reach
from ..models import AuditEvent, Backup, Copy, Job, Recipient, Verification
from . import audit
from .audit import Actor
from .copies import nearest_first, note_failed_attempt, note_success
from .keys.safety import require_safe_for
from .links import object_names
from .verify import deepest_level, read_manifest, verify_copy, verify_own_bytes

_NEVER_STORED = (Copy.State.PENDING, Copy.State.REFUSED)


def repair_copy(backup: Backup, copy: Copy, *, actor: Actor, job: Job | None, watch: Watch) -> Verification | None:
    """Replace the damaged or missing ``copy`` by the bytes of a verified copy of the same backup, and
    verify it as deeply as the keys at hand allow.

    For the owner of ``job``. None when there is nothing to do: no other copy is verified, the bytes of
    this one are right (what is wrong lies in the data), or its store cannot be reached, which says
    nothing about it.

    The good bytes are fetched and proven before anything is removed. From the removal on the copy is
    ``repairing``: after a crash, or when the store takes nothing, the next call does it again. A copy
    that never was stored stays ``pending`` until it is.

    Raises:
        BackupError: the good bytes cannot be had, or not be stored; the copy says when it is tried
            again. CancelledError, DeadlineError.
    """
    good = backup.copies.filter(state=Copy.State.VERIFIED).exclude(pk=copy.pk)
    source = min(good, key=nearest_first, default=None)
    if source is None or backup.is_gone or not _is_wanting(backup, copy, watch=watch):
        return None
    try:
        verification = _store_again(backup, copy, source, actor=actor, job=job, watch=watch)
    except (CancelledError, DeadlineError):
        raise
    except BackupError as exc:
        note_failed_attempt(copy, exc, now=timezone.now())
        copy.save(update_fields=["attempts", "retry_at", "reason"])
        raise
    _audit(backup, copy, source, actor=actor, outcome=AuditEvent.Outcome.DONE, detail=verification.verdict)
    return verification


def _store_again(
    backup: Backup, copy: Copy, source: Copy, *, actor: Actor, job: Job | None, watch: Watch
) -> Verification:
    if copy.state in _NEVER_STORED:
        _require_allowed(backup, copy)
    with (
        translated("preparing the repair"),
        scratch_folder(conf.scratch_folder(), f"repair-{uuid.uuid4().hex}") as folder,
    ):
        files = _fetch(backup, source, folder, watch=watch)
        _replace(backup, copy, files, watch=watch)
    copy.stored_at = timezone.now()
    note_success(copy)
    copy.save(update_fields=["stored_at", "attempts", "retry_at"])
    return verify_copy(backup, copy, level=deepest_level(backup), actor=actor, job=job, watch=watch)


def _require_allowed(backup: Backup, copy: Copy) -> None:
    """Ask again whether the backup may leave this host: keys may have been proven, or a proof become too old.

    Raises:
        RefusedError: as :func:`.keys.safety.require_safe_for`.
    """
    recipients = list(Recipient.objects.filter(public__in=backup.key_ids))
    if len(recipients) < len(set(backup.key_ids)):
        recipients = []  # for a key that nobody here knows
    require_safe_for(reach(copy.destination), recipients, now=timezone.now())


def _is_wanting(backup: Backup, copy: Copy, *, watch: Watch) -> bool:
    """Whether the copy was never stored, or its stored bytes are wrong, read again now."""
    if copy.state == Copy.State.REPAIRING or copy.state in _NEVER_STORED:
        return True  # we removed them ourselves
    if copy.state != Copy.State.FAILED:
        return False
    try:
        manifest = read_manifest(copy, expected_sha256=backup.manifest_sha256)
        # Its own bytes only: those of an archive that it builds on are for that one's repair.
        return bool(failures(verify_own_bytes(backup, copy, manifest, watch=watch)))
    except UnreachableError:
        return False
    except VerificationError:
        return True  # its manifest is wrong


def _fetch(backup: Backup, source: Copy, folder: Path, *, watch: Watch) -> list[Path]:
    """The good files, proven by the digests in the catalogue; the signature only where there is one."""
    destination = reach(source.destination)
    names = object_names(backup, source)
    media = [(str(backup.media["sha256"]), int(backup.media["bytes"]))] if backup.media else []
    facts = [(backup.archive_sha256, backup.archive_bytes), *media, (backup.manifest_sha256, 0), (None, 0)]
    files: list[Path] = []
    for name, (sha256, size) in zip(names, facts, strict=True):
        target = folder / f"{len(files)}.fetched"
        try:
            fetch_stored(partial(destination.open, name), target, size_bytes=size, sha256=sha256, watch=watch)
        except UnreachableError:
            if sha256 is not None:
                raise
            break  # not every manifest is signed
        files.append(target)
    return files


def _replace(backup: Backup, copy: Copy, files: list[Path], *, watch: Watch) -> None:
    """Store the good files, each read back before the next one.

    Raises:
        VerificationError: what came back differs; it was removed. BackupError: from the store.
    """
    destination = reach(copy.destination)
    names = object_names(backup, copy)
    if copy.state not in _NEVER_STORED:
        copy.state, copy.reason = Copy.State.REPAIRING, copy.reason or "It is being replaced by a good copy."
        copy.save(update_fields=["state", "reason"])
        for name in names[1:]:  # an archive that is right stays: others may share it, or build on it
            destination.remove(name)
    for name, path in zip(names, files, strict=False):
        if _is_there(destination, name, path, watch=watch):
            continue  # an earlier attempt stored it and did not hear of it
        destination.remove(name)
        destination.store(path, name, watch=watch)
        if not _is_there(destination, name, path, watch=watch):
            destination.remove(name)
            raise VerificationError(
                f"What {copy.destination} gives back is not what was stored there.", "Check that destination."
            )


def _is_there(destination: Destination, name: str, path: Path, *, watch: Watch) -> bool:
    """Whether the object holds exactly the bytes of the file; False when it cannot be read."""
    try:
        if destination.size(name) != path.stat().st_size:
            return False
        return gives_back(partial(destination.open, name), path, watch=watch)
    except UnreachableError:
        return False


def _audit(backup: Backup, copy: Copy, source: Copy, *, actor: Actor, outcome: str, detail: str) -> None:
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        audit.record(
            "repair",
            actor=actor,
            outcome=outcome,
            database_name=backup.database.name,
            subject=backup.pk,
            detail=f"{copy.destination} from {source.destination}: {detail}",
        )
