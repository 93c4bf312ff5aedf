"""Deleting a useless file of somebody else: the one thing here that cannot be undone.

The file is looked at once more, through a descriptor: it must be the very file that was judged,
byte for byte. Whatever differs is a refusal.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import struct
import sys

from ..errors import RefusedError, translated
from ..progress import Watch
from .foreign import unpacked_names
from .layers import file_pieces
from .members import printable
from .verdict import Judged

# What SQLite would replay beside the file.
_REPLAYED = ("-wal", "-journal")


def remove_unchanged(judged: Judged, *, watch: Watch) -> None:
    """Delete the file that was ``judged`` useless, when it is exactly as it was then.

    Raises:
        RefusedError: it holds data or was not judged; or it was changed, replaced or removed since,
            something lies beside it, or a process has it open as a database. It is still there.
        CancelledError, DeadlineError, BackupError: it is still there.
    """
    path, identity = judged.file, judged.identity
    if not judged.is_useless or judged.member is not None or judged.sha256 is None or identity is None:
        raise _refused("it was not judged to be useless")
    with translated(f"deleting {printable(path.name)}"):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _require_same(judged, folder)
            descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            try:
                _require_unchanged(judged, descriptor, folder, watch=watch)
                _require_same(judged, folder)
                os.unlink(path.name, dir_fd=folder)
            finally:
                os.close(descriptor)
            os.fsync(folder)
        except FileNotFoundError as exc:
            raise _refused("it is not there any more") from exc
        finally:
            os.close(folder)


def _require_same(judged: Judged, folder: int) -> None:
    """The name leads to the file that was judged: no link, no other file."""
    found = os.stat(judged.file.name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode) or (found.st_dev, found.st_ino) != judged.identity:
        raise _refused("it was replaced since it was judged")


def _require_unchanged(judged: Judged, descriptor: int, folder: int, *, watch: Watch) -> None:
    found = os.fstat(descriptor)
    if (found.st_dev, found.st_ino) != judged.identity or found.st_size != judged.size_bytes:
        raise _refused("it was changed since it was judged")
    for name in unpacked_names(judged.file.name):
        for suffix in _REPLAYED:
            if _size(name + suffix, folder):
                raise _refused(f"a {suffix} with content lies beside it")
    if _is_locked(descriptor):
        raise _refused("a process has it open as a database")
    digest = hashlib.sha256()
    with open(descriptor, "rb", buffering=0, closefd=False) as stored:
        for piece in file_pieces(stored, phase="check", total_bytes=found.st_size, watch=watch):
            digest.update(piece)
    if digest.hexdigest() != judged.sha256 or os.fstat(descriptor).st_size != judged.size_bytes:
        raise _refused("it was changed since it was judged")


def _size(name: str, folder: int) -> int:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _is_locked(descriptor: int) -> bool:
    """Whether another process holds a lock on the file, as each connection to a WAL database does."""
    if sys.platform != "linux":
        return False  # the layout of the question is known for Linux only
    question = struct.pack("@hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, question)
    return bool(struct.unpack("@hhqqi", answer)[0] != fcntl.F_UNLCK)


def _refused(why: str) -> RefusedError:
    return RefusedError(f"It was not deleted: {why}.", "Run triage on it again, and look at it.")
