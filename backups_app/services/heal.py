"""Clean up after processes that died in the middle: their scratch, their unproven archives, their rows."""

from __future__ import annotations

import logging

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from .. import conf
from ..core.errors import BackupError, UnreachableError
from ..core.files import is_scratch_in_use, sweep_scratch
from ..destinations import LOCAL, LocalDestination, get_destination, local_folders
from ..models import AuditEvent, Backup, Copy
from . import audit
from .audit import Actor
from .copies import note_failed_attempt
from .hosts import here
from .names import stored_names
from .removal import finish_removal, remove_objects

logger = logging.getLogger(__name__)


def heal_interrupted() -> list[Backup]:
    """Mark the backups of dead processes of this host as failed and remove what they left; returns them.

    Backups that were marked for pruning lose the rest of their files. Doing that twice at once is
    harmless, so nobody has to know whether the process that marked them lives.

    A living process holds the lock of its scratch folder until its row is final, so a row that
    is still ``running`` without that lock has nobody who could finish it.
    """
    healed = [backup for backup in _running() if _is_orphaned(backup) and _heal(backup)]
    _finish_pruning()
    _finish_discarding()
    try:
        sweep_scratch(conf.scratch_folder())
        for folder in (conf.archives_folder(), *local_folders().values()):
            LocalDestination(folder).sweep()
    except OSError as exc:
        # Tidying up must not keep anybody from making the next backup.
        logger.error("Left-over scratch files could not be removed: %s", exc)  # noqa: TRY400 - no traceback
    return healed


def _running() -> QuerySet[Backup]:
    # The locks of another host are there, and its scratch too: nothing here tells whether it lives.
    own = Backup.objects.filter(here("database__host"), Q(job=None) | here("job__host"))
    return own.filter(state=Backup.State.RUNNING).select_related("database")


def _finish_pruning() -> None:
    now = timezone.now()
    marked = Backup.objects.filter(here("database__host"), state=Backup.State.PRUNING)
    for backup in marked.select_related("database"):
        left = backup.copies.exclude(state=Copy.State.PRUNED)
        if left and all(copy.retry_at is not None and copy.retry_at > now for copy in left):
            continue  # a store that does not answer must not hold up everything that heals
        try:
            finish_removal(backup, actor=Actor.system())
        except BackupError as exc:
            logger.error("A pruned backup still has files: %s", exc)  # noqa: TRY400 - no traceback


def _finish_discarding() -> None:
    """Remove what backups that did not come about have left at destinations that did not answer then."""
    ended = [Backup.State.FAILED, Backup.State.CANCELLED]
    # Without the digest of a manifest nothing was ever proven.
    left = Copy.objects.filter(state=Copy.State.PENDING, backup__state__in=ended, backup__manifest_sha256="")
    for copy in left.filter(Q(retry_at=None) | Q(retry_at__lte=timezone.now())):
        try:
            remove_objects(copy)
        except BackupError as exc:
            note_failed_attempt(copy, exc, now=timezone.now())
            copy.save(update_fields=["attempts", "retry_at", "reason"])
            logger.error("An unproven copy could not be removed: %s", exc)  # noqa: TRY400 - no traceback
        else:
            copy.delete()


def _is_orphaned(backup: Backup) -> bool:
    if is_scratch_in_use(conf.scratch_folder(), backup.pk):
        return False
    return _running().filter(pk=backup.pk).exists()  # it may have ended between the two looks


def _heal(backup: Backup) -> bool:
    """Finish the row of a dead process; False when another process was faster or its files stay."""
    try:
        left = _remove_unproven(backup)
    except BackupError as exc:
        logger.error("An interrupted backup could not be cleaned up: %s", exc)  # noqa: TRY400 - no traceback
        return False
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        changed = (
            _running()
            .filter(pk=backup.pk)
            .update(
                state=Backup.State.FAILED,
                finished_at=timezone.now(),
                failure_code="interrupted",
                reason="The process that made this backup ended before it was finished.",
                hint="Nothing was published. Run the backup again.",
            )
        )
        if changed:
            backup.copies.exclude(pk__in=[copy.pk for copy in left]).delete()
            backup.copies.update(state=Copy.State.PENDING)
            audit.record(
                "create",
                actor=Actor.system(),
                outcome=AuditEvent.Outcome.FAILED,
                database_name=backup.database.name,
                subject=backup.pk,
                detail="interrupted; its files were removed",
            )
    return bool(changed)


def _remove_unproven(backup: Backup) -> list[Copy]:
    """Remove the objects of a backup that nobody finished; returns the copies whose store does not answer.

    Raises:
        BackupError: a file on this host is still there.
    """
    # The archives folder in any case: whoever died may have done so before the row of a copy.
    for name in stored_names(backup.archive_name, has_media=backup.has_media):
        get_destination(LOCAL).remove(name)
    left: list[Copy] = []
    for copy in backup.copies.exclude(destination=LOCAL):
        try:
            remove_objects(copy)
        except UnreachableError as exc:
            logger.error("An unproven copy could not be removed: %s", exc)  # noqa: TRY400 - no traceback
            note_failed_attempt(copy, exc, now=timezone.now())
            copy.save(update_fields=["attempts", "retry_at", "reason"])
            left.append(copy)
    return left
