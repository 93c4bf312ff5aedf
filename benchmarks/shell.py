"""The stock tools: what a careful administrator would put in a script. None of them proves anything."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from backups_app.core import age

from .contender import COPY_NAME, make_durable, run_bash, run_tool
from .ours import ARCHIVE_NAME, ENCRYPTED_NAME, KEY_NAME


def cp(database: Path, folder: Path) -> None:
    """``cp``: right only here, where the WAL is empty and nobody writes. The floor of all times."""
    target = folder / COPY_NAME
    run_tool("cp", "--", database, target)
    make_durable(target)


def backup(database: Path, folder: Path, *, seconds: float = 1800) -> None:
    """The ``.backup`` command of the stock ``sqlite3`` shell, nothing checked."""
    _backup(database, folder, seconds=seconds)
    make_durable(folder / COPY_NAME)


def _backup(database: Path, folder: Path, *, seconds: float = 1800) -> None:
    # Run inside the folder, so that the shell's own quoting rules never meet a path.
    run_tool("sqlite3", database, f".backup {COPY_NAME}", folder=folder, seconds=seconds)


def staged_backup(database: Path, folder: Path) -> Path:
    """The plain copy that others pack; not synced."""
    _backup(database, folder)
    return folder / COPY_NAME


def backup_in_one_step(database: Path, folder: Path) -> None:
    """Python's ``Connection.backup(pages=-1)`` with its defaults: one step, nothing checked."""
    target = folder / COPY_NAME
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy, pages=-1)
    make_durable(target)


def vacuum_into(database: Path, folder: Path) -> None:
    """``VACUUM INTO`` on a plain connection of Python's ``sqlite3``, nothing checked."""
    target = folder / COPY_NAME
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))
    make_durable(target)


def backup_and_zstd(database: Path, folder: Path) -> None:
    """The usual script: ``sqlite3 .backup``, then ``zstd -1 -T2``, plain copy removed, no check."""
    staged, archive = staged_backup(database, folder), folder / ARCHIVE_NAME
    run_tool("zstd", "-q", "-1", "-T2", staged, "-o", archive)
    staged.unlink()
    make_durable(archive)


def backup_zstd_and_age(database: Path, folder: Path) -> None:
    """The usual script for encrypted backups: ``sqlite3 .backup``, then ``zstd | age``; no check."""
    recipient = str(age.X25519Identity.generate().recipient)
    staged, archive = staged_backup(database, folder), folder / ENCRYPTED_NAME
    run_bash('zstd -q -1 -T2 -c "$1" | age -r "$2" -o "$3"', staged, recipient, archive)
    staged.unlink()
    make_durable(archive)


def zstd_decompress(store: Path, folder: Path) -> None:
    """``zstd -d`` of our archive: only the frame's own checksum is looked at."""
    run_tool("zstd", "-q", "-d", store / ARCHIVE_NAME, "-o", folder / COPY_NAME)
    make_durable(folder / COPY_NAME)


def age_and_zstd_decompress(store: Path, folder: Path) -> None:
    """``age -d | zstd -d`` of our archive."""
    script = 'age -d -i "$1" "$2" | zstd -q -d -o "$3"'
    run_bash(script, store / KEY_NAME, store / ENCRYPTED_NAME, folder / COPY_NAME)
    make_durable(folder / COPY_NAME)


def age_and_zstd_test(store: Path, _folder: Path) -> None:
    """``age -d | zstd -t`` of our archive: whole and untouched, but is it a database?"""
    run_bash('age -d -i "$1" "$2" | zstd -q -t', store / KEY_NAME, store / ENCRYPTED_NAME)
