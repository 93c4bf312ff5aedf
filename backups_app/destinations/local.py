"""A folder on this host as a destination: the built-in ``local``, or that of a FileSystemStorage."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..core.archive import CHUNK_BYTES
from ..core.errors import UnreachableError, translated
from ..core.files import (
    create_private_folder,
    publish_linked_file,
    publish_new_file,
    scratch_folder,
    sweep_scratch,
    sync_folder,
)
from ..core.progress import Watch
from .base import StoredObject, require_plain_name

LOCAL = "local"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class LocalDestination:
    """A folder on this host."""

    is_remote = False

    def __init__(self, root: Path, *, name: str = LOCAL) -> None:
        self._root = root
        self.name = name

    @property
    def root(self) -> Path:
        """The folder."""
        return self._root

    def store(self, source: Path, name: str, *, watch: Watch | None = None) -> None:
        """Publish the synced file ``source`` as ``name``: durable and whole when this returns.

        ``source`` stays. On the same file system it is linked, once, which takes no room; it may not
        be written to any more. Nothing appears under ``name`` before it is complete, or outside of the store.

        Raises:
            RefusedError: the name is taken. DiskFullError, BackupError: from the disk.
            CancelledError, DeadlineError: from ``watch``. Nothing of it is there then.
        """
        *folders, _last = require_plain_name(name)
        target = self._root / name
        with translated(f"storing {target.name}"):
            self._create_root()
            with self._folder(folders, create=True) as folder:
                if _may_link(source, folder) and publish_linked_file(source, target, folder=folder):
                    return
                self._refuse_linked_incoming()
                with scratch_folder(self._incoming, uuid.uuid4().hex) as incoming:
                    copy = incoming / "copy"
                    _copy(source, copy, watch=watch)
                    publish_new_file(copy, target, folder=folder)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a stored object for reading.

        Raises:
            UnreachableError: it is not there, or cannot be read, now or later in the block.
        """
        *folders, last = require_plain_name(name)
        where = "its folder is missing too"
        try:
            with self._folder(folders) as folder:
                where = "its folder is there"
                descriptor = _open_plain(last, folder)
            with open(descriptor, "rb", buffering=0) as stream:
                yield stream
        except FileNotFoundError as exc:
            raise UnreachableError(
                f"The object {name} is not at the destination {self.name} ({where}).",
                "Was it moved or deleted, or is a disk not mounted? Its content is not judged.",
            ) from exc
        except OSError as exc:
            raise UnreachableError(
                f"The object {name} at the destination {self.name} cannot be read: {exc.strerror}.",
                "Check the disk and the permissions. Its content is not judged.",
            ) from exc

    def size(self, name: str) -> int:
        """Bytes of a stored object.

        Raises:
            UnreachableError: it is not there, or cannot be read.
        """
        with self.open(name) as stream:
            return os.fstat(stream.fileno()).st_size

    def list(self) -> Iterator[StoredObject]:
        """Every stored object, in no order; work in progress is left out. One entry at a time is held.

        Links are not followed, to files or to folders: they come as objects that are not plain.

        Raises:
            UnreachableError: the store, or a part of it, cannot be read.
        """
        try:
            yield from self._walk()
        except OSError as exc:
            raise UnreachableError(
                f"The destination {self.name} cannot be listed: {exc.strerror}.",
                "Check the disk and the permissions, and that it is mounted. Nothing in it is judged.",
            ) from exc

    def _walk(self) -> Iterator[StoredObject]:
        left: list[tuple[str, ...]] = [()]
        while left:
            parts = left.pop()
            with self._folder(parts) as folder, os.scandir(folder) as entries:
                for entry in entries:
                    if not parts and entry.name in (self._incoming.name, "lost+found"):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        left.append((*parts, entry.name))
                        continue
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue  # removed meanwhile
                    yield StoredObject(
                        name="/".join((*parts, entry.name)),
                        size_bytes=found.st_size,
                        is_plain=stat.S_ISREG(found.st_mode),
                    )

    def remove(self, name: str) -> None:
        """Remove a stored object; one that is not there is fine.

        Raises:
            BackupError: from the disk, or a folder on the way is a link: what lies behind it stays.
        """
        *folders, last = require_plain_name(name)
        is_gone = suppress(FileNotFoundError, NotADirectoryError)
        with translated(f"removing {last}"), is_gone, self._folder(folders) as folder:
            os.unlink(last, dir_fd=folder)
            os.fsync(folder)

    def sweep(self) -> None:
        """Remove what killed processes left half-stored.

        Raises:
            OSError: from the disk, or the folder for such things is a link.
        """
        self._refuse_linked_incoming()
        sweep_scratch(self._incoming)

    @property
    def _incoming(self) -> Path:
        return self._root / ".incoming"

    def _refuse_linked_incoming(self) -> None:
        if self._incoming.is_symlink():
            raise _link(self._incoming.name)

    @contextmanager
    def _folder(self, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """An open folder of the store, reached step by step: no part below the root is followed if it is a link.

        What is done through the descriptor is done in that very folder, also when its path is exchanged meanwhile.

        Raises:
            OSError: it is not there (unless ``create``), is none, or is a link.
        """
        folder = os.open(self._root, _FOLDER)
        try:
            for part in parts:
                if create:
                    _create_folder(part, folder)
                inner = _step(part, folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _create_root(self) -> None:
        missing = [each for each in (self._root, *self._root.parents) if not each.exists()]
        create_private_folder(self._root)
        for created in reversed(missing):
            sync_folder(created.parent)


def _step(part: str, folder: int) -> int:
    """Open the folder ``part`` of an open folder."""
    try:
        return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as exc:  # a link: ENOTDIR on Linux, ELOOP elsewhere
        if exc.errno in (errno.ENOTDIR, errno.ELOOP) and _is_link(part, folder):
            raise _link(part) from exc
        raise


def _open_plain(name: str, folder: int) -> int:
    """Open a plain file of an open folder for reading."""
    # A link could lead out of the store, and opening a pipe would wait for ever.
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.EMLINK) and _is_link(name, folder):  # EMLINK: FreeBSD
            raise OSError(errno.ELOOP, "it is a link, which is not followed") from exc
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a plain file")
    return descriptor


def _is_link(part: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(part, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _link(part: str) -> OSError:
    return OSError(errno.ELOOP, f"its folder {part} is a link, and links in a store are not followed")


def _create_folder(part: str, folder: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(part, 0o700, dir_fd=folder)
        os.fsync(folder)


def _copy(source: Path, copy: Path, *, watch: Watch | None) -> None:
    total_bytes = source.stat().st_size
    done_bytes = 0
    with open(source, "rb") as reader, open(copy, "xb", opener=_private) as writer:
        while piece := reader.read(CHUNK_BYTES):
            writer.write(piece)
            done_bytes += len(piece)
            if watch is not None:
                watch.report("store", done_bytes, total_bytes)
        writer.flush()
        os.fsync(writer.fileno())


def _may_link(source: Path, folder: int) -> bool:
    """Whether ``source`` is on the same file system, and no object yet: two copies that are one file rot together."""
    found = source.stat()
    return found.st_dev == os.fstat(folder).st_dev and found.st_nlink == 1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
