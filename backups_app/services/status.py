"""Is the data safe? Answered from evidence, for people and for monitors."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.db.models import OuterRef, QuerySet, Subquery
from django.utils import timezone

from .. import conf
from ..core.sqlite import has_wal_reset_bug
from ..models import Backup, Database
from ..models.backup import Verdict
from .hosts import silent_hosts
from .jobs.attend import ready_jobs
from .notifications import undelivered
from .schedules import overdue

_QUEUE_PATIENCE = timedelta(minutes=5)
"""How long a job that could run may wait for a worker."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that needs attention."""

    code: str
    database: str
    message: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class DatabaseHealth:
    """What is known of one database's safety."""

    database: Database
    last_verified: Backup | None
    last_attempt: Backup | None
    limit: timedelta
    problems: list[Problem]

    def age(self, *, now: datetime) -> timedelta | None:
        """Age of the data in the last verified backup."""
        if self.last_verified is None or self.last_verified.taken_at is None:
            return None
        return now - self.last_verified.taken_at


@dataclass(frozen=True, kw_only=True)
class Health:
    """The state of everything under care at one moment."""

    checked_at: datetime
    databases: list[DatabaseHealth]
    problems: list[Problem]
    notices: list[str]
    """Worth knowing, without anything to do at once."""

    @property
    def is_ok(self) -> bool:
        """Whether nothing needs attention."""
        return not self.problems


def check_health(*, now: datetime | None = None) -> Health:
    """Look at every database under care."""
    now = now or timezone.now()
    found = _check_databases(now=now)
    problems = [problem for each in found for problem in each.problems]
    if not found:
        problems.append(
            Problem(
                code="nothing_under_care",
                database="",
                message="No database is under care.",
                hint="Add one with `manage.py backup add-database NAME PATH`.",
            )
        )
    problems += [
        Problem(code="notifications_undelivered", database="", message=each.message, hint=each.hint)
        for each in undelivered(now=now)
    ]
    problems += _check_jobs(now=now)
    notices: list[str] = []
    if has_wal_reset_bug():
        notices.append(
            f"SQLite {sqlite3.sqlite_version} has a known WAL corruption bug; update to 3.51.3, 3.50.7 or 3.44.6."
        )
    return Health(checked_at=now, databases=found, problems=problems, notices=notices)


def _check_jobs(*, now: datetime) -> list[Problem]:
    """Is what was asked for, or is due, being done?"""
    problems = [
        Problem(
            code="host_silent",
            database="",
            message=f"The supervisor of {host.name} was last heard of at {host.seen_at:%Y-%m-%d %H:%M:%S} UTC.",
            hint="Start `manage.py backup serve` there again, and look into its log.",
        )
        for host in silent_hosts(now=now)
    ]
    waiting = [job for job in ready_jobs() if job.created_at < now - _QUEUE_PATIENCE]
    if waiting:
        first = waiting[0]
        problems.append(
            Problem(
                code="jobs_wait",
                database=first.database.name if first.database else "",
                message=f"{len(waiting)} job(s) wait for a worker, the oldest (job {first.pk}) since "
                f"{first.created_at:%Y-%m-%d %H:%M:%S} UTC.",
                hint="Run `manage.py backup serve`, or cancel them with `manage.py backup cancel ID`.",
            )
        )
    problems += [
        Problem(code="schedule_overdue", database=each.schedule.database.name, message=each.reason, hint=each.hint)
        for each in overdue(now=now)
    ]
    return problems


def freshness_limit(database: Database) -> timedelta:
    """The oldest acceptable last verified backup."""
    return timedelta(hours=float(database.freshness_hours or conf.get("FRESHNESS_HOURS")))


def _check_databases(*, now: datetime) -> list[DatabaseHealth]:
    """Each database under care, by name: two queries, however many there are."""
    attempts = Backup.objects.filter(database=OuterRef("pk"))
    verified = attempts.filter(state=Backup.State.VERIFIED).order_by("-taken_at")
    finished = attempts.exclude(state=Backup.State.RUNNING).order_by("-created_at")
    rows = Database.objects.filter(is_under_care=True)
    databases = list(rows.annotate(last_verified_id=_newest(verified), last_attempt_id=_newest(finished)))
    ids = {pk for each in databases for pk in (each.last_verified_id, each.last_attempt_id) if pk}
    backups = Backup.objects.defer("census", "remarks").in_bulk(ids)
    return [
        _check_database(
            database,
            last_verified=backups.get(database.last_verified_id),
            last_attempt=backups.get(database.last_attempt_id),
            now=now,
        )
        for database in databases
    ]


def _newest(backups: QuerySet[Backup]) -> Subquery:
    return Subquery(backups.values("pk")[:1])


def _check_database(
    database: Database, *, last_verified: Backup | None, last_attempt: Backup | None, now: datetime
) -> DatabaseHealth:
    limit = freshness_limit(database)
    problems: list[Problem] = []

    def report(code: str, message: str, hint: str) -> None:
        problems.append(Problem(code=code, database=database.name, message=message, hint=hint))

    create = "Run `manage.py backup create`, or use Back up now in the admin."
    if not Path(database.path).exists():
        report("database_missing", f"The file {database.path} does not exist.", "Restore it, or correct the path.")
    if last_verified is None:
        report("never_verified", "There is no verified backup.", create)
    elif last_verified.taken_at is not None and now - last_verified.taken_at > limit:
        hours = (now - last_verified.taken_at).total_seconds() / 3600
        allowed = limit.total_seconds() / 3600
        report("too_old", f"The last verified backup is {hours:.1f} h old; the limit is {allowed:g} h.", create)
    if last_verified is not None and last_verified.verdict != Verdict.PASSED:
        report(
            "not_proven_again",
            f"The last verification of the newest verified backup says {last_verified.get_verdict_display()}.",
            f"See `manage.py backup show {last_verified.pk}`, and make a new backup.",
        )
    if last_attempt is not None and last_attempt.state == Backup.State.FAILED:
        report("last_run_failed", f"The last backup failed: {last_attempt.reason}", last_attempt.hint or create)
    return DatabaseHealth(
        database=database,
        last_verified=last_verified,
        last_attempt=last_attempt,
        limit=limit,
        problems=problems,
    )
