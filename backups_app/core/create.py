"""From a live database to an archive whose content is proven, ready to be stored.

What is proven here: the snapshot's own census equals the one counted in the source's read
transaction, its structure is sound, and its required tables hold rows. That the *stored* bytes
give the snapshot back is proven after storing, by :func:`prove_stored` on each copy.

When the backup before has the same content, no archive is made: :class:`Unchanged`. Where deltas are
asked for, the archive may hold only the pages that changed (``core/delta.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from .age import Recipient
from .archive import (
    DELTA_SUFFIX,
    MEDIA_SUFFIX,
    SUFFIX,
    Keys,
    OpenStored,
    ReadArchive,
    WrittenArchive,
    WrittenStream,
    read_archive,
    write_archive,
)
from .census import Census
from .delta import IndexWriter, Patch, read_delta, write_delta
from .errors import VerificationError
from .manifest import Delta, links_digest
from .media.pack import PackedMedia, pack_folders
from .pages import (
    DIGEST_BYTES,
    PageRoot,
    PageState,
    Scanned,
    content_digest_of,
    digests_of,
    keep_digests,
    kept_digests,
    scan_pages,
)
from .progress import Watch
from .snapshot import Snapshot, take_snapshot
from .verify import Check, check_database, check_pages, check_reading, failures

_DIGESTS_PER_READ = (1 << 20) // DIGEST_BYTES


@dataclass(frozen=True, kw_only=True)
class Previous:
    """The archive of the backup before: proven, and stored wherever the new one will be."""

    backup: str
    """Id of the backup that it was made for."""
    archive_name: str
    archive_bytes: int
    archive_sha256: str
    size_bytes: int
    sha256: str
    content_sha256: str
    census: Census
    links_sha256: str
    position: int = 0
    """How many deltas there are up to it; 0 for a full one."""
    full_bytes: int
    """Stored size of the full archive that it builds on, or is."""
    deltas_bytes: int = 0
    """Stored size of those deltas together."""


@dataclass(frozen=True, kw_only=True)
class PagesDraft:
    """Page digests of a new snapshot, to be kept once its archive is stored and proven."""

    path: Path
    scanned: Scanned

    def keep(self, path: Path, *, backup: str, archive_sha256: str) -> None:
        """Make them those that the next delta is found with.

        Raises: as :func:`~.pages.keep_digests`.
        """
        state = PageState(
            backup=backup,
            archive_sha256=archive_sha256,
            sha256=self.scanned.sha256,
            page_size=self.scanned.page_size,
            page_count=self.scanned.page_count,
            pages_sha256=self.scanned.pages_sha256,
        )
        keep_digests(path, self.path, state)


@dataclass(frozen=True, kw_only=True)
class Unchanged:
    """A snapshot with the content of the backup before, whose archive serves for it too; no archive was made."""

    snapshot: Snapshot
    previous: Previous
    checks: list[Check]
    media: PackedMedia | None = None
    """The archive of the folders beside the database, which is made in any case."""


@dataclass(frozen=True, kw_only=True)
class CreatedArchive:
    """A finished archive in scratch, the snapshot's facts, and the checks made so far."""

    snapshot: Snapshot
    archive: WrittenArchive
    checks: list[Check]
    media: PackedMedia | None = None
    """The archive of the folders beside the database, when there are any."""
    delta: Delta | None = None
    """What it builds on; None for a full one."""
    pages: PagesDraft | None = None
    """Where deltas are asked for."""
    kept: Path | None = field(default=None, repr=False)
    """The page digests of what a delta builds on."""


@dataclass(frozen=True, kw_only=True)
class CreateOptions:
    """How an archive is made."""

    required_tables: tuple[str, ...] = ()
    integrity_check_max_bytes: int = 64 << 20
    """Up to this size ``integrity_check`` runs, above it ``quick_check`` (1 s per GB, not 11 s)."""
    busy_timeout_seconds: float = 5.0
    compression_level: int = 1
    compression_workers: int = 2
    recipients: Sequence[Recipient] = ()
    """Who can open the archive; without any it is not encrypted."""
    media: Sequence[Path] = ()
    """Folders that are stored as a tar of their own, read right after the snapshot."""
    databases: Sequence[Path] = ()
    """Database files that are never opened as files, wherever in these folders they lie."""
    previous: Previous | None = None
    """What may be shared or built on, if anything."""
    is_reusing: bool = False
    """Make no archive when the content is that of :attr:`previous`."""
    longest_chain: int = 0
    """How many deltas may follow a full archive; 0 makes full ones only."""
    kept_digests: Path | None = None
    """Where the page digests of :attr:`previous` are kept, if deltas are asked for."""


def create_archive(
    source: Path,
    folder: Path,
    *,
    options: CreateOptions,
    watch: Watch,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> CreatedArchive:
    """:func:`create_unless_unchanged`, whatever the content of the backup before.

    Raises: as there.
    """
    created = create_unless_unchanged(source, folder, options=replace(options, is_reusing=False), watch=watch, now=now)
    if isinstance(created, Unchanged):
        raise TypeError("an archive was asked for")
    return created


def create_unless_unchanged(
    source: Path,
    folder: Path,
    *,
    options: CreateOptions,
    watch: Watch,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> CreatedArchive | Unchanged:
    """Snapshot the live database ``source``, compress and encrypt it into ``folder`` (private, empty).

    The plaintext snapshot is removed before this returns; the archives stay for the caller to
    store. Folders of media are read after the snapshot: what its rows refer to was there before it,
    so only a file that is deleted in between is missing. The checks may hold failures: the archive is
    then a true copy of what is not as it should be, and a full one, which nothing but itself is needed for.

    Raises:
        BackupError: any of its kinds; ``folder`` then holds neither snapshot nor archives.
    """
    snapshot = take_snapshot(
        source,
        folder / "snapshot.sqlite3",
        watch=watch,
        busy_timeout_seconds=options.busy_timeout_seconds,
        now=now,
    )
    packing = _Packing(snapshot, folder, options, watch=watch)
    media_destination = folder / f"archive{MEDIA_SUFFIX}"
    try:
        media = _packed(source, media_destination, options=options, watch=watch, now=now)
        with ThreadPoolExecutor(max_workers=1) as pool:
            # SQLite and zstd both release the interpreter: checking costs little extra time.
            checking = pool.submit(
                check_database,
                snapshot.path,
                expected=snapshot.census,
                required_tables=options.required_tables,
                is_thorough=snapshot.size_bytes <= options.integrity_check_max_bytes,
                watch=watch,
            )
            is_packed = packing.pack_unless_unchanged()
            checks = checking.result()
        if media is not None:
            checks = [*checks, media.check()]
        if not is_packed and options.previous is not None and not failures(checks):
            packing.remove_results()
            return Unchanged(snapshot=snapshot, previous=options.previous, checks=checks, media=media)
        if not is_packed or failures(checks):
            packing.pack_full()
        return packing.created(checks, media=media)
    except BaseException:
        packing.remove_results()
        media_destination.unlink(missing_ok=True)
        raise
    finally:
        packing.remove_drafts()
        snapshot.path.unlink(missing_ok=True)


def _packed(
    source: Path, destination: Path, *, options: CreateOptions, watch: Watch, now: Callable[[], datetime]
) -> PackedMedia | None:
    if not options.media:
        return None
    return pack_folders(
        options.media,
        destination,
        watch=watch,
        level=options.compression_level,
        workers=options.compression_workers,
        recipients=options.recipients,
        databases=[source, *options.databases],
        now=now,
    )


class _Packing:
    """One snapshot on its way into an archive: none when it is unchanged, else a delta, else a full one."""

    def __init__(self, snapshot: Snapshot, folder: Path, options: CreateOptions, *, watch: Watch) -> None:
        self._snapshot = snapshot
        self._options = options
        self._watch = watch
        self._full = folder / f"archive{SUFFIX}"
        self._delta = folder / f"archive{DELTA_SUFFIX}"
        self._index = folder / "delta.index"
        self._digests = folder / "pages.digests"
        self._scanned: Scanned | None = None
        self._has_index = False
        self._archive: WrittenArchive | None = None
        self._made_delta: Delta | None = None

    def pack_unless_unchanged(self) -> bool:
        """Make the archive; False when the content is that of the backup before, and nothing was made."""
        # An empty database has no pages; it costs nothing as it is.
        if self._options.longest_chain > 0 and self._snapshot.size_bytes:
            self._scan()
        if self._is_unchanged():
            return False
        if not self._pack_delta():
            self.pack_full()
        return True

    def pack_full(self) -> None:
        """Make a full archive, unless that is what was made."""
        if self._archive is not None and self._made_delta is None:
            return
        self._delta.unlink(missing_ok=True)
        self._made_delta = None
        self._write_full()

    def created(self, checks: list[Check], *, media: PackedMedia | None) -> CreatedArchive:
        """What was made."""
        if self._archive is None:
            raise AssertionError("nothing was packed")
        return CreatedArchive(
            snapshot=self._snapshot,
            archive=self._archive,
            checks=checks,
            media=media,
            delta=self._made_delta,
            pages=None if self._scanned is None else PagesDraft(path=self._digests, scanned=self._scanned),
            kept=self._options.kept_digests if self._made_delta else None,
        )

    def remove_drafts(self) -> None:
        """Remove what nobody needs any more, however it ended."""
        self._index.unlink(missing_ok=True)

    def remove_results(self) -> None:
        """Remove what was made, after a failure."""
        for path in (self._full, self._delta, self._digests):
            path.unlink(missing_ok=True)

    def _is_unchanged(self) -> bool:
        previous = self._options.previous
        if not self._options.is_reusing or previous is None or previous.size_bytes != self._snapshot.size_bytes:
            return False
        if previous.census != self._snapshot.census:  # cheap, and all that a full check would compare
            return False
        if self._scanned is not None:
            return self._scanned.content_sha256 == previous.content_sha256
        return content_digest_of(self._snapshot.path, watch=self._watch) == previous.content_sha256

    def _scan(self) -> None:
        """Digest the pages, and write down which of them changed where a delta may be made."""
        previous, kept_path = self._options.previous, self._options.kept_digests
        if previous is not None and kept_path is not None and previous.position < self._options.longest_chain:
            try:
                self._scanned = self._compare(previous, kept_path)
            except VerificationError:  # the kept digests are damaged
                self._index.unlink(missing_ok=True)
        if self._scanned is None:
            page_size = self._snapshot.census.page_size
            self._scanned = scan_pages(self._snapshot.path, self._digests, page_size=page_size, watch=self._watch)

    def _compare(self, previous: Previous, kept_path: Path) -> Scanned | None:
        """Scan against the kept digests; None when they are not those of the backup before."""
        page_size = self._snapshot.census.page_size
        with kept_digests(kept_path) as kept:
            expected = (previous.archive_sha256, previous.sha256, page_size)
            if kept is None or (kept.state.archive_sha256, kept.state.sha256, kept.state.page_size) != expected:
                return None
            with IndexWriter(self._index) as index:
                index.begin(base_sha256=previous.sha256, page_size=page_size)
                scanned = scan_pages(
                    self._snapshot.path,
                    self._digests,
                    page_size=page_size,
                    kept=kept,
                    on_run=index.run,
                    watch=self._watch,
                )
                index.finish(size_bytes=scanned.size_bytes, sha256=scanned.sha256)
        self._has_index = True
        return scanned

    def _pack_delta(self) -> bool:
        """Make a delta; False when a full archive is the better one."""
        previous, scanned = self._options.previous, self._scanned
        if previous is None or scanned is None or not self._has_index:
            return False
        if scanned.changed_pages * 2 > scanned.page_count:
            return False
        patch = Patch(
            base_sha256=previous.sha256,
            sha256=scanned.sha256,
            size_bytes=scanned.size_bytes,
            page_size=scanned.page_size,
            pages=scanned.changed_pages,
        )
        written = write_delta(
            self._snapshot.path,
            self._index,
            self._delta,
            patch=patch,
            watch=self._watch,
            level=self._options.compression_level,
            workers=self._options.compression_workers,
            recipients=self._options.recipients,
        )
        is_large = written.archive_bytes * 2 > previous.full_bytes
        if is_large or previous.deltas_bytes + written.archive_bytes > previous.full_bytes:
            # A restore never reads more than twice what a full archive is.
            self._delta.unlink()
            return False
        self._archive = WrittenArchive(
            **vars(written),
            content_bytes=scanned.size_bytes,
            sha256=scanned.sha256,
            content_sha256=scanned.content_sha256,
        )
        self._made_delta = Delta(
            base=previous.backup,
            base_name=previous.archive_name,
            base_archive_sha256=previous.archive_sha256,
            base_sha256=previous.sha256,
            position=previous.position + 1,
            links_sha256=links_digest(written.archive_sha256, below=previous.links_sha256),
            page_size=scanned.page_size,
            pages=scanned.changed_pages,
            pages_sha256=scanned.pages_sha256,
            bytes=written.packed_bytes,
            sha256=written.packed_sha256,
        )
        return True

    def _write_full(self) -> None:
        self._archive = write_archive(
            self._snapshot.path,
            self._full,
            watch=self._watch,
            level=self._options.compression_level,
            workers=self._options.compression_workers,
            recipients=self._options.recipients,
        )
        if self._scanned is not None and self._scanned.sha256 != self._archive.sha256:
            raise VerificationError("The snapshot changed while it was read.", "Check the disk and the memory.")


def prove_stored(
    open_stored: OpenStored,
    archive: WrittenStream,
    *,
    watch: Watch,
    made: CreatedArchive | None = None,
    prefix: str = "",
) -> list[Check]:
    """Read a stored copy back to its last byte: does it give exactly the snapshot, or the tar of media?

    An encrypted one is opened with the key of its own that ``archive`` holds, so a host that knows
    recipients only proves its archives too. ``prefix`` begins the names of the checks. A delta needs
    ``made``, with which it was made: its pages, put into the page digests of its base, must give the
    root of the snapshot's. The base itself is not needed for that; that its stored bytes are the
    proven ones is for the caller to look at.

    Raises:
        UnreachableError: the store does not answer. CancelledError, DeadlineError: from ``watch``.
    """
    keys = Keys(file_key=archive.file_key) if archive.recipients else None
    if made is not None and made.delta is not None:
        return _prove_delta(open_stored, made, made.delta, keys=keys, watch=watch)
    with open_stored() as stored:
        read = read_archive(
            stored,
            limit_bytes=archive.packed_bytes,
            total_bytes=archive.archive_bytes,
            watch=watch,
            keys=keys,
        )
    return _check_reading(read, archive, prefix=prefix)


def _check_reading(read: ReadArchive, archive: WrittenStream, *, prefix: str = "") -> list[Check]:
    return check_reading(
        read,
        archive_bytes=archive.archive_bytes,
        archive_sha256=archive.archive_sha256,
        content_bytes=archive.packed_bytes,
        sha256=archive.packed_sha256,
        prefix=prefix,
    )


def _prove_delta(
    open_stored: OpenStored, made: CreatedArchive, delta: Delta, *, keys: Keys | None, watch: Watch
) -> list[Check]:
    archive = made.archive
    patch = Patch(
        base_sha256=delta.base_sha256,
        sha256=archive.sha256,
        size_bytes=archive.content_bytes,
        page_size=delta.page_size,
        pages=delta.pages,
    )
    folder = archive.path.parent
    with PageRoot(folder) as root:
        _fill_from_kept(root, made, delta)
        read, problem = read_delta(
            open_stored,
            patch,
            folder=folder,
            on_pages=lambda first, pages: root.put(first, digests_of(pages, patch.page_size)),
            packed_bytes=archive.packed_bytes,
            total_bytes=archive.archive_bytes,
            watch=watch,
            keys=keys,
        )
        root.resize(patch.page_count)
        found = root.hexdigest()
    checks = _check_reading(read, archive)
    if not failures(checks):
        checks.append(check_pages(problem, found=found, expected=delta.pages_sha256, pages=delta.pages))
    return checks


def _fill_from_kept(root: PageRoot, made: CreatedArchive, delta: Delta) -> None:
    """Take the page digests of the base, which are those that the delta was made with.

    Raises:
        VerificationError: they are not there any more.
    """
    if made.kept is not None:
        with kept_digests(made.kept) as kept:
            if kept is not None and kept.state.archive_sha256 == delta.base_archive_sha256:
                root.fill(iter(lambda: kept.read(_DIGESTS_PER_READ), b""))
                if root.hexdigest() == kept.state.pages_sha256:
                    return
    raise VerificationError("The page digests of the backup before are gone.", "Run the backup again.")
