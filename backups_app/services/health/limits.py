"""From when on something is a problem: the settings, and a database's own policy before them."""

from __future__ import annotations

from datetime import timedelta

from ... import conf
from ...models import Database

MOST_ROWS = 500
"""No query of a page returns more."""


def freshness_limit(database: Database) -> timedelta:
    """The oldest acceptable last verified backup."""
    return timedelta(hours=float(database.freshness_hours or conf.get("FRESHNESS_HOURS")))


def drill_limit() -> timedelta | None:
    """The oldest acceptable last drill that passed; None when no drills are asked for."""
    days = conf.get("DRILL_DAYS")
    return None if days is None else timedelta(days=float(days))


def anomaly_share() -> float:
    """The share of rows or bytes, 0 to 1, whose loss from one backup to the next needs attention."""
    return float(conf.get("ANOMALY_PERCENT")) / 100
