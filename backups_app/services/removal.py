"""The second half of pruning: the files of a marked backup go, then its row says so."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from .. import conf
from ..core.errors import BackupError, UnreachableError
from ..destinations import LocalDestination, reach
from ..models import Backup, Copy
from . import audit
from .audit import Actor
from .chain import note_pruned
from .copies import note_failed_attempt, note_success
from .links import is_archive_needed, object_names


def finish_removal(backup: Backup, *, actor: Actor) -> bool:
    """Remove every file of a backup that is marked for pruning, and record that they are gone.

    May be called again, and by several processes at once: what is gone already is no error, and
    one of them records it. False when another one did.

    One destination that fails does not keep the files of the others.

    Raises:
        BackupError: a file could not be removed. The row stays marked and is tried again.
    """
    if backup.sequence is not None:
        # Before the files go: a gap in the chain that is explained is no attack.
        note_pruned(backup.database, [backup.sequence])
    problems = [exc for copy in backup.copies.exclude(state=Copy.State.PRUNED) if (exc := _remove_copy(copy))]
    if problems:
        raise problems[0]
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        changed = Backup.objects.filter(pk=backup.pk, state=Backup.State.PRUNING).update(
            state=Backup.State.PRUNED, pruned_at=timezone.now()
        )
        if changed:
            backup.copies.update(state=Copy.State.PRUNED, reason="")
            audit.record(
                "prune",
                actor=actor,
                database_name=backup.database.name,
                subject=backup.pk,
                detail=f"its files were removed: {backup.prune_reason}",
            )
    backup.refresh_from_db()
    return bool(changed)


def remove_objects(copy: Copy) -> None:
    """Remove every object of a copy; those that are gone already are no error.

    An archive that other backups share, or build on, stays; it goes with the last of them.

    Raises:
        UnreachableError: the store does not answer, or is a folder that is not there.
        BackupError: one of them may be there still.
    """
    destination = reach(copy.destination)
    was_stored = copy.state == Copy.State.VERIFIED
    if was_stored and isinstance(destination, LocalDestination) and not destination.root.is_dir():
        # What lies on a disk that is not mounted is not gone.
        raise UnreachableError(
            f"The folder of the destination {copy.destination} is not there; nothing was removed.",
            "Mount its disk. When it is gone for good, make an empty folder in its place.",
        )
    archive, *others = object_names(copy.backup, copy)
    if not is_archive_needed(copy.backup):
        destination.remove(archive)
    for name in others:
        destination.remove(name)


def _remove_copy(copy: Copy) -> BackupError | None:
    """Remove a copy of a backup that goes, and let its row say so; what was in the way, if anything was."""
    try:
        if copy.state != Copy.State.REFUSED:  # of which nothing was ever stored
            remove_objects(copy)
    except BackupError as exc:
        if isinstance(exc, UnreachableError):
            note_failed_attempt(copy, exc, now=timezone.now())
            copy.save(update_fields=["attempts", "retry_at", "reason"])
        return exc
    note_success(copy)
    copy.state, copy.reason = Copy.State.PRUNED, ""
    copy.save(update_fields=["attempts", "retry_at", "state", "reason"])
    return None
