"""See to it that what waits is done: call workers again, and notice when none of them answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Max, Q

from ... import conf
from ...jobs.queue import waiting_calls, wake, worker_count
from ...models import Job

_PATIENCE = timedelta(seconds=10)
"""How long a call may go unanswered. Taking a job takes a fraction of a second."""

_MOST_CALLS = 20


def wake_waiting(*, now: datetime) -> int:
    """Call a worker of this host again for its jobs that could run and that nobody took; returns how many calls.

    Only when no call is waiting in the queue: else the workers are slow, or dead, and more calls
    would only pile up.
    """
    ready = [job for job in _ready_here() if job.woken_at is None or job.woken_at <= now - _PATIENCE]
    if not ready or waiting_calls() != 0:
        return 0
    return sum(wake(job.pk) for job in ready[:_MOST_CALLS])


def _ready_here() -> list[Job]:
    return [job for job in ready_jobs() if conf.is_this_host(job.host)]


def ready_jobs() -> list[Job]:
    """The queued jobs, of all hosts, that wait for no other job, the oldest first."""
    running = Job.objects.filter(state=Job.State.RUNNING).only("database", "host")
    occupied = {turn_of(job) for job in running}
    waiting = Job.objects.filter(state=Job.State.QUEUED).order_by("created_at").select_related("database")
    return [job for job in waiting if turn_of(job) not in occupied]


def turn_of(job: Job) -> int | str:
    """What no two jobs have at once: their database or, without one, their host, by its lock (``claim.job_lock``)."""
    return job.database_id or ("" if conf.is_catalog_local() else job.host)


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """What the rows say of the workers of this host."""

    is_stalled: bool
    reason: str
    busy_generations: frozenset[str]
    """Lives of the worker that have a running job."""


def look_at_workers(*, now: datetime) -> WorkerState:
    """Whether jobs wait though a worker is free and calls are sent, and nothing has moved for a while.

    A killed idle worker holds the lock of django-q2's task queue for ever, so its siblings get
    nothing any more, while all of them look alive.
    """
    here = Job.objects.filter(host=conf.host_name(), is_inline=False)
    running = list(here.filter(state=Job.State.RUNNING))
    busy = frozenset(job.owner.partition(":")[0] for job in running)
    quiet_since = now - _PATIENCE
    overlooked = [job for job in _ready_here() if job.woken_at is not None and _ready_since(job) <= quiet_since]
    has_moved = here.filter(Q(started_at__gt=quiet_since) | Q(finished_at__gt=quiet_since)).exists()
    if not overlooked or has_moved or len(running) >= worker_count():
        return WorkerState(is_stalled=False, reason="", busy_generations=busy)
    seconds = (now - _ready_since(overlooked[0])).total_seconds()
    reason = f"Job {overlooked[0].pk} could have run for {seconds:.0f} s and no worker took it."
    return WorkerState(is_stalled=True, reason=reason, busy_generations=busy)


def _ready_since(job: Job) -> datetime:
    """Since when nothing but a worker was missing: asked for, queued again, or its database free."""
    ended = Job.objects.filter(database=job.database_id).aggregate(at=Max("finished_at"))["at"]
    moments = (job.created_at, job.heartbeat_at, ended)
    return max(moment for moment in moments if moment is not None)
