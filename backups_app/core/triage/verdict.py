"""What a judgement says: the words, one judged file, and the sum over many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from .foreign import FileIdentity

Verdict = Literal["holds data", "schema only", "empty", "corrupt", "key missing", "not a database"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

JUDGED_WITH = "Judged with the"
"""How the sentence begins that says what beside a database was read with it."""

_WITHOUT_DATA = ("schema only", "empty")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found out about some content, wherever it lies."""

    verdict: Verdict
    format: str
    """What it is, from the outside in: ``gzip+sqlite``."""
    reason: str
    tables: int | None = None
    """Tables, SQLite's own left out; ``None`` when they were not counted."""
    rows: int | None = None
    """Rows in those tables, bookkeeping included; ``None`` when they were not counted."""
    newest_row_at: str | None = None
    """The newest time that a column of the data tells, as ISO 8601 in UTC. A hint, not a proof."""
    is_judged: bool = True
    """Whether the content was read as far as needed. If not, ``reason`` says what was in the way."""
    is_disposable: bool = True
    """False where something beside the content may hold what the content lacks."""
    members: tuple[Judged, ...] = ()
    """What lies in a ZIP, one by one."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One file, or one member of a ZIP, and its verdict."""

    file: Path
    """The file on disk, for a member that of its ZIP."""
    path: str
    """To show: as given; a member of a ZIP as ``archive.zip!member``."""
    verdict: Verdict
    format: str
    reason: str
    tables: int | None
    rows: int | None
    newest_row_at: str | None
    size_bytes: int
    """Size of the stored file. Of a member: its size as the ZIP tells it."""
    sha256: str | None
    """SHA-256 of the stored bytes; ``None`` for members and for what was not read to its end."""
    is_judged: bool
    is_useless: bool
    """Whether it was read completely and holds no row of data, so that deleting it loses nothing."""
    member: str | None = None
    """The part of ``path`` behind the file's own: what :func:`judged_payload` takes as ``member``."""
    identity: FileIdentity | None = None
    """Which file on disk was read; ``None`` for members and for what was not opened."""
    members: tuple[Judged, ...] = ()

    @property
    def is_with_log(self) -> bool:
        """Whether a log or journal beside it was read with it."""
        return JUDGED_WITH in self.reason

    @classmethod
    def from_finding(
        cls,
        finding: Finding,
        *,
        file: Path,
        path: str,
        size_bytes: int,
        sha256: str | None = None,
        member: str | None = None,
        identity: FileIdentity | None = None,
    ) -> Judged:
        """The judgement of a file or a member in which ``finding`` was found."""
        return cls(
            file=file,
            path=path,
            verdict=finding.verdict,
            format=finding.format,
            reason=finding.reason,
            tables=finding.tables,
            rows=finding.rows,
            newest_row_at=finding.newest_row_at,
            size_bytes=size_bytes,
            sha256=sha256,
            is_judged=finding.is_judged,
            is_useless=finding.verdict in _WITHOUT_DATA and finding.is_judged and finding.is_disposable,
            member=member,
            identity=identity,
            members=finding.members,
        )

    def with_members(self) -> Iterator[Judged]:
        """This judgement, then those of everything inside, in the order of the ZIP."""
        yield self
        for each in self.members:
            yield from each.with_members()

    def as_dict(self) -> dict[str, Any]:
        """The judgement as JSON types, without the members: they have rows of their own."""
        return {
            "path": self.path,
            "verdict": self.verdict,
            "format": self.format,
            "tables": self.tables,
            "rows": self.rows,
            "newest_row_at": self.newest_row_at,
            "bytes": self.size_bytes,
            "sha256": self.sha256,
            "judged": self.is_judged,
            "useless": self.is_useless,
            "reason": self.reason,
        }


def not_judged(reason: str, *, kind: str) -> Finding:
    """The honest answer where there is none: nothing is claimed of the content."""
    return Finding(verdict="not a database", format=kind, reason=reason, is_judged=False)


@dataclass(kw_only=True)
class Totals:
    """The sum over judged files. Members are part of their file and not counted again."""

    files: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    size_bytes: dict[Verdict, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    unjudged_files: int = 0
    reclaimable_files: int = 0
    reclaimable_bytes: int = 0

    def add(self, judged: Judged) -> None:
        """Count one file; a member of a ZIP changes nothing."""
        if judged.member is not None:
            return
        self.files[judged.verdict] += 1
        self.size_bytes[judged.verdict] += judged.size_bytes
        self.unjudged_files += not judged.is_judged
        if judged.is_useless:
            self.reclaimable_files += 1
            self.reclaimable_bytes += judged.size_bytes

    def as_dict(self) -> dict[str, Any]:
        """The totals as JSON types."""
        return {
            "files": sum(self.files.values()),
            "bytes": sum(self.size_bytes.values()),
            "verdicts": {each: {"files": self.files[each], "bytes": self.size_bytes[each]} for each in VERDICTS},
            "unjudged_files": self.unjudged_files,
            "reclaimable_files": self.reclaimable_files,
            "reclaimable_bytes": self.reclaimable_bytes,
        }
