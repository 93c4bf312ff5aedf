"""The tar format as far as our archives use it: POSIX pax, three kinds of members, one order.

Written so that every ``tar`` reads it, and read as what a stranger may have made: nothing but
files, folders and symbolic links, with plain relative paths, each folder before what is in it,
siblings in the order of their bytes. So no name comes twice, and no member lies in a link.
Memory is constant in both directions, whatever the sizes and numbers are.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import VerificationError

Kind = Literal["file", "folder", "link"]

MAX_DEPTH = 256
"""Levels of folders: each costs one open file while they are walked."""

MAX_PATH_BYTES = 4096
MAX_NAME_BYTES = 255

_TYPES: dict[Kind, bytes] = {"file": tarfile.REGTYPE, "folder": tarfile.DIRTYPE, "link": tarfile.SYMTYPE}
_KINDS: dict[bytes, Kind] = {code: kind for kind, code in _TYPES.items()}
_MAGIC = b"ustar\x0000"
_PAX_KEYS = frozenset({b"path", b"linkpath", b"size", b"mtime", b"uid", b"gid", b"hdrcharset"})
_MAX_PAX_BYTES = 16 << 10
_NANO = 1_000_000_000
_MAX_NUMBER = 1 << 62
MAX_TIME_NS = 1 << 63
"""Times lie before this, in either direction from 1970: until 2262."""


class FormatError(VerificationError):
    """A tar that is not one of ours: damaged, or made to do harm."""

    def __init__(self, why: str) -> None:
        super().__init__(f"The media archive is not as they are written here: {why}.", "Use another copy.")
        self.why = why


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file, folder or symbolic link."""

    path: str
    """Relative, parts joined by ``/``. Bytes that are not UTF-8 are surrogates, as Python spells file names."""
    kind: Kind
    mode: int = 0o644
    """Permission bits; set-user-id and its like are never kept."""
    mtime_ns: int = 0
    size_bytes: int = 0
    target: str = ""
    """Where a link points, as it was found."""
    owner: tuple[int, int] = (0, 0)
    """User and group, for the stock ``tar``; ours never sets them."""


def shown(name: str) -> str:
    """A name that can be printed and stored anywhere: bytes that are no text and controls spelled out."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def header(member: Member) -> bytes:
    """The blocks before a member's content."""
    info = tarfile.TarInfo(member.path)
    info.type, info.mode, info.size = _TYPES[member.kind], member.mode, member.size_bytes
    info.linkname = member.target
    info.uid, info.gid = member.owner
    info.mtime = member.mtime_ns // _NANO
    if member.mtime_ns % _NANO:
        sign, rest = "-" if member.mtime_ns < 0 else "", abs(member.mtime_ns)
        info.pax_headers = {"mtime": f"{sign}{rest // _NANO}.{rest % _NANO:09d}"}
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def padding(size_bytes: int) -> bytes:
    """What fills the last block of a content."""
    return bytes(-size_bytes % tarfile.BLOCKSIZE)


def trailer(done_bytes: int) -> bytes:
    """The end of a tar of ``done_bytes``: two empty blocks, then up to a whole record."""
    end = 2 * tarfile.BLOCKSIZE
    return bytes(end + -(done_bytes + end) % tarfile.RECORDSIZE)


def coalesced(pieces: Iterator[bytes], *, size_bytes: int) -> Iterator[bytes]:
    """The same bytes in pieces of about ``size_bytes``: a thread hand-over for each header would be slow."""
    buffer = bytearray()
    for piece in pieces:
        if len(piece) >= size_bytes:
            if buffer:
                yield bytes(buffer)
                buffer.clear()
            yield piece
            continue
        buffer += piece
        if len(buffer) >= size_bytes:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)


class Order:
    """Keeps the one order of members: each folder before what is in it, siblings ascending by their bytes."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._latest: list[bytes | None] = [None]

    def enter(self, member: Member) -> tuple[int, str]:
        """Take the next member; returns the depth of the folder that it is in, from 0, and its own name.

        Raises:
            FormatError: its folder is not the open one, or it is not behind its latest sibling.
        """
        *parents, name = member.path.split("/")
        if self._open[: len(parents)] != parents:
            raise FormatError(f"{shown(member.path)} does not follow its folder")
        del self._open[len(parents) :], self._latest[len(parents) + 1 :]
        key = name.encode("utf-8", "surrogateescape")
        latest = self._latest[-1]
        if latest is not None and key <= latest:
            raise FormatError(f"{shown(member.path)} comes twice or is out of order")
        self._latest[-1] = key
        if member.kind == "folder":
            self._open.append(name)
            self._latest.append(None)
        return len(parents), name


class Sink(Protocol):
    """Who receives the members of a tar."""

    def begin(self, member: Member) -> None:
        """A member begins."""

    def content(self, piece: bytes) -> None:
        """The next bytes of the file that began last."""

    def end(self) -> None:
        """The member that began last is complete."""


class Reader:
    """Takes a tar piece by piece and hands its members on, refusing whatever ours never hold."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._buffer = bytearray()
        self._wanted_bytes = tarfile.BLOCKSIZE
        self._pax: dict[bytes, bytes] | None = None
        self._left_bytes = 0
        self._padding_bytes = 0
        self._empty_blocks = 0

    def feed(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            FormatError: they are not what a tar of ours holds. Whatever the sink raises.
        """
        view = memoryview(piece)
        while view:
            if self._left_bytes:
                taken = view[: self._left_bytes]
                self._take_content(taken)
            elif self._padding_bytes:
                taken = view[: self._padding_bytes]
                self._take_padding(taken)
            else:
                taken = view[: self._wanted_bytes - len(self._buffer)]
                self._buffer += taken
                if len(self._buffer) == self._wanted_bytes:
                    self._take_buffer()
            view = view[len(taken) :]

    def finish(self) -> None:
        """The stream has ended.

        Raises:
            FormatError: the tar has not.
        """
        if self._empty_blocks < 2 or self._buffer:
            raise FormatError("it ends in the middle")

    def _take_content(self, taken: memoryview) -> None:
        self._sink.content(bytes(taken))
        self._left_bytes -= len(taken)
        if not self._left_bytes:
            self._sink.end()

    def _take_padding(self, taken: memoryview) -> None:
        if any(taken):
            raise FormatError("there are bytes between two members")
        self._padding_bytes -= len(taken)

    def _take_buffer(self) -> None:
        """Take a whole block, or a whole block of pax with its records."""
        block, records = bytes(self._buffer[: tarfile.BLOCKSIZE]), bytes(self._buffer[tarfile.BLOCKSIZE :])
        if not any(block):
            self._take_empty_block()
            return
        if self._empty_blocks:
            raise FormatError("it goes on after its end")
        info = _parsed(block)
        if info.type == tarfile.XHDTYPE and not records:
            if self._pax is not None or not 0 < info.size <= _MAX_PAX_BYTES:
                raise FormatError("a header is larger than any of ours, or one too many")
            self._wanted_bytes += info.size + len(padding(info.size))
            return  # its records come next
        self._buffer.clear()
        self._wanted_bytes = tarfile.BLOCKSIZE
        if info.type == tarfile.XHDTYPE:
            if any(records[info.size :]):
                raise FormatError("there are bytes behind a header")
            self._pax = _records(records[: info.size])
            return
        pax, self._pax = self._pax or {}, None
        self._begin(_member(info, pax))

    def _begin(self, member: Member) -> None:
        self._left_bytes = member.size_bytes
        self._padding_bytes = len(padding(member.size_bytes))
        self._sink.begin(member)
        if not self._left_bytes:
            self._sink.end()

    def _take_empty_block(self) -> None:
        self._buffer.clear()
        self._empty_blocks += 1
        if self._pax is not None or self._empty_blocks > 1 + tarfile.RECORDSIZE // tarfile.BLOCKSIZE:
            raise FormatError("its end is malformed")


def _parsed(block: bytes) -> tarfile.TarInfo:
    if block[257:265] != _MAGIC:
        raise FormatError("it is no POSIX tar, or a header is damaged")
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as exc:
        raise FormatError(f"a header is damaged ({exc})") from exc


def _records(content: bytes) -> dict[bytes, bytes]:
    """Pax records: ``length key=value`` and a line feed, the length counting all of it."""
    records: dict[bytes, bytes] = {}
    while content:
        digits, space, _ = content.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > 5:
            raise FormatError("a record is malformed")
        record, content = content[: int(digits)], content[int(digits) :]
        key, equals, value = record[len(digits) + 1 : -1].partition(b"=")
        if len(record) != int(digits) or not record.endswith(b"\n") or not equals:
            raise FormatError("a record is malformed")
        if key not in _PAX_KEYS or key in records:
            raise FormatError(f"a header holds {shown(key.decode('utf-8', 'surrogateescape'))[:40]}")
        records[key] = value
    return records


def _member(info: tarfile.TarInfo, pax: dict[bytes, bytes]) -> Member:
    kind = _KINDS.get(info.type)
    if kind is None:
        raise FormatError(f"{shown(info.name)[:80]} is neither file nor folder nor link")
    path = pax[b"path"].decode("utf-8", "surrogateescape") if b"path" in pax else info.name
    if kind == "folder":
        path = path.removesuffix("/")
    target = pax[b"linkpath"].decode("utf-8", "surrogateescape") if b"linkpath" in pax else info.linkname
    size_bytes = _number(pax[b"size"]) if b"size" in pax else info.size
    member = Member(
        path=path,
        kind=kind,
        mode=info.mode,
        mtime_ns=_nanoseconds(pax[b"mtime"]) if b"mtime" in pax else int(info.mtime) * _NANO,
        size_bytes=size_bytes,
        target=target,
    )
    require_plain(member)
    return member


def require_plain(member: Member) -> None:
    """Refuse what no archive of ours holds; asked by the writer too, so that it writes nothing else.

    Raises:
        FormatError: a path, time, size, mode or target is not as they are written here.
    """
    path = member.path
    encoded = path.encode("utf-8", "surrogateescape")
    parts = encoded.split(b"/")
    if b"\0" in encoded or len(encoded) > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        raise FormatError("a path is longer than paths can be")
    if any(part in (b"", b".", b"..") or len(part) > MAX_NAME_BYTES for part in parts):
        raise FormatError(f"the path {shown(path)[:80]} is not plain")
    if not 0 <= member.size_bytes < _MAX_NUMBER or (member.size_bytes and member.kind != "file"):
        raise FormatError(f"{shown(path)[:80]} has a size that it cannot have")
    if not -MAX_TIME_NS <= member.mtime_ns < MAX_TIME_NS:
        raise FormatError(f"{shown(path)[:80]} has a time that no clock shows")
    if not 0 <= member.mode <= 0o777:
        raise FormatError(f"{shown(path)[:80]} has more than permission bits")
    is_link = member.kind == "link"
    if bool(member.target) != is_link or "\0" in member.target or len(member.target) > MAX_PATH_BYTES:
        raise FormatError(f"{shown(path)[:80]} has a target that it cannot have")


def _number(text: bytes) -> int:
    if not text.isdigit() or len(text) > 19:
        raise FormatError("a number is malformed")
    return int(text)


def _nanoseconds(text: bytes) -> int:
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    if len(fraction) > 9:
        raise FormatError("a time is malformed")
    return sign * (_number(whole) * _NANO + (_number(fraction.ljust(9, b"0")) if fraction else 0))
