"""Approve or reject a request, and let those that nobody used expire."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from ... import conf
from ...core.errors import InputError, RefusedError
from ...models import AuditEvent, Job, Restore
from .. import audit
from ..audit import Actor
from ..jobs import cancel_job
from ..people import is_same_person
from ..wording import english
from .binding import binding_of


def approve_restore(restore: Restore, *, actor: Actor) -> Restore:
    """Approve a request, once, as another person than the one who asked.

    With ``BACKUPS["FOUR_EYES"] = False`` a person may approve their own; it is recorded as such.
    An approval by the same person that nobody has used yet stands: what kept it from running may
    be gone now.

    Raises:
        RefusedError: by the same person, by the system account, no longer open, or not what was
            asked for. Nothing changed.
    """
    expire_restores()
    restore.refresh_from_db()
    if restore.state == Restore.State.APPROVED and actor == approver_of(restore):
        return restore
    try:
        is_self_approved = _require_approver(restore, actor)
    except RefusedError as exc:
        _audit(restore, "approve-restore", actor=actor, outcome=AuditEvent.Outcome.REFUSED, detail=exc.message)
        raise
    now = timezone.now()
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        changed = Restore.objects.filter(
            pk=restore.pk, state=Restore.State.REQUESTED, expires_at__gt=now, binding_sha256=restore.binding_sha256
        ).update(
            state=Restore.State.APPROVED,
            approved_by_id=actor.id,
            approved_by_name=actor.name,
            approved_at=now,
            approved_binding=restore.binding_sha256,
            is_self_approved=is_self_approved,
        )
        if changed:
            detail = "self-approved: the four-eyes rule is switched off" if is_self_approved else ""
            _audit(restore, "approve-restore", actor=actor, outcome=AuditEvent.Outcome.DONE, detail=detail)
    restore.refresh_from_db()
    if not changed:
        raise _not_open(restore)
    return restore


def reject_restore(restore: Restore, *, reason: str, actor: Actor) -> Restore:
    """Reject an open request; the person who asked may withdraw their own this way. Its waiting job is cancelled.

    Raises:
        InputError: the reason is empty. RefusedError: it is no longer open.
    """
    if not reason.strip():
        raise InputError("A rejection needs a reason.", "Say why with --reason TEXT.")
    expire_restores()
    is_own = actor == requester_of(restore)
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        changed = Restore.objects.filter(
            pk=restore.pk, state__in=[Restore.State.REQUESTED, Restore.State.APPROVED]
        ).update(
            state=Restore.State.CANCELLED if is_own else Restore.State.REJECTED,
            rejected_by_name=actor.name,
            finished_at=timezone.now(),
            outcome=reason.strip(),
        )
        if changed:
            for job in restore.jobs.filter(state=Job.State.QUEUED):
                cancel_job(job, actor=actor)
            _audit(restore, "reject-restore", actor=actor, outcome=AuditEvent.Outcome.DONE, detail=reason.strip())
    restore.refresh_from_db()
    if not changed:
        raise _not_open(restore)
    return restore


def requester_of(restore: Restore) -> Actor:
    """Who asked for a restore."""
    return Actor(id=restore.requested_by_id, name=restore.requested_by_name)


def approver_of(restore: Restore) -> Actor:
    """Who approved a restore."""
    return Actor(id=restore.approved_by_id, name=restore.approved_by_name)


OVERDUE_STATES = (Restore.State.REQUESTED, Restore.State.APPROVED)
"""Those that end when ``expires_at`` has come."""


def expire_restores() -> int:
    """Close the requests and approvals whose time is over; returns how many."""
    now = timezone.now()
    over = Restore.objects.filter(state__in=OVERDUE_STATES, expires_at__lte=now).select_related("database")
    count = 0
    for restore in over:
        with transaction.atomic(using=conf.CATALOG_ALIAS):
            changed = Restore.objects.filter(pk=restore.pk, state=restore.state).update(
                state=Restore.State.EXPIRED, finished_at=now, outcome="Nobody used it in time."
            )
            if changed:
                _audit(restore, "expire-restore", actor=Actor.system(), outcome=AuditEvent.Outcome.DONE, detail="")
        count += changed
    return count


def _require_approver(restore: Restore, actor: Actor) -> bool:
    """Whether this is a self-approval; refuses it where two people are needed."""
    if restore.state != Restore.State.REQUESTED:
        raise _not_open(restore)
    if not actor.id:
        raise RefusedError("The system account may not approve a restore.", "Give a person with --user NAME.")
    if binding_of(restore) != restore.binding_sha256:
        raise RefusedError(
            "The archive, the target or the options are not those of the request.", "File a new request."
        )
    is_self = is_same_person(actor, requester_of(restore))
    if is_self and conf.get("FOUR_EYES"):
        raise RefusedError(
            f"{actor.name} asked for this restore; somebody else must approve it.",
            "Ask a second person. A site with one person sets BACKUPS['FOUR_EYES'] = False.",
        )
    return is_self


def _not_open(restore: Restore) -> RefusedError:
    return RefusedError(
        f"Restore {restore.pk} is {english(restore, 'state')}, not waiting for a decision.", "File a new request."
    )


def _audit(restore: Restore, action: str, *, actor: Actor, outcome: str, detail: str) -> None:
    audit.record(
        action,
        actor=actor,
        outcome=outcome,
        database_name=restore.database.name,
        subject=restore.pk,
        detail=detail,
    )
