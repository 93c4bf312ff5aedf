"""Ask for work in the background: one waiting job per database and kind, however many ask."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import Any

from django.db import IntegrityError, transaction

from ... import conf
from ...core.errors import BusyError, RefusedError
from ...jobs.queue import wake
from ...models import Backup, Database, Job, Restore, Verification
from ..audit import Actor
from ..copies import require_copies
from ..wording import english

_MAX_TRIES = 20
"""Each try is lost only to somebody who asked, claimed or merged in between."""


def ask_create(database: Database, *, actor: Actor, trigger: str, note: str = "") -> Job:
    """Ask for a verified backup; who asks while one waits gets that one, with both notes."""
    return ask_job(Job.Kind.CREATE, database, actor=actor, trigger=trigger, options={"note": note} if note else {})


def ask_verify(backups: list[Backup], *, level: str, actor: Actor, trigger: str) -> list[Job]:
    """Ask for verifications of stored copies: one job per database, joined with what waits already.

    Raises:
        NotFoundError: one of them has no stored copy. Nothing was asked for.
    """
    by_database: dict[Database, list[str]] = defaultdict(list)
    for backup in backups:
        require_copies(backup)
        by_database[backup.database].append(backup.pk)
    return [
        ask_job(Job.Kind.VERIFY, database, actor=actor, trigger=trigger, options={"backups": ids, "level": level})
        for database, ids in by_database.items()
    ]


def ask_due(database: Database, *, actor: Actor, trigger: str) -> Job:
    """Ask for what is due to be proven again of ``database``, and its newest verified backup."""
    return ask_job(Job.Kind.VERIFY, database, actor=actor, trigger=trigger, options={"due": True})


def ask_prune(database: Database, *, actor: Actor, trigger: str) -> Job:
    """Ask for what the retention policy of ``database`` no longer keeps to be deleted."""
    return ask_job(Job.Kind.PRUNE, database, actor=actor, trigger=trigger)


def ask_drill(database: Database, *, actor: Actor, trigger: str) -> Job:
    """Ask for a rehearsal of a restore of the newest verified backup, away from the live database."""
    return ask_job(Job.Kind.DRILL, database, actor=actor, trigger=trigger)


def ask_restore(restore: Restore, *, actor: Actor, trigger: str) -> Job:
    """Ask for an approved restore to be run; asking twice for the same one gives the same job.

    Raises:
        RefusedError: it is not approved. BusyError: another job of that database runs, or another
            restore of it waits; the approval may be used later.
    """
    restore.refresh_from_db()
    if restore.state != Restore.State.APPROVED:
        raise RefusedError(
            f"Restore {restore.pk} is {english(restore, 'state')}; only an approved one can run.",
            "File a new request.",
        )
    running = Job.objects.filter(database=restore.database, state=Job.State.RUNNING).first()
    if running is not None:
        raise BusyError(
            f"Another job of {restore.database.name} is running (job {running.pk}, {english(running, 'kind')}).",
            "Try again when it has ended.",
        )
    job = ask_job(Job.Kind.RESTORE, restore.database, actor=actor, trigger=trigger, restore=restore)
    if job.restore_id != restore.pk:
        raise BusyError(
            f"Restore {job.restore_id} of {restore.database.name} waits already (job {job.pk}).",
            "Try again when it has ended, or cancel it.",
        )
    return job


def ask_job(
    kind: str,
    database: Database | None,
    *,
    actor: Actor,
    trigger: str,
    options: dict[str, Any] | None = None,
    restore: Restore | None = None,
) -> Job:
    """Add a queued job, or join the one that waits; a worker is woken when the transaction commits.

    Options of the same kind are joined: notes are kept both, backups to verify are put together,
    the deeper level counts. A waiting restore is never joined with another: its job is returned.
    """
    wanted = options or {}
    # The host that has the database does the work; what concerns no database is done where it was asked for.
    host = (database.host if database else "") or conf.host_name()
    for _attempt in range(_MAX_TRIES):
        try:
            with transaction.atomic(using=conf.CATALOG_ALIAS):
                job = Job.objects.create(
                    kind=kind,
                    database=database,
                    restore=restore,
                    host=host,
                    options=wanted,
                    trigger=trigger,
                    requested_by_id=actor.id,
                    requested_by_name=actor.name,
                )
        except IntegrityError:
            joined = _join(kind, database, wanted)
            if joined is None:
                continue  # it was claimed in between: there is room for a new one
            job = joined
        transaction.on_commit(partial(wake, job.pk), using=conf.CATALOG_ALIAS)
        return job
    raise BusyError("The queue is too busy to take the job.", "Try again in a moment.")


def _join(kind: str, database: Database | None, wanted: dict[str, Any]) -> Job | None:
    """Add what is wanted to the job that waits; None when none waits any more."""
    for _attempt in range(_MAX_TRIES):
        waiting = Job.objects.filter(kind=kind, database=database, state=Job.State.QUEUED).first()
        if waiting is None:
            return None
        both = joined_options(waiting.options, wanted)
        if both == waiting.options:
            return waiting
        mine = Job.objects.filter(pk=waiting.pk, state=Job.State.QUEUED, options=waiting.options)
        if mine.update(options=both):
            waiting.options = both
            return waiting
    return None


def joined_options(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """The options of one job that does what two were asked for."""
    both = {**second, **first}
    notes = [note for each in (first, second) for note in str(each.get("note", "")).split("; ") if note]
    if notes:
        both["note"] = "; ".join(dict.fromkeys(notes))
    if "backups" in first or "backups" in second:
        both["backups"] = list(dict.fromkeys([*first.get("backups", []), *second.get("backups", [])]))
        if "backups" not in first or "backups" not in second:
            both["due"] = True  # one of them asked for whatever is due
    levels = {first.get("level"), second.get("level")}
    deepest = next((each for each in (Verification.Level.DRILL, Verification.Level.FULL) if each in levels), None)
    if deepest is not None:
        both["level"] = str(deepest)
    return both
