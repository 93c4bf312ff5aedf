"""The text form of an age file (strict PEM, RFC 7468 figure 3), for files that people paste.

Archives are stored in the binary form. Armor is read as strictly as the format allows: white
space before and after, LF or CRLF, and one spelling of everything else.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import encoding
from .errors import ArmorError
from .source import ByteSource

_BEGIN = b"-----BEGIN AGE ENCRYPTED FILE-----"
_END = b"-----END AGE ENCRYPTED FILE-----"
_DASHES = b"-----"
_COLUMNS = 64
_BYTES_PER_LINE = 48
_BATCH_LINES = 1024
_MAX_WHITE_SPACE_BYTES = 1024
_WHITE_SPACE = b" \t\r\n\v\f"


def unarmored(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The binary age file, whether ``pieces`` are its binary form or its armored one.

    Raises:
        ArmorError: it begins as an armored file and is not a proper one.
    """
    source = ByteSource(pieces)
    front = source.peek(_MAX_WHITE_SPACE_BYTES + len(_DASHES))
    if front.lstrip(_WHITE_SPACE).startswith(_DASHES):
        yield from decode(source.rest())
    else:
        yield from source.rest()


def encode(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The armored form of a binary age file, with LF. Stays without its end when ``pieces`` raises."""
    yield _BEGIN + b"\n"
    pending = b""
    for piece in pieces:
        pending += piece
        whole = len(pending) - len(pending) % _BYTES_PER_LINE
        yield b"".join(_encoded_lines(pending[:whole]))
        pending = pending[whole:]
    yield b"".join(_encoded_lines(pending)) + _END + b"\n"


def _encoded_lines(content: bytes) -> Iterator[bytes]:
    for at in range(0, len(content), _BYTES_PER_LINE):
        yield encoding.encode_padded(content[at : at + _BYTES_PER_LINE]) + b"\n"


def decode(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The binary form of an armored age file.

    Raises:
        ArmorError: it is anything else.
    """
    lines = _lines(pieces)
    _skip_to_begin(lines)
    yield from _bodies(lines)
    _check_trailing(lines)


def _bodies(lines: Iterator[bytes]) -> Iterator[bytes]:
    """The content up to the closing line, many lines at a time."""
    batch: list[bytes] = []
    is_last = False
    for line in lines:
        if line == _END:
            yield _decoded(batch)
            return
        if is_last:
            raise ArmorError("a line follows the last one")
        if not 0 < len(line) <= _COLUMNS:
            raise ArmorError("a line is empty or too long")
        is_last = len(line) < _COLUMNS or line.endswith(b"=")
        batch.append(line)
        if len(batch) == _BATCH_LINES:
            yield _decoded(batch)
            batch = []
    raise ArmorError("it has no closing line")


def _decoded(batch: list[bytes]) -> bytes:
    try:
        return encoding.decode_padded(b"".join(batch))
    except ValueError as exc:
        raise ArmorError("it holds text that is not canonical base64") from exc


def _lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Lines without their LF or CRLF."""
    pending = b""
    for piece in pieces:
        *lines, pending = (pending + piece).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r")
        if len(pending) > _MAX_WHITE_SPACE_BYTES:
            raise ArmorError("a line is too long")
    if pending:
        yield pending.removesuffix(b"\r")


def _skip_to_begin(lines: Iterator[bytes]) -> None:
    skipped_bytes = 0
    for line in lines:
        if line == _BEGIN:
            return
        skipped_bytes += len(line) + 1
        _check_white_space(line, so_far_bytes=skipped_bytes)
    raise ArmorError("it has no opening line")


def _check_trailing(lines: Iterator[bytes]) -> None:
    trailing_bytes = 0
    for line in lines:
        trailing_bytes += len(line) + 1
        _check_white_space(line, so_far_bytes=trailing_bytes)


def _check_white_space(line: bytes, *, so_far_bytes: int) -> None:
    if line.strip(_WHITE_SPACE):
        raise ArmorError("something other than white space stands before or after it")
    if so_far_bytes > _MAX_WHITE_SPACE_BYTES:
        raise ArmorError("there is too much white space around it")
