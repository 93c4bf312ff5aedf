"""Gather the evidence: a handful of queries, however many databases and backups, and ``stat`` of the files."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from django.db.models import Max, OuterRef, Subquery

from ...core.sqlite import sidecar
from ...models import Backup, Database, Verification
from ..hosts import is_here
from ..keys.health import check_keys
from .anomalies import COMPARED
from .facts import DatabaseHealth, Look
from .limits import freshness_limit
from .space import look_at_disks

_VERIFIED = [f"verified_{place}" for place in range(COMPARED + 1)]


def gather(*, now: datetime) -> Look:
    """The evidence about everything under care at ``now``.

    Live databases are never opened: of their files only ``stat`` is asked, on this host. The number of queries
    does not grow with the number of backups, and with that of databases only by one per 150.
    """
    rows = list(_annotated())
    wanted = {pk for row in rows for name in (*_VERIFIED, "attempted") if (pk := getattr(row, name))}
    backups = Backup.objects.defer("census").in_bulk(wanted)
    drills = Verification.objects.defer("checks").in_bulk([row.drilled for row in rows if row.drilled])
    passed = _passed_drills()
    databases = [
        _facts(row, backups=backups, drill=drills.get(row.drilled), passed_at=passed.get(row.pk)) for row in rows
    ]
    return Look(now=now, databases=databases, disks=look_at_disks(databases), keys=check_keys(now=now))


def _annotated() -> Any:
    """The databases, each with the ids of its newest verified backups and of its last attempt.

    One look into an index for each id: PostgreSQL and SQLite have no common way to take the newest
    few of each group without reading all of them.
    """
    # An import is as old as its content, however it got its time: it says nothing about today.
    own = Backup.objects.filter(database=OuterRef("pk")).exclude(trigger=Backup.Trigger.IMPORT)
    verified = own.filter(state=Backup.State.VERIFIED).order_by("-taken_at").values("pk")
    ended = own.exclude(state=Backup.State.RUNNING).order_by("-created_at").values("pk")
    newest = {name: Subquery(verified[place : place + 1]) for place, name in enumerate(_VERIFIED)}
    drills = Verification.objects.filter(backup__database=OuterRef("pk"), level=Verification.Level.DRILL)
    drilled = drills.order_by("-finished_at", "-pk").values("pk")[:1]
    rows = Database.objects.filter(is_under_care=True)
    return rows.annotate(**newest, attempted=Subquery(ended[:1]), drilled=Subquery(drilled))


def _passed_drills() -> dict[int, datetime]:
    """When each database last passed a drill."""
    passed = Verification.objects.filter(level=Verification.Level.DRILL, verdict=Verification.Verdict.PASSED)
    newest = passed.order_by().values("backup__database").annotate(at=Max("finished_at"))
    return {each["backup__database"]: each["at"] for each in newest}


def _facts(
    row: Any, *, backups: dict[str, Backup], drill: Verification | None, passed_at: datetime | None
) -> DatabaseHealth:
    verified = [backups[pk] for name in _VERIFIED if (pk := getattr(row, name)) in backups]
    for each in verified:
        each.database = row  # saves a query where somebody asks for its name
    own, path = is_here(row), Path(row.path)
    return DatabaseHealth(
        database=row,
        last_verified=verified[0] if verified else None,
        last_attempt=backups.get(row.attempted),
        limit=freshness_limit(row),
        earlier=verified[1:],
        is_here=own,
        size_bytes=_size(path) if own else None,
        wal_bytes=(_size(sidecar(path, "-wal")) or 0) if own else 0,
        last_drill=drill,
        last_drill_at=passed_at,
    )


def _size(path: Path) -> int | None:
    # Never open(): closing the descriptor would drop the locks that this process holds on the database.
    try:
        return path.stat().st_size
    except OSError:
        return None
