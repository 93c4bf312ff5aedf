"""From a live database to an archive whose content is proven, ready to be stored.

What is proven here: the snapshot's own census equals the one counted in the source's read
transaction, its structure is sound, and its required tables hold rows. That the *stored* bytes
give the snapshot back is proven after storing, by :func:`prove_stored` on each copy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from .age import Recipient
from .archive import MEDIA_SUFFIX, SUFFIX, Keys, OpenStored, WrittenArchive, WrittenStream, read_archive, write_archive
from .media.pack import PackedMedia, pack_folders
from .progress import Watch
from .snapshot import Snapshot, take_snapshot
from .verify import Check, check_database, check_reading


@dataclass(frozen=True, kw_only=True)
class CreatedArchive:
    """A finished archive in scratch, the snapshot's facts, and the checks made so far."""

    snapshot: Snapshot
    archive: WrittenArchive
    checks: list[Check]
    media: PackedMedia | None = None
    """The archive of the folders beside the database, when there are any."""


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


def create_archive(
    source: Path,
    folder: Path,
    *,
    options: CreateOptions,
    watch: Watch,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> CreatedArchive:
    """Snapshot the live database ``source``, compress and encrypt it into ``folder`` (private, empty).

    The plaintext snapshot is removed before this returns; the archives stay for the caller to
    store. Folders of media are read after the snapshot: what its rows refer to was there before it,
    so only a file that is deleted in between is missing. The checks may hold failures: the archive is
    then a true copy of what is not as it should be.

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
    destination, media_destination = folder / f"archive{SUFFIX}", folder / f"archive{MEDIA_SUFFIX}"
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
            archive = write_archive(
                snapshot.path,
                destination,
                watch=watch,
                level=options.compression_level,
                workers=options.compression_workers,
                recipients=options.recipients,
            )
            checks = checking.result()
    except BaseException:
        destination.unlink(missing_ok=True)
        media_destination.unlink(missing_ok=True)
        raise
    finally:
        snapshot.path.unlink(missing_ok=True)
    if media is not None:
        checks = [*checks, media.check()]
    return CreatedArchive(snapshot=snapshot, archive=archive, checks=checks, media=media)


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


def prove_stored(open_stored: OpenStored, archive: WrittenStream, *, watch: Watch, prefix: str = "") -> list[Check]:
    """Read a stored copy back to its last byte: does it give exactly the snapshot, or the tar of media?

    An encrypted one is opened with the key of its own that ``archive`` holds, so a host that knows
    recipients only proves its archives too. ``prefix`` begins the names of the checks.

    Raises:
        UnreachableError: the store does not answer. CancelledError, DeadlineError: from ``watch``.
    """
    keys = Keys(file_key=archive.file_key) if archive.recipients else None
    with open_stored() as stored:
        read = read_archive(
            stored,
            limit_bytes=archive.content_bytes,
            total_bytes=archive.archive_bytes,
            watch=watch,
            keys=keys,
        )
    return check_reading(
        read,
        archive_bytes=archive.archive_bytes,
        archive_sha256=archive.archive_sha256,
        content_bytes=archive.content_bytes,
        sha256=archive.sha256,
        prefix=prefix,
    )
