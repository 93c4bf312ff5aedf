"""Import an archive that somebody else made: from now on it is a verified backup like any other."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from django.utils import timezone

from .. import conf
from ..core.errors import EXIT_CODES, BackupError, RefusedError, translated
from ..core.files import scratch_folder
from ..core.progress import ProgressCallback, Watch
from ..core.triage import Judged, JudgedPayload, TriageOptions, judged_payload
from ..jobs.claim import Claim
from ..models import AuditEvent, Backup, Database, Job
from . import audit
from .audit import Actor
from .create import Origin, create_claimed_backup
from .databases import imported_database
from .heal import heal_interrupted
from .jobs.ending import Ending
from .jobs.inline import run_inline
from .places import is_below, own_folders

# The time in the name of an archive, which is none of the database: app-2026-02-20_10-11-12.
_TIME_IN_NAME = re.compile(r"[-_.T ]*(19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d([-_.T ]*\d\d[-_.:]?\d\d([-_.:]?\d\d)?Z?)?$")
_MAX_SUFFIX = 8


@dataclass(frozen=True, kw_only=True)
class Import:
    """The backup that an archive is kept as."""

    backup: Backup
    is_new: bool
    """False when its database was imported before."""


def is_importable(judged: Judged) -> bool:
    """Whether the file or member holds data itself; a ZIP is imported by its members."""
    return judged.verdict == "holds data" and judged.is_judged and not judged.members


def import_archive(
    judged: Judged,
    *,
    into: Database | None = None,
    options: TriageOptions,
    actor: Actor,
    trigger: str = Job.Trigger.COMMAND,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Import:
    """Make a verified backup of the database inside of an archive that was judged to hold data.

    The archive is judged again, and must be the same. Its database goes the way of every backup:
    census, checks, compression, storing, proof of what was stored. The row has the trigger
    ``import``, is held (no retention made it, so none removes it), and says in its note where it
    comes from. ``taken_at`` is the time of its newest row where a column tells one, else the time
    of the file; never later than now. The archive itself is not touched.

    ``into`` is the database under care that it belongs to; without it, one without a file is made,
    named after the archive. A database that was imported before, whatever it was packed in, is
    not imported again: its backup is returned.

    Raises:
        RefusedError: it holds no data, or it was changed since. NotFoundError: it is gone.
        BusyError: the turn did not come. BackupError: the import failed, as the backup's row says.
    """
    try:
        return _imported(
            judged,
            into=into,
            options=options,
            actor=actor,
            trigger=trigger,
            watch=Watch(
                on_progress=on_progress, is_cancelled=is_cancelled, deadline_seconds=conf.get("DEADLINE_SECONDS")
            ),
            on_progress=on_progress,
            is_cancelled=is_cancelled,
        )
    except RefusedError as exc:
        audit.record("import", actor=actor, outcome=AuditEvent.Outcome.REFUSED, detail=f"{judged.path}: {exc.message}")
        raise


def _imported(
    judged: Judged,
    *,
    into: Database | None,
    options: TriageOptions,
    actor: Actor,
    trigger: str,
    watch: Watch,
    on_progress: ProgressCallback | None,
    is_cancelled: Callable[[], bool] | None,
) -> Import:
    if not is_importable(judged):
        raise RefusedError(f"It was not imported: it is {judged.verdict}.", "Import what holds data.")
    if any(is_below(judged.file, folder) for folder in own_folders()):
        raise RefusedError("It was not imported: it lies among our own archives.", "It is in the catalogue already.")
    heal_interrupted()
    with ExitStack() as stack:
        with translated("preparing the scratch folder"):
            folder = scratch_folder(conf.scratch_folder(), f"import-{uuid.uuid4().hex}")
            scratch = stack.enter_context(folder)
        payload = stack.enter_context(
            judged_payload(judged.file, scratch=scratch, watch=watch, member=judged.member, options=options)
        )
        origin = _origin(judged, payload)
        known = _known(origin, into)
        if known is not None:
            return Import(backup=known, is_new=False)
        database = into or imported_database(database_name(judged))

        def work(claim: Claim) -> Import:
            before = _known(origin, into)  # by a process that had the lock before us
            if before is not None:
                return Import(backup=before, is_new=False)
            backup = create_claimed_backup(
                database,
                actor=actor,
                trigger=Backup.Trigger.IMPORT,
                note=_note(judged),
                is_held=True,
                origin=origin,
                job=claim.job,
                watch=claim.watch(on_progress=on_progress, is_cancelled=is_cancelled),
            )
            return Import(backup=backup, is_new=True)

        found = run_inline(
            Job.Kind.TRIAGE,
            database,
            actor=actor,
            trigger=trigger,
            options={"do": "import", "origin_sha256": origin.sha256},
            work=work,
            ending_of=lambda done: Ending.of_backup(done.backup),
            is_cancelled=is_cancelled,
        )
    _require_verified(found.backup)
    return found


def _origin(judged: Judged, payload: JudgedPayload) -> Origin:
    again = payload.judged
    is_same = _told(again) == _told(judged)
    if not is_same or payload.database is None or payload.sha256 is None:
        raise RefusedError("It was not imported: it is not what was judged any more.", "Run triage on it again.")
    return Origin(path=payload.database, sha256=payload.sha256, taken_at=_taken_at(again))


def _told(judged: Judged) -> tuple[object, ...]:
    """What tells one archive from another: the file's own bytes say nothing about the -wal beside it."""
    return judged.sha256, judged.size_bytes, judged.verdict, judged.tables, judged.rows, judged.is_with_log


def _taken_at(judged: Judged) -> datetime:
    if judged.newest_row_at:
        found = datetime.fromisoformat(judged.newest_row_at)
    else:
        with translated(f"looking at {judged.file.name}"):
            found = datetime.fromtimestamp(judged.file.lstat().st_mtime, UTC)
    return min(found, timezone.now())


def _known(origin: Origin, into: Database | None) -> Backup | None:
    """The good backup that this very database was imported as, into ``into`` if that is given."""
    same = Backup.objects.filter(origin_sha256=origin.sha256, state=Backup.State.VERIFIED)
    if into is not None:
        same = same.filter(database=into)
    return same.select_related("database").order_by("created_at").first()


def _note(judged: Judged) -> str:
    clock = "its newest row" if judged.newest_row_at else "its file"
    digest = f", SHA-256 {judged.sha256}" if judged.sha256 else ""
    return f"Imported from {judged.path} ({judged.format}{digest}). The time is that of {clock}."


def _require_verified(backup: Backup) -> None:
    if backup.state == Backup.State.VERIFIED:
        return
    raise ImportFailedError(backup)


class ImportFailedError(BackupError):
    """The engine could not prove the backup; its row says why."""

    def __init__(self, backup: Backup) -> None:
        super().__init__(backup.reason, backup.hint)
        self.backup = backup
        self.code = backup.failure_code or BackupError.code
        self.exit_code = EXIT_CODES.get(self.code, BackupError.exit_code)


def database_name(judged: Judged) -> str:
    """What a database is called after its archive: the file's name without suffixes and without a time.

    One that is nothing but a time is called after its folder. So all archives of one database come together.
    """
    name = PurePosixPath((judged.member or "").rpartition("!")[2] or judged.file.name).name
    while True:
        stem, dot, suffix = name.rpartition(".")
        if not stem or not dot or not suffix or len(suffix) > _MAX_SUFFIX or suffix.isdigit():
            break
        name = stem
    plain = _TIME_IN_NAME.sub("", name).strip(" -_.")
    return (plain or judged.file.parent.name or name).encode("utf-8", "backslashreplace").decode()
