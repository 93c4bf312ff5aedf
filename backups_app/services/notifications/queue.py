"""Which ending is told to whom: rows of the outbox, written in the transaction that ends the work."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import transaction
from django.db.models import QuerySet

from ... import conf
from ...models import Job, Notification
from .content import document, job_content
from .receivers import Channel, receivers_of

logger = logging.getLogger(__name__)

Event = Notification.Event

_BAD = (Job.State.FAILED, Job.State.INTERRUPTED)


def notify_job(job: Job, *, now: datetime) -> int:
    """Queue what is to be told of the end of ``job``; returns the number of messages.

    Call it in the transaction that gives the job its final state, after that state is written:
    then the message exists exactly when the ending does. A second call for a job writes nothing.
    It only writes rows; settings that cannot be read are left to the sender.

    - Mail: a failure at once, the same failure again after ``NOTIFY_REMIND_HOURS``, and the
      first success after a failure.
    - Webhooks: each success, failure and recovery.
    - Heartbeat: each successful backup, and each failure of any kind.

    A cancelled job is told to nobody: somebody wanted it.
    """
    if job.state not in (Job.State.SUCCEEDED, *_BAD) or job.notifications.exists():
        return 0
    event = _event(job)
    channels = [Channel.WEBHOOK]
    if event == Event.RECOVERED or (event == Event.FAILED and not _is_mailed(job, now=now)):
        channels.append(Channel.MAIL)
    if event == Event.FAILED or job.kind == Job.Kind.CREATE:
        # Nightly verifications must not keep the switch quiet when the backups have stopped.
        channels.append(Channel.HEARTBEAT)
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        _drop_overtaken_heartbeats(job)
        places = _places(channels)
        if not places:
            return 0
        return _write(event, places, job=job, content=job_content(job, event=event, now=now), now=now)


def notify(event: str, *, subject: str, content: Mapping[str, Any], now: datetime) -> int:
    """Queue news that no job brings (event ``failed``, ``recovered`` or ``succeeded``); returns the number of messages.

    ``content`` is what JSON can hold; secrets in its texts are hidden. Mail is sent for failures and
    recoveries, webhooks get everything. The dead man's switch hears of jobs only. How often to
    remind is the caller's decision.
    """
    channels = [Channel.WEBHOOK, *([Channel.MAIL] if event != Event.SUCCEEDED else [])]
    found = document(event, subject=subject, content={"job": None, **content}, now=now)
    return _write(event, _places(channels), job=None, content=found, now=now)


def _places(channels: Iterable[str]) -> list[tuple[str, int]]:
    """Channel and number of each receiver."""
    return [(channel, place) for channel in channels for place in range(_receiver_count(channel))]


def _write(
    event: str, places: Iterable[tuple[str, int]], *, job: Job | None, content: dict[str, Any], now: datetime
) -> int:
    rows = [
        Notification(
            channel=channel,
            receiver=place,
            event=event,
            job=job,
            content=content,
            created_at=now,
            next_attempt_at=now,
        )
        for channel, place in places
    ]
    return len(Notification.objects.bulk_create(rows))


def _receiver_count(channel: str) -> int:
    try:
        return len(receivers_of(channel))
    except ImproperlyConfigured as exc:
        # The work must end all the same. One row is written, so that the fault is seen and retried.
        logger.error("Receivers of notifications are not known: %s", exc)  # noqa: TRY400 - no traceback
        return 1


def _event(job: Job) -> Notification.Event:
    if job.state in _BAD:
        return Event.FAILED
    previous = _endings(job).order_by("-finished_at", "-created_at").values_list("state", flat=True).first()
    return Event.RECOVERED if previous in _BAD else Event.SUCCEEDED


def _endings(job: Job) -> QuerySet[Job]:
    """Earlier endings of the same work; those that somebody cancelled say nothing about it."""
    same = Job.objects.filter(database=job.database_id, kind=job.kind).exclude(pk=job.pk)
    return same.filter(state__in=[Job.State.SUCCEEDED, *_BAD])


def _is_mailed(job: Job, *, now: datetime) -> bool:
    """Whether this failure was mailed already, lately, and nothing has succeeded since.

    Another failure code is another failure: "disk full" after "key missing" is news.
    """
    last_success = _endings(job).filter(state=Job.State.SUCCEEDED).order_by("-finished_at").first()
    since = now - timedelta(hours=float(conf.get("NOTIFY_REMIND_HOURS")))
    if last_success is not None and last_success.finished_at is not None:
        since = max(since, last_success.finished_at)
    mailed = Notification.objects.filter(channel=Channel.MAIL, event=Event.FAILED, created_at__gt=since)
    return mailed.filter(job__database=job.database_id, job__kind=job.kind, job__failure_code=job.failure_code).exists()


def _drop_overtaken_heartbeats(job: Job) -> None:
    """Forget older signals of the same work that have not arrived: late, they would tell what no longer holds."""
    Notification.objects.filter(
        channel=Channel.HEARTBEAT,
        state=Notification.State.PENDING,
        job__database=job.database_id,
        job__kind=job.kind,
    ).delete()
