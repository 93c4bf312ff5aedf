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
from ...core.pages import content_digest_of
from ...core.progress import Watch
from ...core.restore import remove_draft, schema_version
from ...core.snapshot import take_snapshot
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
    content when the version is still the one noted before the copy. Else others may have moved it, and the
    rows tell whose they are, then the pages. A database that was to be made anew is when it has the census
    of the backup. What cannot be told is ``failed`` and says so. A row stays ``running`` while the live
    database is locked. What the dead left in scratch is removed.
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
    is_replaced: bool | None = False
    try:
        live = live_path(restore.database)
        if "recreating" in report:
            remove_draft(live, restore.pk)
            is_replaced = _is_made_anew(restore, live)
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
    if is_replaced is None:
        return _cannot_be_told(restore)
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


def _cannot_be_told(restore: Restore) -> RestoreEnding:
    backups = f"backup {restore.backup_id}"
    if restore.safety_backup_id:
        backups += f", or for safety backup {restore.safety_backup_id} to have what was there before"
    return RestoreEnding(
        state=Restore.State.FAILED,
        outcome="The process that ran this restore ended, and it cannot be told whether the live database holds "
        "the backup now.",
        hint=f"Look at the database. File a new request for {backups}.",
        code="interrupted",
    )


def _is_made_anew(restore: Restore, live: Path) -> bool | None:
    """Whether a database that could not be read before is the backup now; None when it is something else.

    It may have been written to since, or somebody has connected to a missing file and made an empty one.
    """
    found = _read_census(restore, live)
    expected = restore.backup.census
    return True if expected and not Census.from_dict(expected).differences(found) else None


def _is_replaced(restore: Restore, live: Path, before: int) -> bool | None:
    """Whether the copy was committed; None when that cannot be told."""
    if schema_version(live) == before:
        return False
    # Others may have run VACUUM or changed the schema since: whose rows are these?
    safety = restore.safety_backup
    if safety is not None:
        found = _read_census(restore, live)
        from_backup, from_safety = _distance(restore.backup, found), _distance(safety, found)
        if from_backup != from_safety:
            return from_backup < from_safety
    content = _content_digest(restore, live)
    if content and content == restore.backup.content_sha256:
        return True
    if content and safety is not None and content == safety.content_sha256:
        return False
    return None


def _content_digest(restore: Restore, live: Path) -> str:
    """Digest of the pages of the live database, in which two backups with as many rows differ; empty without room.

    Raises:
        BusyError: it is locked.
    """
    wait = conf.get("BUSY_TIMEOUT_SECONDS")
    try:
        with scratch_folder(conf.scratch_folder(), f"heal-{restore.pk}-{uuid.uuid4().hex}") as staging:
            snapshot = take_snapshot(live, staging / "live.sqlite3", watch=Watch(), busy_timeout_seconds=wait)
            return content_digest_of(snapshot.path, watch=Watch())
    except BusyError:
        raise
    except BackupError as exc:
        logger.warning("The content of %s could not be compared: %s", live.name, exc)
        return ""


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
