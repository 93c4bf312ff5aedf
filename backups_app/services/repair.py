"""Put a good copy in the place of a damaged one."""

from __future__ import annotations

import uuid
from functools import partial
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from .. import conf
from ..core.errors import UnreachableError, VerificationError, translated
from ..core.fetch import fetch_stored
from ..core.files import scratch_folder
from ..core.progress import Watch
from ..core.verify import failures, verify_quick
from ..destinations import get_destination
from ..models import AuditEvent, Backup, Copy, Job, Verification
from . import audit
from .audit import Actor
from .names import stored_names
from .verify import deepest_level, read_manifest, verify_copy


def repair_copy(backup: Backup, copy: Copy, *, actor: Actor, job: Job | None, watch: Watch) -> Verification | None:
    """Replace the damaged ``copy`` by the bytes of a verified copy of the same backup, and verify
    it as deeply as the keys at hand allow.

    For the owner of ``job``. None when there is nothing to do: no other copy is verified, the bytes of
    this one are right (what is wrong lies in the data), or its store cannot be reached, which says
    nothing about it.

    The good bytes are fetched and proven before anything is removed. From the removal on the copy is
    ``repairing``: after a crash, or when the store takes nothing, the next call does it again.

    Raises:
        BackupError: the good bytes cannot be had, or not be stored. CancelledError, DeadlineError.
    """
    source = backup.copies.filter(state=Copy.State.VERIFIED).exclude(pk=copy.pk).first()
    if source is None or backup.is_gone or not _is_damaged(backup, copy, watch=watch):
        return None
    with (
        translated("preparing the repair"),
        scratch_folder(conf.scratch_folder(), f"repair-{uuid.uuid4().hex}") as folder,
    ):
        files = _fetch(backup, source, folder, watch=watch)
        _replace(copy, files)
    copy.stored_at = timezone.now()
    copy.save(update_fields=["stored_at"])
    verification = verify_copy(backup, copy, level=deepest_level(backup), actor=actor, job=job, watch=watch)
    _audit(backup, copy, source, actor=actor, outcome=AuditEvent.Outcome.DONE, detail=verification.verdict)
    return verification


def _is_damaged(backup: Backup, copy: Copy, *, watch: Watch) -> bool:
    """Whether the stored bytes are wrong, read again now."""
    if copy.state == Copy.State.REPAIRING:
        return True  # we removed them ourselves
    if copy.state != Copy.State.FAILED:
        return False
    try:
        manifest = read_manifest(copy, expected_sha256=backup.manifest_sha256)
        return bool(
            failures(verify_quick(partial(get_destination(copy.destination).open, copy.name), manifest, watch=watch))
        )
    except UnreachableError:
        return False
    except VerificationError:
        return True  # its manifest is wrong


def _fetch(backup: Backup, source: Copy, folder: Path, *, watch: Watch) -> list[Path]:
    """The good files, proven by the digests in the catalogue; the signature only where there is one."""
    destination = get_destination(source.destination)
    digests = (backup.archive_sha256, backup.manifest_sha256, None)
    files: list[Path] = []
    for name, sha256, size in zip(stored_names(source.name), digests, (backup.archive_bytes, 0, 0), strict=True):
        target = folder / f"{len(files)}.fetched"
        try:
            fetch_stored(partial(destination.open, name), target, size_bytes=size, sha256=sha256, watch=watch)
        except UnreachableError:
            if sha256 is not None:
                raise
            break  # not every manifest is signed
        files.append(target)
    return files


def _replace(copy: Copy, files: list[Path]) -> None:
    destination = get_destination(copy.destination)
    copy.state, copy.reason = Copy.State.REPAIRING, copy.reason or "It is being replaced by a good copy."
    copy.save(update_fields=["state", "reason"])
    names = stored_names(copy.name)
    for name in names:
        destination.remove(name)
    for name, path in zip(names, files, strict=False):
        destination.store(path, name)


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
