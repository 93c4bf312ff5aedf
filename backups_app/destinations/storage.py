"""Any Django storage as a remote destination, through the public storage API alone.

Backends differ in what they raise, may rename what is stored, and may say that something was stored
when it was not. So each of their exceptions is translated, the name that comes back is compared,
and nobody believes them without reading back.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from django.core.files.base import File
from django.core.files.storage import Storage

from ..core.errors import BackupError, DiskFullError, RefusedError, UnreachableError
from ..core.progress import Watch
from .base import StoredObject, require_plain_name

Result = TypeVar("Result")

_FULL = (errno.ENOSPC, errno.EDQUOT)


class StorageDestination:
    """The storage of an alias in STORAGES."""

    is_remote = True

    def __init__(self, storage: Storage, *, name: str) -> None:
        self._storage = storage
        self.name = name

    def store(self, source: Path, name: str, *, watch: Watch | None = None) -> None:
        """Publish ``source`` as ``name``, read in pieces. See :class:`.base.Destination`."""
        require_plain_name(name)
        if self._ask(f"asking for {name}", lambda: self._storage.exists(name)):
            raise self.taken(name)
        with open(source, "rb") as file:
            reader: Any = WatchedReader(file, total_bytes=source.stat().st_size, watch=watch)
            pieces = File(reader, name=name)
            given = self._ask(f"storing {name}", lambda: self._storage.save(name, pieces))
        if given != name:  # somebody was faster, or the backend has its own rules
            with suppress(BackupError):
                self._ask(f"removing {name}", lambda: self._storage.delete(str(given)))
            raise self.taken(name)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a stored object for reading in pieces. See :class:`.base.Destination`."""
        require_plain_name(name)
        with ExitStack() as stack:
            file = self._ask(f"opening {name}", lambda: self._storage.open(name, "rb"), name=name)
            stack.callback(_close_quietly, file)
            yield self.reader(name, file.read)

    def size(self, name: str) -> int:
        """Bytes of a stored object. See :class:`.base.Destination`."""
        require_plain_name(name)
        return int(self._ask(f"asking for {name}", lambda: self._storage.size(name), name=name))

    def list(self) -> Iterator[StoredObject]:
        """Every stored object. See :class:`.base.Destination`."""
        folders = [""]
        while folders:
            folder = folders.pop()
            below, files = self._ask("listing", lambda folder=folder: self._storage.listdir(folder))  # type: ignore[misc]
            prefix = f"{folder}/" if folder else ""
            folders += [f"{prefix}{each}" for each in below if each]
            for each in files:
                if each:
                    name = f"{prefix}{each}"
                    size = int(self._ask("listing", lambda name=name: self._storage.size(name)))  # type: ignore[misc]
                    yield StoredObject(name=name, size_bytes=size)

    def remove(self, name: str) -> None:
        """Remove a stored object; one that is not there is fine. See :class:`.base.Destination`."""
        require_plain_name(name)
        try:
            self._ask(f"removing {name}", lambda: self._storage.delete(name), name=name)
        except MissingObjectError:
            return

    def sweep(self) -> None:
        """Nothing lies on this host."""

    def taken(self, name: str) -> RefusedError:
        """What is raised for a name that is taken."""
        return RefusedError(
            f"{name} exists already at {self.name}; it was not touched.",
            "Names are never used twice: look who wrote it.",
        )

    def reader(self, name: str, read: Callable[[int], bytes]) -> BinaryIO:
        """A stream over ``read`` whose errors are translated."""
        return cast(BinaryIO, _Reader(lambda size: self._ask(f"reading {name}", lambda: read(size), name=name)))

    def _ask(self, doing: str, call: Callable[[], Result], *, name: str = "") -> Result:
        """Call the backend; whatever it raises comes out as one of ours."""
        try:
            return call()
        except BackupError:  # from the watch, in the middle of an upload
            raise
        except FileNotFoundError as exc:
            raise MissingObjectError(
                f"The object {name} is not at the destination {self.name}."
                if name
                else f"The destination {self.name} is not there ({doing}).",
                "Was it moved or deleted? Its content is not judged.",
            ) from exc
        except Exception as exc:
            if _is_full(exc):
                raise DiskFullError(
                    f"The destination {self.name} is full (found while {doing}).", "Free some space there."
                ) from exc
            raise UnreachableError(
                f"The destination {self.name} does not answer as it should while {doing}: {describe(exc)}.",
                "Check the network, the address and the permissions. Content there is not judged.",
            ) from exc


class MissingObjectError(UnreachableError):
    """The store answers, and has no such object."""


class WatchedReader(io.RawIOBase):
    """A private file, read in pieces under a watch."""

    def __init__(self, file: BinaryIO, *, total_bytes: int, watch: Watch | None) -> None:
        super().__init__()
        self._file = file
        self._total_bytes = total_bytes
        self._watch = watch

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of the file."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """As of the file, telling the watch."""
        piece = self._file.read(len(buffer))
        buffer[: len(piece)] = piece
        if self._watch is not None:
            self._watch.report("store", self._file.tell(), self._total_bytes)
        return len(piece)


class _Reader(io.RawIOBase):
    """A stream over a function that gives the next bytes, at most so many."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        super().__init__()
        self._read = read

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes."""
        piece = self._read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


def describe(exc: BaseException) -> str:
    """An exception of a backend in words that hold no address and no secret: its kind, and its code if it has one."""
    code = error_code(exc)
    if code:
        return f"{type(exc).__name__} {code}"
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return type(exc).__name__


def error_code(exc: BaseException) -> str:
    """The code in the answer of an object store, as ``NoSuchBucket``; empty when there is none."""
    answer = getattr(exc, "response", None)
    error = answer.get("Error") if isinstance(answer, dict) else None
    code = str(error.get("Code", "")) if isinstance(error, dict) else ""
    return code if code.isascii() and code.isalnum() and len(code) <= 60 else ""


def http_status(exc: BaseException) -> int:
    """The HTTP status in the answer of an object store; 0 when there is none."""
    answer = getattr(exc, "response", None)
    facts = answer.get("ResponseMetadata") if isinstance(answer, dict) else None
    status = facts.get("HTTPStatusCode") if isinstance(facts, dict) else None
    return status if isinstance(status, int) else 0


def _is_full(exc: BaseException) -> bool:
    if isinstance(exc, OSError) and exc.errno in _FULL:
        return True
    return http_status(exc) == 507 or error_code(exc) in ("QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity")


def _close_quietly(file: Any) -> None:
    with suppress(Exception):  # what was read was compared; nothing is lost with the connection
        file.close()
