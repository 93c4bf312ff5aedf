"""The health in numbers, for monitors; what becomes of them is the caller's."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count

from ... import __version__
from ...models import Backup, Host, Job, Notification
from ..hosts import SILENCE
from .check import check_health
from .facts import DatabaseHealth, FileSystem, Health

Values = Sequence[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One metric: its name, what it means, the names of its labels, and its values now."""

    name: str
    text: str
    labels: tuple[str, ...]
    values: Values


def _time(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _duration(backup: Backup | None) -> float | None:
    if backup is None or backup.finished_at is None:
        return None
    return (backup.finished_at - backup.created_at).total_seconds()


_DATABASE: tuple[tuple[str, str, Callable[[DatabaseHealth], float | None]], ...] = (
    (
        "walsafe_last_verified_timestamp_seconds",
        "When the data in the last verified backup was taken.",
        lambda each: _time(each.last_verified.taken_at if each.last_verified else None),
    ),
    (
        "walsafe_freshness_limit_seconds",
        "The oldest acceptable last verified backup.",
        lambda each: each.limit.total_seconds(),
    ),
    (
        "walsafe_last_attempt_timestamp_seconds",
        "When the last backup was begun, unless it was cancelled.",
        lambda each: _time(each.last_attempt.created_at if each.last_attempt else None),
    ),
    (
        "walsafe_last_attempt_failed",
        "1 when the last backup failed.",
        lambda each: None if each.last_attempt is None else float(each.last_attempt.state == Backup.State.FAILED),
    ),
    (
        "walsafe_last_drill_timestamp_seconds",
        "When a restore was last rehearsed with success.",
        lambda each: _time(each.last_drill_at),
    ),
    (
        "walsafe_backup_size_bytes",
        "Size of the database in the last verified backup.",
        lambda each: each.last_verified.size_bytes if each.last_verified else None,
    ),
    (
        "walsafe_backup_stored_bytes",
        "Size of the archive of the last verified backup.",
        lambda each: each.last_verified.archive_bytes if each.last_verified else None,
    ),
    (
        "walsafe_backup_rows",
        "Rows in the last verified backup.",
        lambda each: each.last_verified.row_count if each.last_verified else None,
    ),
    (
        "walsafe_backup_duration_seconds",
        "How long the last verified backup took, its proof included.",
        lambda each: _duration(each.last_verified),
    ),
    ("walsafe_database_bytes", "Size of the live database file.", lambda each: each.size_bytes),
    ("walsafe_wal_bytes", "Size of its write-ahead log.", lambda each: each.wal_bytes),
)

_DISK: tuple[tuple[str, str, Callable[[FileSystem], float]], ...] = (
    ("walsafe_free_bytes", "Free bytes on a disk that backups or restores write to.", lambda each: each.free_bytes),
    ("walsafe_total_bytes", "Size of that disk.", lambda each: each.total_bytes),
    (
        "walsafe_needed_bytes",
        "What the hungriest next backup or restore may need there.",
        lambda each: each.needed_bytes,
    ),
)


def measure(*, now: datetime) -> list[Measure]:
    """Every metric at ``now``, computed from the evidence in a bounded number of queries.

    Raises:
        DatabaseError: the catalogue cannot be used.
    """
    return list(_measures(check_health(now=now)))


def _measures(health: Health) -> Iterator[Measure]:
    yield _single("walsafe_info", "The versions at work.", ("version", "sqlite"), (__version__, sqlite3.sqlite_version))
    yield Measure(
        name="walsafe_healthy", text="1 when nothing needs attention.", labels=(), values=[((), float(health.is_ok))]
    )
    counts = Counter((problem.code, problem.database) for problem in health.problems)
    yield Measure(
        name="walsafe_problem",
        text="Problems that need attention, by code and database.",
        labels=("code", "database"),
        values=[(key, float(count)) for key, count in counts.items()],
    )
    for name, text, value in _DATABASE:
        found = [((each.database.name,), value(each)) for each in health.databases]
        values = [(labels, float(number)) for labels, number in found if number is not None]
        yield Measure(name=name, text=text, labels=("database",), values=values)
    for name, text, size in _DISK:
        values = [((str(each.folder),), float(size(each))) for each in health.disks]
        yield Measure(name=name, text=text, labels=("folder",), values=values)
    yield from _counts(now=health.checked_at)


def _single(name: str, text: str, labels: tuple[str, ...], values: tuple[str, ...]) -> Measure:
    return Measure(name=name, text=text, labels=labels, values=[(values, 1.0)])


def _counts(*, now: datetime) -> Iterator[Measure]:
    backups = Backup.objects.filter(database__is_under_care=True).order_by().values_list("database__name", "state")
    yield Measure(
        name="walsafe_backups",
        text="Backups in the catalogue, by database and state.",
        labels=("database", "state"),
        values=[((name, state), float(count)) for name, state, count in backups.annotate(count=Count("pk"))],
    )
    jobs = Counter(dict(Job.objects.order_by().values_list("state").annotate(Count("pk"))))
    yield Measure(
        name="walsafe_jobs",
        text="Jobs in the catalogue, by state.",
        labels=("state",),
        values=[((str(state),), float(jobs[state])) for state in Job.State.values],
    )
    news = Counter(dict(Notification.objects.order_by().values_list("state").annotate(Count("pk"))))
    yield Measure(
        name="walsafe_notifications",
        text="Notifications of the last 90 days, by state; pending ones wait to be sent.",
        labels=("state",),
        values=[((str(state),), float(news[state])) for state in Notification.State.values],
    )
    hosts = Host.objects.filter(stopped_at=None).values_list("name", "seen_at")
    yield Measure(
        name="walsafe_worker_up",
        text="1 when the supervisor of a host was heard of lately. Those that were told to end are left out.",
        labels=("host",),
        values=[((name,), float(seen_at >= now - SILENCE)) for name, seen_at in hosts],
    )
