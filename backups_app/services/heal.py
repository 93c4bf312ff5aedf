"""Clean up after processes that died in the middle: their scratch, their unproven archives, their rows."""

from __future__ import annotations

from django.utils import timezone

from .. import conf
from ..core.files import is_scratch_in_use, sweep_scratch
from ..destinations import LOCAL, get_destination
from ..models import AuditEvent, Backup
from . import audit
from .audit import Actor
from .names import manifest_name


def heal_interrupted() -> list[Backup]:
    """Mark the backups of dead processes as failed and remove what they left; returns them.

    A living process holds the lock of its scratch folder until its row is final, so a row that
    is still ``running`` without that lock has nobody who could finish it.
    """
    scratch = conf.scratch_folder()
    healed: list[Backup] = []
    for backup in Backup.objects.filter(state=Backup.State.RUNNING).select_related("database"):
        if is_scratch_in_use(scratch, backup.pk):
            continue
        if not Backup.objects.filter(pk=backup.pk, state=Backup.State.RUNNING).exists():
            continue  # it ended between the two looks
        _remove_unproven(backup)
        changed = Backup.objects.filter(pk=backup.pk, state=Backup.State.RUNNING).update(
            state=Backup.State.FAILED,
            finished_at=timezone.now(),
            failure_code="interrupted",
            reason="The process that made this backup ended before it was finished.",
            hint="Nothing was published. Run the backup again.",
        )
        if changed:
            audit.record(
                "create",
                actor=Actor.system(),
                outcome=AuditEvent.Outcome.FAILED,
                database_name=backup.database.name,
                subject=backup.pk,
                detail="interrupted; its files were removed",
            )
            healed.append(backup)
    sweep_scratch(scratch)
    get_destination(LOCAL).sweep()
    return healed


def _remove_unproven(backup: Backup) -> None:
    destination = get_destination(LOCAL)
    for name in (backup.archive_name, manifest_name(backup.archive_name)):
        destination.remove(name)
    backup.copies.all().delete()
