"""Rehearsed restores: was there one lately, and did it succeed?"""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Look, Problem
from .limits import drill_limit


def find_failed_drills(look: Look) -> Iterator[Problem]:
    """Did the newest drill of each database pass?"""
    for each in look.databases:
        if each.has_failed_drill:
            yield Problem(
                code="drill_failed",
                database=each.database.name,
                message="The last drill did not pass: a restore may fail when it is needed.",
                hint="See its verification in the admin; cure the cause, then drill again.",
            )


def find_missed_drills(look: Look) -> Iterator[Problem]:
    """Was a restore rehearsed within ``DRILL_DAYS``, where that is asked for?"""
    limit = drill_limit()
    if limit is None:
        return
    for each in look.databases:
        at = each.last_drill_at
        if at is not None and look.now - at <= limit:
            continue
        yield Problem(
            code="drill_overdue",
            database=each.database.name,
            message="No restore has been rehearsed yet."
            if at is None
            else f"The last drill that passed was {(look.now - at).days} days ago; the limit is {limit.days} days.",
            hint="Run `manage.py backup verify --level drill`, or add a schedule for drills.",
        )
