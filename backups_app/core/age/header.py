"""The text at the front of an age file: stanzas that wrap its file key, and a MAC over them.

Reading is strict and keeps the bytes as read, because the MAC is over those and not over what
we would write in their place. Stanzas of types that we do not know are kept and ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from . import encoding
from .errors import HeaderError, HmacError
from .file_key import FileKey
from .source import ByteSource

MAX_HEADER_BYTES = 1 << 20
"""Largest header that is read into memory: a stanza of 100 bytes for each of 1,024 recipients
fits ten times, and 500 of the post-quantum ones, which we skip over, fit as well."""

MAX_STANZAS = 1024
"""Most recipients of one file: each costs every reader a key exchange."""

MAGIC = b"age-encryption.org/"
_VERSION_LINE = MAGIC + b"v1\n"
_COLUMNS = 64
_ARGUMENTS = re.compile(rb"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
_MAC_BYTES = 32


@dataclass(frozen=True)
class Stanza:
    """One wrapping of the file key: arguments, the first of which is the type, and a body."""

    arguments: tuple[str, ...]
    body: bytes

    @property
    def type(self) -> str:
        """Which kind of recipient it is for."""
        return self.arguments[0]

    def to_bytes(self) -> bytes:
        """Its lines in the header. The last one is shorter than 64 columns, empty if need be."""
        text = encoding.encode(self.body)
        lines = [text[at : at + _COLUMNS] for at in range(0, len(text) + 1, _COLUMNS)]
        return b"\n".join([b"-> " + " ".join(self.arguments).encode("ascii"), *lines, b""])


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header as it was read; nothing in it is proven before :meth:`check_mac`."""

    stanzas: tuple[Stanza, ...]
    authenticated: bytes
    """Exactly the bytes that the MAC is over."""
    mac: bytes

    def check_mac(self, file_key: FileKey) -> None:
        """Return when the header is the one written with this file key.

        Raises:
            HmacError: it is not.
        """
        try:
            _hmac(file_key, self.authenticated).verify(self.mac)
        except InvalidSignature as exc:
            raise HmacError from exc


def header_bytes(stanzas: list[Stanza], *, file_key: FileKey) -> bytes:
    """A header with its MAC, ready to be written."""
    authenticated = b"".join([_VERSION_LINE, *(stanza.to_bytes() for stanza in stanzas), b"---"])
    return authenticated + b" " + encoding.encode(_hmac(file_key, authenticated).finalize()) + b"\n"


def read_header(source: ByteSource) -> Header:
    """Read the header and leave ``source`` at the first byte of the payload.

    Raises:
        HeaderError: it is not the header of an age v1 file, or larger than we read.
    """
    lines = _Lines(source)
    version = lines.next()
    if version != _VERSION_LINE:
        is_other_version = version.startswith(MAGIC) and version.endswith(b"\n")
        raise HeaderError("its version is not v1" if is_other_version else "this is not an age file")
    stanzas: list[Stanza] = []
    while (line := lines.next()).startswith(b"-> "):
        if len(stanzas) == MAX_STANZAS:
            raise HeaderError(f"it has more than {MAX_STANZAS:,} recipients")
        stanzas.append(Stanza(_arguments(line), _body(lines)))
    if not stanzas:
        raise HeaderError("it has no recipient")
    if not line.startswith(b"--- ") or not line.endswith(b"\n"):
        raise HeaderError("a line is neither a recipient nor the MAC")
    return Header(
        stanzas=tuple(stanzas),
        authenticated=lines.authenticated(line),
        mac=decoded(line[4:-1], size_bytes=_MAC_BYTES),
    )


class _Lines:
    """Lines of a header, kept as read, up to its largest size."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._taken = bytearray()

    def next(self) -> bytes:
        line = self._source.line(limit_bytes=MAX_HEADER_BYTES - len(self._taken))
        self._taken += line
        if len(self._taken) >= MAX_HEADER_BYTES:
            raise HeaderError(f"it is larger than {MAX_HEADER_BYTES:,} bytes")
        return line

    def authenticated(self, mac_line: bytes) -> bytes:
        """Everything taken up to and including the three dashes of the MAC's line."""
        return bytes(self._taken[: len(self._taken) - len(mac_line) + 3])


def _arguments(line: bytes) -> tuple[str, ...]:
    text = line[3:-1]
    if not line.endswith(b"\n") or not _ARGUMENTS.fullmatch(text):
        raise HeaderError("the arguments of a recipient are malformed")
    return tuple(text.decode("ascii").split(" "))


def _body(lines: _Lines) -> bytes:
    return decoded(b"".join(_body_lines(lines)))


def _body_lines(lines: _Lines) -> Iterator[bytes]:
    while True:
        line = lines.next()
        text = line[:-1]
        if not line.endswith(b"\n") or len(text) > _COLUMNS:
            raise HeaderError("a line of a recipient is too long, or cut off")
        yield text
        if len(text) < _COLUMNS:
            return


def decoded(text: bytes | str, *, size_bytes: int | None = None) -> bytes:
    """Canonical base64 in a header, of the given size.

    Raises:
        HeaderError: it is not.
    """
    try:
        content = encoding.decode(text.encode("ascii") if isinstance(text, str) else text)
    except ValueError as exc:
        raise HeaderError("it holds text that is not canonical base64") from exc
    if size_bytes is not None and len(content) != size_bytes:
        raise HeaderError(f"a part of it has {len(content)} bytes in place of {size_bytes}")
    return content


def _hmac(file_key: FileKey, authenticated: bytes) -> HMAC:
    mac = HMAC(file_key.header_key(), SHA256())
    mac.update(authenticated)
    return mac
