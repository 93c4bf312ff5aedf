"""Learn from the live database how the restores of dead processes ended."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path

from django.db.models import Q, QuerySet
from django.utils import timezone

from ... import conf
from ...core.census import Census, take_census
from ...core.errors import BackupError, BusyError, translated
from ...core.files import is_scratch_in_use, scratch_folder
from ...core.progress import Watch
from ...core.restore import remove_draft, schema_version
from ...core.sqlite import open_live
from ...models import Backup, Restore
from ..audit import Actor
from ..databases import live_path
from ..heal import heal_interrupted
from ..hosts import here
from .decide import OVERDUE_STATES, expire_restores
from .ending import RestoreEnding, finish_restore

logger = logging.getLogger(__name__)


def scratch_token(restore: Restore) -> str:
    return f"restore-{restore.pk}"


def bring_up_to_date() -> None:
    """Close the requests whose time is over, and finish the rows of the dead; one query when there are none."""
    is_over = Q(state__in=OVERDUE_STATES, expires_at__lte=timezone.now())
    is_running_here = Q(here("database__host"), state=Restore.State.RUNNING)
    found = Restore.objects.filter(is_over | is_running_here).only("state")
    running = [each for each in found if each.state == Restore.State.RUNNING]
    if len(running) < len(found):
        expire_restores()
    if any(not is_scratch_in_use(conf.scratch_folder(), scratch_token(each)) for each in running):
        heal_restores()


def heal_restores() -> list[Restore]:
    """Finish the rows of restores of this host whose process died, by looking at the live database; returns them.

    The copy is one transaction, and it moves the schema version: the live database holds the old
    content when the version is still the one noted before the copy. Else it holds the new one, unless
    others changed the schema since and its rows are still those of the safety backup. A row stays
    ``running`` while the live database is locked. What the dead left in scratch is removed.
    """
    healed: list[Restore] = []
    for restore in list(_running()):
        if is_scratch_in_use(conf.scratch_folder(), scratch_token(restore)):
            continue
        restore.refresh_from_db()  # it may have ended between the two looks
        if restore.state != Restore.State.RUNNING:
            continue
        try:
            ending = _ending_of_the_dead(restore)
        except BusyError as exc:
            logger.warning("How restore %s ended cannot be told yet: %s", restore.pk, exc)
            continue
        if finish_restore(restore, ending, actor=Actor.system()):
            healed.append(restore)
    heal_interrupted()
    return healed


def _running() -> QuerySet[Restore]:
    # Of another host neither the scratch nor the live database can be looked at.
    return Restore.objects.filter(here("database__host"), state=Restore.State.RUNNING).select_related(
        "database", "backup__database", "safety_backup"
    )


def _ending_of_the_dead(restore: Restore) -> RestoreEnding:
    """What the live database says of a restore whose process died.

    Raises:
        BusyError: it is locked.
    """
    report = restore.report = dict(restore.report or {})
    is_replaced = False
    try:
        live = live_path(restore.database)
        if "recreating" in report:
            remove_draft(live, restore.pk)
            _read_census(restore, live)  # it could not be read before
            is_replaced = True
        elif "schema_version_before" in report:
            is_replaced = _is_replaced(restore, live, int(report["schema_version_before"]))
    except BusyError:
        raise
    except BackupError as exc:
        return RestoreEnding(
            state=Restore.State.FAILED,
            outcome=f"The process that ran this restore ended, and the live database cannot be read: {exc.message}",
            hint="Look for files named .damaged-… beside it, and file a new request.",
            code="interrupted",
        )
    if is_replaced:
        report.setdefault("notes", []).append("The process ended after the copy; the check was not made.")
        return RestoreEnding(state=Restore.State.SUCCEEDED)
    return RestoreEnding(
        state=Restore.State.FAILED,
        outcome="The process that ran this restore ended before the copy was committed; "
        "the live database is as it was.",
        hint="File a new request.",
        code="interrupted",
    )


def _is_replaced(restore: Restore, live: Path, before: int) -> bool:
    if schema_version(live) == before:
        return False
    if restore.safety_backup is None:
        return True
    # Others may have run VACUUM or changed the schema since: whose rows are these?
    found = _read_census(restore, live)
    return _distance(restore.backup, found) <= _distance(restore.safety_backup, found)


def _read_census(restore: Restore, live: Path) -> Census:
    wait = conf.get("BUSY_TIMEOUT_SECONDS")
    with (
        translated(f"reading {live.name}"),
        scratch_folder(conf.scratch_folder(), f"heal-{restore.pk}-{uuid.uuid4().hex}") as staging,
        open_live(live, staging=staging, busy_timeout_seconds=wait, watch=Watch()) as opened,
    ):
        return take_census(opened.connection, watch=Watch())


def _distance(backup: Backup, found: Census) -> tuple[int, int]:
    """How far a database is from a backup: tables with another number of rows, and rows too many or too few."""
    expected = {name: int(rows) for name, rows in backup.tables.items()}
    gaps = [abs(expected.get(name, -1) - found.tables.get(name, -1)) for name in expected.keys() | found.tables.keys()]
    return sum(gap > 0 for gap in gaps), sum(gaps)
