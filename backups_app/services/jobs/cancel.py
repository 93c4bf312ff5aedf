"""Cancel a job: at once while it waits, within a second while it runs."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from ... import conf
from ...core.errors import RefusedError
from ...models import Job
from .. import audit
from ..audit import Actor
from ..wording import english


def cancel_job(job: Job, *, actor: Actor) -> Job:
    """Cancel a waiting job, or order a running one to stop; returns the row as it is then.

    A job that is asked twice to stop stays asked once. Work that cannot be undone any more (the
    last page of a restore) ends as it ends.

    Raises:
        RefusedError: it has ended.
    """
    now = timezone.now()
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        changed = Job.objects.filter(pk=job.pk, state=Job.State.QUEUED).update(
            state=Job.State.CANCELLED,
            finished_at=now,
            cancel_requested_at=now,
            cancelled_by_name=actor.name,
            outcome=f"Cancelled by {actor.name} before it began.",
            failure_code="cancelled",
        ) or Job.objects.filter(pk=job.pk, state=Job.State.RUNNING, cancel_requested_at=None).update(
            cancel_requested_at=now, cancelled_by_name=actor.name
        )
        if changed:
            audit.record(
                "cancel-job",
                actor=actor,
                database_name=job.database.name if job.database else "",
                subject=job.pk,
                detail=job.kind,
            )
    job.refresh_from_db()
    if not changed and not job.is_open:
        raise RefusedError(
            f"Job {job.pk} is {english(job, 'state')}; there is nothing to cancel.", "Look at its outcome."
        )
    return job
