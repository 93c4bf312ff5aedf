"""What a destination is: objects by name, published whole or not at all, and never overwritten.

Every destination tells "I cannot be reached" apart from "what I hold is wrong", and no message of
one holds a secret or an address.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from ..core.errors import InputError
from ..core.progress import Watch


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """What a listing says of one object."""

    name: str
    size_bytes: int
    is_plain: bool = True
    """Whether it is a plain object; a link, a pipe or a device in its place is not followed."""


class Destination(Protocol):
    """A place where archives are kept. Names are POSIX paths."""

    name: str
    """What settings and catalogue call it."""

    is_remote: bool
    """Whether what is stored leaves this host: it must be encrypted for proven keys then."""

    def store(self, source: Path, name: str, *, watch: Watch | None = None) -> None:
        """Publish the synced private file ``source`` as ``name``; it is whole when this returns.

        ``source`` stays where it is. Whether the store keeps its word is shown by reading it back.

        Raises:
            RefusedError: the name is taken; what lies there was not touched.
            UnreachableError: the store does not answer, or took nothing. DiskFullError: it is full.
            BackupError: from the disk. CancelledError, DeadlineError: from ``watch``. After any
                other error than RefusedError something may lie under ``name``: see :meth:`remove`.
        """

    def open(self, name: str) -> AbstractContextManager[BinaryIO]:
        """Open a stored object for reading in pieces, in constant memory.

        Raises:
            UnreachableError: it is not there, or cannot be read, now or later in the block.
        """

    def size(self, name: str) -> int:
        """Bytes of a stored object.

        Raises:
            UnreachableError: it is not there, or cannot be asked.
        """

    def list(self) -> Iterator[StoredObject]:
        """Every stored object, in no order; work in progress is left out. One entry at a time is held.

        Raises:
            UnreachableError: the store, or a part of it, cannot be read.
        """

    def remove(self, name: str) -> None:
        """Remove a stored object; one that is not there is fine.

        Raises:
            UnreachableError, BackupError: it may be there still.
        """

    def sweep(self) -> None:
        """Remove what killed processes left half-stored, where such things lie on this host."""


def require_plain_name(name: str) -> tuple[str, ...]:
    """The parts of a name that leads nowhere else.

    Raises:
        InputError: it is none.
    """
    parts = PurePosixPath(name).parts
    if not parts or any(part in ("..", "/", ".") or part.startswith(".") for part in parts):
        raise InputError(f"{name!r} is not a name that a destination can hold.", "Names come from the catalogue.")
    return parts
