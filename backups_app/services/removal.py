"""The second half of pruning: the files of a marked backup go, then its row says so."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from .. import conf
from ..destinations import get_destination
from ..models import Backup, Copy
from . import audit
from .audit import Actor
from .chain import note_pruned
from .names import stored_names


def finish_removal(backup: Backup, *, actor: Actor) -> bool:
    """Remove every file of a backup that is marked for pruning, and record that they are gone.

    May be called again, and by several processes at once: what is gone already is no error, and
    one of them records it. False when another one did.

    Raises:
        BackupError: a file could not be removed. The row stays marked and is tried again.
    """
    if backup.sequence is not None:
        # Before the files go: a gap in the chain that is explained is no attack.
        note_pruned(backup.database, [backup.sequence])
    for copy in backup.copies.exclude(state=Copy.State.PRUNED):
        destination = get_destination(copy.destination)
        for name in stored_names(copy.name):
            destination.remove(name)
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
