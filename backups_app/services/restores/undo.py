"""Undo a restore: put its safety backup back."""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction
from django.utils import timezone

from ... import conf
from ...core.errors import RefusedError
from ...core.progress import ProgressCallback
from ...models import AuditEvent, Restore
from .. import audit
from ..audit import Actor
from .guards import GUARDS
from .request import file_request
from .run import heal_restores, run_restore


def undo_restore(
    restore: Restore,
    *,
    actor: Actor,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Restore:
    """Put back the content from before ``restore``; returns the new restore.

    Either person of that restore may do it at once while its approval window is open: the two
    of them have approved this content together, so no guard speaks against it. Later, and for
    anybody else, a request is filed that needs a fresh approval.

    Raises:
        RefusedError: there is nothing to undo.
    """
    heal_restores()
    restore.refresh_from_db()
    safety = restore.safety_backup
    if restore.state != Restore.State.SUCCEEDED or safety is None:
        raise RefusedError(
            f"Restore {restore.pk} is {restore.get_state_display()} and has nothing to undo.",
            "Only a restore that changed a live database can be undone.",
        )
    undo = file_request(
        safety,
        restore.database,
        reason=f"undo of restore {restore.pk}",
        actor=actor,
        overrides=dict.fromkeys(GUARDS, "undo"),
        is_migrating=False,
        preview=None,
        undo_of=restore,
    )
    other = _other_person(restore, actor)
    if other is None or restore.expires_at <= timezone.now():
        return undo
    _approve_with(undo, other, actor=actor)
    return run_restore(undo, actor=actor, on_progress=on_progress, is_cancelled=is_cancelled)


def _other_person(restore: Restore, actor: Actor) -> Actor | None:
    """The other one of the two people of a restore; None when ``actor`` is not one of them."""
    requester = Actor(id=restore.requested_by_id, name=restore.requested_by_name)
    approver = Actor(id=restore.approved_by_id, name=restore.approved_by_name)
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
