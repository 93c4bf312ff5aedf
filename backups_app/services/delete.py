"""Delete one backup because a person wants it: by the same two steps as pruning, under more guards.

A policy never deletes the newest of its sort; a person may, who types the name of the database. What
is held, needed or within the window of a safety backup goes by nobody's word.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from .. import conf
from ..core.errors import BackupError, BusyError, CancelledError, InputError, RefusedError, UnreachableError
from ..destinations import reach
from ..jobs.claim import Claim
from ..models import AuditEvent, Backup, Copy, Job
from . import audit
from .audit import Actor
from .copies import refuse_pruned
from .jobs.ending import Ending
from .jobs.inline import run_inline
from .links import is_referred_to, object_name
from .prune import give_up, is_held_by_hand, is_safety, needed_backups, newest_at, proven_beside

ACTION = "delete"

_PATIENCE_SECONDS = 5.0
"""Whoever waits for the answer is at a browser."""


@dataclass(frozen=True, kw_only=True)
class Last:
    """What is lost with a backup that is the last of its sort; falsy when it is not."""

    is_last_verified: bool = False
    """No newer backup of its database is verified."""
    is_last_evidence: bool = False
    """It is not verified, but nothing else is either."""
    places: tuple[str, ...] = ()
    """Destinations where no newer copy of its database is verified."""

    def __bool__(self) -> bool:
        return self.is_last_verified or self.is_last_evidence or bool(self.places)


def last_of(backup: Backup, *, now: datetime) -> Last:
    """What ``backup`` is the last of, so that its deletion needs the name of its database."""
    proven = proven_beside(backup)
    if backup.state != Backup.State.VERIFIED:
        return Last(is_last_evidence=not proven.exists())
    is_newer_there = proven.filter(taken_at__gte=backup.taken_at, taken_at__lte=now).exists()
    return Last(is_last_verified=not is_newer_there, places=tuple(newest_at(backup, now=now)))


def refuse_deletion(backup: Backup, *, now: datetime) -> None:
    """Refuse what nobody may delete: while it is held, needed, referred to, protected, made, or without files.

    Raises:
        RefusedError: with the reason and what to do.
    """
    refuse_pruned(backup)
    if backup.state == Backup.State.RUNNING:
        raise RefusedError("This backup is being made.", "Wait for its job to end, or cancel it.")
    if not backup.copies.exclude(state__in=[Copy.State.PENDING, Copy.State.PRUNED]).exists():
        raise RefusedError("This backup has no files: there is nothing to delete.", "Its record stays as history.")
    if is_held_by_hand(backup):
        raise RefusedError(f"This backup is held by {backup.held_by_name or 'somebody'}.", "Release it first.")
    if backup.pk in needed_backups(now=now):
        raise RefusedError(
            "An open restore, or the undo of a restore, needs this backup.",
            "Wait until it has ended or expired, or reject the request.",
        )
    if is_referred_to(backup):
        raise RefusedError(
            "Another backup shares the archive of this one, or builds on it.",
            "Delete that one first; retention deletes both when their time has come.",
        )
    ends_at = (backup.taken_at or backup.created_at) + timedelta(days=conf.get("SAFETY_DAYS"))
    if ends_at > now and is_safety(backup):
        raise RefusedError(
            f"This is the safety backup of a restore, kept until {ends_at:%Y-%m-%d %H:%M} UTC.",
            "It can be deleted afterwards. The window is the setting SAFETY_DAYS.",
        )


def delete_backup(backup: Backup, *, reason: str, typed_name: str = "", actor: Actor) -> Backup:
    """Delete the files of ``backup``, now; the row stays, with who deleted it and why. Returns it as it is then.

    ``typed_name`` must be the name of its database, exactly, when ``backup`` is the last of its sort
    (:func:`last_of`). Every attempt is recorded in the audit trail.

    Raises:
        InputError: there is no reason. RefusedError: it may not go, or the name is not right, or
            something has changed in between. UnreachableError: a newer backup that would remain is
            not where it should be. BusyError: a job of its database runs. Nothing was deleted
            after any of these. BackupError: it is given up, but a file could not be removed yet.
    """
    try:
        return _delete(backup, reason=" ".join(reason.split()), typed_name=typed_name, actor=actor)
    except BackupError as exc:
        is_refused = isinstance(exc, RefusedError | InputError)
        outcome = AuditEvent.Outcome.REFUSED if is_refused else AuditEvent.Outcome.FAILED
        audit.record(
            ACTION,
            actor=actor,
            outcome=outcome,
            database_name=backup.database.name,
            subject=backup.pk,
            detail=exc.message,
        )
        raise


def _delete(backup: Backup, *, reason: str, typed_name: str, actor: Actor) -> Backup:
    if not reason:
        raise InputError("A reason is missing.", "Say why this backup is deleted; it stays on its record.")
    refuse_deletion(backup, now=timezone.now())
    give_up_at = time.monotonic() + _PATIENCE_SECONDS

    def work(_claim: Claim) -> Backup:
        now = timezone.now()
        backup.refresh_from_db()
        refuse_deletion(backup, now=now)
        is_last = bool(last_of(backup, now=now))
        if is_last and typed_name != backup.database.name:
            raise RefusedError(
                "It is the last of its sort, and the name of its database was not typed exactly.",
                "Type the name as it is shown, or make a new backup first.",
            )
        if not is_last:
            _require_survivor(backup, now=now)
        said = f"deleted by {actor.name}: {reason}"
        if not give_up(backup, reason=said, actor=actor, now=now, is_last_allowed=is_last):
            raise RefusedError("Something has changed since. Nothing was deleted.", "Look at it again.")
        return backup

    try:
        deleted = run_inline(
            Job.Kind.PRUNE,
            backup.database,
            actor=actor,
            trigger=Job.Trigger.ADMIN,
            options={"delete": backup.pk},
            work=work,
            ending_of=lambda found: Ending.succeeded(f"Backup {found.pk} was deleted."),
            is_cancelled=lambda: time.monotonic() > give_up_at,
        )
    except CancelledError as exc:
        raise BusyError(
            f"Another job of {backup.database.name} is running. Nothing was deleted.", "Try again when it has ended."
        ) from exc
    audit.record(
        ACTION, actor=actor, database_name=deleted.database.name, subject=deleted.pk, detail=deleted.prune_reason
    )
    return deleted


def _require_survivor(backup: Backup, *, now: datetime) -> None:
    """The newest verified backup that remains must really be there, in one place at least.

    Raises:
        UnreachableError: it is not.
    """
    survivor = proven_beside(backup).filter(taken_at__lte=now).order_by("-taken_at", "pk").first()
    if survivor is None:
        return  # it was confirmed that none remains
    for copy in survivor.copies.filter(state=Copy.State.VERIFIED):
        try:
            if reach(copy.destination).size(object_name(survivor, copy)) == survivor.archive_bytes:
                return
        except UnreachableError:
            continue
    raise UnreachableError(
        f"Nothing was deleted: the backup {survivor.pk}, which would be the newest that remains, is not there.",
        f"Run `manage.py backup verify {survivor.pk}`, and make a new backup.",
    )
