"""Find the jobs of dead owners, learn what became of them, and queue them again or close them."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from ... import conf
from ...jobs.claim import job_lock
from ...jobs.queue import wake
from ...models import AuditEvent, Backup, Database, Job, Restore
from .. import audit
from ..audit import Actor
from ..heal import heal_interrupted
from ..hosts import here
from ..restores.heal import heal_restores
from .ending import Ending, close

logger = logging.getLogger(__name__)

GIVEN_UP_AFTER = timedelta(hours=1)
"""How long a running job of another host may be silent; it writes a sign of life every two seconds."""

MAX_ATTEMPTS = 3
"""How often a job is begun before it is given up: what kills its worker each time must not do so for ever."""


def reap_jobs() -> list[Job]:
    """Settle every job of this host whose owner died; returns them as they are now.

    Backups, verifications and the like are queued again; a restore ends as what the live database
    says. A restore that cannot be judged while its database is locked stays ``running``.
    """
    heal_interrupted()
    dead = []
    for job in _running_here():
        with job_lock(job.database) as is_ours:
            if is_ours and _bury(job):
                dead.append(job)
    for job in dead:
        if job.state == Job.State.QUEUED:
            wake(job.pk)
    return dead


def bury_dead_of(database: Database | None) -> None:
    """:func:`reap_jobs` for one database, by a process that holds its lock."""
    heal_interrupted()
    for job in _running_here().filter(database=database):
        _bury(job)


def _running_here() -> QuerySet[Job]:
    """What runs on this host. The lock of another host's job is there: that it is free here means nothing."""
    return Job.objects.filter(here(), state=Job.State.RUNNING).select_related("database")


def give_up_lost_jobs(*, now: datetime) -> list[Job]:
    """Mark running jobs of other hosts as interrupted that gave no sign of life for ``GIVEN_UP_AFTER``; returns them.

    Nothing else is touched: what they left is cleaned up by their own host when it is back, and how a
    restore ended is found out there, from the live database. A host that was only cut off loses the
    claim, and stops that work.
    """
    if conf.is_catalog_local():
        return []
    lost = Job.objects.filter(state=Job.State.RUNNING, heartbeat_at__lt=now - GIVEN_UP_AFTER).exclude(here())
    return [job for job in lost.select_related("database") if _close(job, _lost(job))]


def _lost(job: Job) -> Ending:
    return Ending(
        state=Job.State.INTERRUPTED,
        outcome=f"Nothing was heard of this job since {job.heartbeat_at:%Y-%m-%d %H:%M} UTC; its host is {job.host}.",
        hint=f"Look after {job.host}. When it is back it cleans up, and finds out how a restore ended.",
        code="interrupted",
    )


def _bury(job: Job) -> bool:
    """Settle a job whose lock this process holds, so nobody works on it; False when it is settled or stays."""
    token = job.token
    job.refresh_from_db()
    if job.state != Job.State.RUNNING or job.token != token:
        return False
    ending = _ending_of_dead(job)
    if ending is None:
        return False
    if ending.state == Job.State.QUEUED and _queue_again(job, ending):
        return True
    if ending.state == Job.State.QUEUED:
        ending = Ending(
            state=Job.State.INTERRUPTED,
            outcome="The process that did this job ended before it was finished.",
            hint="Another job of the same kind waits already and does its work.",
            code="interrupted",
        )
    return _close(job, ending)


def _ending_of_dead(job: Job) -> Ending | None:
    """What became of the work; None while that cannot be told."""
    if job.kind == Job.Kind.RESTORE:
        return _ending_of_restore(job)
    if job.kind == Job.Kind.CREATE:
        backup = job.backups.order_by("-created_at").first()
        if backup is not None and backup.state == Backup.State.RUNNING:
            return None  # its files cannot be removed yet
        if backup is not None and backup.failure_code != "interrupted":
            return Ending.of_backup(backup)  # all but the job's own row was written
    return _interrupted(job)


def _interrupted(job: Job) -> Ending:
    if job.cancel_requested_at is not None:
        return Ending(state=Job.State.CANCELLED, outcome="It was cancelled, and its process ended.", code="cancelled")
    if job.is_inline or job.attempts >= MAX_ATTEMPTS:
        tries = f" It was tried {job.attempts} times." if job.attempts > 1 else ""
        return Ending(
            state=Job.State.INTERRUPTED,
            outcome=f"The process that did this job ended before it was finished.{tries}",
            hint="Nothing half-made is left. Ask for it again.",
            code="interrupted",
        )
    return Ending(state=Job.State.QUEUED)


def _ending_of_restore(job: Job) -> Ending | None:
    restore = job.restore
    if restore is None:
        return _interrupted(job)
    was_running = restore.state == Restore.State.RUNNING
    heal_restores()
    restore.refresh_from_db()
    if restore.state == Restore.State.RUNNING:
        return None  # its database is locked: how it ended cannot be told yet
    if restore.state == Restore.State.APPROVED:
        return _interrupted(job)  # nothing was begun
    if not was_running:
        return Ending.of_restore(restore)
    return Ending(
        state=Job.State.INTERRUPTED,
        outcome=restore.outcome or "The process ended after the database was exchanged; the check was not made.",
        hint=restore.hint,
        code="interrupted",
    )


def _queue_again(job: Job, ending: Ending) -> bool:
    try:
        with transaction.atomic(using=conf.CATALOG_ALIAS):
            changed = Job.objects.filter(pk=job.pk, state=Job.State.RUNNING, token=job.token).update(
                state=ending.state,
                owner="",
                phase="",
                phase_started_at=None,
                done_bytes=0,
                total_bytes=0,
                woken_at=None,
            )
    except IntegrityError:
        return False
    if changed:
        logger.warning("Job %s was queued again: its process ended.", job.pk)
        job.refresh_from_db()
    return bool(changed)


def _close(job: Job, ending: Ending) -> bool:
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        if not close(job, ending):
            return False
        is_good = ending.state == Job.State.SUCCEEDED
        audit.record(
            f"{job.kind}-job",
            actor=Actor.system(),
            outcome=AuditEvent.Outcome.DONE if is_good else AuditEvent.Outcome.FAILED,
            database_name=job.database.name if job.database else "",
            subject=job.pk,
            detail=f"{ending.state}: its process ended" + (f": {ending.outcome}" if ending.outcome else ""),
        )
    return True
