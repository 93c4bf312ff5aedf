"""Is the data safe? Answered from evidence, for people and for monitors."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from django.db.models import Count, Min
from django.utils import timezone

from .. import conf
from ..core.sqlite import has_wal_reset_bug
from ..models import Backup, Database, Finding, Verification
from ..models.backup import Verdict
from .databases import databases_under_care
from .hosts import silent_hosts
from .jobs.attend import ready_jobs
from .keys.health import check_keys
from .notifications import undelivered
from .schedules import overdue
from .signing import replacement_event

_QUEUE_PATIENCE = timedelta(minutes=5)
"""How long a job that could run may wait for a worker."""

_SAY_FOR = timedelta(days=30)
"""How long the status names a new signing key."""


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
    last_drill: Verification | None = None
    """The newest drill of any of its backups."""

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
    warnings: list[Problem] = field(default_factory=list)
    """What should be better, and is no alarm."""

    @property
    def is_ok(self) -> bool:
        """Whether nothing needs attention."""
        return not self.problems


def check_health(*, now: datetime | None = None) -> Health:
    """Look at every database under care."""
    now = now or timezone.now()
    found = [_check_database(database, now=now) for database in databases_under_care()]
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
    keys = [
        (each.is_warning, Problem(code=each.code, database="", message=each.message, hint=each.hint))
        for each in check_keys(now=now)
    ]
    problems += [problem for is_warning, problem in keys if not is_warning]
    problems += _found_by_rescan()
    notices: list[str] = []
    replaced = replacement_event()
    if replaced is not None and now - replaced.at < _SAY_FOR:
        notices.append(
            f"A new signing key was made on {replaced.at:%Y-%m-%d}; older manifests are checked with the old public "
            "key, kept in state/signing-keys. Put the old state/signing.key back if you still have it."
        )
    if has_wal_reset_bug():
        notices.append(
            f"SQLite {sqlite3.sqlite_version} has a known WAL corruption bug; update to 3.51.3, 3.50.7 or 3.44.6."
        )
    return Health(
        checked_at=now,
        databases=found,
        problems=problems,
        notices=notices,
        warnings=[problem for is_warning, problem in keys if is_warning],
    )


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


def _found_by_rescan() -> list[Problem]:
    """What the last rescan found wrong: one problem for each database and kind of damage."""
    problems: list[Problem] = []
    damage = Finding.objects.filter(is_damage=True).order_by("database_name", "code")
    for each in damage.values("database_name", "code").annotate(count=Count("pk"), first=Min("pk")):
        first = Finding.objects.get(pk=each["first"])
        more = f" And {each['count'] - 1} more like it." if each["count"] > 1 else ""
        where = f" ({first.path})" if first.path else ""
        hint = f"{first.hint} `manage.py backup rescan` looks again."
        problems.append(
            Problem(code=first.code, database=first.database_name, message=f"{first.message}{where}{more}", hint=hint)
        )
    return problems


def freshness_limit(database: Database) -> timedelta:
    """The oldest acceptable last verified backup."""
    return timedelta(hours=float(database.freshness_hours or conf.get("FRESHNESS_HOURS")))


def _check_database(database: Database, *, now: datetime) -> DatabaseHealth:
    # An import is as old as its content, however it got its time: it says nothing about today.
    attempts = Backup.objects.filter(database=database).exclude(trigger=Backup.Trigger.IMPORT)
    last_verified = attempts.filter(state=Backup.State.VERIFIED).order_by("-taken_at").first()
    last_attempt = attempts.exclude(state=Backup.State.RUNNING).order_by("-created_at").first()
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
    last_drill = (
        Verification.objects.filter(backup__database=database, level=Verification.Level.DRILL)
        .order_by("-finished_at", "-pk")
        .first()
    )
    problems += _check_drill(database, last_drill, now=now)
    return DatabaseHealth(
        database=database,
        last_drill=last_drill,
        last_verified=last_verified,
        last_attempt=last_attempt,
        limit=limit,
        problems=problems,
    )


def _check_drill(database: Database, last: Verification | None, *, now: datetime) -> list[Problem]:
    """What is wrong with the drills: the last one failed, or one is missing for too long."""
    if last is not None and last.verdict != Verdict.PASSED:
        message = f"The last drill did not pass: {last.reason}"
        return [Problem(code="drill_failed", database=database.name, message=message, hint=last.hint or _DRILL)]
    days = conf.get("DRILL_DAYS")
    if days is None or (last is not None and now - last.finished_at <= timedelta(days=float(days))):
        return []
    if last is None:
        message = "No restore was ever rehearsed."
    else:
        age = (now - last.finished_at).total_seconds() / 86_400
        message = f"The last drill was {age:.1f} days ago; the limit is {days:g} days."
    return [Problem(code="drill_too_old", database=database.name, message=message, hint=_DRILL)]


_DRILL = "Run `manage.py backup verify ID --level drill`, or add a schedule of the kind drill."
