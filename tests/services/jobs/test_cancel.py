"""Cancelling: at once while it waits, an order while it runs, refused when it is over."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone

from backups_app.core.errors import RefusedError
from backups_app.models import AuditEvent, Backup, Job
from backups_app.services.jobs import cancel_job
from backups_app.services.jobs.run import run_job
from tests.services.jobs.conftest import ANNA, BEN


def test_a_waiting_job_is_cancelled_and_never_runs(asked: Job):
    job = cancel_job(asked, actor=BEN)
    assert (job.state, job.failure_code, job.cancelled_by_name) == ("cancelled", "cancelled", "ben")
    assert "ben" in job.outcome
    run_job(asked.pk)
    assert not Backup.objects.exists()
    event = AuditEvent.objects.get(action="cancel-job")
    assert (event.actor_name, event.subject, event.database_name) == ("ben", asked.pk, "shop")


def test_a_running_job_is_told_to_stop_once(orphan: Callable[..., Job]):
    job = orphan()
    assert cancel_job(job, actor=BEN).state == "running"
    asked_at = Job.objects.get(pk=job.pk).cancel_requested_at
    assert asked_at is not None
    cancel_job(job, actor=ANNA)
    found = Job.objects.get(pk=job.pk)
    assert (found.cancel_requested_at, found.cancelled_by_name) == (asked_at, "ben")
    assert AuditEvent.objects.filter(action="cancel-job").count() == 1


@pytest.mark.parametrize("state", ["succeeded", "failed", "interrupted", "cancelled"])
def test_what_is_over_cannot_be_cancelled(orphan: Callable[..., Job], state: str):
    job = orphan(state=state, finished_at=timezone.now(), outcome="x")
    with pytest.raises(RefusedError):
        cancel_job(job, actor=BEN)
    assert not AuditEvent.objects.filter(action="cancel-job").exists()
