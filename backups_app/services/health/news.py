"""Are people told? And what is worth telling without being a problem."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from django.db.models import OuterRef, Subquery

from ...core.sqlite import has_wal_reset_bug
from ...models import Schedule, ScheduledRun
from ..notifications import undelivered
from ..wording import english
from .facts import Look, Problem


def find_undelivered(look: Look) -> Iterator[Problem]:
    """Do notifications arrive?"""
    for each in undelivered(now=look.now):
        yield Problem(
            code="notifications_undelivered",
            database="",
            subject=each.about,
            message=each.message,
            hint=each.hint,
        )


def note_sqlite_bug(_look: Look) -> Iterator[str]:
    """Is this SQLite one that can corrupt databases?"""
    if has_wal_reset_bug():
        yield f"SQLite {sqlite3.sqlite_version} has a known WAL corruption bug; update to 3.51.3, 3.50.7 or 3.44.6."


def note_missed_runs(_look: Look) -> Iterator[str]:
    """Did the last run of a schedule have to stand for others that nobody fired?"""
    last = ScheduledRun.objects.filter(schedule=OuterRef("pk")).order_by("-due_at").values("missed")
    missed = Schedule.objects.filter(is_enabled=True, database__is_under_care=True).annotate(
        last_missed=Subquery(last[:1])
    )
    for each in missed.filter(last_missed__gt=0).select_related("database"):
        yield (
            f"{each.database.name}: the last scheduled run ({english(each, 'kind')}) was late and stands for "
            f"{each.last_missed} missed one(s); the next that is on time ends this note."
        )
