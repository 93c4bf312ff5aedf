"""Folders into one archive: read once, in constant memory, each file's digest of the bytes that are stored.

Files are in use while they are read. One that is written to meanwhile is read again when it is
small; otherwise it is stored as it was met and marked. One that goes away is a remark, one that
cannot be read is a problem: the backup is then not good, and says which file it is.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, cast

from ..age import Recipient
from ..archive import CHUNK_BYTES, WrittenStream, read_at_most, write_pieces
from ..errors import translated
from ..files import require_free_space
from ..manifest import Media
from ..progress import Watch
from ..verify import Check
from .index import NAME as INDEX_NAME
from .index import Counts, Root, foot_line, head_line, member_line, roots_of
from .tar import MAX_TIME_NS, FormatError, Kind, Member, coalesced, header, padding, require_plain, trailer
from .walk import Found, Report, Untouchable, open_root, walk

SMALL_BYTES = 8 << 20
"""Files up to this size are read whole before they are stored, again when they were written to meanwhile."""

_ATTEMPTS = 3
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_GONE = "files went away while they were read"
_REPLACED = "files were replaced while they were read"
_CHANGED = "files were written to while they were read, and are stored as they were met"
_DATABASE = "files look like a database in use, which a copy does not do justice; put it under care"
_LIVE = "databases under care, or in use here, were left out"
_UNREADABLE = "files could not be read"
_STRANGE = "files or folders cannot be stored as they are"
_TIME = "files or folders have a time that cannot be stored; the nearest that can stands for it"
_SHORT = "files were cut while they were read; zeros stand for what is missing"


@dataclass(frozen=True, kw_only=True)
class PackedMedia:
    """An archive of folders just written."""

    stream: WrittenStream
    index_sha256: str
    counts: Counts
    labels: tuple[str, ...]
    read_from: datetime
    read_until: datetime
    remarks: tuple[str, ...]
    problems: tuple[str, ...]
    """What should be in the archive and is not; none in a good one."""

    def facts(self, name: str) -> Media:
        """What the manifest says of it, stored as ``name``."""
        return Media(
            name=name,
            archive_bytes=self.stream.archive_bytes,
            archive_sha256=self.stream.archive_sha256,
            tar_bytes=self.stream.packed_bytes,
            tar_sha256=self.stream.packed_sha256,
            index_sha256=self.index_sha256,
            files=self.counts.files,
            folders=self.counts.folders,
            links=self.counts.links,
            content_bytes=self.counts.content_bytes,
            labels=self.labels,
            read_from=self.read_from,
            read_until=self.read_until,
        )

    def check(self) -> Check:
        """Whether everything that should be in it is in it."""
        evidence = "; ".join(self.problems) or f"{self.counts}: all read"
        return Check(name="media reading", ok=not self.problems, evidence=evidence)


def pack_folders(
    folders: Sequence[Path],
    destination: Path,
    *,
    watch: Watch,
    level: int = 1,
    workers: int = 2,
    recipients: Sequence[Recipient] = (),
    databases: Sequence[Path] = (),
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> PackedMedia:
    """Store ``folders`` in the new private file ``destination``, which is synced when this returns.

    ``databases`` are never opened, under whatever name they lie in a folder. Memory does not grow
    with files or sizes, but with the names in one folder.

    Raises:
        InputError: a folder is a link or no folder. NotFoundError: it is not there.
        DiskFullError, BackupError: from the disk. CancelledError, DeadlineError: from ``watch``.
        ``destination`` does not exist then.
    """
    untouchable = Untouchable(list(databases))
    roots = roots_of(folders)
    total_bytes = sum(_measured(root, untouchable, watch=watch) for root in roots)
    require_free_space(destination.parent, total_bytes, purpose="the archive of media")
    read_from = now()
    with (
        translated("writing the index of media"),
        tempfile.TemporaryFile(prefix=".index-", dir=destination.parent) as spool,
    ):
        packer = _Packer(roots, cast("BinaryIO", spool), untouchable=untouchable, total_bytes=total_bytes, watch=watch)
        stream = write_pieces(
            coalesced(packer.pieces(), size_bytes=CHUNK_BYTES // 4),
            destination,
            level=level,
            workers=workers,
            recipients=recipients,
        )
    return PackedMedia(
        stream=stream,
        index_sha256=packer.index_digest.hexdigest(),
        counts=packer.counts,
        labels=tuple(root.label for root in roots),
        read_from=read_from,
        read_until=now(),
        remarks=tuple(packer.report.remarks),
        problems=tuple(packer.report.problems),
    )


def _measured(root: Root, untouchable: Untouchable, *, watch: Watch) -> int:
    """About how many bytes a folder holds: as many as its files take, for holes cost nothing."""
    descriptor = open_root(root.path)
    try:
        found = walk(descriptor, root.label, report=Report(), check=watch.check)
        return sum(
            min(each.status.st_size, each.status.st_blocks * 512) for each in found if _is_stored(each, untouchable)
        )
    finally:
        os.close(descriptor)


def _is_stored(found: Found, untouchable: Untouchable) -> bool:
    return found.kind == "file" and found not in untouchable


class _Packer:
    """Makes the bytes of the tar, and meanwhile the index, the counts and the report."""

    def __init__(
        self, roots: Sequence[Root], spool: BinaryIO, *, untouchable: Untouchable, total_bytes: int, watch: Watch
    ) -> None:
        self._roots = roots
        self._spool = spool
        self._untouchable = untouchable
        self._total_bytes = total_bytes
        self._watch = watch
        self._done_bytes = 0
        self._written_bytes = 0
        self.index_digest = hashlib.sha256()
        self.counts = Counts()
        self.report = Report()

    def pieces(self) -> Iterator[bytes]:
        """The tar, from its first to its last byte."""
        for piece in self._members():
            self._written_bytes += len(piece)
            yield piece
        yield trailer(self._written_bytes)

    def _members(self) -> Iterator[bytes]:
        self._note(head_line(self._roots))
        for root in self._roots:
            descriptor = open_root(root.path)
            try:
                yield from self._folder(os.fstat(descriptor), root.label)
                for found in walk(descriptor, root.label, report=self.report, check=self._watch.check):
                    yield from self._found(found)
            finally:
                os.close(descriptor)
        self._note(foot_line(self.counts))
        yield from self._index()

    def _found(self, found: Found) -> Iterator[bytes]:
        if found.kind == "folder":
            yield from self._folder(found.status, found.path)
        elif found in self._untouchable:
            self.report.remark(_LIVE, found.path)
        elif found.kind == "link":
            yield from self._link(found)
        else:
            yield from self._file(found)

    def _folder(self, status: os.stat_result, path: str) -> Iterator[bytes]:
        member = self._member(path, "folder", status)
        if member is None:
            return
        yield header(member)
        self._list(member)

    def _link(self, found: Found) -> Iterator[bytes]:
        try:
            target = os.readlink(found.name, dir_fd=found.folder)
        except OSError as exc:
            self._note_failure(found, exc)
            return
        text = os.fsencode(target).decode("utf-8", "surrogateescape")
        member = self._member(found.path, "link", found.status, target=text)
        if member is None:
            return
        yield header(member)
        self._list(member)

    def _file(self, found: Found) -> Iterator[bytes]:
        try:
            descriptor = os.open(found.name, _FILE_FLAGS, dir_fd=found.folder)
        except OSError as exc:
            self._note_failure(found, exc)
            return
        with cast("BinaryIO", open(descriptor, "rb", buffering=0)) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                self.report.remark(_REPLACED, found.path)
                return
            if _is_beside_its_log(found):
                self.report.remark(_DATABASE, found.path)
            if status.st_size <= SMALL_BYTES:
                yield from self._small(file, found)
            else:
                yield from self._large(file, found, status)

    def _small(self, file: BinaryIO, found: Found) -> Iterator[bytes]:
        try:
            content, status, is_changed = _read_steadily(file)
        except OSError as exc:
            self._note_failure(found, exc)
            return
        if is_changed and status.st_size > SMALL_BYTES:  # it has outgrown what is read whole
            file.seek(0)
            yield from self._large(file, found, status)
            return
        if is_changed:
            self.report.remark(_CHANGED, found.path)
        member = self._member(found.path, "file", status, size_bytes=len(content))
        if member is None:
            return
        yield header(member)
        yield content
        yield padding(len(content))
        self._list(member, sha256=hashlib.sha256(content).hexdigest(), is_changed=is_changed)
        self._progress(len(content))

    def _large(self, file: BinaryIO, found: Found, status: os.stat_result) -> Iterator[bytes]:
        member = self._member(found.path, "file", status, size_bytes=status.st_size)
        if member is None:
            return
        yield header(member)
        digest, left_bytes = hashlib.sha256(), status.st_size
        while left_bytes:
            try:
                piece = file.read(min(CHUNK_BYTES, left_bytes))
            except OSError as exc:
                self._note_failure(found, exc)
                break
            if not piece:
                self.report.problem(_SHORT, found.path)
                break
            digest.update(piece)
            left_bytes -= len(piece)
            yield piece
            self._progress(len(piece))
        while left_bytes:  # the header promised a size; the report says that these are not the file's
            piece = bytes(min(CHUNK_BYTES, left_bytes))
            digest.update(piece)
            left_bytes -= len(piece)
            yield piece
            self._watch.check()
        yield padding(status.st_size)
        is_changed = not _is_same(status, os.fstat(file.fileno()))
        if is_changed:
            self.report.remark(_CHANGED, found.path)
        self._list(member, sha256=digest.hexdigest(), is_changed=is_changed)

    def _member(
        self, path: str, kind: Kind, status: os.stat_result, *, size_bytes: int = 0, target: str = ""
    ) -> Member | None:
        """The member to store; ``None``, and a problem, when our own reader would refuse the archive for it."""
        mtime_ns = max(-MAX_TIME_NS, min(status.st_mtime_ns, MAX_TIME_NS - 1))
        member = Member(
            path=path,
            kind=kind,
            mode=status.st_mode & 0o777,
            mtime_ns=mtime_ns,
            size_bytes=size_bytes,
            target=target,
            owner=(status.st_uid, status.st_gid),
        )
        try:
            require_plain(member)
        except FormatError as exc:
            self.report.problem(_STRANGE, path, why=exc.why)
            return None
        if mtime_ns != status.st_mtime_ns:
            self.report.remark(_TIME, path)
        return member

    def _index(self) -> Iterator[bytes]:
        size_bytes = self._spool.tell()
        self._spool.seek(0)
        yield header(Member(path=INDEX_NAME, kind="file", mode=0o600, size_bytes=size_bytes))
        while piece := self._spool.read(CHUNK_BYTES):
            yield piece
        yield padding(size_bytes)

    def _list(self, member: Member, *, sha256: str = "", is_changed: bool = False) -> None:
        self.counts.add(member)
        self._note(member_line(member, sha256=sha256, is_changed=is_changed))

    def _note(self, line: bytes) -> None:
        with translated("writing the index of media"):
            self._spool.write(line)
        self.index_digest.update(line)

    def _note_failure(self, found: Found, exc: OSError) -> None:
        if isinstance(exc, FileNotFoundError):
            self.report.remark(_GONE, found.path)
        else:
            self.report.problem(_UNREADABLE, found.path, why=exc.strerror or str(exc))

    def _progress(self, size_bytes: int) -> None:
        self._done_bytes += size_bytes
        self._watch.report("media", self._done_bytes, max(self._total_bytes, self._done_bytes))


def _read_steadily(file: BinaryIO) -> tuple[bytes, os.stat_result, bool]:
    """The content of a small open file, its status, and whether it was written to at every attempt.

    Raises:
        OSError: it cannot be read.
    """
    for _ in range(_ATTEMPTS):
        file.seek(0)
        before = os.fstat(file.fileno())
        content = read_at_most(file, SMALL_BYTES * 2)
        after = os.fstat(file.fileno())
        if _is_same(before, after) and len(content) == after.st_size:
            return content, after, False
    return content, after, True


def _is_same(before: os.stat_result, after: os.stat_result) -> bool:
    return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def _is_beside_its_log(found: Found) -> bool:
    """Whether SQLite's log or journal lies beside a file."""
    for suffix in ("-wal", "-journal"):
        try:
            status = os.stat(found.name + suffix, dir_fd=found.folder, follow_symlinks=False)
        except OSError:
            continue
        if status.st_size:
            return True
    return False
