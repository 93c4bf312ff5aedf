"""The members of a ZIP, streamed one by one. Their names are shown and never used as paths."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from ..errors import KeyMissingError, VerificationError
from .layers import PIECE_BYTES
from .limits import Limits, OverLimitError

# What Python's reader raises for a damaged file, beside its own error.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    IndexError,
    KeyError,
    OverflowError,
    UnicodeError,
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others may ask for gigabytes of memory
_ENCRYPTED = 0x1
_HAS_DESCRIPTOR = 0x8
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DESCRIPTOR_BYTES = (12, 16, 20, 24)  # 32 or 64 bits, with or without a signature
_END = struct.Struct("<4s8xLLH")


class _Bounded(io.RawIOBase):
    """A file that refuses to be read in one huge piece: the reader takes a whole directory at once."""

    def __init__(self, stored: BinaryIO, *, most_bytes: int) -> None:
        super().__init__()
        self._stored = stored
        self._most_bytes = most_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._stored.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stored.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        found = self._stored.read(self._most_bytes + 1 if size < 0 else min(size, self._most_bytes + 1))
        if len(found) > self._most_bytes:
            raise OverLimitError("The directory of the ZIP is larger than allowed.", "Unpack it by hand.")
        return found


@contextmanager
def opened(stored: BinaryIO, *, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """The ZIP in an open file that can seek.

    Raises:
        VerificationError: its directory is missing or damaged. OverLimitError: it is too large.
    """
    stored.seek(0)
    try:
        archive = zipfile.ZipFile(_Bounded(stored, most_bytes=limits.zip_directory_bytes))
    except _DAMAGE as exc:
        raise VerificationError(
            f"The ZIP's directory cannot be read ({exc}): it is truncated or damaged.", "Look for another copy."
        ) from exc
    with archive:
        yield archive


def named_files(archive: zipfile.ZipFile, *, limits: Limits) -> list[tuple[str, zipfile.ZipInfo]]:
    """The files of a ZIP under names that can be shown, each name once; folders are left out."""
    named: dict[str, zipfile.ZipInfo] = {}
    seen: dict[str, int] = {}
    for info in archive.infolist():
        if info.is_dir():
            continue
        if len(named) == limits.members:
            break
        name = printable(info.filename)
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            name = f"{name}#{seen[name]}"
        if name not in named:
            named[name] = info
    return list(named.items())


def is_covered(archive: zipfile.ZipFile, stored: BinaryIO) -> bool:
    """Whether each byte of the ZIP ``stored`` belongs to what its directory lists, or to the directory.

    Python's reader takes the last directory and skips what else there is: of two ZIPs that were put
    one behind the other, the whole first. In doubt (a comment, more than 4 GB) the answer is no.
    """
    position = 0
    gaps: tuple[int, ...] = (0,)
    for info in sorted(archive.infolist(), key=lambda each: each.header_offset):
        if info.header_offset - position not in gaps:
            return False
        stored.seek(info.header_offset)
        header = stored.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            return False
        signature, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04" or (info.is_dir() and info.compress_size):
            return False  # what a folder holds is not read
        position = info.header_offset + len(header) + name_bytes + extra_bytes + info.compress_size
        gaps = (0, *_DESCRIPTOR_BYTES) if info.flag_bits & _HAS_DESCRIPTOR else (0,)
    end_at = stored.seek(0, io.SEEK_END) - _END.size
    stored.seek(max(end_at, 0))
    signature, directory_bytes, directory_at, comment_bytes = _END.unpack(stored.read(_END.size))
    return (
        (signature, comment_bytes) == (b"PK\x05\x06", 0)
        and directory_at + directory_bytes == end_at
        and directory_at - position in gaps
    )


def printable(name: str) -> str:
    """A name in which nothing moves a terminal's cursor."""
    shown = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in name[:500])
    return shown.encode("utf-8", "backslashreplace").decode()


def is_link(info: zipfile.ZipInfo) -> bool:
    """Whether the member is a symbolic link: its content is a path."""
    return stat.S_ISLNK(info.external_attr >> 16)


def member_pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a member; at its end the reader has compared size and checksum.

    Raises:
        KeyMissingError: it has a password. OverLimitError: its compression is not read here.
        VerificationError: it is damaged.
    """
    if info.flag_bits & _ENCRYPTED:
        raise KeyMissingError("It is encrypted with a ZIP password.", "Unpack it by hand.")
    if info.compress_type not in _METHODS:
        raise OverLimitError(f"Its ZIP compression method {info.compress_type} is not read here.", "Unpack it by hand.")
    done_bytes = 0
    try:
        with archive.open(info) as member:
            while piece := member.read(PIECE_BYTES):
                done_bytes += len(piece)
                yield piece
    except (*_DAMAGE, NotImplementedError, RuntimeError) as exc:
        raise VerificationError(f"The ZIP member is damaged: {exc}.", "Look for another copy.") from exc
    if done_bytes != info.file_size:
        raise VerificationError(
            f"The ZIP member has {done_bytes:,} bytes where {info.file_size:,} were announced.",
            "Look for another copy.",
        )
