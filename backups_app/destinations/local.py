"""A folder on this host as a destination: the built-in ``local``, or that of a FileSystemStorage."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
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
        be written to any more. Nothing appears under ``name`` before it is complete.

        Raises:
            RefusedError: the name is taken. DiskFullError, BackupError: from the disk.
            CancelledError, DeadlineError: from ``watch``. Nothing of it is there then.
        """
        target = self._path(name)
        with translated(f"storing {target.name}"):
            self._create_folders(target.parent)
            if _may_link(source, target) and publish_linked_file(source, target):
                return
            with scratch_folder(self._incoming, uuid.uuid4().hex) as incoming:
                copy = incoming / "copy"
                _copy(source, copy, watch=watch)
                publish_new_file(copy, target)

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Open a stored object for reading.

        Raises:
            UnreachableError: it is not there, or cannot be read, now or later in the block.
        """
        path = self._path(name)
        try:
            # A link could lead out of the store, and opening a pipe would wait for ever.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with open(descriptor, "rb", buffering=0) as stream:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise OSError(errno.EINVAL, "it is not a plain file")
                yield stream
        except FileNotFoundError as exc:
            where = "its folder is there" if path.parent.is_dir() else "its folder is missing too"
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
            for path in self._walk(self._root):
                found = path.lstat()
                yield StoredObject(
                    name=path.relative_to(self._root).as_posix(),
                    size_bytes=found.st_size,
                    is_plain=stat.S_ISREG(found.st_mode),
                )
        except OSError as exc:
            raise UnreachableError(
                f"The destination {self.name} cannot be listed: {exc.strerror}.",
                "Check the disk and the permissions, and that it is mounted. Nothing in it is judged.",
            ) from exc

    def _walk(self, folder: Path) -> Iterator[Path]:
        folders = [folder]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    path = Path(entry.path)
                    if path.parent == self._root and entry.name in (self._incoming.name, "lost+found"):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    else:
                        yield path

    def remove(self, name: str) -> None:
        """Remove a stored object; one that is not there is fine.

        Raises:
            BackupError: from the disk.
        """
        path = self._path(name)
        with translated(f"removing {path.name}"), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            sync_folder(path.parent)

    def sweep(self) -> None:
        """Remove what killed processes left half-stored."""
        sweep_scratch(self._incoming)

    @property
    def _incoming(self) -> Path:
        return self._root / ".incoming"

    def _path(self, name: str) -> Path:
        return self._root.joinpath(*require_plain_name(name))

    def _create_folders(self, folder: Path) -> None:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        create_private_folder(folder)
        for created in reversed(missing):
            sync_folder(created.parent)


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


def _may_link(source: Path, target: Path) -> bool:
    """Whether ``source`` is on the same file system, and no object yet: two copies that are one file rot together."""
    found = source.stat()
    return found.st_dev == target.parent.stat().st_dev and found.st_nlink == 1


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
