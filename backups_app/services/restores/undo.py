"""Undo a restore: put its safety backup back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.utils import timezone

from ... import conf
from ...core.errors import BackupError, RefusedError
from ...core.progress import ProgressCallback, Watch
from ...encryption import Keyring
from ...models import AuditEvent, Job, Restore
from .. import audit
from ..audit import Actor
from ..hosts import require_here
from ..jobs.ask import ask_restore
from ..wording import english
from .decide import approver_of, reject_restore, requester_of
from .guards import GUARDS
from .heal import heal_restores
from .preview import preview_restore
from .request import file_request
from .run import run_restore


def undo_restore(
    restore: Restore,
    *,
    actor: Actor,
    keyring: Keyring | None = None,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Restore:
    """:func:`request_undo`, and run it in this process when it is approved; returns the new restore.

    Raises:
        RefusedError: as :func:`request_undo`, or the database is on another host. BusyError: a backup or
            restore of the database runs. No open request is left after them.
    """
    require_here(restore.database)
    undo = request_undo(restore, actor=actor, keyring=keyring)
    if undo.state != Restore.State.APPROVED:
        return undo
    try:
        return run_restore(undo, actor=actor, keyring=keyring, on_progress=on_progress, is_cancelled=is_cancelled)
    except BackupError as exc:
        _withdraw(undo, exc, actor=actor)
        raise


def ask_undo(restore: Restore, *, actor: Actor, trigger: str) -> tuple[Restore, Job | None]:
    """:func:`request_undo`, and ask a worker to run it when it is approved.

    Raises:
        RefusedError, BusyError: as :func:`undo_restore`.
    """
    undo = request_undo(restore, actor=actor)
    if undo.state != Restore.State.APPROVED:
        return undo, None
    try:
        return undo, ask_restore(undo, actor=actor, trigger=trigger)
    except BackupError as exc:
        _withdraw(undo, exc, actor=actor)
        raise


def request_undo(restore: Restore, *, actor: Actor, keyring: Keyring | None = None) -> Restore:
    """File the restore that puts back the content from before ``restore``; returns it.

    It is approved at once for either person of that restore while its approval window is open: the
    two of them have approved this content together; a request for it that still waits is rejected
    then. Later, and for anybody else, it needs a fresh approval. No guard speaks against an undo.

    Raises:
        RefusedError: there is nothing to undo, or an undo is there already.
        KeyMissingError: the safety backup is encrypted, and no identity at hand opens it.
    """
    heal_restores()
    restore.refresh_from_db()
    _require_key(restore, keyring or Keyring.configured())
    is_at_once = runs_at_once(restore, actor=actor)
    preview = None if is_at_once else _preview(restore, keyring)
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        Restore.objects.select_for_update().get(pk=restore.pk)  # of two at once, one files the undo
        restore.refresh_from_db()
        other = _other_person(restore, actor)
        if other is not None and is_at_once:
            _reject_waiting(restore, actor=actor)
        undo = _file_undo(restore, actor=actor, preview=preview)
        if other is not None and is_at_once:
            _approve_with(undo, other, actor=actor)
    return undo


def _require_key(restore: Restore, keyring: Keyring) -> None:
    safety = restore.safety_backup
    if restore.state == Restore.State.SUCCEEDED and safety is not None and safety.is_encrypted:
        keyring.require_any(safety.key_ids)


def _preview(restore: Restore, keyring: Keyring | None) -> dict[str, Any] | None:
    """What the second person should see before deciding."""
    if restore.safety_backup is None or restore.state != Restore.State.SUCCEEDED:
        return None
    watch = Watch(deadline_seconds=conf.get("DEADLINE_SECONDS"))
    return preview_restore(restore.safety_backup, restore.database, watch=watch, keyring=keyring).document


def _reject_waiting(restore: Restore, *, actor: Actor) -> None:
    """Who may undo at once is not held up by a request for the same that nobody has approved."""
    for waiting in restore.undos.filter(state=Restore.State.REQUESTED):
        reject_restore(waiting, reason=f"{actor.name} undoes restore {restore.pk} at once.", actor=actor)


def _withdraw(undo: Restore, exc: BackupError, *, actor: Actor) -> None:
    """An undo that could not begin leaves no open approval behind."""
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        changed = Restore.objects.filter(pk=undo.pk, state=Restore.State.APPROVED).update(
            state=Restore.State.CANCELLED, finished_at=timezone.now(), outcome=exc.message, hint=exc.hint
        )
        if changed:
            audit.record(
                "restore",
                actor=actor,
                outcome=AuditEvent.Outcome.FAILED,
                database_name=undo.database.name,
                subject=undo.pk,
                detail=exc.message,
            )
    undo.refresh_from_db()


def runs_at_once(restore: Restore, *, actor: Actor) -> bool:
    """Whether an undo by ``actor`` needs no fresh approval."""
    return _other_person(restore, actor) is not None and restore.expires_at > timezone.now()


def _file_undo(restore: Restore, *, actor: Actor, preview: dict[str, Any] | None) -> Restore:
    safety = restore.safety_backup
    if restore.state != Restore.State.SUCCEEDED or safety is None:
        raise RefusedError(
            f"Restore {restore.pk} is {english(restore, 'state')} and has nothing to undo.",
            "Only a restore that changed a live database can be undone.",
        )
    earlier = restore.undos.filter(state__in=[*Restore.OPEN_STATES, Restore.State.SUCCEEDED]).first()
    if earlier is not None:
        raise RefusedError(
            f"The undo of restore {restore.pk} is {english(earlier, 'state')} as {earlier.pk}.",
            "Undo that one in turn." if earlier.state == Restore.State.SUCCEEDED else "Decide that one first.",
        )
    return file_request(
        safety,
        restore.database,
        reason=f"undo of restore {restore.pk}",
        actor=actor,
        overrides=dict.fromkeys(GUARDS, "undo"),
        is_migrating=False,
        preview=preview,
        undo_of=restore,
    )


def _other_person(restore: Restore, actor: Actor) -> Actor | None:
    """The other one of the two people of a restore; None when ``actor`` may not stand for both."""
    requester, approver = requester_of(restore), approver_of(restore)
    if requester == approver and conf.get("FOUR_EYES"):  # from a time when one person was enough
        return None
    if actor == requester:
        return approver
    return requester if actor == approver else None


def _approve_with(undo: Restore, other: Actor, *, actor: Actor) -> None:
    """Carry the approval of the restore over to its undo."""
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        Restore.objects.filter(pk=undo.pk).update(
            state=Restore.State.APPROVED,
            approved_by_id=other.id,
            approved_by_name=other.name,
            approved_at=timezone.now(),
            approved_binding=undo.binding_sha256,
            is_self_approved=other == actor,
        )
        audit.record(
            "approve-restore",
            actor=actor,
            outcome=AuditEvent.Outcome.DONE,
            database_name=undo.database.name,
            subject=undo.pk,
            detail=f"undo within the approval window of restore {undo.undo_of_id}",
        )
    undo.refresh_from_db()
