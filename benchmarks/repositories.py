"""restic and borg as their own quick starts drive them: defaults, a passphrase, a local repository.

Both take files as they find them, so a copy made by ``sqlite3 .backup`` is what they are given; its
making is measured with them. Making the repository is not.
"""

from __future__ import annotations

from pathlib import Path

from .contender import COPY_NAME, aside, make_durable, run_tool
from .shell import staged_backup

_REPOSITORY = "repository"
_ARCHIVE = "sample"


def restic_init(_source: Path, folder: Path) -> None:
    """An empty repository."""
    _restic(folder, folder, "init")


def restic_backup(database: Path, folder: Path) -> None:
    """``sqlite3 .backup``, then ``restic backup``."""
    staged = staged_backup(database, folder)
    _restic(folder, folder, "backup", staged)
    staged.unlink()


def restic_backup_and_check(database: Path, folder: Path) -> None:
    """The same, then ``restic check --read-data``: what comes nearest to a proof."""
    restic_backup(database, folder)
    _restic(folder, folder, "check", "--read-data")


def restic_restore(store: Path, folder: Path) -> None:
    """``restic restore latest``."""
    _restic(store, folder, "restore", "latest", "--target", folder)
    _make_restored_durable(folder)


def restic_check(store: Path, folder: Path) -> None:
    """``restic check --read-data``."""
    _restic(store, folder, "check", "--read-data")


def _restic(store: Path, folder: Path, *arguments: str | Path) -> None:
    environment = {"RESTIC_PASSWORD": "benchmark", "RESTIC_CACHE_DIR": str(aside(folder))}
    run_tool("restic", "-q", "-r", store / _REPOSITORY, *arguments, environment=environment)


def borg_init(_source: Path, folder: Path) -> None:
    """An empty repository, encrypted as the quick start of borg does it."""
    _borg(folder, "init", "--encryption=repokey", folder / _REPOSITORY)


def borg_create(database: Path, folder: Path) -> None:
    """``sqlite3 .backup``, then ``borg create``."""
    staged = staged_backup(database, folder)
    _borg(folder, "create", f"{folder / _REPOSITORY}::{_ARCHIVE}", staged.name)
    staged.unlink()


def borg_create_and_check(database: Path, folder: Path) -> None:
    """The same, then ``borg check --verify-data``."""
    borg_create(database, folder)
    _borg(folder, "check", "--verify-data", folder / _REPOSITORY)


def borg_extract(store: Path, folder: Path) -> None:
    """``borg extract``."""
    _borg(folder, "extract", f"{store / _REPOSITORY}::{_ARCHIVE}")
    _make_restored_durable(folder)


def borg_check(store: Path, folder: Path) -> None:
    """``borg check --verify-data``."""
    _borg(folder, "check", "--verify-data", store / _REPOSITORY)


def _borg(folder: Path, *arguments: str | Path) -> None:
    environment = {
        "BORG_PASSPHRASE": "benchmark",
        "BORG_BASE_DIR": str(aside(folder)),
        # The note of where a repository was last seen is thrown away after each run.
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }
    run_tool("borg", *arguments, folder=folder, environment=environment)


def _make_restored_durable(folder: Path) -> None:
    for path in folder.rglob(COPY_NAME):  # restic puts it below the folders it came from
        make_durable(path)
