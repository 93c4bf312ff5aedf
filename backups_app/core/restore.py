"""A verified database file back into a live one, under the connections of running processes.

The content is copied with SQLite's backup API in reverse: the live database is the destination,
and the whole copy is one transaction in it. Other processes keep their connections, wait like
for any writer, and see the new content with their next statement. The process may be killed at
any moment: the live database then holds the old or the new content, never a mix.

The file is never swapped: connections that are open would keep writing to the old one, and their
next checkpoint would undo the restore or mix two databases.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from .background import Background
from .census import Census
from .errors import SQLITE_ERRORS, BackupError, BusyError, RefusedError, VerificationError, from_sqlite, translated
from .files import create_private_file, publish_new_file, remove_if_there, require_free_space, sync_folder
from .progress import Watch
from .sqlite import (
    SIDECAR_SUFFIXES,
    database_file,
    open_for_writing,
    open_snapshot,
    refuse_orphaned_wal,
    sidecar,
    wait_for_lock,
)
from .verify import Check, check_connection, check_database, failures

_PAGES_PER_STEP = 4000
SPACE_FACTOR = 2.1
"""The WAL grows by the whole content before the checkpoint, and the file grows after it."""

_OUT_OF_WAL = "The live database was an empty file and stays out of WAL mode, which the one in the backup was in."

HaveOthersWritten = Callable[[], bool | None]
"""Asks whether others have committed since some moment; None when that cannot be told now."""

_TRUNCATE_TRIES = 5
_TRUNCATE_WAIT_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class LiveFacts:
    """What of a live database decides how it can be restored into."""

    page_size: int
    page_count: int
    encoding: str
    journal_mode: str

    @property
    def size_bytes(self) -> int:
        """Size of its content in bytes."""
        return self.page_size * self.page_count


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A finished restore, checked."""

    census: Census
    """What the live database holds now, but for what others wrote since."""
    checks: list[Check]
    blocked_seconds: float
    """How long writers had to wait for the copy."""
    waited_seconds: float
    """How long the copy waited for other writers before."""
    others_wrote: bool
    """Whether another process committed between the copy and the check."""
    others_wrote_before: bool = False
    """Whether another process committed before the copy, as far as was asked; what it wrote is overwritten."""
    notes: tuple[str, ...] = ()


def live_facts(live: Path, *, busy_timeout_seconds: float) -> LiveFacts:
    """Look at a live database.

    Raises:
        NotFoundError, InputError, VerificationError: it is missing or damaged, and can only be
            recreated (:func:`recreate`). BusyError, BackupError: it cannot be opened now.
    """
    live = database_file(live)
    refuse_orphaned_wal(live)
    with (
        translated(f"opening {live.name}"),
        closing(open_for_writing(live, wait_seconds=busy_timeout_seconds)) as target,
    ):
        target.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        facts = {
            name: target.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_size", "page_count", "encoding", "journal_mode")
        }
    return LiveFacts(
        page_size=int(facts["page_size"]),
        page_count=int(facts["page_count"]),
        encoding=str(facts["encoding"]),
        journal_mode=str(facts["journal_mode"]).lower(),
    )


def schema_version(live: Path) -> int:
    """The schema version of a live database: a restore in place moves it by exactly one.

    Raises:
        BackupError: it cannot be read.
    """
    with translated(f"reading {live.name}"), closing(open_for_writing(live, wait_seconds=5)) as connection:
        return int(connection.execute("PRAGMA schema_version").fetchone()[0])


def refuse_unfit(census: Census, *, encoding: str, page_count: int) -> None:
    """Refuse what cannot be copied into a live database of this encoding and size.

    Raises:
        RefusedError: it holds no page (the backup API would wipe the live database without an
            error), or has another text encoding (connections that are open could not go on).
    """
    if census.page_count == 0:
        raise RefusedError("The backup holds no page at all; restoring it would wipe the database.", "Choose another.")
    if page_count and census.encoding != encoding:
        raise RefusedError(
            f"The backup is encoded in {census.encoding}, the live database in {encoding}: "
            "the connections that are open could not go on.",
            "Restore it to a new file with --to, stop the site, and exchange the files.",
        )


@contextmanager
def noticing_commits(live: Path) -> Iterator[HaveOthersWritten]:
    """Yields the question whether another connection has committed since the block began.

    Holds a connection without a transaction, so nobody waits for it. The answer is None when it cannot
    be had because the database is locked: a rollback-journal one is, while somebody writes.

    Raises:
        BusyError, BackupError: the database cannot be opened.
    """
    with closing(open_for_writing(live, wait_seconds=1)) as bystander:
        with translated(f"opening {live.name}"):
            before = _data_version(bystander)
            bystander.execute("PRAGMA busy_timeout=0")  # it is asked while all writers wait

        def has_changed() -> bool | None:
            now = _data_version(bystander)
            return None if now is None else now != before

        yield has_changed


def fit_to_live(staged: Path, census: Census, facts: LiveFacts, *, watch: Watch) -> tuple[Census, tuple[str, ...]]:
    """Make the private file ``staged`` fit to be copied into a live database with these facts.

    A different page size is changed on the staged copy, by ``VACUUM INTO``, and a database in a
    rollback-journal mode stays out of WAL. An empty live file takes over the page size, not the WAL.
    Returns the census to expect afterwards, and what an operator should know.

    Raises:
        RefusedError: as :func:`refuse_unfit`.
        DiskFullError, BackupError, CancelledError, DeadlineError: the staged copy may be gone.
    """
    if staged.stat().st_size == 0:
        census = replace(census, page_count=0)
    refuse_unfit(census, encoding=facts.encoding, page_count=facts.page_count)
    was_wal = facts.journal_mode != "wal" and _leave_wal(staged)
    if facts.page_count == 0:
        return census, (_OUT_OF_WAL,) if was_wal else ()
    if census.page_size == facts.page_size:
        return census, ()
    _change_page_size(staged, facts.page_size, watch=watch)
    with translated("reading the converted copy"), open_snapshot(staged) as copy:
        page_count = int(copy.execute("PRAGMA page_count").fetchone()[0])
    note = (
        f"The page size was changed from {census.page_size} to {facts.page_size}, that of the live database; "
        "rowids of tables without an integer primary key may differ."
    )
    return replace(census, page_size=facts.page_size, page_count=page_count), (note,)


def _leave_wal(staged: Path) -> bool:
    """Clear the WAL flag of the staged copy, which the live database would take over; whether it was set."""
    with translated("preparing the staged copy"), closing(open_for_writing(staged, wait_seconds=0)) as connection:
        was_wal = _is_wal(connection)
        connection.execute("PRAGMA journal_mode=DELETE").fetchone()
    return was_wal


def _change_page_size(staged: Path, page_size: int, *, watch: Watch) -> None:
    converted = staged.with_name(staged.name + ".converted")
    os.close(create_private_file(converted))
    try:
        with translated("changing the page size of the staged copy"):
            with closing(open_for_writing(staged, wait_seconds=0)) as source:
                source.execute("PRAGMA journal_mode=DELETE")  # the page size of a WAL database is fixed
                source.execute(f"PRAGMA page_size={page_size}")
                with watch.over(source):
                    source.execute("VACUUM INTO ?", (str(converted),))
            converted.replace(staged)
    finally:
        converted.unlink(missing_ok=True)


def require_space(live: Path, facts: LiveFacts, census: Census) -> None:
    """Refuse early when the live database's disk cannot hold the WAL of the copy.

    Raises:
        DiskFullError: with both figures.
    """
    needed_bytes = int(SPACE_FACTOR * max(facts.size_bytes, census.size_bytes))
    require_free_space(live.parent, needed_bytes, purpose=f"restoring into {live.name}")


def restore_in_place(
    staged: Path,
    live: Path,
    *,
    census: Census,
    wait_seconds: float,
    watch: Watch,
    is_unsound: bool = False,
    have_others_written: HaveOthersWritten = lambda: False,
) -> Restored:
    """Copy the verified private file ``staged`` into the live database, and check the result.

    ``staged`` fits (:func:`fit_to_live`), ``census`` is its census, and its content was proven.
    Other writers are waited for, up to ``wait_seconds``. A cancel counts until the last page.
    ``have_others_written`` (:func:`noticing_commits`) is asked when no other writer can commit any more.
    ``is_unsound`` says that the content is known not to be sound and is to go back as it was: what is
    wrong with ``staged`` in the same way is no failure then.

    Raises:
        BusyError: a lock was held for longer than ``wait_seconds``; nothing was changed.
        NotFoundError, InputError: no database file is there.
        DiskFullError, BackupError, CancelledError, DeadlineError: nothing was changed.
        RestoreCheckError: the copy went through, and the live database is not what it must be.
    """
    live = database_file(live)  # behind a link, SQLite keeps the -wal beside the file itself
    with (
        translated(f"restoring into {live.name}"),
        closing(open_for_writing(live, wait_seconds=_TRUNCATE_WAIT_SECONDS)) as target,
    ):
        wait_for_lock(target, "PRAGMA journal_mode", busy_timeout_seconds=wait_seconds, watch=watch)
        if _is_wal(target):
            # One fsync less while writers wait; the checkpoint below makes the content durable.
            target.execute("PRAGMA synchronous=NORMAL")
        # Of an empty file: a copy that changes the page size looks like a commit of somebody else. Others keep theirs.
        target.execute(f"PRAGMA page_size={census.page_size}")
        before = _data_version(target)  # before the copy: a writer that waits commits right after it
        answers = [have_others_written()]
        waited_seconds, blocked_seconds, notes = _copy(
            staged,
            target,
            live,
            wait_seconds=wait_seconds,
            watch=watch,
            on_locked=lambda: answers.append(have_others_written()),
        )
        # The content is committed from here on, so nothing below may say that it is not.
        notes += _checkpoint(target, live)
        checks, others_wrote = _check_committed(target, census, before, wait_seconds=wait_seconds)
    if is_unsound and failures(checks):
        checks = _as_staged(checks, staged, census)
    restored = Restored(
        census=census,
        checks=checks,
        blocked_seconds=blocked_seconds,
        waited_seconds=waited_seconds,
        others_wrote=others_wrote,
        others_wrote_before=_wrote_before(answers, others_wrote),
        notes=notes,
    )
    if failures(checks):
        raise RestoreCheckError(restored)
    return restored


def _wrote_before(answers: list[bool | None], others_wrote: bool) -> bool:
    """Whether others committed before the copy, from the answers before the wait for the lock and under it.

    Under the lock a rollback-journal database answers nobody, and a copy of a single page has no such
    moment. Then whoever wrote since the first answer may have done so before the copy.
    """
    first, *under_lock = answers
    if under_lock and under_lock[0] is not None:
        return under_lock[0]
    return first is not False or others_wrote


class RestoreCheckError(VerificationError):
    """The copy went through, but the live database is not what it must be: roll back."""

    def __init__(self, restored: Restored) -> None:
        found = "; ".join(f"{check.name}: {check.evidence}" for check in failures(restored.checks))
        super().__init__(f"The restored database is not as it must be ({found}).", "It is rolled back.")
        self.restored = restored


def _copy(
    staged: Path,
    target: sqlite3.Connection,
    live: Path,
    *,
    wait_seconds: float,
    watch: Watch,
    on_locked: Callable[[], None],
) -> tuple[float, float, tuple[str, ...]]:
    started = lock_free_since = time.monotonic()
    is_locked = False

    def after_step(status: int, remaining: int, total: int) -> None:
        nonlocal lock_free_since, is_locked
        if status == sqlite3.SQLITE_DONE:
            return  # it is committed: raising now would call a finished restore a failure
        if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            lock_free_since = time.monotonic()
            if lock_free_since - started > wait_seconds:
                raise BusyError(
                    f"{live.name} stayed locked by another process for {wait_seconds:g} s; nothing was changed.",
                    "Try again when less is going on, or raise BACKUPS['RESTORE_WAIT_SECONDS'].",
                )
            watch.check()
            return
        if not is_locked:
            is_locked = True
            on_locked()
        syncing.step()
        watch.report("restore", (total - remaining) * page_size, total * page_size)

    with open_snapshot(staged) as source, _WalSync(live) as syncing:
        page_size = int(source.execute("PRAGMA page_size").fetchone()[0])
        page_count = int(source.execute("PRAGMA page_count").fetchone()[0])
        pages = max(1, min(_PAGES_PER_STEP, page_count - 1))  # two steps at least: the last one commits
        # backup() itself retries a busy destination for ever; the callback ends it.
        source.backup(target, pages=pages, progress=after_step, sleep=0.05)
    finished = time.monotonic()
    notes = (f"The WAL could not be synced before the checkpoint: {syncing.problem}.",) if syncing.problem else ()
    return lock_free_since - started, finished - lock_free_since, notes


class _WalSync:
    """Syncs the WAL while the copy still fills it, one step behind.

    Left to the end, the whole WAL would be flushed by the first commit of whoever waited for the
    lock (measured at 1 GB: 0.3 to 0.4 s more). SQLite keeps no lock on the ``-wal`` file, so it may
    be opened here.
    """

    def __init__(self, live: Path) -> None:
        self._path = sidecar(live, "-wal")
        self._descriptor: int | None = None
        self._background = Background(max_pending=1)
        self.problem = ""
        """Why the last piece could not be synced, when all of the copy is committed."""

    def __enter__(self) -> _WalSync:
        self._background.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._background.__exit__(*error)
        except OSError as exc:
            # The block ended without an error, so the content is committed: that must not be called a
            # failure now. SQLite gets the same error from its own descriptor when it checkpoints.
            self.problem = exc.strerror or str(exc)
        finally:
            if self._descriptor is not None:
                os.close(self._descriptor)

    def step(self) -> None:
        """Have what was written so far synced; without a WAL there is nothing to do."""
        if self._descriptor is None:
            with suppress(FileNotFoundError):
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        if self._descriptor is not None:
            self._background.submit(os.fdatasync, self._descriptor)


def _is_wal(connection: sqlite3.Connection) -> bool:
    return str(connection.execute("PRAGMA journal_mode").fetchone()[0]).lower() == "wal"


def _data_version(connection: sqlite3.Connection) -> int | None:
    """Changes when another connection has committed (https://sqlite.org/pragma.html#pragma_data_version).

    The copy through ``connection`` itself does not move it. None when it cannot be read now.
    """
    try:
        return int(connection.execute("PRAGMA data_version").fetchone()[0])
    except SQLITE_ERRORS:
        return None


def _checkpoint(target: sqlite3.Connection, live: Path) -> tuple[str, ...]:
    """Bring the content from the WAL into the file without making writers wait for readers."""
    try:
        if not _is_wal(target):
            return ()
        target.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        for _ in range(_TRUNCATE_TRIES):
            # TRUNCATE with a long timeout would lock writers out while it waits for a reader.
            with suppress(sqlite3.OperationalError):
                is_busy = int(target.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
                if not is_busy:
                    return ()
    except SQLITE_ERRORS as exc:
        _sync_wal(live)
        error = from_sqlite(exc, doing="bringing the WAL into the file")
        return (f"The content is in the WAL and could not be brought into the file yet: {error.message}",)
    _sync_wal(live)
    return ("A reader kept the WAL from being cut; SQLite will do it when the reader has ended.",)


def _sync_wal(live: Path) -> None:
    """Make the committed content durable in the WAL. SQLite keeps no lock on that file."""
    with suppress(OSError):
        descriptor = os.open(sidecar(live, "-wal"), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_committed(
    target: sqlite3.Connection, census: Census, before: int | None, *, wait_seconds: float
) -> tuple[list[Check], bool]:
    """The checks, and whether others may have committed since ``before`` was read."""
    try:  # whatever fails from here on, the content is the restored one: it is a check that failed
        with translated("checking the restored database"):
            target.execute(f"PRAGMA busy_timeout={int(wait_seconds * 1000)}")
            checks = check_live(target, census)
    except BackupError as exc:
        checks = [Check(name="readable", ok=False, evidence=exc.message)]
    others_wrote = before is None or _data_version(target) != before
    return [_excused(check) for check in checks] if others_wrote else checks, others_wrote


def check_live(target: sqlite3.Connection, expected: Census) -> list[Check]:
    """Check the live database on its own connection: structure and census, in one read transaction."""
    target.execute("BEGIN")
    try:
        return check_connection(target, expected=expected, is_thorough=False, watch=Watch())
    finally:
        if target.in_transaction:
            target.execute("ROLLBACK")


def _excused(check: Check) -> Check:
    """A census that differs because others went on writing is a finding, not a failure."""
    if check.name != "census" or check.ok:
        return check
    evidence = f"others wrote since the restore: {check.evidence}"
    return replace(check, is_advisory=True, evidence=evidence)


def _as_staged(checks: list[Check], staged: Path, census: Census) -> list[Check]:
    """What is wrong in the same way with ``staged``, whose content was proven, is a finding and not a failure."""
    try:
        known = {
            (each.name, each.evidence)
            for each in check_database(staged, expected=census, is_thorough=False, watch=Watch())
        }
    except BackupError:  # then nothing is known
        return checks
    return [replace(each, is_advisory=True) if (each.name, each.evidence) in known else each for each in checks]


def move_aside(live: Path, *, now: datetime) -> list[Path]:
    """Rename a damaged database and its sidecar files; returns their new paths. Nothing is deleted.

    Raises:
        BackupError: from the disk; they have their old names.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    moved: list[Path] = []
    with _moving(live, moved), translated(f"moving {live.name} aside"):
        aside = live.with_name(f"{live.name}.damaged-{stamp}")
        number = 1
        while any(os.path.lexists(each) for each in (aside, *(sidecar(aside, suffix) for suffix in SIDECAR_SUFFIXES))):
            number += 1
            aside = live.with_name(f"{live.name}.damaged-{stamp}-{number}")
        pairs = [(live, aside), *((sidecar(live, suffix), sidecar(aside, suffix)) for suffix in SIDECAR_SUFFIXES)]
        for source, target in pairs:
            if os.path.lexists(source):
                source.rename(target)
                moved.append(target)
        sync_folder(live.parent)
    return moved


@contextmanager
def _moving(live: Path, moved: list[Path]) -> Iterator[None]:
    """Give back the names of ``moved`` when the block fails, as far as the disk allows."""
    try:
        yield
    except BaseException:
        for aside in moved:
            suffix = next((each for each in SIDECAR_SUFFIXES if aside.name.endswith(each)), "")
            with suppress(OSError):
                aside.rename(sidecar(live, suffix))
        raise


def recreate(
    staged: Path, live: Path, *, census: Census, token: str, now: datetime, is_unsound: bool = False
) -> Recreated:
    """Put the verified private file ``staged`` where a missing or unreadable database was, and check it.

    What is there is moved aside first. The new file gets owner and mode of the old one, or the
    owner of the folder. It is written beside its place, under a name with ``token`` that
    :func:`remove_draft` removes after a ``kill -9``. ``is_unsound``: as for :func:`restore_in_place`.

    Raises:
        DiskFullError, BackupError: nothing was changed, or what was moved has its old name again.
        RecreateError: the old files are moved aside, and the new one is not what it must be.
    """
    live = live.resolve()  # a link stays, what it points to is replaced
    model = live.stat() if live.exists() else None
    draft = _draft(live, token)
    with translated(f"writing {live.name}"):
        try:
            with open(staged, "rb") as source, open(create_private_file(draft), "wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
                owner = model or live.parent.stat()
                with suppress(PermissionError):
                    os.fchown(target.fileno(), owner.st_uid, owner.st_gid)
                if model is not None:
                    os.fchmod(target.fileno(), model.st_mode & 0o777)
                target.flush()
                os.fsync(target.fileno())
            moved = move_aside(live, now=now)
            with _moving(live, moved):
                publish_new_file(draft, live)
        finally:
            remove_if_there(draft)
    checks = _check_recreated(live, census)
    if is_unsound and failures(checks):
        checks = _as_staged(checks, staged, census)
    if failures(checks):
        raise RecreateError(moved, checks)
    return Recreated(moved=moved, checks=checks)


@dataclass(frozen=True, kw_only=True)
class Recreated:
    """A database that was made anew, checked."""

    moved: list[Path]
    """The old files, where they are now."""
    checks: list[Check]


class RecreateError(VerificationError):
    """A new file is in place, but it is not what it must be."""

    def __init__(self, moved: list[Path], checks: list[Check]) -> None:
        found = "; ".join(f"{check.name}: {check.evidence}" for check in failures(checks))
        aside = ", ".join(str(each) for each in moved) or "none"
        super().__init__(
            f"The database was made anew and is not as it must be ({found}).",
            f"Check the disk. The files from before were moved aside: {aside}.",
        )
        self.moved = moved
        self.checks = checks


def _draft(live: Path, token: str) -> Path:
    return live.with_name(f".{live.name}.restoring-{token}")


def remove_draft(live: Path, token: str) -> None:
    """Remove what a killed :func:`recreate` with this ``token`` left beside the database.

    Raises:
        BackupError: from the disk.
    """
    with translated("removing a left-over draft"):
        _draft(live.resolve(), token).unlink(missing_ok=True)


def _check_recreated(live: Path, census: Census) -> list[Check]:
    try:
        with (
            translated("checking the new database"),
            closing(open_for_writing(live, wait_seconds=5)) as connection,
        ):
            before = _data_version(connection)
            checks = check_live(connection, census)
            if _data_version(connection) != before:
                return [_excused(check) for check in checks]
            return checks
    except BackupError as exc:
        return [Check(name="readable", ok=False, evidence=exc.message)]
