"""What a worker does with the id of a job."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable

from django.db import Error, IntegrityError, transaction

from ... import conf
from ...core.errors import BackupError, NotFoundError
from ...jobs.claim import Claim, claim_queued, job_lock
from ...jobs.queue import wake
from ...models import Backup, Database, Job, Verification
from ..audit import Actor
from ..create import create_claimed_backup
from ..hosts import is_here
from ..prune import prune_claimed_database
from ..recopy import recopy_claimed_database
from ..restores.run import run_claimed_restore
from ..scrub import newest_verified, scrub_claimed_database
from ..triage.runs import run_claimed_triage
from ..verify import verify_claimed_backup
from .ending import Ending, finish
from .inline import recorded
from .reap import bury_dead_of

logger = logging.getLogger(__name__)


def run_job(job_id: str) -> None:
    """Do a queued job, once, whoever else was woken for it; never raises for what the job meets.

    Nothing happens when it is not queued any more, or another host's. While another job of its database runs it
    stays queued: the end of that one, or the clock, wakes somebody for it.
    """
    job = Job.objects.select_related("database").filter(pk=job_id, state=Job.State.QUEUED).first()
    if job is None:
        return
    if not conf.is_this_host(job.host) or not (job.database is None or is_here(job.database)):
        logger.warning("Job %s is left to the host %s.", job.pk, job.host)
        return
    with job_lock(job.database) as is_ours:
        if not is_ours:
            return
        claim = _claim(job)
        if claim is None:
            return
        _do(claim)
    try:
        wake_waiting_of(job.database)
    except Error as exc:
        logger.warning(
            "The catalogue could not be reached (%s); what waits is called by the clock.", type(exc).__name__
        )


def wake_waiting_of(database: Database | None) -> None:
    """Wake a worker for what waited for this database, the oldest first."""
    waiting = Job.objects.filter(database=database, state=Job.State.QUEUED).order_by("created_at").first()
    if waiting is not None:
        wake(waiting.pk)


def _claim(job: Job) -> Claim | None:
    for _attempt in range(2):
        try:
            with transaction.atomic(using=conf.CATALOG_ALIAS):
                return claim_queued(job.pk)
        except IntegrityError:
            # The lock is ours and yet another row says "running": its owner died.
            bury_dead_of(job.database)
    logger.warning("Job %s waits: an earlier job of its database ended without a record.", job.pk)
    return None


def _do(claim: Claim) -> None:
    try:
        with recorded(claim):
            finish(claim, _WORK[claim.job.kind](claim))
    except BackupError as exc:
        logger.info("Job %s: %s", claim.job.pk, exc.message)
    except Exception:  # noqa: BLE001 - recorded and logged; the worker goes on with the next one
        logger.info("Job %s failed.", claim.job.pk)


def actor_of(job: Job) -> Actor:
    """Who asked for a job."""
    return Actor(id=job.requested_by_id, name=job.requested_by_name)


def _database_of(job: Job) -> Database:
    if job.database is None:
        raise NotFoundError("The job names no database.", "Ask again.")
    return job.database


def _create(claim: Claim) -> Ending:
    job = claim.job
    note = str(job.options.get("note", ""))
    backup = create_claimed_backup(
        _database_of(job), actor=actor_of(job), trigger=job.trigger, note=note, job=job, watch=claim.watch()
    )
    return Ending.of_backup(backup)


def _verify(claim: Claim) -> Ending:
    job, watch = claim.job, claim.watch()
    level = str(job.options.get("level", Verification.Level.FULL))
    found = list(job.verifications.order_by("pk"))  # by an attempt that was interrupted
    if "due" in job.options or "backups" not in job.options:
        found += scrub_claimed_database(_database_of(job), actor=actor_of(job), job=job, watch=watch)
    judged: dict[str, set[str]] = defaultdict(set)
    for each in found:
        if each.level == level:
            judged[each.backup_id].add(each.destination)
    for backup in _backups_of(job):
        found += verify_claimed_backup(
            backup, level=level, actor=actor_of(job), job=job, watch=watch, judged=judged[backup.pk]
        )
    return Ending.of_verifications(found)


def _backups_of(job: Job) -> list[Backup]:
    """The backups that a job names. Those that were pruned in the meantime are nobody's loss."""
    named = Backup.objects.select_related("database").filter(
        database=job.database, pk__in=job.options.get("backups", [])
    )
    return list(named.exclude(state__in=Backup.GONE_STATES))


def _prune(claim: Claim) -> Ending:
    job = claim.job
    return prune_claimed_database(_database_of(job), actor=actor_of(job), watch=claim.watch()).ending()


def _drill(claim: Claim) -> Ending:
    job, watch = claim.job, claim.watch()
    newest = newest_verified(_database_of(job))
    drills = verify_claimed_backup(newest, level=Verification.Level.DRILL, actor=actor_of(job), job=job, watch=watch)
    return Ending.of_verifications(drills)


def _copy(claim: Claim) -> Ending:
    job = claim.job
    return recopy_claimed_database(_database_of(job), actor=actor_of(job), job=job, watch=claim.watch()).ending()


def _restore(claim: Claim) -> Ending:
    job = claim.job
    if job.restore is None:
        raise NotFoundError("The job names no restore.", "Ask again.")
    restore = run_claimed_restore(job.restore, actor=actor_of(job), job=job, watch=claim.watch())
    return Ending.of_restore(restore)


def _triage(claim: Claim) -> Ending:
    return run_claimed_triage(claim, actor=actor_of(claim.job))


_WORK: dict[str, Callable[[Claim], Ending]] = {
    Job.Kind.CREATE: _create,
    Job.Kind.VERIFY: _verify,
    Job.Kind.RESTORE: _restore,
    Job.Kind.PRUNE: _prune,
    Job.Kind.DRILL: _drill,
    Job.Kind.TRIAGE: _triage,
    Job.Kind.COPY: _copy,
}
