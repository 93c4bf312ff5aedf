"""What health is told in: problems, the facts of each database and disk, and all of them at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from ...inert_text import fitting
from ...models import Backup, Database, Job, Schedule, Verification
from ...models.backup import Verdict
from ..keys.health import KeyFinding


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that needs attention.

    ``code`` is documented in ``docs/monitoring.md``. Code, database, subject and host together name the
    problem from one look to the next, whatever the message says meanwhile.
    """

    code: str
    database: str
    """Name of the database, or "" when it concerns none, or all."""
    message: str
    hint: str
    subject: str = ""
    """What it is about when that is no database: a host, a disk."""
    host: str = ""
    """The only host of a fleet that can see it, or ""."""
    is_severe: bool = False
    """Told at the first look, without waiting whether it passes by itself."""

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What stays the same from one look to the next, as the records hold it."""
        return (self.code, fitting(self.database, 200), fitting(self.subject, 200), fitting(self.host, 200))


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much an earlier backup held; None where that was not counted."""

    row_count: int | None
    size_bytes: int | None
    media: dict[str, Any] | None = None
    """The folders beside it, as their manifest counted them."""


@dataclass(frozen=True, kw_only=True)
class DatabaseHealth:
    """What is known of one database's safety."""

    database: Database
    last_verified: Backup | None
    last_attempt: Backup | None
    """The newest backup that ended by itself, whatever it came to."""
    limit: timedelta
    earlier: list[Sizes] = field(default_factory=list)
    """Of the verified backups before the last one, newest first: what it is compared with."""
    is_here: bool = True
    """Whether this host holds its file. Of one on another host only the rows are known."""
    size_bytes: int | None = None
    """Of the live file now; None when it is not there, or on another host."""
    wal_bytes: int = 0
    """Of the ``-wal`` beside it."""
    last_drill: Verification | None = None
    """The newest drill, whatever it found."""
    last_drill_at: datetime | None = None
    """When a restore was last rehearsed with success."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def has_failed_drill(self) -> bool:
        """Whether the newest drill did not pass."""
        return self.last_drill is not None and self.last_drill.verdict != Verdict.PASSED

    def age(self, *, now: datetime) -> timedelta | None:
        """Age of the data in the last verified backup."""
        if self.last_verified is None or self.last_verified.taken_at is None:
            return None
        return now - self.last_verified.taken_at


@dataclass(frozen=True, kw_only=True)
class FileSystem:
    """One disk that backups and restores write to, and what the next of them will need there."""

    folder: Path
    """One folder on it, the first of: archives, scratch, a database."""
    places: tuple[str, ...]
    """What lies on it, in words."""
    free_bytes: int
    total_bytes: int
    backup_bytes: int
    """Needed by the hungriest next backup."""
    restore_bytes: int
    """Needed by the hungriest next restore."""
    hungriest: str
    """The database with the larger need of the two."""

    @property
    def needed_bytes(self) -> int:
        """What must be free, so that any one backup or restore can begin."""
        return max(self.backup_bytes, self.restore_bytes)

    @property
    def is_nearly_full(self) -> bool:
        """Whether the next backup or the next restore may not find enough room."""
        return self.free_bytes < self.needed_bytes


@dataclass(frozen=True, kw_only=True)
class Look:
    """The evidence of one moment, gathered once for all checks."""

    now: datetime
    databases: list[DatabaseHealth]
    disks: list[FileSystem]
    keys: list[KeyFinding] = field(default_factory=list)
    deserters: list[Database] = field(default_factory=list)
    """Databases that left care lately, and were backed up until then."""
    drills: list[Verification] = field(default_factory=list)
    """The newest drill of each database that has one, under care or not, with its backup and database."""
    jobs: list[Job] = field(default_factory=list)
    """The first 500 that run or wait: those that run, then the longest waiting. With their databases."""
    schedules: list[Schedule] = field(default_factory=list)
    """Those that are enabled, of databases under care, with ``last_missed``: what their newest run stands for."""
    newest_job_at: datetime | None = None
    """When the newest job was asked for."""
    signing_key_replaced_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Health:
    """The state of everything under care at one moment."""

    checked_at: datetime
    databases: list[DatabaseHealth]
    problems: list[Problem]
    notices: list[str]
    """Worth knowing, without anything to do at once."""
    disks: list[FileSystem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    """Should be changed in good time; they leave everything safe for now."""

    @property
    def is_ok(self) -> bool:
        """Whether nothing needs attention."""
        return not self.problems
