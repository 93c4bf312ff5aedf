"""The lock that tells visitors of a site that its database is being exchanged. It frees itself on ``kill -9``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import conf
from ..core.files import file_lock
from ..models import Database


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
