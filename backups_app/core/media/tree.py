"""A new tree of files in a private folder, each made inside the open folder that it belongs to.

Nothing is ever opened by a path: no link can lead a file elsewhere, and nothing that is there is
written to. Large files are synced as they grow, and all of them at the end in one go: syncing
thousands of small ones by one takes minutes. The caller then gives the whole its name.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

from ..archive import SyncedWriter
from ..files import sync_file_system
from .tar import Member

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class NewTree:
    """Makes members in the order of the archive; use it in a ``with`` block.

    All methods raise OSError, from the disk.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.open(root, _FOLDER_FLAGS)
        self._folders: list[tuple[int, Member]] = []
        self._file: io.FileIO | None = None
        self._writer: SyncedWriter | None = None

    def __enter__(self) -> NewTree:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._file is not None:
            self._file.close()
        for descriptor in (*(folder for folder, _ in reversed(self._folders)), self._root):
            os.close(descriptor)

    @property
    def _open(self) -> int:
        return self._folders[-1][0] if self._folders else self._root

    def finish(self) -> None:
        """Every member was made; they are durable when this returns."""
        self.leave_to(0)
        sync_file_system(self._root)

    def leave_to(self, depth: int) -> None:
        """Finish every folder deeper than ``depth``: what is in it is complete."""
        while len(self._folders) > depth:
            folder, member = self._folders[-1]
            # The owner keeps all rights on folders, or nobody could move this one into its place.
            _finish(folder, mode=member.mode | 0o700, mtime_ns=member.mtime_ns)
            self._folders.pop()
            os.close(folder)

    def make_folder(self, name: str, member: Member) -> None:
        """A folder in the open one; it is the open one then."""
        os.mkdir(_system(name), mode=0o700, dir_fd=self._open)
        self._folders.append((os.open(_system(name), _FOLDER_FLAGS, dir_fd=self._open), member))

    def make_link(self, name: str, member: Member) -> None:
        """A symbolic link in the open folder."""
        os.symlink(_system(member.target), _system(name), dir_fd=self._open)
        times = (member.mtime_ns, member.mtime_ns)
        os.utime(_system(name), ns=times, dir_fd=self._open, follow_symlinks=False)

    def begin_file(self, name: str) -> None:
        """A new private file in the open folder, for :meth:`write`."""
        descriptor = os.open(_system(name), _FILE_FLAGS, mode=0o600, dir_fd=self._open)
        self._file = open(descriptor, "wb", buffering=0)  # noqa: SIM115 - closed in end_file or __exit__
        self._writer = SyncedWriter(self._file)

    def write(self, piece: bytes) -> None:
        """The next bytes of the file."""
        if self._writer is not None:
            self._writer.write(piece)

    def end_file(self, member: Member) -> None:
        """The file is complete."""
        if self._file is not None:
            _finish(self._file.fileno(), mode=member.mode, mtime_ns=member.mtime_ns)
            self._file.close()
        self._file = self._writer = None


def _finish(descriptor: int, *, mode: int, mtime_ns: int) -> None:
    os.fchmod(descriptor, mode & 0o777)
    os.utime(descriptor, ns=(mtime_ns, mtime_ns))


def _system(name: str) -> str:
    """A name as the system's calls take it, whatever its encoding is."""
    return os.fsdecode(name.encode("utf-8", "surrogateescape"))
