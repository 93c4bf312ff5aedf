"""Is what was asked for, or is due, being done?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Subquery

from ... import conf
from ...models import Database, HealthProblem, Job, Verification
from ..hosts import here, silent_hosts
from ..jobs.attend import ready_jobs
from ..schedules import overdue
from ..wording import english
from .facts import Look, Problem

_QUEUE_PATIENCE = timedelta(minutes=5)
"""How long a job that could run may wait for a worker."""

_KINDS = (Job.Kind.VERIFY, Job.Kind.DRILL, Job.Kind.PRUNE)
"""Backups are judged by their own rows; a restore that went wrong was somebody's, who saw it."""

_ENDED = (Job.State.SUCCEEDED, Job.State.FAILED, Job.State.INTERRUPTED)


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
    by_host: dict[str, list[Job]] = defaultdict(list)
    for job in ready_jobs():
        if job.created_at < look.now - _QUEUE_PATIENCE:
            by_host["" if conf.is_catalog_local() else job.host].append(job)
    for host, waiting in by_host.items():
        first = waiting[0]
        yield Problem(
            code="jobs_wait",
            database=first.database.name if first.database else "",
            subject=host,
            message=f"{len(waiting)} job(s) wait for a worker{f' of {host}' if host else ''}, the oldest "
            f"(job {first.pk}) since {_utc(first.created_at)}.",
            hint=f"Run `manage.py backup serve`{f' on {host}' if host else ''}, or cancel them with "
            "`manage.py backup cancel ID`.",
        )


def find_problems_elsewhere(_look: Look) -> Iterator[Problem]:
    """What do the other hosts see, of their files, disks and settings, that cannot be seen from here?"""
    if conf.is_catalog_local():
        return
    seen = HealthProblem.objects.filter(resolved_at=None, gone_since=None).exclude(here())
    for each in seen.order_by("host", "pk"):
        yield Problem(
            code=each.code,
            database=each.database,
            subject=each.subject,
            host=each.host,
            message=f"On {each.host}: {each.message}",
            hint=each.hint,
        )


def find_overdue_schedules(look: Look) -> Iterator[Problem]:
    """Is every due time fired?"""
    for each in overdue(now=look.now):
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
    own = Job.objects.filter(database=OuterRef("pk"), state__in=_ENDED).order_by("-finished_at").values("pk")
    newest = {f"last_{kind}": Subquery(own.filter(kind=kind)[:1]) for kind in _KINDS}
    rows = Database.objects.filter(is_under_care=True).annotate(**newest).values_list("name", *newest)
    wanted = [pk for _name, *found in rows for pk in found if pk]
    verdicts = Verification.objects.filter(job=OuterRef("pk")).exclude(verdict=Verification.Verdict.PASSED)
    jobs = Job.objects.defer("log", "options").annotate(has_verdict=Exists(verdicts)).in_bulk(wanted)
    for name, *found in rows:
        for job in (jobs[pk] for pk in found if pk in jobs):
            if job.state != Job.State.SUCCEEDED and not getattr(job, "has_verdict", False):
                yield Problem(
                    code="run_failed",
                    database=name,
                    subject=job.kind,
                    message=f"The last job to {english(job, 'kind')} it ended badly (job {job.pk}): {job.outcome}",
                    hint=job.hint or "See the page of the job, cure the cause, and run it again.",
                )


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
