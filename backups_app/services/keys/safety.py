"""Whether archives may go where they are meant to go."""

from __future__ import annotations

from datetime import datetime

from ...core.errors import RefusedError
from ...destinations import Destination
from ...models import Recipient
from .registry import is_proven, proof_state

_PROVE = "Prove each key with `manage.py backup prove`; see docs/encryption.md."


def require_safe_for(destination: Destination, recipients: list[Recipient], *, now: datetime) -> None:
    """Return when archives for ``recipients`` may be kept at ``destination``.

    Whatever leaves this host must be encrypted, and only for keys that somebody has shown to hold:
    an unproven one may open nothing, or belong to a stranger.

    Raises:
        RefusedError: it is a remote one, and nothing is encrypted or a key is not proven.
    """
    if not destination.is_remote:
        return
    if not recipients:
        raise RefusedError(
            f"The destination {destination.name} is remote, and backups are not encrypted.",
            "Set BACKUPS['AGE_RECIPIENTS'], and prove the key with `manage.py backup prove`.",
        )
    unproven = [each for each in recipients if not is_proven(each, now=now)]
    if unproven:
        shown = ", ".join(f"{each.key_id}… ({proof_state(each, now=now)})" for each in unproven)
        raise RefusedError(
            f"The destination {destination.name} is remote, and nobody has shown to hold each key: {shown}.", _PROVE
        )


def unproven_remark(recipients: list[Recipient], *, now: datetime) -> str:
    """What to tell the maker of a local archive about its keys; nothing when all are proven."""
    unproven = [each for each in recipients if not is_proven(each, now=now)]
    if not unproven:
        return ""
    shown = ", ".join(f"{each.key_id}… ({proof_state(each, now=now)})" for each in unproven)
    return f"Nobody has shown lately that an archive for this key can be opened: {shown}. {_PROVE}"
