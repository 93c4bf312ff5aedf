"""A test message to every receiver, at once, with an answer for each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ...core.errors import BackupError, NotFoundError
from ...models import AuditEvent, Notification
from .. import audit
from ..audit import Actor
from .channels import DeliveryError, deliver
from .content import document
from .receivers import Receiver, all_receivers

_TIMEOUT_SECONDS = 5.0
_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How the test message to one receiver fared."""

    receiver: Receiver
    reason: str

    @property
    def is_delivered(self) -> bool:
        """Whether it was accepted."""
        return not self.reason


def require_receivers() -> list[Receiver]:
    """Everybody who is told.

    Raises:
        NotFoundError: the settings name nobody. BackupError: they cannot be read.
    """
    hint = "Set BACKUPS['NOTIFY_EMAILS'], BACKUPS['WEBHOOK_URLS'] or BACKUPS['HEARTBEAT_URL']."
    try:
        found = all_receivers()
    except ImproperlyConfigured as exc:
        raise BackupError(str(exc), hint) from exc
    if not found:
        raise NotFoundError("The settings name no receiver of notifications.", hint)
    return found


def send_test(*, actor: Actor, now: datetime, timeout_seconds: float = _TIMEOUT_SECONDS) -> list[Trial]:
    """Send a test message to every receiver and record how each fared; takes ``timeout_seconds`` or a little more.

    One that arrives also ends the alarm about messages that were given up for that receiver.

    Raises:
        NotFoundError: the settings name nobody. BackupError: they cannot be read.
    """
    receivers = require_receivers()
    content = document(
        Notification.Event.TEST,
        subject="A test of the notifications about backups",
        content={"outcome": f"{actor.name} asked for it. Nothing has happened to any database.", "job": None},
        now=now,
    )

    def try_one(receiver: Receiver) -> Trial:
        return Trial(receiver=receiver, reason=_reason(receiver, content, timeout_seconds=timeout_seconds))

    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        trials = list(pool.map(try_one, receivers))
    for trial in trials:
        _record(trial, content, now=now)
    bad = [trial.receiver.name for trial in trials if not trial.is_delivered]
    audit.record(
        "notify-test",
        actor=actor,
        outcome=AuditEvent.Outcome.FAILED if bad else AuditEvent.Outcome.DONE,
        detail=f"not delivered: {', '.join(bad)}" if bad else f"{len(trials)} delivered",
    )
    return trials


def _reason(receiver: Receiver, content: dict[str, Any], *, timeout_seconds: float) -> str:
    try:
        deliver(receiver, content, timeout_seconds=timeout_seconds)
    except DeliveryError as exc:
        return exc.reason
    except Exception as exc:  # noqa: BLE001 - one receiver must not hide how the others fared
        return f"It could not be sent ({type(exc).__name__})."
    return ""


def _record(trial: Trial, content: dict[str, Any], *, now: datetime) -> None:
    Notification.objects.create(
        channel=trial.receiver.channel,
        receiver=trial.receiver.place,
        event=Notification.Event.TEST,
        content=content,
        created_at=now,
        next_attempt_at=now,
        attempts=1,
        state=Notification.State.SENT if trial.is_delivered else Notification.State.FAILED,
        sent_at=now if trial.is_delivered else None,
        reason=trial.reason,
    )
