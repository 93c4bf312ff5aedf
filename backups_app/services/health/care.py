"""Is everything looked after that was, and does the clock tell the time?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from .facts import Look, Problem

_CLOCK_PATIENCE = timedelta(minutes=5)
"""Clocks of several hosts may differ by so much."""

MISSED_FOR = timedelta(days=7)
"""How long after its last backup a database that left care is a problem: then it was meant."""


def find_deserters(look: Look) -> Iterator[Problem]:
    """Did an alias vanish from ``DATABASES`` that was backed up lately? A slip in the settings ends its backups."""
    for each in look.deserters:
        yield Problem(
            code="left_care",
            database=each.name,
            message=f"The alias {each.alias!r} is gone from DATABASES, or is no SQLite file any more: it is no longer "
            "backed up.",
            hint="Put it back into the settings. If it was meant: its backups stay, and this ends a week after the "
            "last of them.",
        )


def find_clock_set_back(look: Look) -> Iterator[Problem]:
    """Is anything recorded that is still to come? Ages would be wrong, and schedules stand still."""
    seen = [each.last_attempt.created_at for each in look.databases if each.last_attempt is not None]
    seen += [moment for each in look.databases if (moment := each.last_verified and each.last_verified.taken_at)]
    newest = max([*seen, *([look.newest_job_at] if look.newest_job_at else [])], default=None)
    if newest is not None and newest > look.now + _CLOCK_PATIENCE:
        yield Problem(
            code="clock_set_back",
            database="",
            message=f"The newest record is of {newest:%Y-%m-%d %H:%M:%S} UTC, which is still to come.",
            hint="Set the clock of this host right: ages are wrong and schedules may stand still until then.",
        )
