"""Proof of possession: somebody opens a challenge with stock ``age -d`` and tells the word in it.

The word is known to nobody else: it is encrypted for the recipient, and only its digest is kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from django.db import transaction
from django.db.models import F, QuerySet

from ... import conf
from ...core.age import X25519Recipient, armor, encrypt
from ...core.errors import InputError, KeyMissingError, NotFoundError, RefusedError
from ...core.files import refuse_existing, write_synced
from ...models import AuditEvent, Recipient
from .. import audit
from ..audit import Actor
from .registry import is_proven, sync_recipients

LIFETIME = timedelta(hours=24)
"""How long a challenge may be answered: the key may lie in a safe."""

MAX_ATTEMPTS = 5
"""Wrong answers that one challenge takes. The word has 80 random bits."""

_WORD_BYTES = 10


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """A word that only an identity of the recipient shows."""

    recipient: Recipient
    armored: str
    """The age file, in its text form."""
    expires_at: datetime


def find_recipient(given: str | None, *, now: datetime, is_answer: bool = False) -> Recipient:
    """The recipient of this text or key id (or its beginning); without one, the only one to prove.

    For an answer that is the only one with an open challenge.

    Raises:
        NotFoundError: there is none. InputError: there are several.
    """
    configured = sync_recipients(now=now)
    if given is None and is_answer:
        wanted = [each for each in Recipient.objects.all() if has_open_challenge(each, now=now)]
        wanted = wanted or configured[:1]  # it will say that there is no challenge
    elif given is None:
        wanted = [each for each in configured if not is_proven(each, now=now)] or configured
    else:
        wanted = [each for each in Recipient.objects.all() if len(given) >= 8 and each.public.startswith(given)]
    if not wanted:
        raise NotFoundError(
            f"There is no recipient {given!r}." if given else "No recipient is set.",
            "Set BACKUPS['AGE_RECIPIENTS'] first; `manage.py backup keys` lists them.",
        )
    if len(wanted) > 1:
        shown = ", ".join(f"{each.key_id}…" for each in wanted)
        raise InputError(f"There are several recipients: {shown}.", "Name one with --recipient.")
    return wanted[0]


def make_challenge(recipient: Recipient, *, actor: Actor, now: datetime, path: Path | None = None) -> Challenge:
    """A new challenge for ``recipient``, also in the new file ``path``; an earlier one can no longer be answered.

    Raises:
        InputError: the recipient in the row is not one. RefusedError: the file exists. NotFoundError,
            BackupError: from the disk. The earlier one is still good after any of these.
    """
    word = base64.b32encode(secrets.token_bytes(_WORD_BYTES)).decode("ascii").lower()
    shown = "-".join(word[at : at + 4] for at in range(0, len(word), 4))
    public = X25519Recipient.parse(recipient.public)
    armored = b"".join(armor.encode(encrypt([f"{shown}\n".encode("ascii")], recipients=[public])))
    if path is not None:
        refuse_existing(path)
        write_synced(path, armored)
    expires_at = now + LIFETIME
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        Recipient.objects.filter(pk=recipient.pk).update(
            challenge_sha256=_digest(recipient, word), challenge_expires_at=expires_at, challenge_attempts=0
        )
        audit.record("challenge-key", actor=actor, subject=recipient.key_id, detail=recipient.public)
    recipient.refresh_from_db()
    return Challenge(recipient=recipient, armored=armored.decode("ascii"), expires_at=expires_at)


def answer_challenge(recipient: Recipient, answer: str, *, actor: Actor, now: datetime) -> Recipient:
    """Take the word in a challenge as proof that its identity is at hand; each challenge counts once.

    Raises:
        RefusedError: no challenge is open: none was made, it was used, it expired, or there were
            too many wrong answers. KeyMissingError: the answer is wrong.
    """
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        is_counted = _open(recipient, now=now).update(challenge_attempts=F("challenge_attempts") + 1)
    recipient.refresh_from_db()
    if not is_counted:
        _audit(recipient, AuditEvent.Outcome.REFUSED, actor=actor, detail="no open challenge")
        raise RefusedError(
            f"There is no challenge for {recipient.key_id}… to be answered.",
            "Make one with `manage.py backup prove`; it is good for a day and for five answers.",
        )
    expected = recipient.challenge_sha256
    if not hmac.compare_digest(_digest(recipient, answer), expected):
        _audit(recipient, AuditEvent.Outcome.FAILED, actor=actor, detail="wrong answer")
        raise KeyMissingError(
            "That is not the word in the challenge.", "Open it with `age -d -i KEYFILE` and give the word it prints."
        )
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        changed = Recipient.objects.filter(pk=recipient.pk, challenge_sha256=expected).update(
            proven_at=now,
            proven_by_name=actor.name,
            challenge_sha256="",
            challenge_expires_at=None,
            challenge_attempts=0,
        )
        if changed:
            _audit(recipient, AuditEvent.Outcome.DONE, actor=actor, detail=recipient.public)
    recipient.refresh_from_db()
    return recipient


def has_open_challenge(recipient: Recipient, *, now: datetime) -> bool:
    """Whether an answer can be given."""
    return _open(recipient, now=now).exists()


def _open(recipient: Recipient, *, now: datetime) -> QuerySet[Recipient]:
    return Recipient.objects.filter(
        pk=recipient.pk, challenge_expires_at__gt=now, challenge_attempts__lt=MAX_ATTEMPTS
    ).exclude(challenge_sha256="")


def _digest(recipient: Recipient, word: str) -> str:
    plain = "".join(each for each in word.lower() if each.isalnum())
    return hashlib.sha256(f"{recipient.public}:{plain}".encode()).hexdigest()


def _audit(recipient: Recipient, outcome: str, *, actor: Actor, detail: str) -> None:
    audit.record("prove-key", actor=actor, outcome=outcome, subject=recipient.key_id, detail=detail)
