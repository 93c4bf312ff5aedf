"""Send what waits in the outbox: each row by one sender at a time, again later when it does not arrive."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.db.models import Q, QuerySet

from ...models import Notification
from .channels import DeliveryError, deliver
from .receivers import Channel, find_receiver

logger = logging.getLogger(__name__)

State = Notification.State

TIMEOUT_SECONDS = 10.0
BACK_OFF = (
    timedelta(minutes=1),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
    *(timedelta(hours=3),) * 7,
)
"""Pauses after the first, second… attempt that failed: 12 attempts in 22 hours, then it is given up."""
KEPT = timedelta(days=90)

# What a sender needs beside the delivery; one that takes longer is taken for dead, and its row is free.
_LEASE = timedelta(minutes=1)
_FORGOTTEN_AT_ONCE = 500


@dataclass(kw_only=True)
class Sent:
    """What one run of the sender did."""

    sent: int = 0
    retried_later: int = 0
    given_up: int = 0
    forgotten: int = 0
    problem: str = ""
    """Why it ended early, or ""."""


@dataclass(frozen=True, kw_only=True)
class _Clock:
    """The time that was passed in, going on: a run may wait for several receivers."""

    started_at: datetime
    started_ticks: float

    def now(self) -> datetime:
        return self.started_at + timedelta(seconds=time.monotonic() - self.started_ticks)


def send_due(*, now: datetime, limit: int = 50, timeout_seconds: float = TIMEOUT_SECONDS) -> Sent:
    """Send what is due, ``limit`` messages at most, and forget what is older than 90 days. Never raises.

    A row is claimed before it is sent, so two senders do not send it both; the claim of a sender
    that died runs out. A receiver that lets one message time out gets no other in this run: a
    hanging receiver costs one ``timeout_seconds``, and the others get theirs.

    Do not call it inside a transaction: the catalogue would be locked while receivers think.
    """
    done = Sent()
    clock = _Clock(started_at=now, started_ticks=time.monotonic())
    try:
        _send(done, clock, limit=limit, timeout_seconds=timeout_seconds)
        done.forgotten = _forget(now)
    except DatabaseError as exc:
        done.problem = f"The catalogue could not be used ({type(exc).__name__})."
    except Exception as exc:  # noqa: BLE001 - news must never stop the work that they are about
        done.problem = f"Sending failed ({type(exc).__name__})."
    if done.problem:
        logger.error("Notifications were not all sent: %s", done.problem)
    return done


def _send(done: Sent, clock: _Clock, *, limit: int, timeout_seconds: float) -> None:
    silent: set[tuple[str, int]] = set()
    lease = timedelta(seconds=timeout_seconds) + _LEASE
    for _ in range(limit):
        row = _claim(clock.now(), lease=lease, silent=silent)
        if row is None:
            return
        try:
            _attempt(row, timeout_seconds=timeout_seconds)
        except _GoneError as exc:
            _end(row, State.FAILED, reason=str(exc), now=clock.now())
            done.given_up += 1
        except DeliveryError as exc:
            if exc.is_timeout:
                silent.add((row.channel, row.receiver))
            _postpone(row, done, reason=exc.reason, now=clock.now())
        else:
            _end(row, State.SENT, reason="", now=clock.now())
            done.sent += 1


class _GoneError(Exception):
    """There is nobody to send this to, and never will be."""


def _attempt(row: Notification, *, timeout_seconds: float) -> None:
    if row.attempts > len(BACK_OFF) + 1:
        raise _GoneError("No sender lived long enough to send it.")
    try:
        receiver = find_receiver(row.channel, row.receiver)
    except ImproperlyConfigured as exc:
        raise DeliveryError(str(exc)) from exc
    if receiver is None:
        raise _GoneError("The settings no longer name this receiver.")
    try:
        # The number lets a receiver notice a message that it has got already.
        deliver(receiver, {"id": row.pk, **row.content}, timeout_seconds=timeout_seconds)
    except DeliveryError:
        raise
    except Exception as exc:
        # One message must not hold up the others, whatever is wrong with it.
        raise DeliveryError(f"It could not be sent ({type(exc).__name__}).") from exc


def _claim(now: datetime, *, lease: timedelta, silent: set[tuple[str, int]]) -> Notification | None:
    """Take the next due row for the length of ``lease``; None when there is none.

    The claim moves the time of the next attempt: when this process dies, the row is due again then.
    """
    due = Notification.objects.filter(state=State.PENDING, next_attempt_at__lte=now).order_by("next_attempt_at", "pk")
    for channel, place in silent:
        # All mail goes through one server; addresses of the web stand for themselves.
        due = due.exclude(Q(channel=channel) if channel == Channel.MAIL else Q(channel=channel, receiver=place))
    while (row := due.first()) is not None:
        seen = Notification.objects.filter(
            pk=row.pk, state=State.PENDING, attempts=row.attempts, next_attempt_at=row.next_attempt_at
        )
        if seen.update(attempts=row.attempts + 1, next_attempt_at=now + lease):
            row.attempts += 1
            return row
    return None


def _postpone(row: Notification, done: Sent, *, reason: str, now: datetime) -> None:
    if row.attempts > len(BACK_OFF):
        _end(row, State.FAILED, reason=reason, now=now)
        done.given_up += 1
        logger.error("A notification was given up after %d attempts: %s", row.attempts, reason)
        return
    _ours(row).update(reason=reason, next_attempt_at=now + BACK_OFF[row.attempts - 1])
    done.retried_later += 1


def _end(row: Notification, state: str, *, reason: str, now: datetime) -> None:
    # The time of the next attempt becomes the time of the end: one index serves sending and forgetting.
    _ours(row).update(state=state, reason=reason, next_attempt_at=now, sent_at=now if state == State.SENT else None)


def _ours(row: Notification) -> QuerySet[Notification]:
    """The row, unless its claim ran out and another sender has it."""
    return Notification.objects.filter(pk=row.pk, state=State.PENDING, attempts=row.attempts)


def _forget(now: datetime) -> int:
    """Delete some of the rows that ended long ago; the rest goes with the next runs."""
    old = Notification.objects.filter(state__in=[State.SENT, State.FAILED], next_attempt_at__lt=now - KEPT)
    chosen = list(old.order_by().values_list("pk", flat=True)[:_FORGOTTEN_AT_ONCE])
    return Notification.objects.filter(pk__in=chosen).delete()[0] if chosen else 0
