"""Streams of foreign bytes: looking at the beginning, unpacking, and keeping them in scratch."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .. import archive
from ..errors import VerificationError, translated
from ..files import create_private_file
from ..progress import Watch
from .sniff import HEAD_BYTES

# Smaller than elsewhere: a megabyte of tiny frames costs its square in copies of what is left.
PIECE_BYTES = 128 << 10

_GZIP = 16 + zlib.MAX_WBITS
_UNLIMITED = 1 << 62  # the budget of the file is the limit


def file_pieces(stored: BinaryIO, *, phase: str, total_bytes: int, watch: Watch) -> Iterator[bytes]:
    """The next ``total_bytes`` of an open file, reporting each piece; a file that grows has an end too."""
    done_bytes = 0
    while piece := stored.read(min(PIECE_BYTES, total_bytes - done_bytes)):
        done_bytes += len(piece)
        watch.report(phase, done_bytes, total_bytes)
        yield piece


@dataclass(frozen=True, kw_only=True)
class Content:
    """Some content whose beginning is known."""

    head: bytes
    """Its first ``HEAD_BYTES``, or all of it."""
    pieces: Iterator[bytes]
    """All of it from the beginning, once."""
    stored: BinaryIO | None = None
    """The file that it is, when it is one as a whole."""
    size_bytes: int | None = None
    sibling: Callable[[str], Iterator[bytes] | None] | None = None
    """What lies beside it under its own name with a suffix; ``None`` when nothing does."""


def peeked(pieces: Iterator[bytes]) -> Content:
    """Read the beginning of ``pieces``; raises what they raise."""
    read: list[bytes] = []
    count = 0
    while count < HEAD_BYTES and (piece := next(pieces, None)) is not None:
        read.append(piece)
        count += len(piece)
    start = b"".join(read)
    return Content(head=start[:HEAD_BYTES], pieces=_again(start, pieces))


def _again(start: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if start:
        yield start
    yield from rest


def gunzip(pieces: Iterator[bytes], *, watch: Watch) -> Iterator[bytes]:
    """The content of one or more gzip members (RFC 1952); zero bytes after them are padding.

    Raises:
        VerificationError: the stream is damaged, ends early, or something else follows it.
    """
    member: zlib._Decompress | None = None
    has_member = False
    for piece in pieces:
        pending, has_more = piece, False
        while pending or has_more:
            watch.check()  # a piece may hold thousands of empty members
            if member is None:
                if has_member and not pending.strip(b"\0"):
                    break
                member = zlib.decompressobj(_GZIP)
            try:
                content = member.decompress(pending, archive.CHUNK_BYTES)
            except zlib.error as exc:
                raise VerificationError(f"The gzip stream is damaged: {exc}.", "Look for another copy.") from exc
            if content:
                yield content
            pending, has_more = member.unconsumed_tail, len(content) == archive.CHUNK_BYTES
            if member.eof:
                pending, has_more, member, has_member = member.unused_data, False, None, True
    if member is not None or not has_member:
        raise VerificationError("The gzip stream is truncated: it ends in the middle.", "Look for another copy.")


def unzstd(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content of one or more zstd frames.

    Raises:
        VerificationError: the stream is damaged, ends early, or something else follows it.
    """
    return archive.decompress(pieces, limit_bytes=_UNLIMITED)


def spool(pieces: Iterator[bytes], target: Path) -> Path:
    """Write ``pieces`` to the new private file ``target``; nothing is left of it on failure.

    Raises: what ``pieces`` raise. DiskFullError, BackupError: from the disk.
    """
    with translated("unpacking into the scratch folder"):
        descriptor = create_private_file(target)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                for piece in pieces:
                    archive.write_all(file, piece)
        except BaseException:
            with suppress(OSError):
                target.unlink()
            raise
    return target
