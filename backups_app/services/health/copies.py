"""Stored copies that cannot be reached, are damaged, cannot be opened, or are not there yet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from django.db.models import Count, Max, Q, QuerySet

from ...models import Backup, Copy
from ...models.backup import Verdict
from .facts import DatabaseHealth, Look, Problem

_BAD = (Copy.State.FAILED, Copy.State.UNREACHABLE, Copy.State.KEY_MISSING)


def find_copy_problems(look: Look) -> Iterator[Problem]:
    """Can every stored copy be relied on, and is each proven backup at every destination of its policy?"""
    found: dict[tuple[str, str], dict[str, tuple[int, str]]] = defaultdict(dict)
    for database, destination, state, count, reason in _counts(look):
        found[database, destination][state] = (count, reason)
    for (database, destination), states in sorted(found.items()):
        yield from _of_place(database, destination, states)


def _counts(look: Look) -> QuerySet[Copy, tuple[str, str, str, int, str]]:
    """How many copies are in each state that tells of a problem, per database and destination, with one reason.

    Of bad ones those are left out that are told already: by the last verdict on a newest backup, or by
    a last attempt that failed. A copy that a guard refused counts as long as the newest verified backup
    has one: later backups show whether the cause is gone.
    """
    newest = [each.last_verified for each in look.databases if each.last_verified is not None]
    told = [backup.pk for backup in newest if backup.verdict != Verdict.PASSED]
    told += [each.last_attempt.pk for each in look.databases if each.last_attempt is not None and _is_bad(each)]
    is_bad = Q(state__in=_BAD, backup__verified_at__isnull=False) & ~Q(backup__in=told)
    is_refused = Q(state=Copy.State.REFUSED, backup__in=[backup.pk for backup in newest])
    is_missing = Q(backup__state=Backup.State.VERIFIED) & (Q(state__in=Copy.WAITING_STATES) | is_refused)
    return (
        Copy.objects.filter(is_bad | is_missing, backup__database__is_under_care=True)
        .order_by()
        .values_list("backup__database__name", "destination", "state")
        .annotate(count=Count("pk"), one_reason=Max("reason"))
    )


def _of_place(database: str, destination: str, states: dict[str, tuple[int, str]]) -> Iterator[Problem]:
    words = [f"{states[state][0]} {state.label}" for state in _BAD if state in states]
    if words:
        yield Problem(
            code="copies_bad",
            database=database,
            subject=destination,
            message=f"Stored copies at {destination} cannot be relied on: {', '.join(words)}.",
            hint="When the destination can be reached again, run `manage.py backup verify --all`. Damaged copies do "
            "not come back: look at the disk, see that other copies are good, and remove them by pruning.",
        )
    missing = [states[state] for state in (*Copy.WAITING_STATES, Copy.State.REFUSED) if state in states]
    if missing:
        count = sum(each for each, _reason in missing)
        yield Problem(
            code="copies_missing",
            database=database,
            subject=destination,
            message=f"{count} verified {'backup is' if count == 1 else 'backups are'} not at {destination}: "
            f"{missing[-1][1]}",
            hint="Copies that wait are stored when the destination takes them; `manage.py backup verify --due` tries "
            "at once. See docs/destinations.md.",
        )


def _is_bad(each: DatabaseHealth) -> bool:
    return each.last_attempt is not None and each.last_attempt.state == Backup.State.FAILED
