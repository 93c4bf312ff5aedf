"""Which pages of a database differ from those of an earlier backup, without having that backup.

Of each page a SHA-256 is kept, 32 bytes in one file per database. One pass over a new snapshot makes
its own page digests, compares them with the kept ones, and tells where they differ. The file is kept
beside the chain head of its database; who loses it loses nothing but the next delta.

A *root* is the SHA-256 of all page digests in order: it stands for the content of a whole database
file, and follows from an older one's page digests and the pages that changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from .archive import CHUNK_BYTES, ContentDigest, read_at_most, read_chunks, write_all
from .background import Background
from .errors import InputError, VerificationError, translated
from .files import create_private_file, create_private_folder, sync_folder
from .progress import Watch

DIGEST_BYTES = 32
"""Size of one page digest."""

PAGE_SIZES = tuple(1 << power for power in range(9, 17))
"""Page sizes of SQLite (https://sqlite.org/fileformat2.html, section 1.3.2); each divides a chunk."""

_TYPE = "django-walsafe/pages"
_FORMAT = 1
_HEADER_LIMIT_BYTES = 4096

OnRun = Callable[[int, int], object]
"""Called with the number of a first page, counted from 1, and how many follow each other from there."""


@dataclass(frozen=True, kw_only=True)
class PageState:
    """What kept page digests are of."""

    backup: str
    archive_sha256: str
    """SHA-256 of the stored archive that was proven to hold these pages."""
    sha256: str
    """SHA-256 of the database file."""
    page_size: int
    page_count: int
    pages_sha256: str
    """The root."""


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """What one pass over a snapshot found."""

    size_bytes: int
    sha256: str
    content_sha256: str
    page_size: int
    page_count: int
    pages_sha256: str
    changed_pages: int
    """Pages that the earlier backup did not have, or had otherwise; all of them without one."""


@dataclass(frozen=True, kw_only=True)
class KeptDigests:
    """Page digests of an earlier backup, open for one reading from the first page on."""

    state: PageState
    stream: BinaryIO

    def read(self, pages: int) -> bytes:
        """The digests of the next ``pages`` pages; less at their end.

        Raises:
            BackupError: from the disk.
        """
        with translated("reading page digests"):
            return read_at_most(self.stream, pages * DIGEST_BYTES)


def is_page_size(number: int) -> bool:
    """Whether this can be the page size of a database."""
    return number in PAGE_SIZES


def content_digest_of(snapshot: Path, *, watch: Watch) -> str:
    """:class:`ContentDigest` of a file that nobody writes: the cheapest way to know that nothing changed.

    Raises:
        BackupError: from the disk. CancelledError, DeadlineError: from ``watch``.
    """
    digest = ContentDigest()
    with translated("reading the snapshot"), open(snapshot, "rb", buffering=0) as source:
        total_bytes = os.fstat(source.fileno()).st_size
        with Background() as hashing:
            for piece in read_chunks(source, phase="compare", total_bytes=total_bytes, watch=watch):
                hashing.submit(digest.update, piece)
    return digest.hexdigest()


def scan_pages(
    snapshot: Path,
    target: Path,
    *,
    page_size: int,
    watch: Watch,
    kept: KeptDigests | None = None,
    on_run: OnRun | None = None,
) -> Scanned:
    """Digest each page of ``snapshot`` (a file that nobody writes) into the new private file ``target``.

    ``on_run`` hears of the pages that differ from ``kept``, in order, each run as long as it can be.
    Memory stays constant. ``target`` is removed when this fails.

    Raises:
        InputError: the file is not one of whole pages of that size.
        VerificationError: the kept digests are not those that were written.
        BackupError: from the disk. CancelledError, DeadlineError: from ``watch``.
    """
    size_bytes = snapshot.stat().st_size
    if not is_page_size(page_size) or size_bytes == 0 or size_bytes % page_size:
        raise InputError(f"The snapshot is no file of pages of {page_size:,} bytes.", "It is stored whole.")
    plain, content, root, kept_root = hashlib.sha256(), ContentDigest(), hashlib.sha256(), hashlib.sha256()
    runs = _Runs(on_run)
    page = 1
    with translated("digesting the pages of the snapshot"):
        descriptor = create_private_file(target)
        try:
            with (
                open(descriptor, "wb") as written,
                open(snapshot, "rb", buffering=0) as source,
                Background() as hashing,
                Background() as comparing,
            ):
                for piece in _whole_pages(source, page_size, total_bytes=size_bytes, watch=watch):
                    hashing.submit(plain.update, piece)
                    comparing.submit(content.update, piece)
                    digests = digests_of(piece, page_size)
                    root.update(digests)
                    written.write(digests)
                    before = b"" if kept is None else kept.read(len(digests) // DIGEST_BYTES)
                    kept_root.update(before)
                    runs.compare(page, digests, before)
                    page += len(digests) // DIGEST_BYTES
                runs.finish()
                if kept is not None:
                    _require_intact(kept, kept_root)
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    return Scanned(
        size_bytes=size_bytes,
        sha256=plain.hexdigest(),
        content_sha256=content.hexdigest(),
        page_size=page_size,
        page_count=size_bytes // page_size,
        pages_sha256=root.hexdigest(),
        changed_pages=runs.pages,
    )


def digests_of(pages: bytes, page_size: int) -> bytes:
    """The digests of whole pages, one after the other."""
    view = memoryview(pages)
    return b"".join(
        hashlib.sha256(view[start : start + page_size]).digest() for start in range(0, len(pages), page_size)
    )


def _whole_pages(source: BinaryIO, page_size: int, *, total_bytes: int, watch: Watch) -> Iterator[bytes]:
    """The file in pieces of whole pages, also when the system gives it in parts."""
    done_bytes = 0
    while piece := read_at_most(source, CHUNK_BYTES):
        if len(piece) % page_size:
            raise InputError("The snapshot ends within a page.", "It is stored whole.")
        done_bytes += len(piece)
        watch.report("compare", done_bytes, total_bytes)
        yield piece


def _require_intact(kept: KeptDigests, root: hashlib._Hash) -> None:
    """Read what is left of the kept digests, and compare their root."""
    while rest := kept.read(CHUNK_BYTES // DIGEST_BYTES):
        root.update(rest)
    if root.hexdigest() != kept.state.pages_sha256:
        raise VerificationError("The kept page digests are damaged.", "The next archive is a full one.")


class _Runs:
    """Pages that differ, put together into runs."""

    def __init__(self, on_run: OnRun | None) -> None:
        self.pages = 0
        self._on_run = on_run
        self._first = self._count = 0

    def compare(self, page: int, digests: bytes, before: bytes) -> None:
        """Take the digests of pages from ``page`` on, and those that were kept of them."""
        if digests == before:
            return
        for start in range(0, len(digests), DIGEST_BYTES):
            end = start + DIGEST_BYTES
            if digests[start:end] != before[start:end]:
                self._add(page + start // DIGEST_BYTES)

    def _add(self, page: int) -> None:
        self.pages += 1
        if page != self._first + self._count:
            self.finish()
            self._first = page
        self._count += 1

    def finish(self) -> None:
        """Tell of the last run."""
        if self._count and self._on_run is not None:
            self._on_run(self._first, self._count)
        self._first = self._count = 0


# What is kept between two backups


def keep_digests(path: Path, digests: Path, state: PageState) -> None:
    """Make the page digests in the file ``digests`` those kept at ``path``, durably: the old ones or the new, whole.

    For the one who holds the lock of the database's jobs.

    Raises:
        BackupError: from the disk; what was kept before still is.
    """
    header = {"type": _TYPE, "format": _FORMAT, **asdict(state)}
    line = json.dumps(header, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    with translated("keeping page digests"):
        create_private_folder(path.parent)
        draft = path.with_name(path.name + ".draft")
        draft.unlink(missing_ok=True)  # of a process that died
        descriptor = create_private_file(draft)
        try:
            with open(descriptor, "wb") as written, open(digests, "rb") as source:
                written.write(line)
                while piece := source.read(CHUNK_BYTES):
                    written.write(piece)
                written.flush()
                os.fsync(written.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def kept_digests(path: Path) -> Iterator[KeptDigests | None]:
    """The page digests kept at ``path``; None when there are none, or none that can be used."""
    descriptor = _opened(path)
    if descriptor is None:
        yield None
        return
    with open(descriptor, "rb") as stream:
        yield _kept(stream)


def _opened(path: Path) -> int | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _kept(stream: BinaryIO) -> KeptDigests | None:
    try:
        line = stream.readline(_HEADER_LIMIT_BYTES)
        header = json.loads(line)
        if (header.pop("type"), header.pop("format")) != (_TYPE, _FORMAT):
            return None
        state = PageState(**header)
        expected_bytes = len(line) + state.page_count * DIGEST_BYTES
        if not is_page_size(state.page_size) or os.fstat(stream.fileno()).st_size != expected_bytes:
            return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return KeptDigests(state=state, stream=stream)


class PageRoot:
    """Page digests of a database file in an unnamed file, changed as its pages are; gives their root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> PageRoot:
        with translated("preparing page digests"):
            self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fill(self, pieces: Iterator[bytes]) -> None:
        """Take the digests of all pages, in order."""
        with translated("writing page digests"):
            for piece in pieces:
                write_all(self._file, piece)

    def put(self, first: int, digests: bytes) -> None:
        """The pages from number ``first`` on, counted from 1, have these digests now."""
        with translated("writing page digests"):
            self._file.seek((first - 1) * DIGEST_BYTES)
            write_all(self._file, digests)

    def resize(self, page_count: int) -> None:
        """The file has so many pages now; digests of new ones that were never put are zeros."""
        with translated("writing page digests"):
            self._file.truncate(page_count * DIGEST_BYTES)

    def hexdigest(self) -> str:
        """The root."""
        root = hashlib.sha256()
        with translated("reading page digests"):
            self._file.seek(0)
            while piece := self._file.read(CHUNK_BYTES):
                root.update(piece)
        return root.hexdigest()


def digests_of_file(path: Path, *, page_size: int, watch: Watch) -> Iterator[bytes]:
    """The digests of all pages of a file that nobody writes, in pieces.

    Raises:
        InputError: it ends within a page. BackupError: from the disk. CancelledError, DeadlineError.
    """
    with translated("digesting pages"), open(path, "rb", buffering=0) as source:
        total_bytes = os.fstat(source.fileno()).st_size
        for piece in _whole_pages(source, page_size, total_bytes=total_bytes, watch=watch):
            yield digests_of(piece, page_size)
