"""Archives that hold only the pages that changed since another archive.

Inside the same zstd and age as everywhere lies a tar of two members::

    index    walsafe-delta 1
             base <SHA-256 of the database file that the pages are put into>
             page <bytes per page>
             run <number of the first page, from 1> <how many>      (one line for each run, in order)
             size <bytes of the database file that comes out>
             result <its SHA-256>
    pages    the pages of all runs, one after the other

``tar``, ``dd conv=notrunc`` and ``truncate`` put it into the base without us: see ``docs/space.md``.
Reading is strict. What is not byte for byte what we would write is refused, and nothing is believed
until the digests were compared.
"""

from __future__ import annotations

import os
import struct
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from .age import Recipient
from .archive import CHUNK_BYTES, Keys, OpenStored, ReadArchive, WrittenStream, read_archive, write_all, write_pieces
from .errors import VerificationError, translated
from .files import create_private_file
from .pages import PageRoot, digests_of
from .progress import Watch

_FIRST_LINE = "walsafe-delta 1"
_BLOCK_BYTES = 512
_LONGEST_LINE_BYTES = 128
_RUN = struct.Struct("<QQ")
_END = bytes(2 * _BLOCK_BYTES)

OnPages = Callable[[int, bytes], object]
"""Called with the number of a first page, counted from 1, and the bytes of it and the pages that follow."""


@dataclass(frozen=True, kw_only=True)
class Patch:
    """What a delta must say of itself."""

    base_sha256: str
    sha256: str
    """SHA-256 of the database file that comes out."""
    size_bytes: int
    page_size: int
    pages: int
    """How many pages it holds."""

    @property
    def page_count(self) -> int:
        """Pages of the database file that comes out."""
        return self.size_bytes // self.page_size


# Writing


class IndexWriter:
    """The index of a delta, written to a new private file while the snapshot is scanned."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> IndexWriter:
        with translated("writing the index of a delta"):
            self._file = open(create_private_file(self._path), "wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def begin(self, *, base_sha256: str, page_size: int) -> None:
        """The lines before the runs."""
        self._line(f"{_FIRST_LINE}\nbase {base_sha256}\npage {page_size}")

    def run(self, first: int, count: int) -> None:
        """One run of pages."""
        self._line(f"run {first} {count}")

    def finish(self, *, size_bytes: int, sha256: str) -> None:
        """The lines after the runs."""
        self._line(f"size {size_bytes}\nresult {sha256}")
        with translated("writing the index of a delta"):
            self._file.flush()

    def _line(self, text: str) -> None:
        with translated("writing the index of a delta"):
            self._file.write(text.encode() + b"\n")


def delta_bytes(index_bytes: int, patch: Patch) -> int:
    """Size of the tar."""
    return 2 * _BLOCK_BYTES + index_bytes + _padding(index_bytes) + patch.pages * patch.page_size + len(_END)


def write_delta(
    snapshot: Path,
    index: Path,
    destination: Path,
    *,
    patch: Patch,
    watch: Watch,
    level: int = 1,
    workers: int = 2,
    recipients: Sequence[Recipient] = (),
) -> WrittenStream:
    """Write the pages of ``snapshot`` that ``index`` names into the new private file ``destination``.

    The rest is as in :func:`~.archive.write_archive`.

    Raises: as :func:`~.archive.write_archive`.
    """
    packed_bytes = delta_bytes(index.stat().st_size, patch)
    return write_pieces(
        _tar(snapshot, index, patch, total_bytes=packed_bytes, watch=watch),
        destination,
        size_bytes=packed_bytes,
        level=level,
        workers=workers,
        recipients=recipients,
    )


def _tar(snapshot: Path, index: Path, patch: Patch, *, total_bytes: int, watch: Watch) -> Iterator[bytes]:
    done_bytes = 0
    for piece in _tar_pieces(snapshot, index, patch):
        done_bytes += len(piece)
        watch.report("compress", done_bytes, total_bytes)
        yield piece


def _tar_pieces(snapshot: Path, index: Path, patch: Patch) -> Iterator[bytes]:
    index_bytes = index.stat().st_size
    yield _header("index", index_bytes)
    with open(index, "rb") as lines:
        while piece := lines.read(CHUNK_BYTES):
            yield piece
    yield bytes(_padding(index_bytes))
    yield _header("pages", patch.pages * patch.page_size)
    with open(index, "rb") as lines, open(snapshot, "rb", buffering=0) as source:
        for line in lines:
            word, *numbers = line.decode().split()
            if word == "run":
                first, count = map(int, numbers)
                yield from _pages(source, first, count, patch.page_size)
    yield _END


def _pages(source: BinaryIO, first: int, count: int, page_size: int) -> Iterator[bytes]:
    offset, end = (first - 1) * page_size, (first - 1 + count) * page_size
    while offset < end:
        piece = os.pread(source.fileno(), min(CHUNK_BYTES, end - offset), offset)
        if not piece:
            raise VerificationError("The snapshot ended while it was read.", "Run the backup again.")
        offset += len(piece)
        yield piece


def _header(name: str, size_bytes: int) -> bytes:
    """The one tar header that we write for a member (GNU format: sizes of 8 GiB and more are binary)."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size_bytes, 0o600
    return member.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _padding(size_bytes: int) -> int:
    return -size_bytes % _BLOCK_BYTES


# Reading


class _MalformedError(Exception):
    """Something else than what we would write."""


class DeltaReader:
    """Takes the bytes of a delta's tar in any pieces and gives its pages, in order.

    Strict: each header, line and length must be the one that follows from ``patch``. The first thing
    that is not is kept as :attr:`problem`, and nothing is given from then on. What was given is **not
    proven** until the digests have been compared. Runs are kept in an unnamed file in ``folder``, so
    memory stays constant.
    """

    def __init__(self, patch: Patch, *, folder: Path, on_pages: OnPages) -> None:
        self.problem = ""
        """Why it is no delta of ours; empty while nothing is wrong."""
        self._patch = patch
        self._folder = folder
        self._on_pages = on_pages
        self._buffer = bytearray()
        self._is_done = False

    def __enter__(self) -> DeltaReader:
        with translated("preparing to read a delta"):
            self._runs = tempfile.TemporaryFile(dir=self._folder)
        self._steps = self._parse()
        self._wanted = next(self._steps)
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.close()
        with translated("reading the index of a delta"):
            self._runs.close()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises: whatever ``on_pages`` raises.
        """
        if self.problem:
            return
        if self._is_done:
            self.problem = "it goes on after its end"
            return
        self._buffer += piece
        try:
            while len(self._buffer) >= self._wanted:
                taken = bytes(self._buffer[: self._wanted])
                del self._buffer[: self._wanted]
                self._wanted = self._steps.send(taken)
        except StopIteration:
            self._is_done = True
            if self._buffer:
                self.problem = "it goes on after its end"
        except _MalformedError as exc:
            self.problem = str(exc)

    def finish(self) -> None:
        """No byte follows."""
        if not self.problem and not self._is_done:
            self.problem = "it ends in the middle"

    def _parse(self) -> Generator[int, bytes, None]:
        """Yields how many bytes it wants next, and is sent them."""
        index_bytes = _size_in((yield _BLOCK_BYTES), "index")
        lines = _Lines(self._patch, self._runs)
        left = index_bytes
        while left:
            piece = yield min(left, CHUNK_BYTES)
            left -= len(piece)
            with translated("reading the index of a delta"):
                lines.feed(piece)
        lines.finish()
        padding = _padding(index_bytes)
        if padding and (yield padding) != bytes(padding):
            raise _MalformedError("something lies between its members")
        if _size_in((yield _BLOCK_BYTES), "pages") != self._patch.pages * self._patch.page_size:
            raise _MalformedError("its pages are not those of its index")
        yield from self._parse_pages()
        if (yield len(_END)) != _END:
            raise _MalformedError("it does not end as a tar does")

    def _parse_pages(self) -> Generator[int, bytes, None]:
        page_size = self._patch.page_size
        with translated("reading the index of a delta"):
            self._runs.seek(0)  # writes what is left of it
        while run := self._next_run():
            first, count = _RUN.unpack(run)
            while count:
                pages = yield min(count * page_size, CHUNK_BYTES)
                self._on_pages(first, pages)
                first += len(pages) // page_size
                count -= len(pages) // page_size

    def _next_run(self) -> bytes:
        with translated("reading the index of a delta"):
            return self._runs.read(_RUN.size)


def _size_in(header: bytes, name: str) -> int:
    """The size that the one possible header of a member says."""
    try:
        size_bytes = tarfile.TarInfo.frombuf(header, "ascii", "strict").size
        is_ours = size_bytes >= 0 and header == _header(name, size_bytes)
    except (tarfile.TarError, ValueError, OverflowError) as exc:
        raise _MalformedError(f"the member {name} has no right header") from exc
    if not is_ours:
        raise _MalformedError(f"the member {name} has another header")
    return size_bytes


class _Lines:
    """The lines of an index against what they must say; runs go to a file, in order and apart from each other."""

    def __init__(self, patch: Patch, runs: BinaryIO) -> None:
        self._patch = patch
        self._runs = runs
        self._rest = b""
        self._head = [_FIRST_LINE, f"base {patch.base_sha256}", f"page {patch.page_size}"]
        self._tail = [f"size {patch.size_bytes}", f"result {patch.sha256}"]
        self._pages = 0
        self._next = 1
        """The lowest page that the next run may begin with."""

    def feed(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > _LONGEST_LINE_BYTES:
            raise _MalformedError("a line of its index is too long")
        for line in lines:
            self._take(line)

    def finish(self) -> None:
        if self._rest or self._head or self._tail:
            raise _MalformedError("its index ends in the middle")
        if self._pages != self._patch.pages:
            raise _MalformedError("its index names other pages")

    def _take(self, line: bytes) -> None:
        expected = self._head or ([] if line.startswith(b"run ") else self._tail)
        if expected:
            if line != expected.pop(0).encode():
                raise _MalformedError("its index is of another database")
            return
        if not line.startswith(b"run ") or len(self._tail) < 2:
            raise _MalformedError("its index has a line that does not belong there")
        self._take_run(line)

    def _take_run(self, line: bytes) -> None:
        try:
            first, count = (int(number) for number in line[4:].decode("ascii").split(" "))
        except ValueError as exc:
            raise _MalformedError("a run of its index is malformed") from exc
        end = first + count
        is_ours = line == f"run {first} {count}".encode()
        if not is_ours or count < 1 or first < self._next or end - 1 > self._patch.page_count:
            raise _MalformedError("the runs of its index are out of order, or outside the database")
        self._pages += count
        if self._pages > self._patch.pages:
            raise _MalformedError("its index names other pages")
        self._next = end + 1  # a page at ``end`` would belong to this run
        self._runs.write(_RUN.pack(first, count))


# Putting it into its base


class PatchedFile:
    """A private database file, and its page digests, into which deltas are put one after the other.

    After a failure the file holds a part: the caller removes it.
    """

    def __init__(self, path: Path, root: PageRoot) -> None:
        self._path = path
        self._root = root

    def apply(
        self,
        open_stored: OpenStored,
        patch: Patch,
        *,
        packed_bytes: int,
        total_bytes: int,
        watch: Watch,
        keys: Keys | None,
    ) -> tuple[ReadArchive, str, str]:
        """Put a stored delta into the file, synced; returns the reading, what is wrong with it, and the new root.

        Nothing is proven until the digests of the reading, and the root, have been compared.

        Raises:
            UnreachableError, DiskFullError, BackupError, CancelledError, DeadlineError.
        """
        with translated("putting a delta into its base"), open(self._path, "r+b", buffering=0) as file:

            def put(first: int, pages: bytes) -> None:
                with translated("putting a delta into its base"):
                    file.seek((first - 1) * patch.page_size)
                    write_all(file, pages)
                self._root.put(first, digests_of(pages, patch.page_size))

            read, problem = read_delta(
                open_stored,
                patch,
                folder=self._path.parent,
                on_pages=put,
                packed_bytes=packed_bytes,
                total_bytes=total_bytes,
                phase="unpack",
                watch=watch,
                keys=keys,
            )
            file.truncate(patch.size_bytes)
            os.fsync(file.fileno())
        self._root.resize(patch.page_count)
        return read, problem, self._root.hexdigest()


def read_delta(
    open_stored: OpenStored,
    patch: Patch,
    *,
    folder: Path,
    on_pages: OnPages,
    packed_bytes: int,
    total_bytes: int,
    watch: Watch,
    keys: Keys | None,
    phase: str = "read back",
) -> tuple[ReadArchive, str]:
    """Read a stored delta to its last byte; returns the reading and why it is no delta of ours, or "".

    Raises:
        UnreachableError: from the store. CancelledError, DeadlineError: from ``watch``. Whatever
            ``on_pages`` raises.
    """
    with DeltaReader(patch, folder=folder, on_pages=on_pages) as reader:
        with open_stored() as stored:
            read = read_archive(
                stored,
                limit_bytes=packed_bytes,
                total_bytes=total_bytes,
                watch=watch,
                phase=phase,
                keep=reader.feed,
                keys=keys,
            )
        reader.finish()
    return read, reader.problem
