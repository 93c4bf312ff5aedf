"""Is what was asked for, or is due, being done?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Exists, F, OuterRef, Q

from ... import conf
from ...models import Job, Verification
from ..hosts import silent_hosts
from ..jobs.attend import turn_of
from ..schedules import overdue
from ..wording import english
from .facts import Look, Problem
from .limits import MOST_ROWS

_QUEUE_PATIENCE = timedelta(minutes=5)
"""How long a job that could run may wait for a worker."""

_KINDS = (Job.Kind.VERIFY, Job.Kind.DRILL, Job.Kind.PRUNE)
"""Backups are judged by their own rows; a restore that went wrong was somebody's, who saw it."""

_BAD = (Job.State.FAILED, Job.State.INTERRUPTED)
_ENDED = (Job.State.SUCCEEDED, *_BAD)


def find_silent_hosts(look: Look) -> Iterator[Problem]:
    """Does every machine work that was not told to end?"""
    for host in silent_hosts(now=look.now):
        yield Problem(
            code="host_silent",
            database="",
            subject=host.name,
            message=f"The supervisor of {host.name} was last heard of at {_utc(host.seen_at)}.",
            hint="Start `manage.py backup serve` there again, and look into its log.",
        )


def find_waiting_jobs(look: Look) -> Iterator[Problem]:
    """Does somebody take the jobs? One problem for each host whose jobs nobody takes."""
    occupied = {turn_of(job) for job in look.jobs if job.state == Job.State.RUNNING}
    ready = [job for job in look.jobs if job.state == Job.State.QUEUED and turn_of(job) not in occupied]
    by_host: dict[str, list[Job]] = defaultdict(list)
    for job in ready:
        if job.created_at < look.now - _QUEUE_PATIENCE:
            by_host["" if conf.is_catalog_local() else job.host].append(job)
    or_more = " or more" if len(look.jobs) == MOST_ROWS else ""
    for host, waiting in by_host.items():
        first = waiting[0]
        yield Problem(
            code="jobs_wait",
            database=first.database.name if first.database else "",
            subject=host,
            message=f"{len(waiting)}{or_more} job(s) wait for a worker{f' of {host}' if host else ''}, the oldest "
            f"(job {first.pk}) since {_utc(first.created_at)}.",
            hint=f"Run `manage.py backup serve`{f' on {host}' if host else ''}, or cancel them with "
            "`manage.py backup cancel ID`.",
        )


def find_overdue_schedules(look: Look) -> Iterator[Problem]:
    """Is every due time fired?"""
    for each in overdue(now=look.now, schedules=look.schedules):
        yield Problem(
            code="schedule_overdue",
            database=each.schedule.database.name,
            subject=each.schedule.kind,
            message=each.reason,
            hint=each.hint,
        )


def find_failed_runs(look: Look) -> Iterator[Problem]:
    """Did the last verification, drill and pruning of each database end well?

    Where one ended with a verdict, backup and copy tell of it.
    """
    verdicts = Verification.objects.filter(job=OuterRef("pk")).exclude(verdict=Verification.Verdict.PASSED)
    same_kind = Job.objects.filter(database=OuterRef("database"), kind=OuterRef("kind"), state__in=_ENDED)
    ended_at = OuterRef("finished_at")
    later = same_kind.filter(Q(finished_at__gt=ended_at) | Q(finished_at=ended_at, pk__gt=OuterRef("pk")))
    bad = Job.objects.filter(database__is_under_care=True, kind__in=_KINDS, state__in=_BAD)
    last = bad.exclude(Exists(later)).exclude(Exists(verdicts)).annotate(database_name=F("database__name"))
    for job in last.defer("log", "options").order_by("database_name", "kind"):
        yield Problem(
            code="run_failed",
            database=job.database_name,
            subject=job.kind,
            message=f"The last job to {english(job, 'kind')} it ended badly (job {job.pk}): {job.outcome}",
            hint=job.hint or "See the page of the job, cure the cause, and run it again.",
        )


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
