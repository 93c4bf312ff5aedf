"""What the last rescan found at the destinations, and whether manifests are signed with a new key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber

from ...models import Finding
from .facts import Look, Problem

_SAY_FOR = timedelta(days=30)
"""How long a new signing key is named."""


def find_damage(_look: Look) -> Iterator[Problem]:
    """What the last rescan found wrong: one problem for each database and kind of damage."""
    kind = [F("database_name"), F("code")]
    damage = Finding.objects.filter(is_damage=True).annotate(
        place=Window(RowNumber(), partition_by=kind, order_by="pk"), count=Window(Count("pk"), partition_by=kind)
    )
    for first in damage.filter(place=1).order_by("database_name", "code"):
        others = getattr(first, "count", 1) - 1
        more = f" And {others} more like it." if others else ""
        where = f" ({first.path})" if first.path else ""
        yield Problem(
            code=first.code,
            database=first.database_name,
            message=f"{first.message}{where}{more}",
            hint=f"{first.hint} `manage.py backup rescan` looks again.",
        )


def note_new_signing_key(look: Look) -> Iterator[str]:
    """Was the signing key replaced lately?"""
    replaced_at = look.signing_key_replaced_at
    if replaced_at is not None and look.now - replaced_at < _SAY_FOR:
        yield (
            f"A new signing key was made on {replaced_at:%Y-%m-%d}; older manifests are checked with the old public "
            "key, kept in state/signing-keys. Put the old state/signing.key back if you still have it."
        )
