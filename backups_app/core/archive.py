"""The stored form of a snapshot: one zstd frame, inside an age file when there are recipients.

Writing and reading are chains of byte iterators in constant memory; encryption is one more
iterator between the compressor and the file. ``zstd -d``, or ``age -d`` and then ``zstd -d``,
restores an archive without us.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from . import age
from .age import FileKey, Identity, Recipient
from .background import Background, read_in_background
from .errors import KeyMissingError, UnreachableError, VerificationError, translated
from .files import create_private_file
from .progress import Watch

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SUFFIX = ".sqlite3.zst"
"""End of an archive's name; an encrypted one has :data:`age.SUFFIX` after it."""

MEDIA_SUFFIX = ".media.tar.zst"
"""End of the name of the folders beside a database, likewise."""

DELTA_SUFFIX = ".sqlite3.delta.zst"
"""The same for an archive of changed pages only (``core/delta.py``)."""

ENCRYPTION = "age"
"""What a manifest calls the encryption of an archive."""

CHUNK_BYTES = 1 << 20
"""Piece size of all streaming: large enough for speed, small enough for constant memory."""

OpenStored = Callable[[], AbstractContextManager[BinaryIO]]
"""Opens a stored archive for reading; raises UnreachableError when its store does not answer."""

_SYNC_EVERY_BYTES = 32 << 20

# Header bytes that differ between equal databases: the WAL flag, the change counter, the schema
# cookie, and the version fields (https://sqlite.org/fileformat2.html, section 1.3).
_VOLATILE_HEADER = ((18, 20), (24, 28), (40, 44), (92, 100))
_HEADER_BYTES = 100


class OverLimitError(VerificationError):
    """The archive holds more than its reader has room for."""


class ContentDigest:
    """SHA-256 of a database file with its volatile header bytes zeroed.

    Equal for two snapshots of the same content, whatever the checkpoint state or the copying
    method; the plain SHA-256 of the file is not.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._head: bytearray | None = bytearray()

    def update(self, piece: bytes) -> None:
        """Take the next bytes of the file."""
        if self._head is None:
            self._digest.update(piece)
            return
        self._head += piece
        if len(self._head) >= _HEADER_BYTES:
            self._flush_head()

    def _flush_head(self) -> None:
        if self._head is None:
            return
        for start, end in _VOLATILE_HEADER:
            if len(self._head) >= end:
                self._head[start:end] = bytes(end - start)
        self._digest.update(self._head)
        self._head = None

    def hexdigest(self) -> str:
        """The digest as 64 hex digits; no update may follow."""
        self._flush_head()
        return self._digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class WrittenStream:
    """A stored form just written, and the digests of what went into it."""

    path: Path
    archive_bytes: int
    archive_sha256: str
    """SHA-256 of the stored file."""
    packed_bytes: int
    packed_sha256: str
    """SHA-256 of what was compressed: a database file, the changed pages of one, or the tar of media."""
    recipients: tuple[str, ...] = ()
    """Who can open it; nobody needs to when it is empty."""
    file_key: FileKey | None = field(default=None, repr=False, compare=False)
    """Opens this one archive without an identity. It lives in memory only and is stored nowhere."""


@dataclass(frozen=True, kw_only=True)
class WrittenArchive(WrittenStream):
    """An archive of a database just written."""

    content_bytes: int
    sha256: str
    """SHA-256 of the database file that a restore gives."""
    content_sha256: str
    """:class:`ContentDigest` of that file."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What may open an encrypted archive: identities, or the key of that one file."""

    identities: Sequence[Identity] = ()
    file_key: FileKey | None = None

    def opened(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """What the age file in ``pieces`` holds, binary or armored. Raises as :func:`age.decrypt`."""
        # A chain has no close(): what is left of ``pieces`` can still be read when this was given up.
        return age.decrypt(age.unarmored(chain(pieces)), identities=self.identities, file_key=self.file_key)


@dataclass(frozen=True, kw_only=True)
class ReadArchive:
    """What one complete reading of a stored archive found."""

    archive_bytes: int
    archive_sha256: str
    content_bytes: int
    sha256: str
    damage: VerificationError | None
    """Why the stored bytes are not a whole archive; the digest of the stored bytes holds anyway."""
    locked: KeyMissingError | None = None
    """No key opens it. Damage to its first bytes looks the same: compare the digest before blaming the key."""


def stem_of(name: str) -> str:
    """The name of an archive without what tells its format."""
    return name.removesuffix(age.SUFFIX).removesuffix(SUFFIX).removesuffix(DELTA_SUFFIX)


def media_beside(name: str) -> str:
    """The name of the folders' archive that belongs to the archive ``name``."""
    return media_at(stem_of(name), is_encrypted=name.endswith(age.SUFFIX))


def media_at(stem: str, *, is_encrypted: bool) -> str:
    """The name of the folders' archive of the backup whose names have ``stem`` in common."""
    return stem + MEDIA_SUFFIX + (age.SUFFIX if is_encrypted else "")


def read_chunks(stream: BinaryIO, *, phase: str, total_bytes: int, watch: Watch) -> Iterator[bytes]:
    """The bytes of ``stream`` in pieces, reporting each to ``watch``."""
    done_bytes = 0
    while piece := stream.read(CHUNK_BYTES):
        done_bytes += len(piece)
        watch.report(phase, done_bytes, total_bytes)
        yield piece


def read_at_most(stream: BinaryIO, limit_bytes: int) -> bytes:
    """The whole of ``stream``, or its first ``limit_bytes``, also when it gives them in parts."""
    content = bytearray()
    while len(content) < limit_bytes and (piece := stream.read(limit_bytes - len(content))):
        content += piece
    return bytes(content)


def compress(pieces: Iterator[bytes], *, level: int, workers: int, size_bytes: int | None) -> Iterator[bytes]:
    """One zstd frame with checksum, and with the content's size where it is known before."""
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(
        options={
            parameter.compression_level: level,
            parameter.nb_workers: workers,
            parameter.checksum_flag: 1,
        }
    )
    if size_bytes is not None:
        compressor.set_pledged_input_size(size_bytes)
    for piece in pieces:
        if compressed := compressor.compress(piece):
            yield compressed
    yield compressor.flush()


def decompress(pieces: Iterator[bytes], *, limit_bytes: int) -> Iterator[bytes]:
    """The content of one or more zstd frames, never more than ``limit_bytes`` of it.

    Raises:
        VerificationError: the stream is not zstd, is damaged, ends early, goes on after its end,
            or holds more than the limit.
    """
    decompressor: zstd.ZstdDecompressor | None = None
    done_bytes = 0
    has_frame = False
    for piece in pieces:
        pending = piece
        while pending or (decompressor is not None and not decompressor.needs_input):
            if decompressor is None:
                decompressor = zstd.ZstdDecompressor()
            try:
                content = decompressor.decompress(pending, max_length=CHUNK_BYTES)
            except zstd.ZstdError as exc:
                raise VerificationError(
                    f"The archive is damaged: {exc}.", "Use another copy, or an older verified backup."
                ) from exc
            done_bytes += len(content)
            if done_bytes > limit_bytes:
                raise OverLimitError(
                    f"The archive holds more than the {limit_bytes:,} bytes it should.",
                    "Treat it as foreign: it is not what was stored.",
                )
            if content:
                yield content
            pending = b""
            if decompressor.eof:
                pending, decompressor = decompressor.unused_data, None
                has_frame = True
    if decompressor is not None or not has_frame:
        raise VerificationError(
            "The archive is truncated: it ends in the middle.", "Use another copy, or an older verified backup."
        )


def write_archive(
    snapshot: Path,
    destination: Path,
    *,
    watch: Watch,
    level: int = 1,
    workers: int = 2,
    recipients: Sequence[Recipient] = (),
) -> WrittenArchive:
    """Compress ``snapshot`` (a file that nobody writes) into the new private file ``destination``.

    With ``recipients`` it is encrypted for them, and what is returned holds the key of this one
    file. The archive is synced to disk when this returns, and removed when this fails. Memory
    stays constant. ``destination`` still has to be published under its final name.

    Raises:
        InputError: the recipients cannot be used together.
        DiskFullError, BackupError: from the disk. CancelledError, DeadlineError: from ``watch``.
    """
    content = ContentDigest()
    content_bytes = snapshot.stat().st_size

    def pieces() -> Iterator[bytes]:
        with open(snapshot, "rb", buffering=0) as source:
            yield from read_chunks(source, phase="compress", total_bytes=content_bytes, watch=watch)

    written = write_pieces(
        pieces(),
        destination,
        size_bytes=content_bytes,
        level=level,
        workers=workers,
        recipients=recipients,
        also=content.update,
    )
    return WrittenArchive(
        **vars(written),
        content_bytes=written.packed_bytes,
        sha256=written.packed_sha256,
        content_sha256=content.hexdigest(),
    )


def write_pieces(
    pieces: Iterator[bytes],
    destination: Path,
    *,
    size_bytes: int | None = None,
    level: int = 1,
    workers: int = 2,
    recipients: Sequence[Recipient] = (),
    also: Callable[[bytes], object] | None = None,
) -> WrittenStream:
    """Compress and encrypt ``pieces`` into the new private file ``destination``, synced when this returns.

    ``also`` receives each piece too, in another thread. Raises as :func:`write_archive`, and
    whatever ``pieces`` raises; ``destination`` does not exist then.
    """
    plain, stored = hashlib.sha256(), hashlib.sha256()
    archive_bytes = packed_bytes = 0
    file_key = FileKey.generate() if recipients else None

    def hash_plain(piece: bytes) -> None:
        plain.update(piece)
        if also is not None:
            also(piece)

    def hashed(hashing: Background) -> Iterator[bytes]:
        nonlocal packed_bytes
        for piece in pieces:
            packed_bytes += len(piece)
            hashing.submit(hash_plain, piece)
            yield piece

    with translated(f"writing the archive {destination.name}"):
        descriptor = create_private_file(destination)
        try:
            with open(descriptor, "wb", buffering=0) as target:
                synced = SyncedWriter(target)

                def keep(piece: bytes) -> None:
                    stored.update(piece)
                    synced.write(piece)

                with Background() as hashing, Background() as writing:
                    packed = compress(hashed(hashing), level=level, workers=workers, size_bytes=size_bytes)
                    if file_key is not None:
                        packed = age.encrypt(packed, recipients=recipients, file_key=file_key)
                    for piece in packed:
                        writing.submit(keep, piece)
                        archive_bytes += len(piece)
                synced.finish()
        except BaseException:
            destination.unlink(missing_ok=True)
            raise
    return WrittenStream(
        path=destination,
        archive_bytes=archive_bytes,
        archive_sha256=stored.hexdigest(),
        packed_bytes=packed_bytes,
        packed_sha256=plain.hexdigest(),
        recipients=tuple(str(each) for each in recipients),
        file_key=file_key,
    )


def write_all(target: BinaryIO, piece: bytes) -> None:
    """Write every byte to an unbuffered file, also when the system takes them in parts."""
    view = memoryview(piece)
    while view:
        written = target.write(view)
        view = view[written or 0 :]


class SyncedWriter:
    """Writes to an unbuffered file and syncs it as it grows.

    One sync of the whole file at the end would stall every other writer of the disk meanwhile.
    """

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._unsynced_bytes = 0

    def write(self, piece: bytes) -> None:
        """Write all of ``piece``."""
        write_all(self._target, piece)
        self._unsynced_bytes += len(piece)
        if self._unsynced_bytes >= _SYNC_EVERY_BYTES:
            os.fdatasync(self._target.fileno())
            self._unsynced_bytes = 0

    def finish(self) -> None:
        """Make everything written durable."""
        os.fsync(self._target.fileno())


def read_archive(
    stored: BinaryIO,
    *,
    limit_bytes: int,
    total_bytes: int,
    watch: Watch,
    phase: str = "read back",
    keep: Callable[[bytes], object] | None = None,
    keys: Keys | None = None,
) -> ReadArchive:
    """Read a stored archive to its last byte and hash both what is stored and what is inside.

    ``keep`` receives the decompressed bytes, which are **not proven** until the digests have been
    compared. ``total_bytes`` is for progress only. ``keys`` for an encrypted archive, None for a
    plain one.

    Raises:
        UnreachableError: from a store that cannot be read.
        CancelledError, DeadlineError: from ``watch``. Whatever ``keep`` raises.
    """
    outer = hashlib.sha256()
    archive_bytes = 0
    inner = _Contents(limit_bytes=limit_bytes, keep=keep)

    def hashed() -> Iterator[bytes]:
        nonlocal archive_bytes
        for piece in read_chunks(stored, phase=phase, total_bytes=total_bytes, watch=watch):
            archive_bytes += len(piece)
            outer.update(piece)
            yield piece

    pieces = hashed()
    try:
        # Reading, hashing and decrypting here, decompressing there: each about half of the work.
        read_in_background(pieces if keys is None else keys.opened(pieces), inner.take)
    except VerificationError as exc:
        if inner.damage is None or isinstance(exc, UnreachableError):
            raise
    for _ in pieces:  # after damage: the digest of the stored bytes is evidence too
        pass
    return ReadArchive(
        archive_bytes=archive_bytes,
        archive_sha256=outer.hexdigest(),
        content_bytes=inner.size_bytes,
        sha256=inner.digest.hexdigest(),
        damage=inner.damage,
        locked=inner.locked,
    )


class _Contents:
    """What comes out of an archive: its size and digest, and why no more came."""

    def __init__(self, *, limit_bytes: int, keep: Callable[[bytes], object] | None) -> None:
        self._limit_bytes, self._keep = limit_bytes, keep
        self.digest = hashlib.sha256()
        self.size_bytes = 0
        self.damage: VerificationError | None = None
        self.locked: KeyMissingError | None = None

    def take(self, opened: Iterator[bytes]) -> None:
        """Decompress ``opened`` to its end, or to where it is damaged or locked.

        Raises: whatever ``keep`` raises, and what says nothing about the archive.
        """
        contents = decompress(opened, limit_bytes=self._limit_bytes)
        with Background() as hashing:
            while (content := self._next(contents)) is not None:
                hashing.submit(self.digest.update, content)
                self.size_bytes += len(content)
                if self._keep is not None:
                    self._keep(content)

    def _next(self, contents: Iterator[bytes]) -> bytes | None:
        try:
            return next(contents, None)
        except UnreachableError:
            raise  # the store's failure says nothing about the archive
        except VerificationError as exc:
            self.damage = exc
        except KeyMissingError as exc:
            self.locked = exc
        return None


def unpack_archive(
    open_stored: OpenStored,
    target: Path,
    *,
    limit_bytes: int,
    total_bytes: int,
    watch: Watch,
    keys: Keys | None = None,
) -> ReadArchive:
    """Decrypt and decompress a stored archive into the new private file ``target``, synced to disk.

    What is in ``target`` is **not proven** until the digests have been compared, and on failure
    it holds a part: the caller removes it.

    Raises:
        UnreachableError, DiskFullError, BackupError, CancelledError, DeadlineError.
    """
    with translated("unpacking the archive"), open(create_private_file(target), "wb", buffering=0) as file:
        synced = SyncedWriter(file)

        def write(content: bytes) -> None:
            # Translated here, so that a full disk is not taken for a store that does not answer.
            with translated("unpacking the archive"):
                synced.write(content)

        def keep(content: bytes) -> None:
            writing.submit(write, content)

        with open_stored() as stored, Background() as writing:
            read = read_archive(
                stored,
                limit_bytes=limit_bytes,
                total_bytes=total_bytes,
                watch=watch,
                phase="unpack",
                keep=keep,
                keys=keys,
            )
        synced.finish()
    return read
