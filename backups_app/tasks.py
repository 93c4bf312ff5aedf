"""What django-q2 calls. Tasks carry a job id and nothing else."""

from __future__ import annotations

from .services.jobs.run import run_job as _run_job


def run_job(job_id: str) -> None:
    """Do a queued job, if it is still waiting and its database is free."""
    _run_job(job_id)
