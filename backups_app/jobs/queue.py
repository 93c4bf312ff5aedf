"""The wake-up call: a django-q2 task that carries a job id and nothing else.

It may come twice, late, or never; the row decides. A call that cannot be sent is no failure
either: the clock sends it again.
"""

from __future__ import annotations

import logging

from django.utils import timezone

from .. import conf
from ..models import Job

logger = logging.getLogger(__name__)

TASK = "backups_app.tasks.run_job"


def wake(job_id: str) -> bool:
    """Ask a worker of the job's host to look at it; False when the queue could not be reached."""
    from django_q.tasks import async_task  # django-q2 reads its settings when it is imported

    try:
        async_task(TASK, job_id, cluster=_queue_for(job_id))
    except Exception as exc:  # noqa: BLE001 - each broker has errors of its own
        logger.warning("The queue could not be reached (%s); job %s waits.", type(exc).__name__, job_id)
        return False
    Job.objects.filter(pk=job_id).update(woken_at=timezone.now())
    return True


def queue_of(host: str) -> str | None:
    """The name of the queue that the workers of a host read; None: the one and only, as the settings name it.

    Only hosts that share a catalogue need to be told apart. The names differ, as the settings of
    an embedding site call its queue: ``backups@alpha``, ``backups@beta``.
    """
    from django_q.conf import Conf

    return None if conf.is_catalog_local() else f"{Conf.PREFIX}@{host}"


def read_own_queue() -> None:
    """Let what django-q2 does in this process, and in those that it forks, concern the queue of this host."""
    from django_q.conf import Conf

    Conf.CLUSTER_NAME = queue_of(conf.host_name()) or Conf.CLUSTER_NAME


def _queue_for(job_id: str) -> str | None:
    if conf.is_catalog_local():
        return None
    host = Job.objects.filter(pk=job_id).values_list("host", flat=True).first()
    return queue_of(host or conf.host_name())


def waiting_calls() -> int | None:
    """How many calls to this host's workers nobody has taken yet; None when the queue cannot be reached."""
    from django_q.brokers import get_broker

    try:
        return int(get_broker(queue_of(conf.host_name())).queue_size())
    except Exception as exc:  # noqa: BLE001 - each broker has errors of its own
        logger.warning("The queue could not be reached (%s).", type(exc).__name__)
        return None


def worker_count() -> int:
    """How many jobs the workers of one host can run at once."""
    from django_q.conf import Conf

    return int(Conf.WORKERS)
