"""What the verbs with ``--enqueue`` share: the job that was asked for, for people and as JSON."""

from __future__ import annotations

import argparse
from typing import Any

from ..documents import job_document
from ..models import Job
from .output import Output


def add_enqueue(parser: argparse.ArgumentParser) -> None:
    """Declare ``--enqueue``."""
    parser.add_argument("--enqueue", action="store_true", help="leave it to a worker, and do not wait for it")


def report_queued(jobs: list[Job], output: Output, *, document: dict[str, Any] | None = None) -> None:
    """Say which jobs wait now; ``document`` is what the JSON holds besides."""
    for job in jobs:
        about = job.database.name if job.database else "–"
        output.line(f"Job {job.pk} ({job.kind} {about}) waits for a worker. Watch it with `manage.py backup jobs`.")
    output.document({**(document or {}), "jobs": [job_document(job) for job in jobs]})
