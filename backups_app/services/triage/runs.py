"""Triage from the admin: ask for it, do it as a job, and keep one row per file.

Three things are asked for, each a job of its own: to judge, to import good files of a finished
run, to delete its useless ones. What was asked for is checked again when the job begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from ... import conf
from ...core.errors import BackupError, CancelledError, DeadlineError, NotFoundError, RefusedError
from ...core.progress import Watch
from ...core.quarantine import Received
from ...core.triage import FileIdentity, Judged, Totals, Verdict
from ...jobs.claim import Claim
from ...models import Database, Job, TriageFile, TriageRun
from .. import audit
from ..audit import Actor
from ..importing import import_archive, is_importable
from ..jobs.ask import ask_job
from ..jobs.ending import Ending
from ..quarantine import quarantined_path, remove_upload
from .deleting import delete_useless
from .judging import judge_files, plan_of
from .options import triage_options

JUDGE, IMPORT, DELETE = "judge", "import", "delete"

_BATCH = 50
_NAME_LENGTH = 255


def allowed_path(given: str) -> Path:
    """A folder or file that the admin may have judged, absolute with links resolved.

    Raises:
        RefusedError: it lies outside BACKUPS["TRIAGE_ROOTS"], or is not there; nothing says which.
    """
    try:
        path = Path(given).resolve()
        is_allowed = any(root == path or root in path.parents for root in conf.triage_roots()) and path.exists()
    except (OSError, RuntimeError, ValueError):
        is_allowed = False
    if not Path(given).is_absolute() or not is_allowed:
        raise RefusedError(
            f"{given} cannot be judged: it is not there, or lies outside the folders that are open to triage.",
            "Give a path below one of BACKUPS['TRIAGE_ROOTS'].",
        )
    return path


def ask_triage(paths: Sequence[str], *, actor: Actor, trigger: str) -> TriageRun:
    """Ask for a triage of folders or files below ``TRIAGE_ROOTS``; a worker does it.

    Raises:
        RefusedError: one of them may not be judged. Nothing was asked for.
    """
    allowed = [str(allowed_path(each)) for each in paths]
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        run = TriageRun.objects.create(
            paths=list(dict.fromkeys(allowed)), requested_by_id=actor.id, requested_by_name=actor.name
        )
        job = ask_job(Job.Kind.TRIAGE, None, actor=actor, trigger=trigger, options={"do": JUDGE, "run": run.pk})
        TriageRun.objects.filter(pk=run.pk).update(job=job)
        audit.record("triage", actor=actor, subject=run.pk, detail=f"asked for: {', '.join(allowed)}")
    run.refresh_from_db()
    return run


def ask_upload_triage(received: Received, *, name: str, actor: Actor, trigger: str) -> TriageRun:
    """Ask for a triage of a file that was uploaded into quarantine; ``name`` is what the sender called it."""
    named = _storable(name).strip()[:_NAME_LENGTH] or "?"
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        run = TriageRun.objects.create(
            paths=[str(received.path)],
            upload_name=named,
            requested_by_id=actor.id,
            requested_by_name=actor.name,
        )
        options = {"do": JUDGE, "run": run.pk, "upload": received.sha256}
        job = ask_job(Job.Kind.TRIAGE, None, actor=actor, trigger=trigger, options=options)
        TriageRun.objects.filter(pk=run.pk).update(job=job)
        detail = f"{named}: {received.size_bytes:,} bytes, SHA-256 {received.sha256}, job {job.pk}"
        audit.record("upload", actor=actor, subject=run.pk, detail=detail)
    run.refresh_from_db()
    return run


def importable_files(run: TriageRun) -> QuerySet[TriageFile]:
    """The files and members of a run that hold data and were not imported yet."""
    return run.files.filter(is_importable=True, backup=None)


def useless_files(run: TriageRun) -> QuerySet[TriageFile]:
    """The files of a run that are useless and still there."""
    return run.files.filter(is_useless=True, member="", deleted_at=None)


def among(rows: QuerySet[TriageFile], files: Sequence[int]) -> QuerySet[TriageFile]:
    """Those of ``rows`` that have one of these ids; all of them when no id is given."""
    return rows.filter(pk__in=files) if files else rows


def ask_import(
    run: TriageRun, *, files: Sequence[int] = (), into: Database | None = None, actor: Actor, trigger: str
) -> Job:
    """Ask for an import of the good files of a run, or of those among ``files`` (their ids).

    Raises:
        RefusedError: the run is not over, or none of these can be imported; or it is an upload, and
            ``into`` is missing.
    """
    if run.is_upload and into is None:
        raise RefusedError("An upload is imported into a database under care.", "Name the database.")
    chosen = among(importable_files(run), files)
    options = {"into": into.name} if into else {}
    return _ask(run, chosen, do=IMPORT, options=options, actor=actor, trigger=trigger)


def ask_deletion(run: TriageRun, *, files: Sequence[int] = (), actor: Actor, trigger: str) -> Job:
    """Ask for the deletion of the useless files of a run, or of those among ``files`` (their ids).

    Raises:
        RefusedError: the run is not over, or none of these is useless.
    """
    chosen = among(useless_files(run), files)
    return _ask(run, chosen, do=DELETE, options={}, actor=actor, trigger=trigger)


def _ask(
    run: TriageRun, chosen: QuerySet[TriageFile], *, do: str, options: dict[str, Any], actor: Actor, trigger: str
) -> Job:
    if run.job is not None and run.job.is_open:
        raise RefusedError("This triage is not over.", "Wait for its job to end, or cancel it.")
    if run.upload_removed_at is not None:
        raise RefusedError("The uploaded file was removed.", "Upload it again.")
    ids = list(chosen.order_by("pk").values_list("pk", flat=True))
    if not ids:
        raise RefusedError(f"There is nothing to {do}: it was done already.", "Look at the list of files.")
    wanted = {"do": do, "run": run.pk, "files": ids, **options}
    job = ask_job(Job.Kind.TRIAGE, None, actor=actor, trigger=trigger, options=wanted)
    audit.record(f"ask-{do}", actor=actor, subject=run.pk, detail=f"{len(ids)} files, job {job.pk}")
    return job


def run_claimed_triage(claim: Claim, *, actor: Actor) -> Ending:
    """Do what the job of ``claim`` was asked for; what was done before a cancel stays done.

    Raises:
        NotFoundError: the job names no run. CancelledError, DeadlineError: from the claim.
            BackupError: keys or scratch folder cannot be used.
    """
    asked = claim.job.options
    run = TriageRun.objects.filter(pk=str(asked.get("run", ""))).first()
    if run is None:
        raise NotFoundError("The job names no triage.", "Ask again.")
    if asked.get("do") == JUDGE:
        return _judge(run, claim)
    files = list(run.files.filter(pk__in=asked.get("files", [])))
    if asked.get("do") == IMPORT:
        ending = _import(run, files, claim, into=_into(asked), actor=actor)
        if run.is_upload and not importable_files(run).exists():
            remove_upload(run, actor=actor, why="it was imported")
        return ending
    return _delete(run, files, claim, actor=actor)


def _path_in(run: TriageRun, given: str) -> Path:
    """The path of a file of ``run``, if it may be opened still."""
    return quarantined_path(given) if run.is_upload else allowed_path(given)


# Judge


def _judge(run: TriageRun, claim: Claim) -> Ending:
    paths = [_path_in(run, each) for each in run.paths]  # a setting may have changed since
    run.files.all().delete()  # of an attempt that was interrupted
    options, totals, watch = triage_options(), Totals(), claim.watch()
    found = judge_files(plan_of(paths), options=options, watch=watch, on_progress=watch.report)
    try:
        for batch in _batches(found):
            _keep(run, batch, totals)
    except (CancelledError, DeadlineError):
        TriageRun.objects.filter(pk=run.pk).update(totals=totals.as_dict())
        raise
    TriageRun.objects.filter(pk=run.pk).update(totals=totals.as_dict(), finished_at=timezone.now())
    sums = totals.as_dict()
    good = sums["verdicts"]["holds data"]["files"]
    return Ending.succeeded(
        f"{_counted(sums['files'], 'file was', 'files were')} judged: {_counted(good, 'holds', 'hold')} data, "
        f"{_counted(sums['reclaimable_files'], 'is', 'are')} useless "
        f"({sums['reclaimable_bytes']:,} bytes can be reclaimed)."
    )


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _batches(found: Iterator[Judged]) -> Iterator[list[Judged]]:
    """A few at a time, those before a cancel too."""
    batch: list[Judged] = []
    try:
        for judged in found:
            batch.append(judged)
            if len(batch) >= _BATCH:
                yield batch
                batch = []
    except (CancelledError, DeadlineError):
        yield batch
        raise
    yield batch


def _keep(run: TriageRun, batch: list[Judged], totals: Totals) -> None:
    for judged in batch:
        totals.add(judged)
    TriageFile.objects.bulk_create([_row_of(run, judged) for judged in batch])
    TriageRun.objects.filter(pk=run.pk).update(totals=totals.as_dict())


def _row_of(run: TriageRun, judged: Judged) -> TriageFile:
    return TriageFile(
        run=run,
        path=_shown_path(run, judged),
        location=os.fsencode(judged.file),
        member=_storable(judged.member or ""),
        device="{}:{}".format(*judged.identity) if judged.identity else "",
        format=_storable(judged.format)[:200],
        verdict=judged.verdict,
        reason=_storable(judged.reason),
        tables=judged.tables,
        rows=judged.rows,
        newest_row_at=datetime.fromisoformat(judged.newest_row_at) if judged.newest_row_at else None,
        size_bytes=judged.size_bytes,
        sha256=judged.sha256 or "",
        is_judged=judged.is_judged,
        is_useless=judged.is_useless and judged.member is None,
        is_importable=is_importable(judged),
    )


def _shown_path(run: TriageRun, judged: Judged) -> str:
    """The path for people: of an upload what the sender called it, since the one in quarantine says nothing."""
    shown = judged.path.replace(str(judged.file), run.upload_name, 1) if run.is_upload else judged.path
    return _storable(shown)


def _storable(text: str) -> str:
    """Text as every database can hold it."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _judged_of(row: TriageFile) -> Judged:
    """The judgement that a row keeps, as far as importing and deleting need it."""
    return Judged(
        file=Path(os.fsdecode(bytes(row.location))),
        path=row.path,
        verdict=cast(Verdict, row.verdict),
        format=row.format,
        reason=row.reason,
        tables=row.tables,
        rows=row.rows,
        newest_row_at=None,
        size_bytes=row.size_bytes,
        sha256=row.sha256 or None,
        is_judged=row.is_judged,
        is_useless=row.is_useless,
        member=row.member or None,
        identity=_identity_of(row),
    )


def _identity_of(row: TriageFile) -> FileIdentity | None:
    device, _colon, number = row.device.partition(":")
    return (int(device), int(number)) if number else None


# Import and delete


@dataclass
class _Counts:
    """How the files of a job fared."""

    done: int = 0
    same: int = 0
    problems: int = 0
    size_bytes: int = 0

    def ending(self, what: str) -> Ending:
        """A success, also when some were not done: each says why in its row."""
        parts = [f"{self.done:,} {what}"]
        if self.same:
            parts.append(f"{self.same:,} were imported before")
        if self.problems:
            parts.append(f"{self.problems:,} not: the list of files says why")
        text = f"{', '.join(parts)}."
        if self.problems and not self.done and not self.same:
            return Ending(state=Job.State.FAILED, outcome=text, hint="Look at the files.", code=BackupError.code)
        return Ending.succeeded(text)


def _into(asked: dict[str, Any]) -> Database | None:
    if "into" not in asked:
        return None
    database = Database.objects.filter(name=asked["into"], is_under_care=True).first()
    if database is None:
        raise NotFoundError(f"There is no database {asked['into']!r} under care any more.", "Ask again.")
    return database


def _import(run: TriageRun, files: list[TriageFile], claim: Claim, *, into: Database | None, actor: Actor) -> Ending:
    options, counts, watch = triage_options(), _Counts(), claim.watch()
    for row in _with_progress(files, watch, phase=IMPORT):
        try:
            _path_in(run, os.fsdecode(bytes(row.location)))
            found = import_archive(
                _judged_of(row),
                into=into,
                options=options,
                actor=actor,
                trigger=claim.job.trigger,
                is_cancelled=partial(_is_over, watch),
            )
        except BackupError as exc:
            watch.check()
            counts.problems += 1
            _say(row, exc.message)
            continue
        counts.done += found.is_new
        counts.same += not found.is_new
        TriageFile.objects.filter(pk=row.pk).update(backup=found.backup, outcome="")
    return counts.ending("imported")


def _delete(run: TriageRun, files: list[TriageFile], claim: Claim, *, actor: Actor) -> Ending:
    counts, watch = _Counts(), claim.watch()
    for row in _with_progress(files, watch, phase=DELETE):
        try:
            _path_in(run, os.fsdecode(bytes(row.location)))
            delete_useless(_judged_of(row), actor=actor, watch=watch)
        except BackupError as exc:
            watch.check()
            counts.problems += 1
            _say(row, exc.message)
            continue
        counts.done += 1
        TriageFile.objects.filter(pk=row.pk).update(deleted_at=timezone.now(), outcome="")
    return counts.ending("deleted")


def _with_progress(files: list[TriageFile], watch: Watch, *, phase: str) -> Iterator[TriageFile]:
    """The files that are left to do, with the bytes of all of them as progress."""
    total, done = sum(each.size_bytes for each in files), 0
    for row in files:
        watch.report(phase, done, total)
        if row.deleted_at is None and row.backup_id is None:
            yield row
        done += row.size_bytes
    watch.report(phase, total, total)


def _is_over(watch: Watch) -> bool:
    try:
        watch.check()
    except (CancelledError, DeadlineError):
        return True
    return False


def _say(row: TriageFile, outcome: str) -> None:
    TriageFile.objects.filter(pk=row.pk).update(outcome=_storable(outcome))
