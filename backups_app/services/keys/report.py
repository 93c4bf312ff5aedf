"""Which key still opens how many archives, and which archives nothing opens any more.

An archive counts as one that can be opened when one of its recipients is set now, or has shown
after its retirement, and lately enough, that its identity is still kept, or when an identity at hand
belongs to one of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_

from django.db.models import Count, Q, QuerySet

from ...encryption import Keyring
from ...models import Backup, Copy, Recipient
from .registry import is_proven, proof_due_at, proof_state, synced_recipients


@dataclass(frozen=True, kw_only=True)
class KeyReport:
    """What is known of one key."""

    recipient: Recipient
    is_configured: bool
    is_proven: bool
    proof: str
    proof_due_at: datetime | None
    is_at_hand: bool
    """Whether an identity that was given, or is set here, opens its archives."""
    archives: int
    """Stored archives that it opens."""
    archives_alone: int
    """…and no other key does."""


@dataclass(frozen=True, kw_only=True)
class KeysReport:
    """All keys at one moment."""

    keys: list[KeyReport]
    encrypted_archives: int
    plain_archives: int
    lost_archives: int
    """How many stored archives can no longer be opened by any key that is set, proven or at hand."""
    lost: QuerySet[Backup]
    """Those archives, newest first."""

    @property
    def configured(self) -> list[KeyReport]:
        """Those that new archives are made for."""
        return [each for each in self.keys if each.is_configured]


def report_keys(*, now: datetime, keyring: Keyring | None = None) -> KeysReport:
    """Look at every key and every stored archive.

    Raises: as :func:`encryption.recipients`.
    """
    rows = synced_recipients(now=now)
    at_hand = (keyring or Keyring.configured()).publics
    stored = _stored()
    # Archives by the keys that open them: a few sets of keys, however many archives there are.
    by_keys = list(stored.order_by().values("is_encrypted", "key_ids").annotate(archives=Count("pk")))
    sets = [(each["key_ids"], each["archives"]) for each in by_keys if each["is_encrypted"]]
    counts: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for publics, archives in sets:
        counts.update(dict.fromkeys(publics, archives))
        if len(set(publics)) == 1:
            alone[publics[0]] += archives
    openable = {row.public for row in rows if _is_held(row, now=now)} | at_hand
    lost = [(publics, archives) for publics, archives in sets if not _can_be_opened(publics, openable, at_hand)]
    keys = [
        KeyReport(
            recipient=row,
            is_configured=row.retired_at is None,
            is_proven=is_proven(row, now=now),
            proof=proof_state(row, now=now),
            proof_due_at=proof_due_at(row),
            is_at_hand=row.public in at_hand,
            archives=counts[row.public],
            archives_alone=alone[row.public],
        )
        for row in rows
    ]
    return KeysReport(
        keys=sorted(keys, key=lambda each: not each.is_configured),
        encrypted_archives=sum(archives for _publics, archives in sets),
        plain_archives=sum(each["archives"] for each in by_keys if not each["is_encrypted"]),
        lost_archives=sum(archives for _publics, archives in lost),
        lost=_with_keys(stored.filter(is_encrypted=True), [publics for publics, _archives in lost]),
    )


def _can_be_opened(publics: list[str], openable: set[str], at_hand: frozenset[str]) -> bool:
    if not publics:  # found by a rescan: manifests do not name recipients
        return bool(at_hand)
    return bool(openable & set(publics))


def _with_keys(backups: QuerySet[Backup], sets: list[list[str]]) -> QuerySet[Backup]:
    """Those whose recipients are one of these sets."""
    if not sets:
        return backups.none()
    return backups.filter(reduce(or_, (Q(key_ids=publics) for publics in sets)))


def _stored() -> QuerySet[Backup]:
    """Backups with an archive, newest first, without their large facts."""
    with_copy = Copy.objects.exclude(state__in=[Copy.State.PENDING, Copy.State.REFUSED, Copy.State.PRUNED]).values(
        "backup"
    )
    kept = Backup.objects.exclude(state__in=Backup.GONE_STATES)
    return kept.filter(pk__in=with_copy).select_related("database").defer("census", "remarks")


def _is_held(recipient: Recipient, *, now: datetime) -> bool:
    if recipient.retired_at is None:
        return True
    proven_at = recipient.proven_at
    return proven_at is not None and proven_at > recipient.retired_at and is_proven(recipient, now=now)
