"""Are people told at all? News that do not arrive are a problem of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.models import Count, Max, Min, Q

from ...models import Notification
from .receivers import all_receivers

State = Notification.State

PATIENCE = timedelta(hours=1)
_SEE = "See Notifications in the admin for the reasons; after the cure run `manage.py backup notify-test`."


@dataclass(frozen=True, kw_only=True)
class Undelivered:
    """Something that people were not told."""

    message: str
    hint: str
    about: str = ""
    """What stays the same while the message counts on: the receiver, or what is wrong with all."""


def undelivered(*, now: datetime) -> list[Undelivered]:
    """What was given up for a receiver since it last got anything, and what has waited for over an hour.

    A receiver that the settings no longer name is nobody's loss.
    """
    try:
        names = {(each.channel, each.place): each.name for each in all_receivers()}
    except ImproperlyConfigured as exc:
        return [Undelivered(message=str(exc), hint="Until then nobody is told.", about="settings")]
    late = Q(state=State.PENDING, created_at__lt=now - PATIENCE)
    by_receiver = Notification.objects.order_by().values("channel", "receiver")
    found: Any = by_receiver.annotate(
        sent=Max("sent_at"),
        given_up=Max("next_attempt_at", filter=Q(state=State.FAILED)),
        late=Count("pk", filter=late),
        oldest=Min("created_at", filter=late),
        tries=Max("attempts", filter=late),
    )
    facts: list[dict[str, Any]] = list(found)
    return [*_given_up(facts, names), *_waiting([each for each in facts if each["late"]], now)]


def _given_up(facts: list[dict[str, Any]], names: dict[tuple[str, int], str]) -> list[Undelivered]:
    return [
        Undelivered(
            message=f"Notifications for {names[key]} do not arrive; some were given up.", hint=_SEE, about=names[key]
        )
        for each in facts
        if each["given_up"] is not None
        and (key := (each["channel"], each["receiver"])) in names
        and (each["sent"] is None or each["sent"] < each["given_up"])
    ]


def _waiting(facts: list[dict[str, Any]], now: datetime) -> list[Undelivered]:
    if not facts:
        return []
    waiting = sum(each["late"] for each in facts)
    hours = (now - min(each["oldest"] for each in facts)).total_seconds() / 3600
    hint = (
        _SEE
        if any(each["tries"] for each in facts)
        else "Nothing sends them: is `manage.py backup serve`, or the tick, running?"
    )
    count = f"{waiting} notifications wait" if waiting > 1 else "1 notification waits"
    return [Undelivered(message=f"{count} to be sent, the oldest for {hours:.1f} h.", hint=hint, about="outbox")]
