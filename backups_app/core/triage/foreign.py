"""Opening files of others: only plain files, never through a link, never one that may be live."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .limits import OverLimitError

_PACKED = (".gz", ".zst", ".age", ".enc", ".zip")

FileIdentity = tuple[int, int]
"""``(st_dev, st_ino)``."""


class UnreadableError(Exception):
    """The file is not read, and the message says why; nothing is said about its content."""

    def __init__(self, reason: str, *, kind: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.kind = kind


@contextmanager
def opened_plainly(path: Path, *, exclude: Collection[FileIdentity]) -> Iterator[BinaryIO]:
    """Open a plain file for reading; anything else is never opened.

    Raises:
        UnreadableError: it is not a plain file, is excluded, or cannot be read.
    """
    try:
        found = path.lstat()
        _refuse_special(found)
        # Looked at before the opening: closing an excluded file would already do the harm.
        if (found.st_dev, found.st_ino) in exclude:
            raise UnreadableError(
                "It is a database under care, not an archive; it was not opened.", kind="live database"
            )
        # Whatever takes the name in between: a link is refused, and a FIFO does not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as exc:
        raise UnreadableError(f"It could not be read: {_words(exc)}.", kind="unreadable") from exc
    with open(descriptor, "rb", buffering=0) as stored:
        now = os.fstat(descriptor)
        # The number of a removed file may be given to the next one, of whatever kind.
        if not os.path.samestat(found, now) or not stat.S_ISREG(now.st_mode):
            raise UnreadableError("It was replaced while it was opened.", kind="unreadable")
        yield stored


def _refuse_special(found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        return
    if stat.S_ISLNK(found.st_mode):
        raise UnreadableError("It is a symbolic link, which is not followed.", kind="symbolic link")
    if stat.S_ISDIR(found.st_mode):
        raise UnreadableError("It is a folder that could not be looked into.", kind="folder")
    raise UnreadableError("It is a FIFO, a socket or a device, which is never opened.", kind="special file")


def _words(exc: OSError | ValueError) -> str:
    return (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)


def sibling_pieces(
    path: Path, *, exclude: Collection[FileIdentity], most_bytes: int, piece_bytes: int
) -> Iterator[bytes] | None:
    """The bytes of a file that may lie beside an archive, ``None`` when there is none or an empty one.

    Raises:
        UnreadableError: something is there that is not read. OverLimitError: it is too large.
    """
    try:
        size_bytes = path.lstat().st_size
    except (OSError, ValueError):
        return None
    if not size_bytes:
        return None
    if size_bytes > most_bytes:
        raise OverLimitError(f"{path.name} beside it is larger than {most_bytes:,} bytes.", "Judge it by hand.")
    return _pieces(path, exclude=exclude, piece_bytes=piece_bytes)


def _pieces(path: Path, *, exclude: Collection[FileIdentity], piece_bytes: int) -> Iterator[bytes]:
    with opened_plainly(path, exclude=exclude) as stored:
        while piece := stored.read(piece_bytes):
            yield piece


def unpacked_names(name: str) -> Iterator[str]:
    """A file's name, and what the content is called when its layers are off: what lies beside that belongs to it."""
    yield name
    while name.lower().endswith(_PACKED):
        name = name[: name.rindex(".")]
        yield name


def expanded(paths: Iterable[Path], *, leave_out: Path) -> Iterator[Path]:
    """The files below ``paths`` in a stable order; links are given as they are, never followed.

    A folder that cannot be listed is given itself. The folder ``leave_out`` is not looked into.
    """
    left_out = leave_out.stat()
    for path in paths:
        if _is_folder(path):
            yield from _walked(path, left_out)
        else:
            yield path


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (OSError, ValueError):
        return False


def _walked(folder: Path, left_out: os.stat_result) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        try:
            if os.path.samestat(path.stat(), left_out):
                continue
            with os.scandir(path) as entries:
                found = sorted((each.name, each.is_dir(follow_symlinks=False)) for each in entries)
        except OSError:
            yield path
            continue
        yield from (path / name for name, is_folder in found if not is_folder)
        waiting.extend(path / name for name, is_folder in reversed(found) if is_folder)
