"""Failures carry a reason, a hint, a stable code and a documented exit code."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from backups_app.core import errors
from backups_app.core.errors import (
    EXIT_CODES,
    BackupError,
    BusyError,
    DiskFullError,
    InputError,
    NotFoundError,
    VerificationError,
    combined_exit_code,
    from_os,
    from_sqlite,
    translated,
)
from tests.support import build_shop, connected, holding


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EISDIR, errno.ELOOP])
def test_a_path_that_leads_nowhere_is_not_blamed_on_the_disk(number: int):
    assert from_os(OSError(number, os.strerror(number)), doing="reading x").hint == "Check the path."
    assert from_os(OSError(errno.EIO, "I/O error"), doing="reading x").hint == "Check the disk."


def test_a_name_that_is_too_long_is_the_fault_of_who_gave_it():
    assert isinstance(from_os(OSError(errno.ENAMETOOLONG, "too long"), doing="writing x"), InputError)


def subclasses_of(kind: type[BackupError]) -> list[type[BackupError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in subclasses_of(child))]


def sqlite_error(code: int, text: str = "boom") -> sqlite3.OperationalError:
    exc = sqlite3.OperationalError(text)
    exc.sqlite_errorcode = code
    return exc


def test_every_kind_of_error_has_its_own_code_and_exit_code():
    kinds = [kind for kind in subclasses_of(BackupError) if kind.__module__ == errors.__name__]
    assert {kind.code: kind.exit_code for kind in kinds} == EXIT_CODES
    assert len({kind.code for kind in kinds}) == len(kinds)


def test_exit_codes_are_those_of_the_command_line_contract():
    assert EXIT_CODES == {
        "failed": 1,
        "usage": 2,
        "verification_failed": 3,
        "unreachable": 3,
        "busy": 4,
        "key_missing": 5,
        "not_found": 6,
        "refused": 7,
        "cancelled": 130,
        "deadline": 4,
        "disk_full": 1,
    }


@pytest.mark.parametrize(
    ("codes", "combined"),
    [
        ([], 0),
        ([0, 0], 0),
        ([0, 8], 8),
        ([8, 4], 4),
        ([4, 6], 6),
        ([6, 2], 2),
        ([2, 7], 7),
        ([7, 5], 5),
        ([5, 1], 1),
        ([1, 3, 0], 3),
        ([3, 130], 130),
        ([0, 99], 1),
        ([4, -9], 1),
    ],
)
def test_the_most_serious_of_several_outcomes_wins_and_unknown_codes_are_failures(codes: list[int], combined: int):
    assert combined_exit_code(codes) == combined
    assert combined_exit_code(reversed(codes)) == combined


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, BusyError),
        (sqlite3.SQLITE_BUSY | (1 << 8), BusyError),
        (sqlite3.SQLITE_LOCKED, BusyError),
        (sqlite3.SQLITE_FULL, DiskFullError),
        (sqlite3.SQLITE_NOTADB, InputError),
        (sqlite3.SQLITE_CORRUPT, VerificationError),
        (sqlite3.SQLITE_CANTOPEN, BackupError),
        (sqlite3.SQLITE_READONLY | (3 << 8), BackupError),
        (sqlite3.SQLITE_IOERR | (10 << 8), BackupError),
        (sqlite3.SQLITE_ERROR, BackupError),
    ],
)
def test_sqlite_result_codes_become_the_right_kind_extended_codes_included(code: int, kind: type[BackupError]):
    error = from_sqlite(sqlite_error(code), doing="reading shop.db")
    assert type(error) is kind
    assert "reading shop.db" in error.message
    assert error.hint


def test_an_sqlite_error_without_a_code_is_a_plain_failure():
    assert type(from_sqlite(sqlite3.ProgrammingError("closed"), doing="reading")) is BackupError


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFullError),
        (errno.EDQUOT, DiskFullError),
        (errno.ENOENT, NotFoundError),
        (errno.EACCES, BackupError),
        (errno.EROFS, BackupError),
        (errno.EIO, BackupError),
    ],
)
def test_system_errors_become_the_right_kind_without_the_path(number: int, kind: type[BackupError]):
    error = from_os(OSError(number, "reason", "/very/secret/place"), doing="writing the archive")
    assert type(error) is kind
    assert "writing the archive" in error.message
    assert "/very/secret/place" not in error.message + error.hint
    assert error.hint


def test_a_real_lock_is_translated_and_keeps_its_cause(tmp_path: Path):
    database = build_shop(tmp_path / "shop.db", journal_mode="delete")
    with holding(database, "BEGIN EXCLUSIVE"), connected(database) as connection:
        connection.execute("PRAGMA busy_timeout=0")
        with pytest.raises(BusyError) as caught, translated("reading shop.db"):
            connection.execute("SELECT * FROM product")
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)


def test_an_error_that_is_already_readable_passes_unchanged():
    original = VerificationError("The archive is damaged.", "Use another copy.")
    with pytest.raises(VerificationError) as caught, translated("doing more"):
        raise original
    assert caught.value is original
    assert (caught.value.message, caught.value.hint) == ("The archive is damaged.", "Use another copy.")


def test_text_that_is_not_utf8_in_an_sqlite_message_is_a_readable_failure(tmp_path: Path):
    # Python cannot decode such a message and raises UnicodeDecodeError in place of sqlite3.Error.
    database = tmp_path / "odd.db"
    with connected(database) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET name = CAST(x'ff41' AS TEXT), sql = 'CREATE TABLE nonsense'")
    with (
        connected(database) as connection,
        pytest.raises(VerificationError, match="damaged"),
        translated("reading odd.db"),
    ):
        connection.execute("SELECT count(*) FROM t")


def test_a_bug_is_not_disguised_as_a_failure():
    with pytest.raises(ZeroDivisionError), translated("dividing"):
        raise ZeroDivisionError
