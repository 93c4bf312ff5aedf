"""The rows of the machines: when each supervisor was last heard of, and how its worker fares."""

from __future__ import annotations

import os
from datetime import datetime, timedelta

from django.db.models import F, QuerySet

from .. import conf
from ..models.host import Host

SILENCE = timedelta(seconds=30)
"""How long a machine may be silent before it counts as gone; it writes every few seconds."""


def is_anybody_working(now: datetime) -> bool:
    """Whether at least one machine works: heard of lately, and not told to end since."""
    return Host.objects.filter(stopped_at=None, seen_at__gte=now - SILENCE).exists()


def silent_hosts(*, now: datetime) -> list[Host]:
    """The machines that were not told to end, and of which nothing is heard any more."""
    return list(Host.objects.filter(stopped_at=None, seen_at__lt=now - SILENCE))


def report_started(*, now: datetime) -> None:
    """A supervisor has started here; restarts of its worker are counted from now on."""
    begun = {
        "supervisor_pid": os.getpid(),
        "seen_at": now,
        "started_at": now,
        "stopped_at": None,
        "worker_restarts": 0,
        "worker_restarted_at": None,
        "worker_problem": "",
    }
    Host.objects.update_or_create(name=conf.host_name(), defaults=begun)


def report_alive(*, now: datetime) -> None:
    """The supervisor here still lives."""
    if not _named().update(seen_at=now, stopped_at=None, supervisor_pid=os.getpid()):
        report_started(now=now)  # somebody put an older catalogue back, or started afresh


def report_worker_restart(problem: str, *, now: datetime) -> None:
    """The worker here was started again because of ``problem``."""
    _named().update(worker_restarts=F("worker_restarts") + 1, worker_restarted_at=now, worker_problem=problem)


def report_stopped(*, now: datetime) -> None:
    """The supervisor here was told to end, and has ended everything."""
    # A newer one may have taken over already.
    _named().filter(supervisor_pid=os.getpid()).update(seen_at=now, stopped_at=now)


def _named() -> QuerySet[Host]:
    return Host.objects.filter(name=conf.host_name())
