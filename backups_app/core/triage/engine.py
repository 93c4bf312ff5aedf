"""From a path to a verdict: peel the layers, judge what is inside, clean up."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import BinaryIO

from ..errors import (
    SQLITE_ERRORS,
    BackupError,
    CancelledError,
    DeadlineError,
    KeyMissingError,
    NotFoundError,
    UnreachableError,
    VerificationError,
)
from ..legacy import decrypt_container, refuse_malformed_keys
from ..progress import Watch
from ..sqlite import SIDECAR_SUFFIXES, remove_with_sidecars, settle_staged, sidecar
from .database import error_of, judge_database
from .foreign import FileIdentity, UnreadableError, expanded, opened_plainly, sibling_pieces, unpacked_names
from .layers import PIECE_BYTES, Content, file_pieces, gunzip, peeked, spool, unzstd
from .limits import Budget, FileWatch, Limits, OverLimitError, TookTooLongError
from .members import is_covered, is_link, member_pieces, named_files, opened, printable
from .sniff import HEAD_BYTES, sniff
from .verdict import JUDGED_WITH, VERDICTS, Finding, Judged, Verdict, not_judged

OpenAge = Callable[[Iterator[bytes]], Iterator[bytes]]
"""Decrypts an age stream.

Raises KeyMissingError when no identity opens it, VerificationError when it is damaged.
"""

# What a reader replays beside a main file. A -shm holds no content.
_REPLAYED = ("-wal", "-journal")
# A journal that ends so names another file, which SQLite would read and delete
# (https://sqlite.org/fileformat2.html, section 3).
_NAMES_SUPER_JOURNAL = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
# Without a byte there is no content to decide: only what is named so was meant to be an archive.
_ARCHIVE_SUFFIXES = frozenset(
    f".{each}"
    for each in (
        *("age", "enc", "gz", "zst", "zip", "7z", "tar", "bz2", "xz"),
        *("db", "db3", "sqlite", "sqlite3", "sql", "dump", "pgdump", "backup", "bak", "old"),
    )
)
_MANIFESTS = (".manifest.json", ".manifest.sig")


@dataclass(frozen=True, kw_only=True)
class TriageOptions:
    """What triage may use."""

    keys: Sequence[bytes] = ()
    """Raw 32-byte keys of the legacy container; each is tried."""
    open_age: OpenAge | None = None
    limits: Limits = field(default_factory=Limits)
    exclude: frozenset[FileIdentity] = frozenset()
    """``(st_dev, st_ino)`` of files that may be live databases of this process: never opened."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class JudgedPayload:
    """A judgement, and the database itself as long as the block lasts."""

    judged: Judged
    database: Path | None
    """A sound SQLite file of ours in scratch, alone in its folder; ``None`` when there is none."""
    sha256: str | None
    """SHA-256 of that file: the same database has the same one, however it was packed."""


def judge(path: Path, *, scratch: Path, watch: Watch, options: TriageOptions | None = None) -> Judged:
    """Judge one file; members of a ZIP are in ``members``.

    ``scratch`` is a private folder; a folder of its own below it is removed before this returns.
    Whatever is wrong with the file becomes its verdict.

    Raises:
        CancelledError, DeadlineError: from ``watch``.
        InputError: a key is malformed. OSError: the scratch folder cannot be used.
    """
    with _private_folder(scratch) as folder:
        return _Triage(path, folder, options or TriageOptions(), watch).judged()


def judge_all(
    paths: Iterable[Path], *, scratch: Path, watch: Watch, options: TriageOptions | None = None
) -> Iterator[Judged]:
    """Judge files and everything below folders, in a stable order; links are not followed.

    A ZIP is followed by its members. One bad file never stops the rest. The scratch folder is left
    out where it lies below a folder that is judged.

    Raises: as :func:`judge`.
    """
    for path in expanded(paths, leave_out=scratch):
        watch.check()
        yield from judge(path, scratch=scratch, watch=watch, options=options).with_members()


@contextmanager
def judged_payload(
    path: Path, *, scratch: Path, watch: Watch, member: str | None = None, options: TriageOptions | None = None
) -> Iterator[JudgedPayload]:
    """Judge a file again and keep the database inside until the block ends, to import it.

    ``member`` is that of a :class:`Judged`, for a database in a ZIP. Compare ``sha256`` with the
    earlier judgement: the file may be another one by now.

    Raises:
        NotFoundError: the ZIP has no such member. As :func:`judge`.
    """
    with _private_folder(scratch) as folder:
        payload = folder / "payload" / "database.sqlite3"
        payload.parent.mkdir(mode=0o700)
        triage = _Triage(path, folder, options or TriageOptions(), watch, payload=payload, wanted=member)
        found = [each for each in triage.judged().with_members() if each.member == member]
        if not found:
            raise NotFoundError(f"{path.name} has no member {member}.", "Run triage on the file again.")
        if not payload.exists():
            yield JudgedPayload(judged=found[0], database=None, sha256=None)
            return
        with open(payload, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        yield JudgedPayload(judged=found[0], database=payload, sha256=sha256)


@contextmanager
def _private_folder(scratch: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="triage-", dir=scratch))  # mode 0700
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Place:
    """Where some content lies inside of the file."""

    layer: int = 0
    member: str | None = None

    def deeper(self) -> _Place:
        return replace(self, layer=self.layer + 1)

    def at_member(self, name: str) -> _Place:
        return _Place(self.layer + 1, name if self.member is None else f"{self.member}!{name}")


class _Triage:
    """The judging of one file."""

    def __init__(
        self,
        path: Path,
        folder: Path,
        options: TriageOptions,
        watch: Watch,
        *,
        payload: Path | None = None,
        wanted: str | None = None,
    ) -> None:
        refuse_malformed_keys(options.keys)
        self._path = path
        self._shown = printable(str(path))
        self._folder = folder
        self._options = options
        self._limits = options.limits
        self._watch = FileWatch(watch, seconds=options.limits.seconds)
        self._payload = payload
        self._wanted = wanted
        self._files = 0
        self._budget = Budget(self._limits, stored_bytes=0, scratch=folder)

    def judged(self) -> Judged:
        """The verdict on the file."""
        if self._path.name.endswith("-shm"):
            # Closing any descriptor on the -shm of a live database drops its locks.
            reason = "It is the shared index of an SQLite database by its name, and holds no data; it was not opened."
            return self._unopened(not_judged(reason, kind="sqlite shm"))
        try:
            with opened_plainly(self._path, exclude=self._options.exclude) as stored:
                return self._judge_stored(stored)
        except UnreadableError as exc:
            return self._unopened(not_judged(exc.reason, kind=exc.kind))

    def _unopened(self, finding: Finding) -> Judged:
        try:
            size_bytes = self._path.lstat().st_size
        except (OSError, ValueError):
            size_bytes = 0
        return Judged.from_finding(finding, file=self._path, path=self._shown, size_bytes=size_bytes)

    def _judge_stored(self, stored: BinaryIO) -> Judged:
        before = os.fstat(stored.fileno())
        self._budget = Budget(self._limits, stored_bytes=before.st_size, scratch=self._folder)
        finding, sha256 = self._find_stored(stored, before.st_size)
        after = os.fstat(stored.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            finding, sha256 = not_judged("It changed while it was read.", kind=finding.format), None
        if self._path.name.endswith(SIDECAR_SUFFIXES):
            finding = replace(finding, is_disposable=False)  # it belongs to the database beside it
        if not after.st_size and not _is_named_like_an_archive(self._path):
            finding = replace(finding, is_disposable=False)  # an empty __init__.py or .gitkeep
        if left := self._left_beside():
            reason = f"{finding.reason} The {' and '.join(left)} beside it was not replayed."
            finding = replace(finding, reason=reason, is_disposable=False)
        return Judged.from_finding(
            finding,
            file=self._path,
            path=self._shown,
            size_bytes=after.st_size,
            sha256=sha256,
            identity=(after.st_dev, after.st_ino),
        )

    def _left_beside(self) -> list[str]:
        """What lies beside the file and belongs to the database that was packed into it."""
        _, *names = unpacked_names(self._path.name)
        found = [suffix for suffix in _REPLAYED for name in names if _has_content(self._path.with_name(name + suffix))]
        return list(dict.fromkeys(found))

    def _find_stored(self, stored: BinaryIO, size_bytes: int) -> tuple[Finding, str | None]:
        kind = "unreadable"
        try:
            head = stored.read(HEAD_BYTES)
            stored.seek(0)
            kind = sniff(head, size_bytes=size_bytes).format
            pieces = file_pieces(stored, phase="judge", total_bytes=size_bytes, watch=self._watch)
            content = Content(
                head=head, pieces=pieces, stored=stored, size_bytes=size_bytes, sibling=self._sibling_on_disk
            )
            finding = self._named(self._find(content, _Place()))
            is_known = finding.is_judged and sniff(head, size_bytes=size_bytes).kind != "other"
            return finding, self._sha256(stored, size_bytes) if is_known else None
        except Exception as exc:  # noqa: BLE001 - one bad file never stops the rest
            return _failed(exc, kind=kind), None

    def _sha256(self, stored: BinaryIO, size_bytes: int) -> str:
        digest = hashlib.sha256()
        stored.seek(0)
        for piece in file_pieces(stored, phase="hash", total_bytes=size_bytes, watch=self._watch):
            digest.update(piece)
        return digest.hexdigest()

    def _named(self, finding: Finding) -> Finding:
        """What the name of an unknown file tells beside its content."""
        name = self._path.name
        if finding.format in ("text", "unknown") and name.endswith(_MANIFESTS):
            return replace(finding, format="manifest", reason="It is the manifest or the signature of an archive.")
        main = next((name.removesuffix(each) for each in _REPLAYED if name.endswith(each)), None)
        if main and finding.format in ("sqlite wal", "sqlite journal") and self._path.with_name(main).is_file():
            return replace(finding, reason=f"{finding.reason} It is judged together with {printable(main)}.")
        return finding

    def _sibling_on_disk(self, suffix: str) -> Iterator[bytes] | None:
        return sibling_pieces(
            sidecar(self._path, suffix),
            exclude=self._options.exclude,
            most_bytes=self._limits.sidecar_bytes,
            piece_bytes=PIECE_BYTES,
        )

    # Content of each kind

    def _find(self, content: Content, place: _Place) -> Finding:
        """What some content is; everything that is wrong with it is a finding too."""
        sniffed = sniff(content.head, size_bytes=content.size_bytes)
        try:
            match sniffed.kind:
                case "nothing":
                    return _nothing(content)
                case "sqlite":
                    return self._sqlite(content, place)
                case "gzip":
                    return self._inside(gunzip(content.pieces, watch=self._watch), place, outer="gzip")
                case "zstd":
                    return self._inside(unzstd(content.pieces), place, outer="zstd")
                case "age":
                    return self._age(content, place)
                case "legacy enc":
                    return self._legacy(content, place)
                case "zip":
                    return self._zip(content, place)
                case "other":
                    return Finding(
                        verdict="not a database",
                        format=sniffed.format,
                        reason=sniffed.reason,
                        is_judged=sniffed.is_judged,
                    )
        except Exception as exc:  # noqa: BLE001 - whatever hostile content brings about is a finding
            return _failed(exc, kind=sniffed.format)

    def _inside(self, pieces: Iterator[bytes], place: _Place, *, outer: str) -> Finding:
        self._refuse_deeper(place)
        finding = self._find(peeked(self._budget.metered(pieces)), place.deeper())
        return replace(finding, format=f"{outer}+{finding.format}")

    def _refuse_deeper(self, place: _Place) -> None:
        if place.layer >= self._limits.layers:
            raise OverLimitError(f"It is packed in more than {self._limits.layers} layers.", "Unpack it by hand.")

    def _age(self, content: Content, place: _Place) -> Finding:
        if self._options.open_age is None:
            raise KeyMissingError("It is encrypted with age, and no identity was given.", "Give the identity file.")
        return self._inside(self._options.open_age(content.pieces), place, outer="age")

    def _legacy(self, content: Content, place: _Place) -> Finding:
        self._refuse_deeper(place)
        target = self._new_file()
        try:
            with self._as_file(content) as stored:
                size_bytes = content.size_bytes or os.fstat(stored.fileno()).st_size
                self._budget.spend(size_bytes)
                container = decrypt_container(
                    stored, target, size_bytes=size_bytes, keys=self._options.keys, watch=self._watch
                )
            with open(target, "rb", buffering=0) as opened_content:
                pieces = file_pieces(
                    opened_content, phase="judge", total_bytes=container.content_bytes, watch=self._watch
                )
                return self._inside(pieces, place, outer="legacy enc")
        finally:
            target.unlink(missing_ok=True)

    @contextmanager
    def _as_file(self, content: Content) -> Iterator[BinaryIO]:
        """The content as a file that can seek: the stored one, or a copy in scratch."""
        if content.stored is not None:
            yield content.stored
            return
        copy = spool(content.pieces, self._new_file())
        try:
            with open(copy, "rb", buffering=0) as stored:
                yield stored
        finally:
            copy.unlink(missing_ok=True)

    def _new_file(self) -> Path:
        self._files += 1
        return self._folder / f"{self._files}.partial"

    # SQLite

    def _sqlite(self, content: Content, place: _Place) -> Finding:
        copy = self._new_file()
        try:
            pieces = content.pieces if content.stored is None else self._budget.metered(content.pieces)
            spool(pieces, copy)
            taken, left = self._take_siblings(content, copy)
            if taken:
                self._settle(copy)
            finding = judge_database(copy, limits=self._limits, watch=self._watch, now=self._options.now())
            self._keep(copy, finding, place)
        finally:
            remove_with_sidecars(copy)
        if taken:
            finding = replace(finding, reason=f"{finding.reason} {JUDGED_WITH} {' and '.join(taken)} beside it.")
        if left:
            finding = replace(finding, reason=f"{finding.reason} The {' and '.join(left)} beside it was not replayed.")
        return replace(finding, is_disposable=finding.is_disposable and not taken and not left)

    def _take_siblings(self, content: Content, copy: Path) -> tuple[list[str], list[str]]:
        """Copy what lies beside the database and belongs to it; returns what was taken and what was not."""
        taken: list[str] = []
        left: list[str] = []
        for suffix in _REPLAYED:
            pieces = content.sibling(suffix) if content.sibling else None
            if pieces is None:
                continue
            beside = spool(self._budget.metered(pieces), sidecar(copy, suffix))
            if suffix == "-journal" and _names_another_file(beside):
                beside.unlink()
                left.append(suffix)
            else:
                taken.append(suffix)
        return taken, left

    def _settle(self, copy: Path) -> None:
        try:
            settle_staged(copy)
        except SQLITE_ERRORS as exc:
            raise error_of(exc) from exc
        if any(sidecar(copy, suffix).exists() for suffix in SIDECAR_SUFFIXES):
            raise OverLimitError("What lies beside it could not be brought into it.", "Look at its files by hand.")
        if copy.stat().st_size > self._limits.unpacked_bytes:
            raise OverLimitError("Its -wal makes it larger than one file may be.", "Look at its files by hand.")

    def _keep(self, copy: Path, finding: Finding, place: _Place) -> None:
        is_sound = finding.is_judged and finding.verdict in ("holds data", "schema only", "empty")
        if self._payload is not None and place.member == self._wanted and is_sound:
            copy.replace(self._payload)

    # ZIP

    def _zip(self, content: Content, place: _Place) -> Finding:
        self._refuse_deeper(place)
        with self._as_file(content) as stored, opened(stored, limits=self._limits) as archive:
            count = sum(not info.is_dir() for info in archive.infolist())
            members = tuple(
                self._member(archive, name, info, place) for name, info in named_files(archive, limits=self._limits)
            )
            left_out = count - len(members)
            is_all = not left_out and is_covered(archive, stored)
        finding = _zip_finding(members, left_out=left_out)
        if is_all or left_out:
            return finding
        reason = f"{finding.reason} It has bytes that are of no file in its directory; they were not judged."
        return replace(finding, reason=reason, is_disposable=False)

    def _member(self, archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo, place: _Place) -> Judged:
        inside = place.at_member(name)
        if is_link(info):
            finding = not_judged("It is a symbolic link, which is not followed.", kind="symbolic link")
        else:
            finding = self._find_member(archive, info, inside)
        if info.filename.endswith(SIDECAR_SUFFIXES):
            finding = replace(finding, is_disposable=False)
        path = f"{self._shown}!{inside.member}"
        return Judged.from_finding(finding, file=self._path, path=path, size_bytes=info.file_size, member=inside.member)

    def _find_member(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, place: _Place) -> Finding:
        try:
            content = peeked(self._budget.metered(member_pieces(archive, info)))
        except Exception as exc:  # noqa: BLE001 - one bad member never stops the rest
            return _failed(exc, kind="unknown")
        return self._find(replace(content, sibling=partial(self._sibling_in_zip, archive, info)), place)

    def _sibling_in_zip(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, suffix: str) -> Iterator[bytes] | None:
        found = archive.NameToInfo.get(info.filename + suffix)
        return None if found is None or not found.file_size else member_pieces(archive, found)


def _has_content(path: Path) -> bool:
    try:
        return path.lstat().st_size > 0
    except (OSError, ValueError):
        return False


def _is_named_like_an_archive(path: Path) -> bool:
    return not _ARCHIVE_SUFFIXES.isdisjoint(each.lower() for each in path.suffixes)


def _nothing(content: Content) -> Finding:
    if content.sibling is not None and content.sibling("-wal") is not None:
        # SQLite itself would take the -wal for a left-over and delete it.
        reason = "It has no bytes, but the -wal beside it has: the main file was lost. Keep the -wal."
        return Finding(verdict="corrupt", format="no bytes", reason=reason)
    return Finding(verdict="empty", format="no bytes", reason="It has no bytes.", tables=0, rows=0)


def _names_another_file(journal: Path) -> bool:
    with open(journal, "rb") as file:
        file.seek(max(0, journal.stat().st_size - len(_NAMES_SUPER_JOURNAL)))
        return file.read() == _NAMES_SUPER_JOURNAL


# Which verdict stands for a ZIP: the first that a member has. What is not judged comes before
# what holds nothing, and files of other kinds say nothing about the databases beside them.
_ZIP_ORDER: tuple[Verdict, ...] = ("holds data", "key missing", "corrupt")


def _zip_finding(members: tuple[Judged, ...], *, left_out: int) -> Finding:
    if not members and not left_out:
        return Finding(verdict="empty", format="zip", reason="The ZIP has no files.", tables=0, rows=0)
    counted = Counter(each.verdict for each in members)
    reason = ", ".join(f"{counted[each]:,} {each}" for each in VERDICTS if counted[each])
    reason = f"{len(members):,} files: {reason}."
    if left_out:
        reason += f" {left_out:,} more were not judged: too many, or with the name of another."
    is_judged = not left_out and all(each.is_judged for each in members)
    return Finding(
        verdict=_zip_verdict(members, is_judged=is_judged),
        format="zip",
        reason=reason,
        is_judged=is_judged,
        is_disposable=all(each.is_useless for each in members),
        members=members,
    )


def _zip_verdict(members: tuple[Judged, ...], *, is_judged: bool) -> Verdict:
    found = {each.verdict for each in members}
    for verdict in _ZIP_ORDER:
        if verdict in found:
            return verdict
    if not is_judged:
        return "not a database"
    return next((verdict for verdict in ("schema only", "empty") if verdict in found), "not a database")


def _failed(exc: Exception, *, kind: str) -> Finding:
    """The finding that an error stands for. Only evidence of damage is called corrupt.

    Raises:
        CancelledError, DeadlineError: those of the caller's watch are none.
    """
    if isinstance(exc, CancelledError) or (isinstance(exc, DeadlineError) and not isinstance(exc, TookTooLongError)):
        raise exc
    if isinstance(exc, TookTooLongError):
        return not_judged(f"{exc.message} It was not judged.", kind=kind)
    if isinstance(exc, KeyMissingError):
        return Finding(verdict="key missing", format=kind, reason=exc.message)
    if isinstance(exc, VerificationError) and not isinstance(exc, UnreachableError):
        return Finding(verdict="corrupt", format=kind, reason=exc.message)
    if isinstance(exc, UnreadableError):
        return not_judged(f"What lies beside it is not read: {exc.reason}", kind=kind)
    if isinstance(exc, BackupError):
        return not_judged(f"It was not judged: {exc.message}", kind=kind)
    return not_judged(f"It could not be judged: {type(exc).__name__}.", kind=kind)
