"""One lock per database: backups share it, a restore has it alone. It frees itself on ``kill -9``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import conf
from ..core.errors import BusyError
from ..core.files import file_lock
from ..models import Database


@contextmanager
def database_lock(database: Database, *, alone: bool) -> Iterator[None]:
    """Hold the lock of ``database`` until the block ends.

    Raises:
        BusyError: a restore runs (or, for ``alone``, a backup or a restore).
    """
    path = conf.state_folder() / "locks" / f"{database.identity}.lock"
    with file_lock(path, blocking=False, shared=not alone) as is_ours:
        if not is_ours:
            what = "A backup or a restore" if alone else "A restore"
            raise BusyError(f"{what} of {database.name} is running.", "Try again when it has ended.")
        yield


def _swap_lock(alias: str) -> Path:
    return conf.state_folder() / "locks" / f"{alias}.swap"


@contextmanager
def swapping(database: Database) -> Iterator[None]:
    """Say, until the block ends, that the content of ``database`` is being exchanged."""
    if not database.alias:
        yield
        return
    with file_lock(_swap_lock(database.alias)):  # visitors hold it for a moment only, to look
        yield


def is_swapping(alias: str) -> bool:
    """Whether the content of the database of this alias is being exchanged; costs one ``flock``."""
    path = _swap_lock(alias)
    if not path.exists():
        return False
    with file_lock(path, blocking=False, shared=True) as is_free:
        return not is_free
