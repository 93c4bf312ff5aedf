"""How SQLite files are opened. Every connection of the engine comes from here.

Rules kept here, each bought with lost data somewhere:

* A live database is opened by SQLite only, never with ``open()``: closing any other descriptor
  on it drops this process's POSIX locks (https://sqlite.org/howtocorrupt.html, section 2.2).
* A live database is opened ``mode=rw`` with ``query_only``: ``mode=ro`` leaves ``-wal`` and
  ``-shm`` files behind.
* A snapshot keeps the WAL flag of its source, so it is read with ``immutable=1``: a read-write
  opening would put sidecar files beside it.
* The schema of any file may be hostile: ``cell_size_check=ON``, and ``trusted_schema=OFF`` where
  that does not make every table with a JSONField unreadable (:func:`has_innocuous_json`).
"""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from .errors import (
    SQLITE_ERRORS,
    BackupError,
    InputError,
    NotFoundError,
    VerificationError,
    from_sqlite,
    primary_code,
    translated,
)
from .progress import Watch

Access = Literal["read-write", "immutable", "staged copy"]

SIDECAR_SUFFIXES = ("-wal", "-shm", "-journal")
"""Files that SQLite may keep beside a database and that belong to it."""

_WITH_CONTENT = ("-wal", "-journal")
_LOCK_POLL_SECONDS = 0.1
_INTERRUPT_POLL_SECONDS = 0.1
_INNOCUOUS = 0x200000  # SQLITE_INNOCUOUS (https://sqlite.org/c3ref/c_deterministic.html)

# Versions with the WAL-reset corruption bug: 3.7.0 to 3.51.2, but for two patched branches
# (https://sqlite.org/wal.html, "The WAL-Reset Bug").
_WAL_RESET_FIXED = ((3, 51, 3),)
_WAL_RESET_PATCHED_BRANCHES = {(3, 50): 7, (3, 44): 6}


def has_wal_reset_bug(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Whether this SQLite version may corrupt a WAL database when two processes checkpoint."""
    if version < (3, 7, 0) or version >= _WAL_RESET_FIXED[0]:
        return False
    patched_from = _WAL_RESET_PATCHED_BRANCHES.get(version[:2])
    return patched_from is None or version[2] < patched_from


@cache
def has_innocuous_json() -> bool:
    """Whether an untrusted schema may call the JSON functions, as the CHECK of a JSONField does.

    SQLite 3.40 and older say "malformed database schema" instead. A trusted schema is harmless
    here all the same: our connections define no functions and load no extensions, and what is
    dangerous in SQLite itself (``load_extension``, ``fts3_tokenizer``) no schema may ever call.
    """
    with closing(sqlite3.connect(":memory:")) as connection:
        found = connection.execute("SELECT flags FROM pragma_function_list WHERE name = 'json_valid'").fetchall()
    return all(flags & _INNOCUOUS for (flags,) in found)


def sidecar(path: Path, suffix: str) -> Path:
    """The path of a database's ``-wal``, ``-shm`` or ``-journal``."""
    return path.with_name(path.name + suffix)


def remove_with_sidecars(path: Path) -> None:
    """Remove a private database file of ours and what SQLite left beside it."""
    for each in (path, *(sidecar(path, suffix) for suffix in SIDECAR_SUFFIXES)):
        each.unlink(missing_ok=True)


def database_file(path: Path) -> Path:
    """``path`` made absolute with links resolved, when a regular file is there.

    Only looks at the file's metadata, so it is safe on a live database and never blocks.

    Raises:
        NotFoundError: nothing is there.
        InputError: it is a folder, a FIFO, a socket or a device.
    """
    try:
        resolved = path.resolve(strict=True)
        mode = resolved.stat().st_mode
    except FileNotFoundError as exc:
        raise NotFoundError(
            f"There is no database file at {path}.",
            "Check the path. For the site's own database, run `manage.py migrate` first.",
        ) from exc
    except (OSError, RuntimeError, ValueError) as exc:
        raise InputError(f"The path {str(path)!r} cannot be used: {exc}.", "Give the path of a file.") from exc
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "FIFO, socket or device"
        raise InputError(f"{path} is a {kind}, not a database file.", "Give the path of an SQLite file.")
    return resolved


def refuse_orphaned_wal(path: Path) -> None:
    """Refuse to open an empty file beside a ``-wal`` with content: SQLite would delete that ``-wal``.

    Raises:
        VerificationError: the main file was lost, and committed rows may be in the ``-wal``.
    """
    wal = sidecar(path, "-wal")
    try:
        is_orphaned = path.stat().st_size == 0 and wal.stat().st_size > 0
    except OSError:
        return
    if is_orphaned:
        raise VerificationError(
            f"{path.name} is empty, but {wal.name} beside it is not: the main file was lost.",
            "Keep the -wal file as it is, and restore a backup.",
        )


def _uri(path: Path, parameters: str) -> str:
    # The empty authority: a path that starts with two slashes would otherwise be read as a host.
    return f"file://{quote(os.fsencode(path.absolute()))}?{parameters}"


def _connect(path: Path, parameters: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        _uri(path, parameters),
        uri=True,
        isolation_level=None,
        timeout=_LOCK_POLL_SECONDS,
        # The checks of a snapshot run in a second thread; no connection is used by two at once.
        check_same_thread=False,
    )
    # Text is compared and counted, never interpreted: a row with broken UTF-8 is still a row.
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    if has_innocuous_json():
        connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    return connection


@contextmanager
def open_snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection on a file that nobody writes, treating its content as hostile.

    Leaves no sidecar file. CHECK constraints are not evaluated: they may call functions that
    only the application has, and say nothing about the copy.
    """
    with closing(_connect(path, "mode=ro&immutable=1")) as connection:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA ignore_check_constraints=ON")
        yield connection


# What a foreign schema may make SQLite do at most (https://sqlite.org/limits.html). Stored values
# may be longer than LENGTH: they are counted and checked without being put together in memory.
_FOREIGN_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 16 << 20,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 1 << 20,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1000,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}


@contextmanager
def open_foreign(path: Path) -> Iterator[sqlite3.Connection]:
    """As :func:`open_snapshot`, for a private copy of a file that somebody else made.

    Tighter limits, and no temporary file anywhere. Whatever is asked of it still needs a time
    limit: see :meth:`Watch.over` and :func:`interrupted_by`.
    """
    with open_snapshot(path) as connection:
        connection.execute("PRAGMA temp_store=MEMORY")
        for limit, most in _FOREIGN_LIMITS.items():
            connection.setlimit(limit, most)
        yield connection


@contextmanager
def interrupted_by(watch: Watch, connection: sqlite3.Connection) -> Iterator[None]:
    """Let ``watch`` end statements on ``connection`` also where its progress handler is not asked.

    SQLite walks a whole tree in one instruction to count rows, and a hostile tree has no end.

    Raises:
        CancelledError, DeadlineError: from ``watch``, in place of SQLite's ``interrupted``.
    """
    is_over = threading.Event()

    def look() -> None:
        while not is_over.wait(_INTERRUPT_POLL_SECONDS):
            try:
                watch.check()
            except BackupError:
                connection.interrupt()  # again each time: it only ends what runs at that moment

    looking = threading.Thread(target=look, name="interrupt", daemon=True)
    looking.start()
    try:
        with watch.over(connection):
            yield
    finally:
        is_over.set()
        looking.join()


def settle_staged(path: Path) -> None:
    """Bring the ``-wal`` or the hot ``-journal`` beside a private copy into its main file.

    Reads no schema. Afterwards the file stands alone, as far as SQLite could do it.

    Raises:
        sqlite3.Error: SQLite could not.
    """
    with closing(_connect(path, "mode=rw")) as connection:
        # A value from the header: the reading of it replays, the last one to close checkpoints.
        connection.execute("PRAGMA user_version").fetchone()


def open_for_writing(path: Path, *, wait_seconds: float) -> sqlite3.Connection:
    """A connection that may write to an existing database, for the caller to close.

    SQLite waits ``wait_seconds`` for a lock before it says that the database is busy.
    """
    connection = _connect(path, "mode=rw")
    connection.execute(f"PRAGMA busy_timeout={int(wait_seconds * 1000)}")
    connection.execute("PRAGMA ignore_check_constraints=ON")
    return connection


def open_scratch_for_copy(path: Path) -> sqlite3.Connection:
    """A connection that fills an empty private file, for the caller to close.

    No journal and no sync: a copy that was killed must be unreadable, not a valid empty database.
    """
    connection = _connect(path, "mode=rw")
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    return connection


@dataclass(frozen=True, kw_only=True)
class LiveDatabase:
    """An open connection on a live database inside a pinned read transaction."""

    connection: sqlite3.Connection
    path: Path
    access: Access


def wait_for_lock(connection: sqlite3.Connection, statement: str, *, busy_timeout_seconds: float, watch: Watch) -> None:
    """Execute ``statement``, retrying while the database is locked, open to cancellation.

    Raises:
        sqlite3.OperationalError: still locked after ``busy_timeout_seconds``, or anything else.
    """
    give_up_at = time.monotonic() + busy_timeout_seconds
    while True:
        watch.check()
        try:
            connection.execute(statement).fetchone()
            return
        except sqlite3.OperationalError as exc:
            if primary_code(exc) != sqlite3.SQLITE_BUSY or time.monotonic() >= give_up_at:
                raise
            time.sleep(_LOCK_POLL_SECONDS)


def pin(connection: sqlite3.Connection, *, busy_timeout_seconds: float, watch: Watch) -> None:
    """Begin a read transaction and fix its view.

    ``BEGIN`` alone, or with ``SELECT 1``, fixes nothing (measured); reading the schema does.
    """
    connection.execute("BEGIN")
    try:
        wait_for_lock(
            connection,
            "SELECT count(*) FROM sqlite_schema",
            busy_timeout_seconds=busy_timeout_seconds,
            watch=watch,
        )
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def open_live(path: Path, *, staging: Path, busy_timeout_seconds: float, watch: Watch) -> Iterator[LiveDatabase]:
    """Open a live database and pin its current content until the block ends.

    On read-only media a clean database is read ``immutable``; one with a left-over ``-wal`` or
    ``-journal`` is copied into ``staging`` (a private folder) and recovered there, because
    ``immutable`` would silently ignore those committed rows.

    Raises:
        BackupError: with the reason; ``BusyError`` when it stays locked.
    """
    path = database_file(path)
    refuse_orphaned_wal(path)
    try:
        with _pinned(path, "mode=rw", busy_timeout_seconds=busy_timeout_seconds, watch=watch) as connection:
            yield LiveDatabase(connection=connection, path=path, access="read-write")
            return
    except _CannotPinError as exc:
        cause = exc.cause
    read_only_codes = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
    if primary_code(cause) not in read_only_codes or not _is_on_read_only_media(path):
        raise from_sqlite(cause, doing=f"opening {path.name}") from cause
    with _opened_read_only(path, staging=staging, busy_timeout_seconds=busy_timeout_seconds, watch=watch) as database:
        yield database


class _CannotPinError(Exception):
    """The opening failed before anybody could use the connection."""

    def __init__(self, cause: sqlite3.Error | UnicodeError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextmanager
def _pinned(path: Path, parameters: str, *, busy_timeout_seconds: float, watch: Watch) -> Iterator[sqlite3.Connection]:
    try:
        connection = _connect(path, parameters)
    except sqlite3.Error as exc:
        raise _CannotPinError(exc) from exc
    with closing(connection):
        try:
            connection.execute("PRAGMA query_only=ON")
            pin(connection, busy_timeout_seconds=busy_timeout_seconds, watch=watch)
        except SQLITE_ERRORS as exc:
            raise _CannotPinError(exc) from exc
        try:
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


def _is_on_read_only_media(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY) or not os.access(path.parent, os.W_OK)


def _signature(path: Path) -> tuple[object, ...]:
    """What ``stat`` says of a database and its sidecars; equal before and after means unchanged."""
    facts: list[object] = []
    for each in (path, *(sidecar(path, suffix) for suffix in _WITH_CONTENT)):
        try:
            found = each.stat()
        except FileNotFoundError:
            facts.append(None)
        else:
            facts.append((found.st_ino, found.st_size, found.st_mtime_ns))
    return tuple(facts)


# The exit code is the error number, so that a full disk is told as one.
_COPY_PROGRAM = """
import shutil, sys
try:
    shutil.copyfile(sys.argv[1], sys.argv[2])
except OSError as exc:
    sys.exit(exc.errno)
"""


@contextmanager
def _opened_read_only(
    path: Path, *, staging: Path, busy_timeout_seconds: float, watch: Watch
) -> Iterator[LiveDatabase]:
    before = _signature(path)
    pending = [
        suffix
        for suffix in _WITH_CONTENT
        if sidecar(path, suffix).exists() and sidecar(path, suffix).stat().st_size > 0
    ]
    access: Access = "staged copy" if pending else "immutable"
    opened = staging / "staged.sqlite3" if pending else path
    try:
        if pending:
            _copy_in_other_process(path, opened)
        for suffix in pending:
            _copy_in_other_process(sidecar(path, suffix), sidecar(opened, suffix))
        with _pinned(
            opened,
            "mode=rw" if pending else "mode=ro&immutable=1",
            busy_timeout_seconds=busy_timeout_seconds,
            watch=watch,
        ) as connection:
            yield LiveDatabase(connection=connection, path=path, access=access)
    except _CannotPinError as exc:
        raise from_sqlite(exc.cause, doing=f"opening {path.name} from read-only media") from exc.cause
    finally:
        if pending:
            remove_with_sidecars(opened)
    if _signature(path) != before:
        raise BackupError(
            "The database changed while it was read as read-only media.",
            "Another host writes to it: run the backup where the database can be opened for writing.",
        )


def _copy_in_other_process(source: Path, destination: Path) -> None:
    """Copy a file of a live database without touching this process's locks on it."""
    command = [sys.executable, "-I", "-S", "-c", _COPY_PROGRAM, str(source), str(destination)]
    with translated(f"copying {source.name} from read-only media"):
        number = subprocess.run(command, capture_output=True, check=False).returncode
        if number != 0:
            raise OSError(number, os.strerror(number))
