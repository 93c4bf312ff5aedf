"""``jobs``: work that waits, runs, or has ended."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..documents import job_document
from ..models import Job
from ..services.jobs.reap import reap_jobs
from . import arguments
from .output import Output, human_age

HELP = "list the jobs that wait or run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--all", action="store_true", help="also those that have ended")
    parser.add_argument("--limit", type=arguments.count, metavar="N", help="at most this many")


def run(options: dict[str, Any], output: Output) -> int:
    """Print the jobs."""
    reap_jobs()
    jobs = Job.objects.select_related("database")
    if not options["all"]:
        jobs = jobs.filter(state__in=Job.OPEN_STATES)
    found, now = list(jobs[: options["limit"]] if options["limit"] is not None else jobs), timezone.now()
    output.table(
        ("id", "kind", "database", "state", "asked", "by", "phase", "done#", "outcome"),
        [
            (
                job.pk,
                job.kind,
                job.database.name if job.database else "–",
                job.state,
                f"{human_age(now - job.created_at)} ago",
                job.requested_by_name,
                job.phase or "–",
                "–" if job.percent is None else f"{job.percent} %",
                job.outcome[:60],
            )
            for job in found
        ],
    )
    if not found:
        output.line("No job waits or runs.")
    output.document({"jobs": [job_document(job) for job in found]})
    return 0
