"""The facts of a database: what a copy of it must hold.

A census is counted in the source, inside the read transaction that the snapshot is taken in,
and again in the snapshot. Two equal censuses are what ``integrity_check`` cannot give: proof
that no table was lost.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from .errors import VerificationError, missing_collation, primary_code
from .progress import Watch

Fact = TypeVar("Fact")

# A password that starts with "!" is unusable (django.contrib.auth.hashers).
CAN_ADMINISTER = "is_superuser AND is_active AND password <> '' AND password NOT LIKE '!%'"
"""SQL condition on Django's user table: an active superuser with a usable password."""

# Stored virtual tables whose rows can be counted without running foreign code.
_COUNTABLE_MODULES = frozenset({"fts3", "fts4", "fts5", "rtree", "rtree_i32", "geopoly"})
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\s+TABLE\b.*?\bUSING\s+[\"'`\[]?(\w+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Census:
    """Facts counted in one database at one instant."""

    tables: dict[str, int]
    """Rows per table, SQLite's own ``sqlite_*`` tables left out."""
    uncounted: tuple[str, ...] = ()
    """Virtual tables whose module is not available here (their stored rows are in ``tables``), and
    tables whose name is not UTF-8, which Python cannot ask for."""
    unreadable: tuple[str, ...] = ()
    """Tables whose rows cannot be counted because their pages are damaged."""
    schema_sha256: str
    page_size: int
    page_count: int
    encoding: str
    user_version: int
    application_id: int
    auto_vacuum: int
    migrations: tuple[tuple[str, str], ...] = ()
    """Applied Django migrations as ``(app, name)``, sorted; empty without the table."""
    superusers: int | None = None
    """Active superusers with a usable password; ``None`` when the database holds no users."""

    @property
    def rows(self) -> int:
        """Rows in all tables together."""
        return sum(self.tables.values())

    @property
    def size_bytes(self) -> int:
        """Size of the database file in bytes."""
        return self.page_size * self.page_count

    def as_dict(self) -> dict[str, Any]:
        """The census as JSON types, for the manifest and the catalogue."""
        facts = asdict(self)
        facts["uncounted"] = list(self.uncounted)
        facts["unreadable"] = list(self.unreadable)
        facts["migrations"] = [list(each) for each in self.migrations]
        return facts

    @classmethod
    def from_dict(cls, facts: dict[str, Any]) -> Census:
        """Read what :meth:`as_dict` wrote.

        Raises:
            VerificationError: a fact is missing or has the wrong type.
        """
        try:
            return cls(
                tables={str(name): int(rows) for name, rows in facts["tables"].items()},
                uncounted=tuple(str(name) for name in facts["uncounted"]),
                unreadable=tuple(str(name) for name in facts["unreadable"]),
                schema_sha256=str(facts["schema_sha256"]),
                page_size=int(facts["page_size"]),
                page_count=int(facts["page_count"]),
                encoding=str(facts["encoding"]),
                user_version=int(facts["user_version"]),
                application_id=int(facts["application_id"]),
                auto_vacuum=int(facts["auto_vacuum"]),
                migrations=tuple((str(app), str(name)) for app, name in facts["migrations"]),
                superusers=None if facts["superusers"] is None else int(facts["superusers"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise VerificationError(
                "The census in the manifest is not readable.", "Treat the manifest as altered."
            ) from exc

    def differences(self, other: Census) -> list[str]:
        """What ``other`` has differently, one readable line each; empty when equal."""
        lines: list[str] = []
        for name in sorted(self.tables.keys() | other.tables.keys()):
            ours, theirs = self.tables.get(name), other.tables.get(name)
            if ours != theirs:
                lines.append(f"table {name}: {_count(ours)} expected, {_count(theirs)} found")
        mine, yours = self.as_dict(), other.as_dict()
        for fact in mine:
            if fact != "tables" and mine[fact] != yours[fact]:
                lines.append(f"{fact.replace('_', ' ')}: {mine[fact]} expected, {yours[fact]} found")
        return lines

    def empty_tables(self, required: tuple[str, ...]) -> list[str]:
        """Those of the ``required`` tables that are missing or hold no row."""
        return [name for name in required if not self.tables.get(name)]


def _count(rows: int | None) -> str:
    return "no table" if rows is None else f"{rows} rows"


def quoted(name: str) -> str:
    """An identifier for use in SQL text."""
    return '"' + name.replace('"', '""') + '"'


def take_census(connection: sqlite3.Connection, *, watch: Watch) -> Census:
    """Count the facts of the database on ``connection``, in one read transaction.

    The caller holds the transaction open, or reads a file that nobody writes.

    A table whose pages are damaged is named in ``unreadable``, and fails every check of the census.

    Raises:
        sqlite3.Error: the schema cannot be read, or the file is locked.
        CancelledError, DeadlineError: from ``watch``.
    """
    with watch.over(connection):
        # The casts: a hostile schema may hold blobs where SQLite itself accepts them as text.
        schema = connection.execute(
            "SELECT CAST(type AS TEXT), CAST(name AS TEXT), CAST(tbl_name AS TEXT), CAST(sql AS TEXT) "
            "FROM sqlite_schema ORDER BY type, name, tbl_name"
        ).fetchall()
        tables: dict[str, int] = {}
        uncounted: list[str] = []
        unreadable: list[str] = []
        for kind, name, _, sql in schema:
            if kind != "table" or name.lower().startswith("sqlite_"):
                continue
            try:
                rows = _count_rows(connection, name, sql or "")
            except sqlite3.DatabaseError as exc:
                # A damaged table must not keep the others from being copied as evidence.
                if primary_code(exc) != sqlite3.SQLITE_CORRUPT:
                    raise
                unreadable.append(name)
                continue
            if rows is None:
                uncounted.append(name)
            else:
                tables[name] = rows
        return Census(
            tables=tables,
            uncounted=tuple(sorted(uncounted)),
            unreadable=tuple(sorted(unreadable)),
            schema_sha256=_schema_digest(schema),
            page_size=_pragma_int(connection, "page_size"),
            page_count=_pragma_int(connection, "page_count"),
            encoding=str(_pragma(connection, "encoding")),
            user_version=_pragma_int(connection, "user_version"),
            application_id=_pragma_int(connection, "application_id"),
            auto_vacuum=_pragma_int(connection, "auto_vacuum"),
            migrations=_unless_damaged(lambda: _migrations(connection, tables), damaged=()),
            superusers=_unless_damaged(lambda: _superusers(connection, tables), damaged=None),
        )


def _unless_damaged(read: Callable[[], Fact], *, damaged: Fact) -> Fact:
    """What ``read`` gives, or ``damaged`` when the pages it needs are: the structure check names them."""
    try:
        return read()
    except sqlite3.DatabaseError as exc:
        if primary_code(exc) != sqlite3.SQLITE_CORRUPT:
            raise
        return damaged


def _pragma(connection: sqlite3.Connection, name: str) -> object:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _pragma_int(connection: sqlite3.Connection, name: str) -> int:
    return int(str(_pragma(connection, name)))


def _schema_digest(schema: list[tuple[str, str, str, str | None]]) -> str:
    text = json.dumps(schema, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _count_rows(connection: sqlite3.Connection, name: str, sql: str) -> int | None:
    virtual = _VIRTUAL.match(sql)
    statement = f"SELECT count(*) FROM {quoted(name)}"  # noqa: S608 - the name is quoted  # nosec B608
    if not _is_utf8(name):
        return None
    if virtual is None:
        return _count_stored(connection, statement)
    if virtual.group(1).lower() not in _COUNTABLE_MODULES:
        return None
    try:
        return int(connection.execute(statement).fetchone()[0])
    except sqlite3.OperationalError as exc:
        # A module that this SQLite lacks, or an external-content table whose content is gone.
        # Its shadow tables are counted like any table, so nothing is lost from the proof.
        if exc.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise
        return None


def _count_stored(connection: sqlite3.Connection, statement: str) -> int:
    """Count the rows of a stored table, whatever collations of its application its indexes use."""
    lent: set[str] = set()
    try:
        while True:
            try:
                return int(connection.execute(statement if not lent else f"{statement} NOT INDEXED").fetchone()[0])
            except sqlite3.OperationalError as exc:
                name = missing_collation(exc)
                if name is None or name in lent:
                    raise
            # Counting walks the table and compares nothing, so any order will do for it, and for nothing else.
            connection.create_collation(name, _no_order)
            lent.add(name)
    finally:
        for name in lent:
            connection.create_collation(name, None)


def _no_order(one: str, other: str) -> int:
    raise AssertionError("counting compares nothing")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    """Names of the columns of a table; empty when there is no such table."""
    return {str(row[1]) for row in connection.execute(f"PRAGMA table_info({quoted(table)})")}


def _migrations(connection: sqlite3.Connection, tables: dict[str, int]) -> tuple[tuple[str, str], ...]:
    if "django_migrations" not in tables or not {"app", "name"} <= columns_of(connection, "django_migrations"):
        return ()
    found = connection.execute("SELECT DISTINCT app, name FROM django_migrations ORDER BY app, name")
    return tuple((str(app), str(name)) for app, name in found)


def _superusers(connection: sqlite3.Connection, tables: dict[str, int]) -> int | None:
    """Count the people who can administer the site, in each table shaped like Django's user model."""
    needed = {"is_superuser", "is_active", "password"}
    # A custom user model lives in a table of its own; Django's default name is the common case.
    candidates = ["auth_user"] if "auth_user" in tables else sorted(tables)
    found: int | None = None
    for table in candidates:
        if not needed <= columns_of(connection, table):
            continue
        statement = (
            f"SELECT count(*) FROM {quoted(table)} "  # noqa: S608 - the name is quoted  # nosec B608
            f"WHERE {CAN_ADMINISTER}"
        )
        found = (found or 0) + int(connection.execute(statement).fetchone()[0])
    return found
