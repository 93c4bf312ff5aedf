"""Clean up after processes that died in the middle: their scratch, their unproven archives, their rows."""

from __future__ import annotations

import logging

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from .. import conf
from ..core.errors import BackupError
from ..core.files import is_scratch_in_use, sweep_scratch
from ..destinations import LOCAL, get_destination
from ..models import AuditEvent, Backup
from . import audit
from .audit import Actor
from .hosts import here
from .names import stored_names
from .removal import finish_removal

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
    try:
        sweep_scratch(conf.scratch_folder())
        get_destination(LOCAL).sweep()
    except OSError as exc:
        # Tidying up must not keep anybody from making the next backup.
        logger.error("Left-over scratch files could not be removed: %s", exc)  # noqa: TRY400 - no traceback
    return healed


def _running() -> QuerySet[Backup]:
    # The locks of another host are there, and its scratch too: nothing here tells whether it lives.
    own = Backup.objects.filter(here("database__host"), Q(job=None) | here("job__host"))
    return own.filter(state=Backup.State.RUNNING).select_related("database")


def _finish_pruning() -> None:
    marked = Backup.objects.filter(here("database__host"), state=Backup.State.PRUNING)
    for backup in marked.select_related("database"):
        try:
            finish_removal(backup, actor=Actor.system())
        except BackupError as exc:
            logger.error("A pruned backup still has files: %s", exc)  # noqa: TRY400 - no traceback


def _is_orphaned(backup: Backup) -> bool:
    if is_scratch_in_use(conf.scratch_folder(), backup.pk):
        return False
    return _running().filter(pk=backup.pk).exists()  # it may have ended between the two looks


def _heal(backup: Backup) -> bool:
    """Finish the row of a dead process; False when another process was faster or its files stay."""
    try:
        _remove_unproven(backup)
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
            backup.copies.all().delete()
            audit.record(
                "create",
                actor=Actor.system(),
                outcome=AuditEvent.Outcome.FAILED,
                database_name=backup.database.name,
                subject=backup.pk,
                detail="interrupted; its files were removed",
            )
    return bool(changed)


def _remove_unproven(backup: Backup) -> None:
    destination = get_destination(LOCAL)
    for name in stored_names(backup.archive_name):
        destination.remove(name)
