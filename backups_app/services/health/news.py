"""Are people told? And what is worth telling without being a problem."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from ...core.sqlite import has_wal_reset_bug
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


def note_missed_runs(look: Look) -> Iterator[str]:
    """Did the last run of a schedule have to stand for others that nobody fired?"""
    for each in look.schedules:
        missed = getattr(each, "last_missed", None)
        if missed:
            yield (
                f"{each.database.name}: the last scheduled run ({english(each, 'kind')}) was late and stands for "
                f"{missed} missed one(s); the next that is on time ends this note."
            )
