"""What can go wrong, in words a person can act on.

Every failure that the engine can name is a :class:`BackupError`: ``message`` says what is
wrong, ``hint`` what to do. Each subclass owns one ``code`` (stored on rows, stable) and one
``exit_code`` (the command line contract). Messages never carry keys, passwords or row content.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class BackupError(Exception):
    """A failure with a readable reason and a hint."""

    code = "failed"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(BackupError):
    """What the caller gave is not usable: a folder as a database, a malformed name."""

    code = "usage"
    exit_code = 2


class VerificationError(BackupError):
    """Something was read completely and is not what it must be."""

    code = "verification_failed"
    exit_code = 3


class UnreachableError(VerificationError):
    """A stored copy could not be read at all. This says nothing about its content."""

    code = "unreachable"


class BusyError(BackupError):
    """Another process holds a lock for longer than we may wait."""

    code = "busy"
    exit_code = 4


class KeyMissingError(BackupError):
    """The archive is encrypted and no given key opens it."""

    code = "key_missing"
    exit_code = 5


class NotFoundError(BackupError):
    """A named thing does not exist."""

    code = "not_found"
    exit_code = 6


class RefusedError(BackupError):
    """A guard said no; nothing was changed."""

    code = "refused"
    exit_code = 7


class CancelledError(BackupError):
    """Somebody asked the work to stop; nothing was published."""

    code = "cancelled"
    exit_code = 130


class DeadlineError(BusyError):
    """The work took longer than its limit."""

    code = "deadline"


class DiskFullError(BackupError):
    """A write found no space left."""

    code = "disk_full"


EXIT_CODES: dict[str, int] = {
    kind.code: kind.exit_code
    for kind in (
        BackupError,
        InputError,
        VerificationError,
        UnreachableError,
        BusyError,
        KeyMissingError,
        NotFoundError,
        RefusedError,
        CancelledError,
        DeadlineError,
        DiskFullError,
    )
}
"""Exit code for each failure code stored on a row."""

# Which outcome a run with several outcomes reports: the first of these that happened.
_PRIORITY = (130, 3, 1, 5, 7, 2, 6, 4, 8, 0)


def combined_exit_code(codes: Iterable[int]) -> int:
    """The one exit code for several outcomes: the most serious, in the documented order.

    Cancelled, verification failed, failed, key missing, refused, usage, not found, busy,
    attention, done. An unknown code counts as a failure (1).
    """
    known = {code if code in _PRIORITY else 1 for code in codes}
    return next((code for code in _PRIORITY if code in known), 0)


# SQLITE_BUSY and SQLITE_LOCKED, primary result codes (https://sqlite.org/rescode.html).
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)

SQLITE_ERRORS = (sqlite3.Error, UnicodeError)
"""What ``sqlite3`` raises: a message of SQLite that is not UTF-8 (the name in a damaged schema)
comes as ``UnicodeDecodeError`` in place of ``sqlite3.Error``."""


def primary_code(exc: sqlite3.Error | UnicodeError) -> int:
    """The primary SQLite result code of an exception, 0 when it carries none."""
    return (getattr(exc, "sqlite_errorcode", None) or 0) & 0xFF


_MISSING_COLLATION = "no such collation sequence: "


def missing_collation(exc: sqlite3.Error | UnicodeError) -> str | None:
    """The name of the collation that only the application has, when SQLite asked for one."""
    text = str(exc)
    if primary_code(exc) != sqlite3.SQLITE_ERROR or not text.startswith(_MISSING_COLLATION):
        return None
    return text.removeprefix(_MISSING_COLLATION)


def from_sqlite(exc: sqlite3.Error | UnicodeError, *, doing: str) -> BackupError:
    """Translate one of ``SQLITE_ERRORS`` met while ``doing`` (a phrase such as "reading shop.db")."""
    code = primary_code(exc)
    if code in _BUSY_CODES:
        return BusyError(
            f"The database stayed locked while {doing}.",
            "Another process holds an exclusive lock. Try again when it has finished, "
            "or raise BACKUPS['BUSY_TIMEOUT_SECONDS'].",
        )
    if code == sqlite3.SQLITE_FULL:
        return _disk_full(doing)
    if code == sqlite3.SQLITE_NOTADB:
        return InputError(
            f"The file is not an SQLite database (found while {doing}).",
            "Check the path. An encrypted (SEE, SQLCipher) database cannot be read here.",
        )
    if code == sqlite3.SQLITE_CORRUPT or isinstance(exc, UnicodeError):
        return VerificationError(
            f"The database is damaged: {exc} (found while {doing}).",
            "Keep the file as it is. Extract the newest verified backup to a new file and compare.",
        )
    if code == sqlite3.SQLITE_CANTOPEN:
        return BackupError(
            f"SQLite cannot open the file while {doing}.",
            "Check that this user may read the file and write to its folder.",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return BackupError(
            f"Permission was denied while {doing}: {exc}.",
            "Run backups as the user that owns the database.",
        )
    hint = "See the SQLite error text."
    if missing_collation(exc) is not None:
        hint = "Only the application defines this collation: what sorts or compares by it cannot be done here."
    return BackupError(f"SQLite reported an error while {doing}: {exc}.", hint)


def from_os(exc: OSError, *, doing: str) -> BackupError:
    """Translate an operating system error met while ``doing``."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(doing)
    if exc.errno == errno.ENOENT:
        return NotFoundError(f"A file or folder is missing while {doing}.", "Check the path.")
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BackupError(
            f"Permission was denied while {doing}.",
            "Check owner and mode of the folders below BACKUPS_HOME.",
        )
    if exc.errno == errno.ENAMETOOLONG:
        return InputError(f"A name is too long for the file system (found while {doing}).", "Choose a shorter one.")
    hint = "Check the path." if exc.errno in (errno.ENOTDIR, errno.EISDIR, errno.ELOOP) else "Check the disk."
    return BackupError(f"The system reported an error while {doing}: {exc.strerror or exc}.", hint)


def _disk_full(doing: str) -> DiskFullError:
    return DiskFullError(f"The disk is full: no space left while {doing}.", "Free some space, then run it again.")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn SQLite and operating system errors raised inside into :class:`BackupError`."""
    try:
        yield
    except SQLITE_ERRORS as exc:
        raise from_sqlite(exc, doing=doing) from exc
    except OSError as exc:
        raise from_os(exc, doing=doing) from exc
