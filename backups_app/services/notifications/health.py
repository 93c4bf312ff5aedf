"""Are people told at all? News that do not arrive are a problem of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

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
    return [*_given_up(names), *_waiting(now)]


def _given_up(names: dict[tuple[str, int], str]) -> list[Undelivered]:
    facts = (
        Notification.objects.filter(state__in=[State.SENT, State.FAILED])
        .order_by()
        .values("channel", "receiver")
        .annotate(sent=Max("sent_at"), given_up=Max("next_attempt_at", filter=Q(state=State.FAILED)))
        .filter(given_up__isnull=False)
    )
    return [
        Undelivered(
            message=f"Notifications for {names[key]} do not arrive; some were given up.", hint=_SEE, about=names[key]
        )
        for each in facts
        if (key := (each["channel"], each["receiver"])) in names
        and (each["sent"] is None or each["sent"] < each["given_up"])
    ]


def _waiting(now: datetime) -> list[Undelivered]:
    late = Notification.objects.filter(state=State.PENDING, created_at__lt=now - PATIENCE)
    facts = late.aggregate(count=Count("pk"), oldest=Min("created_at"), tries=Max("attempts"))
    if not facts["count"]:
        return []
    hours = (now - facts["oldest"]).total_seconds() / 3600
    hint = _SEE if facts["tries"] else "Nothing sends them: is `manage.py backup serve`, or the tick, running?"
    count = f"{facts['count']} notifications wait" if facts["count"] > 1 else "1 notification waits"
    return [Undelivered(message=f"{count} to be sent, the oldest for {hours:.1f} h.", hint=hint, about="outbox")]
