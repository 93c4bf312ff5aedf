"""The evidence about recipients, brought in line with the settings."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction

from ... import conf, encryption
from ...core.age import X25519Recipient
from ...models import Recipient

_DAYS_PER_MONTH = 365.25 / 12


def sync_recipients(*, now: datetime) -> list[Recipient]:
    """Note which recipients are set now; returns their rows in the order of the settings.

    A new one gets a row, one that is gone is retired, one that came back is no longer.

    Raises: as :func:`encryption.recipients`; nothing changes then.
    """
    found = {each.public: each for each in synced_recipients(now=now)}
    return [found[str(each)] for each in encryption.recipients()]


def synced_recipients(*, now: datetime) -> list[Recipient]:
    """The same for all rows, also of recipients that are retired, in the order of the table.

    One query, and nothing is written, as long as nothing has changed.

    Raises: as :func:`encryption.recipients`; nothing changes then.
    """
    configured = encryption.recipients()
    publics = [str(each) for each in configured]
    rows = list(Recipient.objects.all())
    if {each.public for each in rows if each.retired_at is None} == set(publics):
        return rows
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        for each in configured:
            Recipient.objects.get_or_create(public=str(each), defaults={"key_id": each.key_id, "first_seen_at": now})
        Recipient.objects.filter(public__in=publics).exclude(retired_at=None).update(retired_at=None)
        Recipient.objects.exclude(public__in=publics).filter(retired_at=None).update(retired_at=now)
    return list(Recipient.objects.all())


def note_use(publics: tuple[str, ...], *, now: datetime) -> None:
    """Note that an archive was made for these recipients."""
    for public in publics:
        Recipient.objects.get_or_create(
            public=public, defaults={"key_id": X25519Recipient.parse(public).key_id, "first_seen_at": now}
        )
    Recipient.objects.filter(public__in=publics, first_used_at=None).update(first_used_at=now)


def proof_due_at(recipient: Recipient) -> datetime | None:
    """Until when the last proof counts; None when there is none."""
    if recipient.proven_at is None:
        return None
    return recipient.proven_at + timedelta(days=_DAYS_PER_MONTH * float(conf.get("AGE_PROOF_MONTHS")))


def is_proven(recipient: Recipient, *, now: datetime) -> bool:
    """Whether somebody has shown lately that archives for it can be opened."""
    due = proof_due_at(recipient)
    return due is not None and now < due


def proof_state(recipient: Recipient, *, now: datetime) -> str:
    """``proven``, ``proof too old`` or ``never proven``."""
    if is_proven(recipient, now=now):
        return "proven"
    return "never proven" if recipient.proven_at is None else "proof too old"
