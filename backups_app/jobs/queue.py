"""The wake-up call: a django-q2 task that carries a job id and nothing else.

It may come twice, late, or never; the row decides. A call that cannot be sent is no failure
either: the clock sends it again.
"""

from __future__ import annotations

import logging

from django.utils import timezone

from ..models import Job

logger = logging.getLogger(__name__)

TASK = "backups_app.tasks.run_job"


def wake(job_id: str) -> bool:
    """Ask a worker to look at a job; False when the queue could not be reached."""
    from django_q.tasks import async_task  # django-q2 reads its settings when it is imported

    try:
        async_task(TASK, job_id)
    except Exception as exc:  # noqa: BLE001 - each broker has errors of its own
        logger.warning("The queue could not be reached (%s); job %s waits.", type(exc).__name__, job_id)
        return False
    Job.objects.filter(pk=job_id).update(woken_at=timezone.now())
    return True


def waiting_calls() -> int | None:
    """How many calls nobody has taken yet; None when the queue cannot be reached."""
    from django_q.brokers import get_broker

    try:
        return int(get_broker().queue_size())
    except Exception as exc:  # noqa: BLE001 - each broker has errors of its own
        logger.warning("The queue could not be reached (%s).", type(exc).__name__)
        return None


def worker_count() -> int:
    """How many jobs the workers of one host can run at once."""
    from django_q.conf import Conf

    return int(Conf.WORKERS)
