"""Checks for the setting DRILL_CHECKS, ready to use and to copy.

Each is given a read-only ``sqlite3`` connection on the restored database, and returns a text when
something is wrong. Such a text is kept as evidence: let it hold numbers and names of tables, not people's data.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

MOST_DAYS_WITHOUT_LOGIN = 90


def somebody_can_administer(connection: sqlite3.Connection) -> str | None:
    """After a restore somebody must be able to sign in to the admin."""
    (count,) = connection.execute(
        "SELECT count(*) FROM auth_user WHERE is_superuser AND is_active AND password NOT LIKE '!%'"
    ).fetchone()
    return None if count else "no active superuser with a password"


def migrations_are_recorded(connection: sqlite3.Connection) -> str | None:
    """A database without them would be migrated from the start, over its own tables."""
    (count,) = connection.execute("SELECT count(*) FROM django_migrations").fetchone()
    return None if count else "django_migrations is empty"


def people_were_here_lately(connection: sqlite3.Connection) -> str | None:
    """A backup of the wrong or of an abandoned database looks like this: nobody has signed in for months."""
    (newest,) = connection.execute("SELECT max(last_login) FROM auth_user").fetchone()
    if newest is None:
        return "nobody has ever signed in"
    last = datetime.fromisoformat(str(newest))
    last = last if last.tzinfo else last.replace(tzinfo=UTC)
    if datetime.now(UTC) - last > timedelta(days=MOST_DAYS_WITHOUT_LOGIN):
        return f"nobody has signed in since {last:%Y-%m-%d}"
    return None
