"""Gather the evidence: a handful of queries, however many databases and backups, and ``stat`` of the files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from django.db.models import Exists, F, Max, OuterRef, Q, Subquery, Window
from django.db.models.functions import RowNumber

from ...core.sqlite import sidecar
from ...models import Backup, Database, Job, ScheduledRun, Verification
from ..hosts import is_here
from ..keys.health import check_keys
from ..schedules import active_schedules
from ..signing import replacements
from .anomalies import COMPARED
from .care import MISSED_FOR
from .facts import DatabaseHealth, Look, Sizes
from .limits import MOST_ROWS, freshness_limit
from .space import look_at_disks

_EARLIER = range(1, COMPARED + 1)
_MEASURES = ("row_count", "size_bytes", "media")


def gather(*, now: datetime) -> Look:
    """The evidence about everything under care at ``now``.

    Live databases are never opened: of their files only ``stat`` is asked, on this host. The number of queries
    does not grow with the number of backups, and with that of databases only by one per 250.
    """
    found = list(_annotated(now=now))
    rows = [each for each in found if each.is_under_care]
    backups = _newest({pk for row in rows for pk in (row.verified, row.attempted) if pk})
    drills = list(_newest_drills())
    drilled: dict[int, Any] = {each.backup.database_id: each for each in drills}
    databases = [_facts(row, backups=backups, drill=drilled.get(row.pk)) for row in rows]
    return Look(
        now=now,
        databases=databases,
        disks=look_at_disks(databases),
        keys=check_keys(now=now),
        deserters=[each for each in found if not each.is_under_care],
        drills=drills,
        jobs=open_jobs(),
        schedules=list(_schedules()),
        **_moments(found),
    )


def _moments(rows: list[Any]) -> dict[str, datetime | None]:
    """What hangs on every row of a database, to save queries of its own; asked for when there is none."""
    if rows:
        return {name: getattr(rows[0], name) for name in ("newest_job_at", "signing_key_replaced_at")}
    return {
        "newest_job_at": _jobs_asked_for().first(),
        "signing_key_replaced_at": replacements().values_list("at", flat=True).first(),
    }


def _jobs_asked_for() -> Any:
    return Job.objects.order_by("-created_at").values_list("created_at", flat=True)


def open_jobs(*, most: int = MOST_ROWS) -> list[Job]:
    """The first jobs that run or wait; "running" sorts behind "queued", so those that run come first."""
    jobs = Job.objects.filter(state__in=Job.OPEN_STATES).select_related("database").defer("log", "options")
    return list(jobs.order_by("-state", "created_at")[:most])


def _annotated(*, now: datetime) -> Any:
    """The databases under care, and those that left it lately, each with its newest backups.

    Of its last verified one and its last attempt the id, of those before it what they held: one look into
    an index for each. PostgreSQL and SQLite have no common way to take the newest few of each group
    without reading all of them.
    """
    every = Backup.objects.filter(database=OuterRef("pk")).order_by("-created_at")
    # An import is as old as its content, however it got its time: it says nothing about today, nor
    # does one that was encrypted anew.
    own = every.exclude(trigger=Backup.Trigger.IMPORT).filter(origin_sha256="")
    verified = own.filter(state=Backup.State.VERIFIED).order_by("-taken_at")
    # What somebody cancelled says nothing either, nor does a backup that is encrypted anew, which leaves
    # the live database alone: a failure before it is still the last word.
    ended = own.exclude(state__in=[Backup.State.RUNNING, Backup.State.CANCELLED])
    ended = ended.exclude(trigger=Backup.Trigger.REKEY)
    earlier = {
        f"{measure}_{place}": Subquery(verified.values(measure)[place : place + 1])
        for place in _EARLIER
        for measure in _MEASURES
    }
    rows = Database.objects.annotate(
        **earlier,
        verified=Subquery(verified.values("pk")[:1]),
        attempted=Subquery(ended.values("pk")[:1]),
        newest_job_at=Subquery(_jobs_asked_for()[:1]),
        signing_key_replaced_at=Subquery(replacements().values("at")[:1]),
    )
    has_left = Exists(every.filter(created_at__gte=now - MISSED_FOR))
    return rows.filter(Q(is_under_care=True) | Q(has_left, ~Q(alias="")))


def _newest(wanted: set[str]) -> dict[str, Backup]:
    """These backups, without their largest facts, never more of them at once than a query may return."""
    ids, found = sorted(wanted), {}
    for first in range(0, len(ids), MOST_ROWS):
        found.update(Backup.objects.defer("census").in_bulk(ids[first : first + MOST_ROWS]))
    return found


def _newest_drills() -> Any:
    """The newest drill of each database, and when it last passed one (``passed_at``)."""
    newest_first = [F("finished_at").desc(), F("pk").desc()]
    passed = Max("finished_at", filter=Q(verdict=Verification.Verdict.PASSED))
    drills = Verification.objects.filter(level=Verification.Level.DRILL).annotate(
        place=Window(RowNumber(), partition_by=F("backup__database"), order_by=newest_first),
        passed_at=Window(passed, partition_by=F("backup__database")),
    )
    large = ("checks", "backup__census", "backup__remarks")
    return drills.filter(place=1).select_related("backup__database").defer(*large)


def _schedules() -> Any:
    last = ScheduledRun.objects.filter(schedule=OuterRef("pk")).order_by("-due_at").values("missed")
    return active_schedules().annotate(last_missed=Subquery(last[:1]))


def _facts(row: Any, *, backups: dict[str, Backup], drill: Any) -> DatabaseHealth:
    verified = backups.get(row.verified)
    if verified is not None:
        verified.database = row  # saves a query where somebody asks for its name
    earlier = [Sizes(**{name: getattr(row, f"{name}_{place}") for name in _MEASURES}) for place in _EARLIER]
    own, path = is_here(row), Path(row.path)
    return DatabaseHealth(
        database=row,
        last_verified=verified,
        last_attempt=backups.get(row.attempted),
        limit=freshness_limit(row),
        earlier=earlier,
        is_here=own,
        size_bytes=_size(path) if own else None,
        wal_bytes=(_size(sidecar(path, "-wal")) or 0) if own else 0,
        last_drill=drill,
        last_drill_at=drill.passed_at if drill else None,
    )


def _size(path: Path) -> int | None:
    # Never open(): closing the descriptor would drop the locks that this process holds on the database.
    try:
        return path.stat().st_size
    except OSError:
        return None
