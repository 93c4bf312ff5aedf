"""Everything under care on one page: read and added up in the catalogue, never row by row. Nothing is written.

However many databases and backups there are, the number of queries stays the same, and no query returns
more than 500 rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from typing import Any

from django.db.models import Avg, Case, Count, F, Max, Q, Sum, When
from django.db.models.functions import TruncDate
from django.utils import timezone

from ..core.errors import InputError
from ..jobs.cron import find_zone, next_times, parse
from ..models import Backup, Database, Job, Schedule, Verification
from ..models.backup import Verdict
from .health import MOST_ROWS, DatabaseHealth, Health, freshness_limit, gather, judge
from .health import open_jobs as first_open_jobs
from .schedules import active_schedules

DAYS = 60
"""How far back the days of a database are told."""

DATABASES_PER_PAGE = 16

_DATABASES_PER_QUERY = MOST_ROWS // DAYS
_GROWTH = timedelta(days=30)
# An archive that several backups share is there once.
_STORED = Case(When(shares_with="", then=F("archive_bytes")), default=0) + F("media_bytes")
_JOBS_SHOWN = 10
_RUNS_SHOWN = 5
_DRILL = "drill"

# What was proven once stays a good day, also after the backup was pruned.
_PROVEN = Q(verified_at__isnull=False) & ~Q(state=Backup.State.FAILED)


class DayState(StrEnum):
    """What a day means for the safety of a database."""

    VERIFIED = "verified"
    FAILED = "failed"
    MISSING = "missing"
    """Nothing was made, and the proven data became older than the limit."""
    QUIET = "quiet"
    """Nothing was made, and the proven data was young enough."""
    BEFORE = "before"
    """It was not under care yet."""


@dataclass(frozen=True, kw_only=True)
class Day:
    """One calendar day, in the current time zone, of one database."""

    date: date
    state: DayState
    verified: int = 0
    failed: int = 0
    drills_passed: int = 0
    drills_failed: int = 0
    size_bytes: int | None = None
    """The size of the largest verified backup of the day."""
    duration: timedelta | None = None
    """How long a verified backup of the day took, on average."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One database: its health and its last days, the oldest first."""

    health: DatabaseHealth
    days: list[Day]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What the archives take, at each destination that holds them."""

    total_bytes: int
    added_bytes: int
    """Of these, by backups of the last 30 days."""


@dataclass(frozen=True, kw_only=True)
class Drill:
    """The newest rehearsal of a restore."""

    verification: Verification
    recovery: timedelta

    @property
    def is_passed(self) -> bool:
        """Whether it came to a good end."""
        return self.verification.verdict == Verdict.PASSED


@dataclass(frozen=True, kw_only=True)
class NextRun:
    """A due time that is to come."""

    schedule: Schedule
    due_at: datetime


@dataclass(frozen=True, kw_only=True)
class Overview:
    """The state of everything under care, with one page of its databases."""

    health: Health
    lines: list[Line]
    page: int
    page_count: int
    stored: Stored
    last_drill: Drill | None
    next_runs: list[NextRun]
    jobs: list[Job]
    """The first ten that run or wait; those that run come first."""

    @property
    def weakest(self) -> DatabaseHealth | None:
        """The database whose last verified backup is nearest to its limit, or furthest beyond; never verified is worst.

        None when nothing is under care.
        """
        now = self.health.checked_at

        def used(each: DatabaseHealth) -> float:
            age = each.age(now=now)
            return float("inf") if age is None else age / each.limit

        return max(self.health.databases, key=used, default=None)


def look(*, now: datetime, page: int = 1) -> Overview:
    """Everything under care at ``now``. Databases that need attention come first, then by name.

    A ``page`` that does not exist is the nearest one that does.
    """
    evidence = gather(now=now)
    health = judge(evidence)
    ordered = sorted(health.databases, key=lambda each: (not each.problems, each.database.name.casefold()))
    page_count = max(1, -(-len(ordered) // DATABASES_PER_PAGE))
    page = min(max(1, page), page_count)
    shown = ordered[(page - 1) * DATABASES_PER_PAGE : page * DATABASES_PER_PAGE]
    days = days_of([each.database for each in shown], now=now)
    return Overview(
        health=health,
        lines=[Line(health=each, days=days[each.database.pk]) for each in shown],
        page=page,
        page_count=page_count,
        stored=stored(now=now),
        last_drill=_newest_of(evidence.drills),
        next_runs=next_of(evidence.schedules, now=now),
        jobs=evidence.jobs[:_JOBS_SHOWN],
    )


# Days


def days_of(databases: Sequence[Database], *, now: datetime) -> dict[int, list[Day]]:
    """The last 60 days of each database, the oldest first, by its key. Days are those of the current time zone.

    Of drills the newest 500 are looked at.
    """
    today = timezone.localdate(now)
    dates = [today - timedelta(days=ago) for ago in range(DAYS - 1, -1, -1)]
    start = _midnight(dates[0])
    backups: dict[tuple[int, date], dict[str, Any]] = {}
    for first in range(0, len(databases), _DATABASES_PER_QUERY):
        some = databases[first : first + _DATABASES_PER_QUERY]
        backups.update({(row["database_id"], row["day"]): row for row in _backups_by_day(some, start=start)})
    drills = _drills_by_day(databases, start=start)
    return {
        each.pk: list(_days(each, dates, backups=backups, drills=drills, start=start, now=now)) for each in databases
    }


def _midnight(day: date) -> datetime:
    return timezone.make_aware(datetime.combine(day, time.min))


def _backups_by_day(databases: Sequence[Database], *, start: datetime) -> Iterator[dict[str, Any]]:
    made = Backup.objects.filter(database__in=databases, created_at__gte=start).exclude(state=Backup.State.RUNNING)
    rows: Iterator[Any] = (
        made.order_by()
        .annotate(day=TruncDate("created_at"))
        .values("database_id", "day")
        .annotate(
            verified=Count("pk", filter=_PROVEN),
            failed=Count("pk", filter=Q(state=Backup.State.FAILED)),
            last_taken_at=Max("taken_at", filter=_PROVEN),
            largest=Max("size_bytes", filter=_PROVEN),
            duration=Avg(F("finished_at") - F("created_at"), filter=_PROVEN),
        )
        .iterator()
    )
    return rows


def _drills_by_day(databases: Sequence[Database], *, start: datetime) -> dict[tuple[int, date], dict[str, Any]]:
    rows: Iterable[Any] = (
        Verification.objects.filter(level=_DRILL, finished_at__gte=start, backup__database__in=databases)
        .annotate(day=TruncDate("finished_at"))
        .values("backup__database_id", "day")
        .annotate(passed=Count("pk", filter=Q(verdict=Verdict.PASSED)), done=Count("pk"))
        .order_by("-day")[:MOST_ROWS]
    )
    return {(row["backup__database_id"], row["day"]): row for row in rows}


def _days(
    database: Database,
    dates: Sequence[date],
    *,
    backups: dict[tuple[int, date], dict[str, Any]],
    drills: dict[tuple[int, date], dict[str, Any]],
    start: datetime,
    now: datetime,
) -> Iterator[Day]:
    limit = freshness_limit(database)
    # What came before the first day is not asked for: it gets the benefit of the doubt.
    proven_until = max(start, database.added_at)
    for each in dates:
        made, drilled = backups.get((database.pk, each), {}), drills.get((database.pk, each), {})
        end = min(_midnight(each + timedelta(days=1)), now)
        if made.get("verified"):
            state = DayState.VERIFIED
            proven_until = max(proven_until, made["last_taken_at"])
        elif made.get("failed"):
            state = DayState.FAILED
        elif end <= database.added_at:
            state = DayState.BEFORE
        else:
            is_missing = database.is_under_care and end - proven_until > limit
            state = DayState.MISSING if is_missing else DayState.QUIET
        yield Day(
            date=each,
            state=state,
            verified=made.get("verified", 0),
            failed=made.get("failed", 0),
            drills_passed=drilled.get("passed", 0),
            drills_failed=drilled.get("done", 0) - drilled.get("passed", 0),
            size_bytes=made.get("largest"),
            duration=made.get("duration"),
        )


# Cards


def stored(*, now: datetime) -> Stored:
    """The bytes of all archives that are there."""
    kept = Backup.objects.filter(state__in=[Backup.State.VERIFIED, Backup.State.FAILED])
    found = kept.aggregate(total=Sum(_STORED), added=Sum(_STORED, filter=Q(created_at__gte=now - _GROWTH)))
    return Stored(total_bytes=found["total"] or 0, added_bytes=found["added"] or 0)


def last_drill(database: Database) -> Drill | None:
    """The newest drill of a database; None when its restore was never rehearsed."""
    drills = Verification.objects.filter(level=_DRILL, backup__database=database)
    large = ("checks", "backup__census", "backup__remarks")
    newest = drills.select_related("backup__database").defer(*large).order_by("-finished_at", "-pk").first()
    return None if newest is None else _drill(newest)


def _newest_of(drills: Sequence[Verification]) -> Drill | None:
    newest = max(drills, key=lambda each: (each.finished_at, each.pk), default=None)
    return None if newest is None else _drill(newest)


def _drill(found: Verification) -> Drill:
    measured = found.recovery_seconds
    recovery = found.finished_at - found.started_at if measured is None else timedelta(seconds=measured)
    return Drill(verification=found, recovery=recovery)


def next_runs(database: Database, *, now: datetime) -> list[NextRun]:
    """The next due times of the enabled schedules of a database, the earliest first."""
    return next_of(active_schedules().filter(database=database), now=now)


def next_of(schedules: Iterable[Schedule], *, now: datetime, count: int = _RUNS_SHOWN) -> list[NextRun]:
    """The next due times of ``schedules``, one for each, the earliest first."""
    due: dict[tuple[str, str], datetime | None] = {}
    found: list[NextRun] = []
    for schedule in schedules:
        when = (schedule.cron, schedule.time_zone)
        if when not in due:  # many databases, few expressions
            due[when] = _next_time(*when, now=now)
        due_at = due[when]
        if due_at is not None:
            found.append(NextRun(schedule=schedule, due_at=due_at))
    return sorted(found, key=lambda each: (each.due_at, each.schedule.pk))[:count]


def _next_time(cron: str, time_zone: str, *, now: datetime) -> datetime | None:
    try:
        times = next_times(parse(cron), find_zone(time_zone), after=now, count=1)
    except InputError:  # check_health says so
        return None
    return times[0] if times else None


def open_jobs() -> list[Job]:
    """The first ten jobs that run or wait; those that run come first."""
    return first_open_jobs(most=_JOBS_SHOWN)
