"""What an SQLite file holds: is it sound, does it hold rows of data, and how new are they?

The file is a private copy in scratch, and hostile. Only ordinary tables are read, each without
its indexes; no view, trigger or virtual table is. The expressions of indexes and of generated
columns are computed by SQLite's own check only, under its limits and ours.
"""

from __future__ import annotations

import re
import sqlite3
import struct
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from ..census import quoted
from ..errors import SQLITE_ERRORS, BackupError, VerificationError, primary_code
from ..manifest import utc_text
from ..progress import Watch
from ..sqlite import interrupted_by, open_foreign
from ..verify import check_structure
from .limits import FileWatch, Limits, OverLimitError, TookTooLongError
from .verdict import Finding

FORMAT = "sqlite"

# Up to this size integrity_check runs, above it quick_check (1 s per GB, not 11 s).
_THOROUGH_BYTES = 64 << 20

# Tables that migrating fills without anybody using the site, and how many rows count as that.
_ANY = 1 << 62
_BOOKKEEPING = {
    "django_migrations": _ANY,
    "django_content_type": _ANY,
    "auth_permission": _ANY,
    "django_site": 1,  # example.com
    "alembic_version": _ANY,
    "schema_migrations": _ANY,
}

# Rows that an empty full-text or spatial index keeps in its own tables from the beginning.
_SHADOWS = {
    "fts5": {"_data": 2, "_config": 1},
    "fts4": {"_stat": 1},
    "rtree": {"_node": 1},
    "rtree_i32": {"_node": 1},
    "geopoly": {"_node": 1},
}
_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\s+TABLE\b.*?\bUSING\s+[\"'`\[]?(\w+)", re.IGNORECASE | re.DOTALL)
_IS_VIRTUAL = re.compile(r"\s*CREATE\s+VIRTUAL\b", re.IGNORECASE)

_TELLS_TIME = re.compile(
    r"(_at|_on|date|time|timestamp|_login|_joined|created|updated|modified|applied)$", re.IGNORECASE
)
_TIME_TYPE = re.compile(r"date|time", re.IGNORECASE)
_OLDEST = datetime(1990, 1, 1, tzinfo=UTC)
_TAIL_ROWS = 200_000
_LARGE_TABLE_ROWS = 1_000_000


@dataclass(kw_only=True)
class _Tables:
    """The ordinary tables of a database and their rows."""

    rows: dict[str, int] = field(default_factory=dict)
    virtual: dict[str, str] = field(default_factory=dict)
    """Virtual tables and the name of their module, not read."""
    unreadable: list[str] = field(default_factory=list)
    nameless: int = 0
    """Tables whose name is not UTF-8, which Python cannot ask for."""

    def bookkeeping(self) -> dict[str, int]:
        """Those tables that hold rows, but none that people made."""
        most = dict(_BOOKKEEPING)
        for name, module in self.virtual.items():
            most |= {f"{name}{suffix}": rows for suffix, rows in _SHADOWS.get(module.lower(), {}).items()}
        return {name: rows for name, rows in self.rows.items() if 0 < rows <= most.get(name, 0)}


def judge_database(path: Path, *, limits: Limits, watch: Watch, now: datetime) -> Finding:
    """Judge the private copy of an SQLite file, beside which no other file lies.

    Raises:
        VerificationError: it is damaged. OverLimitError: its schema is larger than allowed.
        BackupError: SQLite failed for a reason that says nothing about the file.
        CancelledError, DeadlineError: from ``watch``.
    """
    try:
        _bound_schema(path, limits=limits, watch=watch)
        with open_foreign(path) as connection, interrupted_by(watch, connection):
            size_bytes = path.stat().st_size
            finding = _judge(connection, size_bytes, limits=limits, watch=watch, now=now)
            return _with_rest(finding, size_bytes - _read_bytes(connection))
    except SQLITE_ERRORS as exc:
        raise error_of(exc) from exc


def _read_bytes(connection: sqlite3.Connection) -> int:
    """How much of the file SQLite takes for the database: as many pages as its header counts."""
    pages, page_bytes = (connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_count", "page_size"))
    return int(pages * page_bytes)


def _with_rest(finding: Finding, rest_bytes: int) -> Finding:
    """What lies behind the last page may be the rest of a larger database, over which this one was written."""
    if rest_bytes <= 0:
        return finding
    reason = f"{finding.reason} {rest_bytes:,} bytes behind its last page were not judged."
    return replace(finding, reason=reason, is_disposable=False)


def error_of(exc: sqlite3.Error | UnicodeError) -> BackupError:
    """What SQLite's failure to read a foreign file says: damage, or nothing about the file."""
    code = primary_code(exc)
    if code == sqlite3.SQLITE_TOOBIG:
        return _too_long()
    if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) and not isinstance(exc, UnicodeError):
        return BackupError(f"SQLite could not read it to its end: {exc}.", "See the SQLite error text.")
    return VerificationError(f"SQLite cannot read it: {exc}.{_newer(str(exc))}", "Keep it, and look for another copy.")


def _newer(evidence: str) -> str:
    """A word that only a newer SQLite knows looks like a damaged schema to this one."""
    is_possible = "malformed database schema" in evidence
    return f" Or it needs a newer SQLite than {sqlite3.sqlite_version}." if is_possible else ""


def _too_long() -> OverLimitError:
    return OverLimitError("Its schema makes SQLite build a value that is too long.", "Look at it by hand.")


def _judge(connection: sqlite3.Connection, size_bytes: int, *, limits: Limits, watch: Watch, now: datetime) -> Finding:
    structure = check_structure(connection, is_thorough=size_bytes <= _THOROUGH_BYTES)
    if "too big" in structure.evidence and not structure.ok:
        raise _too_long()
    tables = _Tables()
    if structure.ok:
        _count(connection, tables)
    else:
        _count_damaged(connection, tables, limits=limits, watch=watch)
    total = sum(tables.rows.values())
    if not structure.ok or tables.unreadable:
        return Finding(
            verdict="corrupt",
            format=FORMAT,
            reason=_damage(structure.name, "" if structure.ok else structure.evidence, tables, total),
            tables=len(tables.rows) + len(tables.unreadable),
            rows=total,
        )
    return _verdict(connection, tables, total, limits=limits, watch=watch, now=now)


def _count_damaged(connection: sqlite3.Connection, tables: _Tables, *, limits: Limits, watch: Watch) -> None:
    """Count what can be counted of a damaged file; damage may make it endless."""
    own = FileWatch(watch, seconds=limits.extra_seconds)
    with suppress(TookTooLongError, *SQLITE_ERRORS), interrupted_by(own, connection):
        _count(connection, tables)


def _damage(check: str, evidence: str, tables: _Tables, total: int) -> str:
    parts = [f"{check}: {evidence}.{_newer(evidence)}"] if evidence else []
    if tables.unreadable:
        parts.append(f"The rows of {_listed(tables.unreadable)} cannot be counted.")
    if total:
        parts.append(f"{total:,} rows can still be counted: keep it, some may be saved.")
    return " ".join(parts)


def _verdict(
    connection: sqlite3.Connection, tables: _Tables, total: int, *, limits: Limits, watch: Watch, now: datetime
) -> Finding:
    bookkeeping = tables.bookkeeping()
    data = {name: rows for name, rows in tables.rows.items() if rows and name not in bookkeeping}
    count = len(tables.rows)
    if data:
        newest = _newest(connection, data, limits=limits, watch=watch, now=now)
        return Finding(
            verdict="holds data",
            format=FORMAT,
            reason=f"{sum(data.values()):,} rows of data in {len(data):,} of {count:,} tables.",
            tables=count,
            rows=total,
            newest_row_at=newest,
        )
    if tables.nameless:
        reason = f"{tables.nameless:,} tables have names that are not UTF-8; their rows could not be counted."
        return Finding(
            verdict="not a database", format=FORMAT, reason=reason, tables=count, rows=total, is_judged=False
        )
    if not count and not tables.virtual:
        return Finding(verdict="empty", format=FORMAT, reason="It has no tables.", tables=0, rows=0)
    reason = f"{count:,} tables and no row of data."
    if bookkeeping:
        listed = _listed([f"{name} {rows:,}" for name, rows in bookkeeping.items()])
        reason += f" The only rows are bookkeeping: {listed}."
    return Finding(verdict="schema only", format=FORMAT, reason=reason, tables=count, rows=total)


def _listed(names: list[str]) -> str:
    shown = ", ".join(each.encode("utf-8", "backslashreplace").decode() for each in names[:5])
    return shown if len(names) <= 5 else f"{shown}, and {len(names) - 5:,} more"


def _count(connection: sqlite3.Connection, found: _Tables) -> None:
    # The casts: a hostile schema may hold blobs where SQLite itself accepts them as text.
    schema = connection.execute(
        "SELECT CAST(name AS TEXT), substr(CAST(sql AS TEXT), 1, 2000) FROM sqlite_schema WHERE type = 'table'"
    )
    for name, sql in schema.fetchall():
        if name.lower().startswith("sqlite_"):
            continue
        # SQLite itself refuses a schema whose type or name differs from what its text creates.
        if _IS_VIRTUAL.match(sql or ""):
            virtual = _VIRTUAL.match(sql)
            found.virtual[name] = virtual.group(1) if virtual else ""
            continue
        _count_table(connection, name, found)


def _count_table(connection: sqlite3.Connection, name: str, found: _Tables) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        found.nameless += 1
        return
    statement = f"SELECT count(*) FROM {quoted(name)} NOT INDEXED"  # noqa: S608 - the name is quoted  # nosec B608
    try:
        found.rows[name] = int(connection.execute(statement).fetchone()[0])
    except sqlite3.DatabaseError as exc:
        if primary_code(exc) != sqlite3.SQLITE_CORRUPT:
            raise
        found.unreadable.append(name)


# The newest row


def _newest(
    connection: sqlite3.Connection, data: dict[str, int], *, limits: Limits, watch: Watch, now: datetime
) -> str | None:
    """The newest plausible time in the columns that tell one, as far as the limits let us look."""
    newest: datetime | None = None
    looked_at = 0
    own = FileWatch(watch, seconds=limits.extra_seconds)
    try:
        with interrupted_by(own, connection):
            for table, rows in data.items():
                for column in _time_columns(connection, table):
                    if looked_at >= limits.time_columns:
                        return _utc(newest)
                    looked_at += 1
                    moment = _newest_in(connection, table, column, rows=rows, now=now)
                    newest = max(filter(None, (newest, moment)), default=None)
    except (TookTooLongError, *SQLITE_ERRORS):
        pass  # a hint that cannot be had; the verdict stands without it
    return _utc(newest)


def _utc(moment: datetime | None) -> str | None:
    return None if moment is None else utc_text(moment)


def _time_columns(connection: sqlite3.Connection, table: str) -> list[str]:
    # table_info leaves generated columns out: they would be computed.
    columns = connection.execute(f"PRAGMA table_info({quoted(table)})").fetchall()
    return [
        name
        for _, name, declared, *_ in columns
        if _TIME_TYPE.search(declared or "") or _TELLS_TIME.search(name) or name == "last_login"
    ]


_ISO = "[12][0-9][0-9][0-9]-[01][0-9]-[0-3][0-9]*"
_PER_SECOND = (1, 1_000, 1_000_000)  # epochs in seconds, milliseconds and microseconds


def _newest_in(connection: sqlite3.Connection, table: str, column: str, *, rows: int, now: datetime) -> datetime | None:
    oldest, latest = _OLDEST.timestamp(), (now + timedelta(days=1)).timestamp()
    ranges = [(int(oldest * scale), int(latest * scale)) for scale in _PER_SECOND]
    numbers = ", ".join(
        f"max(CASE WHEN typeof(v) IN ('integer', 'real') AND v BETWEEN {low} AND {high} THEN v END)"
        for low, high in ranges
    )
    # The plus and the collation take away what the column's own type would do to a comparison.
    # In a large table the rows added last are looked at, which a WITHOUT ROWID table cannot tell.
    tail = f"ORDER BY rowid DESC LIMIT {_TAIL_ROWS}" if rows > _LARGE_TABLE_ROWS else ""
    statement = (
        "SELECT max(CASE WHEN typeof(v) = 'text' AND v GLOB ? AND v >= ? AND v < ? THEN v END), "  # noqa: S608  # nosec B608
        f"{numbers} FROM (SELECT +{quoted(column)} COLLATE BINARY AS v FROM {quoted(table)} NOT INDEXED {tail})"
    )
    bounds = (_ISO, _OLDEST.isoformat()[:10], (now + timedelta(days=2)).isoformat()[:10])
    try:
        text, *epochs = connection.execute(statement, bounds).fetchone()
    except sqlite3.DatabaseError as exc:
        if primary_code(exc) == sqlite3.SQLITE_INTERRUPT:
            raise
        return None
    moments = [_parsed(text)] if text else []
    for epoch, scale in zip(epochs, _PER_SECOND, strict=True):
        if epoch is not None:
            moments.append(datetime.fromtimestamp(epoch / scale, UTC))
    plausible = [moment for moment in moments if moment and moment.timestamp() <= latest]
    return max(plausible, default=None)


def _parsed(text: str) -> datetime | None:
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return None


# The schema's size, before SQLite loads it


def _bound_schema(path: Path, *, limits: Limits, watch: Watch) -> None:
    """Refuse a schema that would take too much memory: SQLite keeps all of it (file format, section 1.6).

    What is wrong in other ways is left to SQLite.

    Raises:
        OverLimitError: too many entries or bytes. VerificationError: its tree is knotted.
    """
    with open(path, "rb") as file:
        header = file.read(100)
        if len(header) < 100:
            raise VerificationError("It is truncated: it ends in its header.", "Keep it, and look for another copy.")
        page_bytes = struct.unpack_from(">H", header, 16)[0]
        page_bytes = 65536 if page_bytes == 1 else page_bytes
        if page_bytes < 512:
            return
        waiting, seen, objects, schema_bytes = [1], {1}, 0, 0
        while waiting:
            watch.check()
            children, sizes = _schema_page(file, waiting.pop(), page_bytes)
            if not seen.isdisjoint(children) or len(set(children)) < len(children):
                raise VerificationError("It is damaged: its schema refers to a page twice.", "Keep it.")
            seen.update(children)
            waiting.extend(children)
            objects += len(sizes)
            schema_bytes += sum(sizes)
            if objects > limits.schema_objects or schema_bytes > limits.schema_bytes:
                raise OverLimitError(
                    f"Its schema has more than {limits.schema_objects:,} entries or {limits.schema_bytes:,} bytes.",
                    "Look at it by hand on a machine with enough memory.",
                )


def _schema_page(file: BinaryIO, number: int, page_bytes: int) -> tuple[list[int], list[int]]:
    """Child pages of an interior page, or the payload sizes of a leaf, as far as they make sense."""
    if number < 1:
        return [], []
    file.seek((number - 1) * page_bytes)
    page = file.read(page_bytes)
    start = 100 if number == 1 else 0
    if len(page) < start + 12:
        return [], []
    kind, cells = page[start], struct.unpack_from(">H", page, start + 3)[0]
    pointers = start + (12 if kind == 0x05 else 8)
    cells = min(cells, (len(page) - pointers) // 2)
    offsets = [each for each in struct.unpack_from(f">{cells}H", page, pointers) if each + 9 <= len(page)]
    if kind == 0x05:
        children = [struct.unpack_from(">I", page, offset)[0] for offset in offsets]
        return [*children, struct.unpack_from(">I", page, start + 8)[0]], []
    return [], [_varint(page, offset) for offset in offsets] if kind == 0x0D else []


def _varint(page: bytes, offset: int) -> int:
    value = 0
    for index in range(8):
        byte = page[offset + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value
    return value << 8 | page[offset + 8]
