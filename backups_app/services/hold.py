"""Hold a backup, so that retention may not touch it; and release it."""

from __future__ import annotations

from django.db import transaction

from .. import conf
from ..models import Backup
from . import audit
from .audit import Actor
from .copies import refuse_pruned


def hold_backup(backup: Backup, *, actor: Actor) -> Backup:
    """Keep ``backup`` until somebody releases it; returns the row as it is then.

    The hold of a safety backup, which ends with its window, becomes one that does not.

    Raises:
        RefusedError: it was pruned.
    """
    return _change(backup, "hold", is_held=True, held_by_name=actor.name, actor=actor)


def release_backup(backup: Backup, *, actor: Actor) -> Backup:
    """Let retention decide about ``backup`` again; returns the row as it is then.

    A safety backup stays protected within its window.

    Raises:
        RefusedError: it was pruned.
    """
    return _change(backup, "release", is_held=False, held_by_name="", actor=actor)


def _change(backup: Backup, verb: str, *, is_held: bool, held_by_name: str, actor: Actor) -> Backup:
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        row = Backup.objects.select_for_update().select_related("database").get(pk=backup.pk)
        refuse_pruned(row)
        if (row.is_held, bool(row.held_by_name)) != (is_held, bool(held_by_name)):
            row.is_held, row.held_by_name = is_held, held_by_name
            row.save(update_fields=["is_held", "held_by_name"])
            audit.record(verb, actor=actor, database_name=row.database.name, subject=row.pk)
    return row
