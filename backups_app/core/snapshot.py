"""A consistent copy of a live database at one instant, beside writers that go on.

The copy is taken through SQLite's backup API on a connection whose read transaction is pinned.
Without the pin, every commit of another process starts the copy again: beside 20 commits a
second it never ends. With it, WAL writers are not blocked at all; the price is that the WAL
cannot shrink meanwhile, so the pin is held for the copy only.

There is no fall-back to a file copy: that is how committed rows get lost.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from .background import Background
from .census import Census, take_census
from .errors import BackupError, CancelledError, DeadlineError, primary_code, translated
from .files import create_private_file, require_free_space
from .progress import Watch
from .sqlite import (
    Access,
    LiveDatabase,
    database_file,
    open_for_writing,
    open_live,
    open_scratch_for_copy,
    open_snapshot,
    remove_with_sidecars,
    sidecar,
    wait_for_lock,
)

Method = Literal["backup api", "vacuum into"]

# 8 MiB at the usual page size: large enough to cost nothing, small enough that one fdatasync
# per step does not stall the writers (one fsync at the end does, for 200-290 ms).
_PAGES_PER_STEP = 2000
_HEADROOM = 1.05


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A finished copy in a private file, with the facts counted in its source."""

    path: Path
    census: Census
    taken_at: datetime
    """The instant just before the pin, UTC: every commit acknowledged before it is in the copy."""
    size_bytes: int
    pinned_seconds: float
    method: Method
    journal_mode: str
    """Journal mode of the source when it was opened: ``wal``, ``delete``, …"""
    access: Access
    wal_bytes: int
    """Size of the source's ``-wal`` when the copy ended."""
    notes: tuple[str, ...] = field(default=())
    """What an operator should know, in plain words."""


def take_snapshot(
    source: Path,
    destination: Path,
    *,
    watch: Watch,
    busy_timeout_seconds: float = 5.0,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Snapshot:
    """Copy the live database ``source`` to the new private file ``destination``.

    The copy holds exactly the transactions committed when the read view was pinned. It is
    synced to disk when this returns. ``destination`` must be in a private folder of the caller,
    which also serves as staging for read-only sources; it is removed on failure.

    Raises:
        NotFoundError, InputError: no database file is there.
        BusyError: the source stayed locked for ``busy_timeout_seconds``.
        DiskFullError: there is no room for the copy.
        VerificationError: SQLite calls the source damaged.
        CancelledError, DeadlineError: from ``watch``.
    """
    source = database_file(source)
    descriptor = create_private_file(destination)
    try:
        try:
            return _copy_pinned(
                source, destination, descriptor, watch=watch, busy_timeout_seconds=busy_timeout_seconds, now=now
            )
        finally:
            # After SQLite closed the file: closing it earlier would drop SQLite's locks on it.
            os.close(descriptor)
    except BaseException:
        remove_with_sidecars(destination)  # a failed VACUUM INTO leaves its journal
        raise


def _copy_pinned(
    source: Path,
    destination: Path,
    descriptor: int,
    *,
    watch: Watch,
    busy_timeout_seconds: float,
    now: Callable[[], datetime],
) -> Snapshot:
    taken_at = now()  # before the pin: a commit acknowledged between the two would be missed by its own promise
    with open_live(source, staging=destination.parent, busy_timeout_seconds=busy_timeout_seconds, watch=watch) as live:
        pinned_at = time.monotonic()
        with translated(f"reading {source.name}"):
            census = take_census(live.connection, watch=watch)
            journal_mode = str(live.connection.execute("PRAGMA journal_mode").fetchone()[0]).lower()
        if census.page_count == 0:
            # A 0-byte file is a valid database to SQLite; copying it writes no page at all.
            method: Method = "backup api"
        else:
            require_free_space(
                destination.parent, int(census.size_bytes * _HEADROOM), purpose=f"a copy of {source.name}"
            )
            method, census = _copy(
                live, destination, descriptor, census=census, busy_timeout_seconds=busy_timeout_seconds, watch=watch
            )
        with translated(f"writing the copy of {source.name}"):
            os.fsync(descriptor)
        pinned_seconds = time.monotonic() - pinned_at
        wal_bytes = _size(sidecar(source, "-wal"))
    return Snapshot(
        path=destination,
        census=census,
        taken_at=taken_at,
        size_bytes=os.fstat(descriptor).st_size,
        pinned_seconds=pinned_seconds,
        method=method,
        journal_mode=journal_mode,
        access=live.access,
        wal_bytes=wal_bytes,
        notes=_notes(journal_mode=journal_mode, access=live.access, method=method, seconds=pinned_seconds),
    )


def _copy(
    live: LiveDatabase,
    destination: Path,
    descriptor: int,
    *,
    census: Census,
    busy_timeout_seconds: float,
    watch: Watch,
) -> tuple[Method, Census]:
    doing = f"copying {live.path.name}"
    with translated(doing):
        try:
            copy_with_backup_api(live.connection, destination, descriptor, page_size=census.page_size, watch=watch)
            return "backup api", census
        except sqlite3.Error as exc:
            # Disk full, damage and locks have a reason that a second method would only meet again.
            if primary_code(exc) not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_IOERR):
                raise
            first = exc
        live.connection.execute("ROLLBACK")
        os.ftruncate(descriptor, 0)
    try:
        with translated(doing):
            return "vacuum into", copy_with_vacuum(
                live.path, destination, busy_timeout_seconds=busy_timeout_seconds, watch=watch
            )
    except (CancelledError, DeadlineError):
        raise
    except BackupError as second:
        raise type(second)(
            f"Both ways to copy {live.path.name} failed: {first}; then {second.message}", second.hint
        ) from first


def copy_with_backup_api(
    source: sqlite3.Connection, destination: Path, descriptor: int, *, page_size: int, watch: Watch
) -> None:
    """Copy a pinned connection into an empty file, step by step, each step synced.

    Raises:
        sqlite3.Error, OSError: from SQLite or the disk. CancelledError, DeadlineError: from ``watch``.
    """

    def after_step(_status: int, remaining: int, total: int) -> None:
        syncing.submit(os.fdatasync, descriptor)
        watch.report("copy", (total - remaining) * page_size, total * page_size)

    # One step is synced while the next is copied; never more than one, so that the disk keeps up.
    with Background(max_pending=1) as syncing, closing(open_scratch_for_copy(destination)) as target:
        source.backup(target, pages=_PAGES_PER_STEP, progress=after_step, sleep=0.05)


def copy_with_vacuum(source: Path, destination: Path, *, busy_timeout_seconds: float, watch: Watch) -> Census:
    """Copy ``source`` with ``VACUUM INTO`` while holding its write lock; returns its census.

    ``VACUUM`` cannot join a read transaction that is already open, so writers are kept out
    instead: the census and the copy then see the same content. Writers wait meanwhile. The
    physical facts of the census (pages) are those of the copy.

    Raises:
        sqlite3.Error: from SQLite. CancelledError, DeadlineError: from ``watch``.
    """
    with (
        closing(open_for_writing(source, wait_seconds=0.1)) as holder,
        closing(open_for_writing(source, wait_seconds=0.1)) as copier,
    ):
        wait_for_lock(holder, "BEGIN IMMEDIATE", busy_timeout_seconds=busy_timeout_seconds, watch=watch)
        census = take_census(holder, watch=watch)
        with watch.over(copier):
            copier.execute("VACUUM INTO ?", (str(destination),))
        holder.execute("ROLLBACK")
    with open_snapshot(destination) as copy:
        # The content is the source's; the pages are new, so their facts are the copy's own.
        page_size, page_count, auto_vacuum = (
            int(copy.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_size", "page_count", "auto_vacuum")
        )
    return replace(census, page_size=page_size, page_count=page_count, auto_vacuum=auto_vacuum)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _notes(*, journal_mode: str, access: Access, method: Method, seconds: float) -> tuple[str, ...]:
    notes: list[str] = []
    if journal_mode != "wal" and access == "read-write":
        notes.append(
            f"The source uses a rollback journal ({journal_mode}): writers waited up to {seconds:.2f} s. "
            "WAL mode does not block them."
        )
    if access == "immutable":
        notes.append("The source is on read-only media and was read as immutable.")
    if access == "staged copy":
        notes.append("The source is on read-only media with unfinished work, which was recovered in a staged copy.")
    if method == "vacuum into":
        notes.append(
            "SQLite's backup API failed, so VACUUM INTO made the copy: writers waited meanwhile, "
            "and rowids of tables without an integer primary key may differ."
        )
    return tuple(notes)
