"""What has to be done every minute, by whoever keeps the time: the supervisor, or a line in cron."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from django.db import Error as DatabaseError
from django.db import connections

from ..core.errors import BackupError
from ..jobs.supervisor import Beat
from ..models import ScheduledRun
from .catalog import catalog_error
from .health.watch import watch
from .jobs.attend import look_at_workers, wake_waiting
from .jobs.reap import give_up_lost_jobs, reap_jobs
from .notifications import send_due
from .quarantine import sweep_quarantine
from .recopy import ask_recopies
from .restores import expire_restores
from .schedules import fire_due

logger = logging.getLogger(__name__)

_TICK_SECONDS = 20.0
"""Due times are minutes; looking three times as often keeps every run within the minute."""


@dataclass(frozen=True, kw_only=True)
class Ticked:
    """What one tick did."""

    runs: list[ScheduledRun] = field(default_factory=list)
    failures: list[BackupError] = field(default_factory=list)


Duty = Callable[[Ticked, datetime], None]


def tick(*, now: datetime) -> Ticked:
    """Do every duty that has come due at ``now``.

    Safe to call from many processes at once and as often as one likes. A duty that fails is
    logged and named in ``failures``; the others are done all the same, and it is tried again at
    the next tick.
    """
    return _do(DUTIES, now=now)


def _do(duties: tuple[tuple[str, Duty], ...], *, now: datetime) -> Ticked:
    ticked = Ticked()
    for name, duty in duties:
        try:
            duty(ticked, now)
        except Exception as exc:
            is_known = isinstance(exc, BackupError)
            logger.log(logging.ERROR, "%s failed: %s", name, exc, exc_info=not is_known)
            ticked.failures.append(_failure(name, exc))
    return ticked


def _failure(name: str, exc: Exception) -> BackupError:
    if isinstance(exc, DatabaseError):
        exc = catalog_error(exc)
    if isinstance(exc, BackupError):
        return exc
    return BackupError(
        f"{name} failed: {type(exc).__name__}: {exc}", "See the log. It is tried again at the next tick."
    )


def _fire_schedules(ticked: Ticked, now: datetime) -> None:
    fired = fire_due(now=now)
    ticked.runs.extend(fired.runs)
    ticked.failures.extend(fired.failures)


def _settle_dead(_ticked: Ticked, _now: datetime) -> None:
    reap_jobs()


def _give_up_lost(_ticked: Ticked, now: datetime) -> None:
    give_up_lost_jobs(now=now)


def _ask_recopies(_ticked: Ticked, now: datetime) -> None:
    ask_recopies(now=now)


def _wake_waiting(_ticked: Ticked, now: datetime) -> None:
    wake_waiting(now=now)


def _expire_requests(_ticked: Ticked, _now: datetime) -> None:
    expire_restores()


def _sweep_quarantine(_ticked: Ticked, now: datetime) -> None:
    sweep_quarantine(now=now)


def _watch_health(_ticked: Ticked, now: datetime) -> None:
    watch(now=now)


def _send_notifications(_ticked: Ticked, now: datetime) -> None:
    send_due(now=now)


DUTIES: tuple[tuple[str, Duty], ...] = (
    ("Settling the jobs of dead workers", _settle_dead),
    ("Firing schedules", _fire_schedules),
    ("Waking workers", _wake_waiting),
    ("Giving up the jobs of hosts that are gone", _give_up_lost),
    ("Asking for copies that wait", _ask_recopies),
    ("Closing requests that expired", _expire_requests),
    ("Sweeping the quarantine", _sweep_quarantine),
    ("Watching the health", _watch_health),
    ("Sending notifications", _send_notifications),
)
_PATIENT = 2
"""The last so many may have to wait: for a disk that does not answer, for receivers."""


class Clock:
    """The supervisor's time: settles and wakes at each beat, and ticks every 20 seconds.

    A beat never waits for disks or for the receivers of notifications: threads of their own watch
    the health and send.
    """

    def __init__(self) -> None:
        self._ticked_at: float | None = None
        self._threads: dict[str, threading.Thread] = {}

    def beat(self, now: datetime, /) -> Beat:
        """Do what is due, and tell how the workers of this host fare.

        Raises:
            DatabaseError: the catalogue cannot be used now.
        """
        is_time = self._ticked_at is None or time.monotonic() - self._ticked_at >= _TICK_SECONDS
        if is_time:
            self._ticked_at = time.monotonic()
        quick = DUTIES[:-_PATIENT] if is_time else (DUTIES[0], DUTIES[2])
        _do(quick, now=now)
        if is_time:
            for each in DUTIES[-_PATIENT:]:
                self._start(each, now)
        found = look_at_workers(now=now)
        return Beat(is_stalled=found.is_stalled, reason=found.reason, busy_generations=found.busy_generations)

    def _start(self, duty: tuple[str, Duty], now: datetime) -> None:
        name = duty[0]
        if name in self._threads and self._threads[name].is_alive():
            return  # a disk or a receiver hangs

        def work() -> None:
            try:
                _do((duty,), now=now)
            finally:
                connections.close_all()

        self._threads[name] = threading.Thread(target=work, name=name, daemon=True)
        self._threads[name].start()
