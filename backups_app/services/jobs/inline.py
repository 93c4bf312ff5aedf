"""Do a job in this process, under the same claim that a worker takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from django.db import IntegrityError, transaction

from ... import conf
from ...core.errors import BackupError, BusyError, CancelledError, translated
from ...jobs.claim import Claim, insert_claimed, job_lock
from ...models import Database, Job, Restore
from ..audit import Actor
from ..hosts import require_here
from ..wording import english
from .ending import Ending, finish

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2

Result = TypeVar("Result")


def run_inline(
    kind: str,
    database: Database,
    *,
    actor: Actor,
    trigger: str,
    work: Callable[[Claim], Result],
    ending_of: Callable[[Result], Ending],
    is_cancelled: Callable[[], bool] | None = None,
    restore: Restore | None = None,
    options: dict[str, Any] | None = None,
) -> Result:
    """Claim ``database``, do ``work``, and record a job of ``kind`` that ended as ``ending_of`` says.

    Backups and verifications wait their turn behind each other for ``QUEUE_WAIT_SECONDS``; a
    restore does not wait, and nothing waits for a restore.

    Raises:
        RefusedError: the database is on another host. BusyError: the turn did not come. CancelledError: the
            caller gave up while waiting. No job was recorded then. Whatever ``work`` raises, recorded as
            the end of the job.
    """
    require_here(database)
    job = Job(
        kind=kind,
        database=database,
        restore=restore,
        options=options or {},
        trigger=trigger,
        requested_by_id=actor.id,
        requested_by_name=actor.name,
        is_inline=True,
    )
    with _turn(job, is_cancelled=is_cancelled):
        claim = _insert(job)
        with recorded(claim):
            result = work(claim)
            finish(claim, ending_of(result))
    return result


@contextmanager
def recorded(claim: Claim) -> Iterator[None]:
    """Keep a claim alive until the block ends, and record an exception as the end of its job."""
    with claim.alive():
        try:
            yield
        except BackupError as exc:
            finish(claim, Ending.of(exc))
            raise
        except Exception as exc:
            finish(claim, unexpected(claim, exc))
            raise
        except BaseException:
            finish(claim, Ending.of(CancelledError("The process was told to end.", "Ask for it again.")))
            raise


def unexpected(claim: Claim, exc: Exception) -> Ending:
    """The ending of a job that met an error which nobody foresaw."""
    logger.error("An unexpected error ended job %s", claim.job.pk, exc_info=exc)
    return Ending(
        state=Job.State.FAILED,
        outcome=f"An unexpected error ended the job: {type(exc).__name__}.",
        hint="See the log of the process; please report it.",
        code=BackupError.code,
    )


@contextmanager
def _turn(job: Job, *, is_cancelled: Callable[[], bool] | None) -> Iterator[None]:
    """Hold the lock of the job's database, waiting for it where the kinds allow."""
    deadline = time.monotonic() + float(conf.get("QUEUE_WAIT_SECONDS"))
    while True:
        with translated("taking the lock of the database"), job_lock(job.database) as is_ours:
            if is_ours:
                yield
                return
        _refuse_waiting(job, is_over=time.monotonic() > deadline)
        if is_cancelled is not None and is_cancelled():
            raise CancelledError("The work was cancelled.", "It had not begun.")
        time.sleep(_POLL_SECONDS)


def _refuse_waiting(job: Job, *, is_over: bool) -> None:
    running = Job.objects.filter(database=job.database, state=Job.State.RUNNING).first()
    name = job.database.name if job.database else "what was asked for"
    if running is not None and Job.Kind.RESTORE in (job.kind, running.kind):
        what = "A restore" if running.kind == Job.Kind.RESTORE else "Another job"
        raise BusyError(
            f"{what} of {name} is running (job {running.pk}, {english(running, 'kind')}).",
            "Try again when it has ended.",
        )
    if is_over or (running is None and job.kind == Job.Kind.RESTORE):
        raise BusyError(f"Another job of {name} is running.", "Try again when it has ended.")


def _insert(job: Job) -> Claim:
    try:
        with transaction.atomic(using=conf.CATALOG_ALIAS):
            return insert_claimed(job)
    except IntegrityError:
        # The lock is ours and yet a row says "running": its owner died. That must be settled first.
        from .reap import bury_dead_of

        bury_dead_of(job.database)
    try:
        with transaction.atomic(using=conf.CATALOG_ALIAS):
            return insert_claimed(job)
    except IntegrityError as exc:
        name = job.database.name if job.database else "what was asked for"
        raise BusyError(
            f"An earlier job of {name} ended without a record, and how it ended cannot be told yet.",
            "Try again when the database can be read; `manage.py backup status` says more.",
        ) from exc
