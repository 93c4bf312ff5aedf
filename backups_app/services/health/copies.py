"""Stored copies that cannot be reached, are damaged, or cannot be opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from django.db.models import Count, Q

from ...models import Backup, Copy
from ...models.backup import Verdict
from .facts import DatabaseHealth, Look, Problem

_BAD = (Copy.State.FAILED, Copy.State.UNREACHABLE, Copy.State.KEY_MISSING)


def find_bad_copies(look: Look) -> Iterator[Problem]:
    """Are there copies on which one cannot rely, of backups that were good once?

    Those are left out that are told already: by the last verdict on a newest backup, or by a last
    attempt that failed.
    """
    newest = [each.last_verified for each in look.databases if each.last_verified is not None]
    told = [backup.pk for backup in newest if backup.verdict != Verdict.PASSED]
    told += [each.last_attempt.pk for each in look.databases if each.last_attempt is not None and _is_bad(each)]
    counts = (
        Copy.objects.filter(state__in=_BAD, backup__verified_at__isnull=False, backup__database__is_under_care=True)
        .exclude(backup__in=told)
        .order_by()
        .values_list("backup__database__name", "destination", "state")
        .annotate(count=Count("pk"))
    )
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for database, destination, state, count in counts:
        found[database, destination][state] = count
    for (database, destination), states in sorted(found.items()):
        words = ", ".join(f"{states[state]} {state.label}" for state in _BAD if state in states)
        yield Problem(
            code="copies_bad",
            database=database,
            subject=destination,
            message=f"Stored copies at {destination} cannot be relied on: {words}.",
            hint="When the destination can be reached again, run `manage.py backup verify --all`. Damaged copies do "
            "not come back: look at the disk, see that other copies are good, and remove them by pruning.",
        )


def find_missing_copies(look: Look) -> Iterator[Problem]:
    """Is each proven backup at every destination of its policy?

    A copy that a guard refused is named as long as the newest verified backup has one: later
    backups show whether the cause is gone.
    """
    newest = [each.last_verified.pk for each in look.databases if each.last_verified is not None]
    proven = Copy.objects.filter(backup__state=Backup.State.VERIFIED, backup__database__is_under_care=True)
    waiting = proven.filter(Q(state__in=Copy.WAITING_STATES) | Q(state=Copy.State.REFUSED, backup__in=newest)).order_by(
        "backup__created_at"
    )
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for database, destination, reason in waiting.values_list("backup__database__name", "destination", "reason"):
        found[database, destination].append(reason)
    for (database, destination), reasons in sorted(found.items()):
        yield Problem(
            code="copies_missing",
            database=database,
            subject=destination,
            message=f"{len(reasons)} verified backups are not at {destination}: {reasons[-1]}",
            hint="Copies that wait are stored when the destination takes them; `manage.py backup verify --due` tries "
            "at once. See docs/destinations.md.",
        )


def _is_bad(each: DatabaseHealth) -> bool:
    return each.last_attempt is not None and each.last_attempt.state == Backup.State.FAILED
