"""A media archive read back: every member against the index, the index against the manifest.

The list is made anew from what is read and compared line by line with the one in the archive, in
constant memory. So nothing may be changed, missing or extra, in the files or in the list.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ..archive import Keys, OpenStored, ReadArchive, read_archive
from ..errors import RefusedError, VerificationError, translated
from ..files import require_free_space, sync_folder
from ..manifest import Media
from ..partial import partial_beside
from ..progress import Watch
from ..verify import NO_KEYS, Check, check_reading, check_stored_bytes, failures, keys_for, reason_of
from .index import CHANGED, MAX_LINE_BYTES, Counts, foot_line, member_line
from .index import NAME as INDEX_NAME
from .links import leads_out
from .tar import FormatError, Member, Order, Reader, shown
from .tree import NewTree
from .walk import Report

PREFIX = "media "
"""What the names of all checks of a media archive begin with."""

FILES_CHECK = PREFIX + "files"

_LEADS_OUT = "links lead out of their folder and were left out"


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """What a complete reading found."""

    checks: list[Check]
    counts: Counts
    remarks: tuple[str, ...] = ()
    """What was not made, because it leads out of the folder."""


def verify_media_quick(open_stored: OpenStored, media: Media, *, watch: Watch) -> list[Check]:
    """Hash the stored bytes of a media archive; decompresses nothing.

    Raises:
        UnreachableError: the store does not answer. CancelledError, DeadlineError: from ``watch``.
    """
    return [
        check_stored_bytes(
            open_stored,
            archive_bytes=media.archive_bytes,
            archive_sha256=media.archive_sha256,
            prefix=PREFIX,
            watch=watch,
        )
    ]


def verify_media_full(
    open_stored: OpenStored,
    media: Media,
    *,
    encryption: str | None,
    scratch: Path,
    watch: Watch,
    keys: Keys = NO_KEYS,
) -> list[Check]:
    """Read a media archive to its last byte and compare the digest of every file in it.

    Only the list of what was found is kept in ``scratch`` meanwhile, and not under a name.

    Raises:
        LockedError: the stored bytes are right, and no key opens them.
        UnreachableError, DiskFullError, BackupError, CancelledError, DeadlineError.
    """
    return read_media(open_stored, media, encryption=encryption, scratch=scratch, watch=watch, keys=keys).checks


@contextmanager
def extracting_media(
    open_stored: OpenStored,
    media: Media | None,
    target: Path,
    *,
    encryption: str | None,
    watch: Watch,
    keys: Keys = NO_KEYS,
) -> Iterator[Unpacked]:
    """Write the folders of a media archive into the new folder ``target`` (mode 0700).

    Everything goes to a private folder beside it, and gets its name when all digests are right and
    the block has ended well. Owners are not set, set-user-id and its like neither; links that lead
    out are left out. Without a manifest's ``media`` the archive must be whole and its index right.

    Raises:
        RefusedError: something is at ``target``. It is not touched.
        VerificationError: the archive is not what the manifest says. Nothing is left behind.
        LockedError, UnreachableError, DiskFullError, BackupError, CancelledError, DeadlineError: likewise.
    """
    with new_folder(target) as folder:
        if media is not None:
            require_free_space(folder, media.content_bytes, purpose="the folders of media")
        with translated("writing the folders of media"), NewTree(folder) as tree:
            unpacked = read_media(
                open_stored, media, encryption=encryption, scratch=folder.parent, watch=watch, keys=keys, tree=tree
            )
            if failures(unpacked.checks):
                raise VerificationError(
                    f"The media cannot be trusted ({reason_of(unpacked.checks)}).",
                    "Nothing was written. Use another copy, or an older verified backup.",
                )
            tree.finish()
        yield unpacked


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A private folder that becomes ``target`` when the block ends well, and is gone when it does not.

    Raises:
        RefusedError: something is there; it is not touched. NotFoundError: its parent is not.
    """
    with partial_beside(target) as temporary:
        refuse_any(target)
        folder = temporary / "media"
        with translated("preparing the new folder"):
            temporary.mkdir(mode=0o700)
            folder.mkdir(mode=0o700)
        yield folder
        with translated(f"publishing {target.name}"):
            _publish(folder, target)


def refuse_any(target: Path) -> None:
    """Refuse a target that exists, whatever it is.

    Raises:
        RefusedError: nothing was changed.
    """
    if os.path.lexists(target):
        raise RefusedError(f"{target} exists already; it was not touched.", "Choose a new folder name.")


def _publish(folder: Path, target: Path) -> None:
    """Rename onto a name that is taken first: a rename alone would replace an empty folder of somebody else."""
    try:
        target.mkdir(mode=0o700)
    except FileExistsError:
        refuse_any(target)
        raise
    try:
        folder.rename(target)
        sync_folder(target.parent)
    except BaseException:
        with suppress(OSError):
            target.rmdir()  # the empty one; a whole one is not removed by this
        raise


def read_media(
    open_stored: OpenStored,
    media: Media | None,
    *,
    encryption: str | None,
    scratch: Path,
    watch: Watch,
    keys: Keys,
    tree: NewTree | None = None,
) -> Unpacked:
    """Read a media archive to its last byte, into ``tree`` when there is one; what it holds, with all checks.

    Without a manifest's ``media`` the archive has to be whole and its index right.

    Raises: as :func:`verify_media_full`.
    """
    with (
        translated("keeping the list of media"),
        tempfile.TemporaryFile(prefix=".index-", dir=scratch) as spool,
    ):
        proof = _Proof(cast("BinaryIO", spool), tree=tree)
        limit_bytes = media.tar_bytes if media else shutil.disk_usage(scratch).free
        with open_stored() as stored:
            read = read_archive(
                stored,
                limit_bytes=limit_bytes,
                total_bytes=media.archive_bytes if media else 0,
                watch=watch,
                phase="media",
                keep=proof.feed,
                keys=keys_for(encryption, keys),
            )
        checks = _compared(read, media)
        if read.damage is None and read.locked is None:
            checks.append(proof.check(media.index_sha256 if media else None))
    return Unpacked(checks=checks, counts=proof.counts, remarks=tuple(proof.report.remarks))


def _compared(read: ReadArchive, media: Media | None) -> list[Check]:
    if media is not None:
        return check_reading(
            read,
            archive_bytes=media.archive_bytes,
            archive_sha256=media.archive_sha256,
            content_bytes=media.tar_bytes,
            sha256=media.tar_sha256,
            prefix=PREFIX,
        )
    if read.locked is not None:
        raise read.locked
    evidence = "one whole zstd stream, checksum correct" if read.damage is None else read.damage.message
    return [Check(name=f"{PREFIX}decompression", ok=read.damage is None, evidence=evidence)]


class _Proof:
    """Receives the members of a tar, makes the list of what they are, and compares it with the list inside."""

    def __init__(self, spool: BinaryIO, *, tree: NewTree | None) -> None:
        self._reader = Reader(self)
        self._order = Order()
        self._spool = spool
        self._tree = tree
        self._member = Member(path="", kind="file")  # until one begins
        self._digest = hashlib.sha256()
        self._index: _IndexProof | None = None
        self._wrong: str = ""
        self.counts = Counts()
        self.report = Report()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the tar. What is wrong in it is kept for :meth:`check`."""
        if self._wrong:
            return
        try:
            with translated("writing the folders of media"):
                self._reader.feed(piece)
        except FormatError as exc:
            self._wrong = exc.message

    def check(self, index_sha256: str | None) -> Check:
        """What was found, when the stream has ended. Without a digest the index has to be right in itself."""
        wrong = [self._wrong] if self._wrong else self._differences(index_sha256)
        index = ", the index as in the manifest" if index_sha256 else ""
        evidence = "; ".join(wrong) or f"{self.counts}: each as in the index{index}"
        return Check(name=FILES_CHECK, ok=not wrong, evidence=evidence)

    def _differences(self, index_sha256: str | None) -> list[str]:
        try:
            self._reader.finish()
        except FormatError as exc:
            return [exc.message]
        if self._index is None:
            return ["the index is missing"]
        wrong = self._index.differences()
        if index_sha256 is not None and self._index.sha256 != index_sha256:
            wrong.append(f"the index has SHA-256 {self._index.sha256}, expected {index_sha256}")
        return wrong

    # The members, from the reader.

    def begin(self, member: Member) -> None:
        """A member begins."""
        if self._index is not None:
            raise FormatError(f"{shown(member.path)} stands behind the index")
        self._member, self._digest = member, hashlib.sha256()
        if member.path == INDEX_NAME:
            self._begin_index()
            return
        depth, name = self._order.enter(member)
        if depth == 0 and member.kind != "folder":
            raise FormatError(f"{shown(member.path)} is in no folder")
        if self._tree is not None:
            self._make(self._tree, depth, name, member)

    def _make(self, tree: NewTree, depth: int, name: str, member: Member) -> None:
        tree.leave_to(depth)
        if member.kind == "folder":
            tree.make_folder(name, member)
        elif member.kind == "file":
            tree.begin_file(name)
        elif leads_out(member.path, member.target):
            self.report.remark(_LEADS_OUT, f"{member.path} → {member.target}")
        else:
            tree.make_link(name, member)

    def content(self, piece: bytes) -> None:
        """The next bytes of a file."""
        if self._index is not None:
            self._index.feed(piece)
            return
        self._digest.update(piece)
        if self._tree is not None:
            self._tree.write(piece)

    def end(self) -> None:
        """The member is complete."""
        if self._index is not None:
            return
        member = self._member
        self.counts.add(member)
        self._spool.write(member_line(member, sha256=self._digest.hexdigest()))
        if self._tree is not None and member.kind == "file":
            self._tree.end_file(member)

    def _begin_index(self) -> None:
        self._spool.write(foot_line(self.counts))
        self._spool.seek(0)
        self._index = _IndexProof(self._spool)


class _IndexProof:
    """Compares the list in an archive with the one made anew, and stops at the first difference."""

    def __init__(self, expected: BinaryIO) -> None:
        self._expected = expected
        self._digest = hashlib.sha256()
        self._buffer = bytearray()
        self._is_at_head = True
        self._difference = ""

    @property
    def sha256(self) -> str:
        """SHA-256 of the list in the archive."""
        return self._digest.hexdigest()

    def feed(self, piece: bytes) -> None:
        """Take the next bytes of the list in the archive."""
        self._digest.update(piece)
        self._buffer += piece
        while not self._difference and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[: end + 1])
            del self._buffer[: end + 1]
            self._compare(line)
        if len(self._buffer) > MAX_LINE_BYTES:
            self._difference = self._difference or "a line of the index is too long"
        if self._difference:
            self._buffer.clear()

    def _compare(self, line: bytes) -> None:
        if self._is_at_head:  # says where the folders were; only the manifest can prove it
            self._is_at_head = False
            return
        found = self._expected.readline()
        if line.replace(CHANGED, b"", 1) != found:
            self._difference = f"the archive holds {_described(found)}, the index says {_described(line)}"

    def differences(self) -> list[str]:
        """What is different, when the list has ended."""
        if self._difference:
            return [self._difference]
        if self._buffer or self._is_at_head or self._expected.readline():
            return ["the index ends too early"]
        return []


def _described(line: bytes) -> str:
    text = line.decode("ascii", "backslashreplace").strip()
    return (text if len(text) <= 400 else f"{text[:400]}…") or "nothing"
