"""``cancel``: stop a job that waits or runs."""

from __future__ import annotations

import argparse
from typing import Any

from ..documents import job_document
from ..models import Job
from ..services.jobs import cancel_job
from ..services.people import actor_for
from .find import find_job
from .output import Output

HELP = "cancel a job: at once while it waits, within a second while it runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", metavar="ID", help="id of a job, or its beginning")
    parser.add_argument("--user", metavar="NAME", help="who cancels (default: the system account)")


def run(options: dict[str, Any], output: Output) -> int:
    """Cancel it, or order it to stop."""
    job = find_job(options["id"])
    job = cancel_job(job, actor=actor_for(options["user"], permission="cancel_job"))
    if job.state == Job.State.CANCELLED:
        output.line(f"Job {job.pk} is cancelled.")
    else:
        output.line(f"Job {job.pk} was told to stop.")
    output.document({"jobs": [job_document(job)]})
    return 0
