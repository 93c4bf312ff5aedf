"""What has to be done every minute, by whoever keeps the time: the supervisor, or a line in cron."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from django.db import Error as DatabaseError

from ..core.errors import BackupError
from ..models import ScheduledRun
from .catalog import catalog_error
from .schedules import fire_due

logger = logging.getLogger(__name__)


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
    ticked = Ticked()
    for name, duty in DUTIES:
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


DUTIES: tuple[tuple[str, Duty], ...] = (("Firing schedules", _fire_schedules),)
