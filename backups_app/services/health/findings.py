"""What the last rescan found at the destinations, and whether manifests are signed with a new key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, Min

from ...models import Finding
from ..signing import replacement_event
from .facts import Look, Problem

_SAY_FOR = timedelta(days=30)
"""How long a new signing key is named."""


def find_damage(_look: Look) -> Iterator[Problem]:
    """What the last rescan found wrong: one problem for each database and kind of damage."""
    damage = Finding.objects.filter(is_damage=True).order_by("database_name", "code")
    kinds = list(damage.values("database_name", "code").annotate(count=Count("pk"), first=Min("pk")))
    firsts = Finding.objects.in_bulk([each["first"] for each in kinds])
    for each in kinds:
        first = firsts[each["first"]]
        more = f" And {each['count'] - 1} more like it." if each["count"] > 1 else ""
        where = f" ({first.path})" if first.path else ""
        yield Problem(
            code=first.code,
            database=first.database_name,
            message=f"{first.message}{where}{more}",
            hint=f"{first.hint} `manage.py backup rescan` looks again.",
        )


def note_new_signing_key(look: Look) -> Iterator[str]:
    """Was the signing key replaced lately?"""
    replaced = replacement_event()
    if replaced is not None and look.now - replaced.at < _SAY_FOR:
        yield (
            f"A new signing key was made on {replaced.at:%Y-%m-%d}; older manifests are checked with the old public "
            "key, kept in state/signing-keys. Put the old state/signing.key back if you still have it."
        )
