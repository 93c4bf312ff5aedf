"""What a restore would change: a live database and a backup of it, side by side."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from .census import CAN_ADMINISTER, Census, columns_of, quoted, take_census
from .progress import Watch

# Rows that Django writes by itself: a database that holds nothing else is a schema without data.
BOOKKEEPING_TABLES = frozenset({"django_migrations", "django_content_type", "auth_permission", "django_site"})


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two databases, read once."""

    census: Census
    schema: dict[str, str]
    """``type name`` → SQL."""
    administrators: tuple[str, ...]
    """Names of active superusers with a usable password."""
    sessions: frozenset[str]
    """Keys of the sessions that have not expired."""


def read_side(connection: sqlite3.Connection, *, user_table: str, name_column: str, watch: Watch) -> Side:
    """Read what a comparison needs; the view must not change meanwhile.

    Raises:
        sqlite3.Error: it cannot be read. CancelledError, DeadlineError: from ``watch``.
    """
    census = take_census(connection, watch=watch)
    with watch.over(connection):
        return Side(
            census=census,
            schema=_schema(connection),
            administrators=_administrators(connection, census, user_table, name_column),
            sessions=_sessions(connection, census),
        )


def _schema(connection: sqlite3.Connection) -> dict[str, str]:
    statement = (
        "SELECT CAST(type AS TEXT), CAST(name AS TEXT), CAST(sql AS TEXT) FROM sqlite_schema "
        "WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    return {f"{kind} {name}": sql or "" for kind, name, sql in connection.execute(statement)}


def _administrators(connection: sqlite3.Connection, census: Census, table: str, column: str) -> tuple[str, ...]:
    needed = {"is_superuser", "is_active", "password", column}
    if table not in census.tables or not needed <= columns_of(connection, table):
        return ()
    statement = (
        f"SELECT {quoted(column)} FROM {quoted(table)} "  # noqa: S608 - the names are quoted  # nosec B608
        f"WHERE {CAN_ADMINISTER} ORDER BY 1 COLLATE BINARY LIMIT 100"
    )
    return tuple(str(row[0]) for row in connection.execute(statement))


def _sessions(connection: sqlite3.Connection, census: Census) -> frozenset[str]:
    table = "django_session"
    if table not in census.tables or not {"session_key", "expire_date"} <= columns_of(connection, table):
        return frozenset()
    found = connection.execute("SELECT session_key FROM django_session WHERE expire_date > datetime('now')")
    return frozenset(str(row[0]) for row in found)


def holds_data(census: Census) -> bool:
    """Whether any table has rows that Django did not write by itself."""
    return any(rows for name, rows in census.tables.items() if name not in BOOKKEEPING_TABLES)


def compare(now: Side | None, after: Side) -> dict[str, Any]:
    """The differences as JSON types: tables, schema, administrators, sessions.

    ``now`` is None when the live database is missing or cannot be read.
    """
    rows_now = now.census.tables if now else {}
    rows_after = after.census.tables
    schema_now = now.schema if now else {}
    return {
        "tables": [_table(name, rows_now.get(name), rows_after.get(name)) for name in sorted({*rows_now, *rows_after})],
        "schema": {
            "only_now": sorted(schema_now.keys() - after.schema.keys()),
            "only_after": sorted(after.schema.keys() - schema_now.keys()) if now else [],
            "changed": sorted(
                name for name in schema_now.keys() & after.schema.keys() if schema_now[name] != after.schema[name]
            ),
        },
        "superusers": list(after.administrators),
        "sessions_ending": len(now.sessions - after.sessions) if now else 0,
    }


def _table(name: str, now: int | None, after: int | None) -> dict[str, Any]:
    change = (after or 0) - (now or 0)
    return {"name": name, "now": now, "after": after, "added": max(change, 0), "lost": max(-change, 0)}
