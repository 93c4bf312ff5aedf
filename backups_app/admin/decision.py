"""Approve, reject, undo: who may, when it makes sense, and the forms that ask for the password."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from ..models import Job, Restore
from ..services.audit import Actor

_WAITING = (Restore.State.REQUESTED, Restore.State.APPROVED)


class PasswordForm(forms.Form):
    """Whoever does something that matters says again who they are."""

    password = forms.CharField(
        label=gettext_lazy("Your password"),
        widget=forms.PasswordInput(attrs={"autocomplete": "current-password"}),
        strip=False,
    )

    def __init__(self, data: Any = None, *, user: Any) -> None:
        super().__init__(data)
        self._user = user

    def clean_password(self) -> str:
        """The password of the signed-in user."""
        password = str(self.cleaned_data["password"])
        if not self._user.check_password(password):
            raise forms.ValidationError(_("This is not your password."))
        return password


class RejectForm(PasswordForm):
    """Why a request is turned down."""

    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=2000)
    field_order = ["reason", "password"]


def may(user: Any, restore: Restore, verb: str) -> bool:
    """Whether this person may ever do this: by permission, or because it is their own."""
    can_request = user.has_perm("backups_app.request_restore")
    can_approve = user.has_perm("backups_app.approve_restore")
    if verb == "reject":
        return bool(can_approve or (can_request and is_own(user, restore)))
    if verb == "undo":
        return bool(can_request or (can_approve and restore.approved_by_id == Actor.of(user).id))
    return bool(can_approve)


def obstacle(user: Any, restore: Restore, verb: str) -> str:
    """Why it makes no sense now, for people; empty when nothing is in the way."""
    if verb == "undo":
        return _obstacle_to_undo(restore)
    if restore.state not in _WAITING:
        return _("This request is %(state)s. Nothing is left to decide.") % {"state": restore.get_state_display()}
    if verb == "approve" and open_job(restore):
        return _("A job waits to run it, or runs it now.")
    if restore.expires_at <= timezone.now():
        return _("This request has expired. File a new one.")
    is_decided = verb == "reject" or restore.state == Restore.State.APPROVED
    if not is_decided and is_own(user, restore) and conf.get("FOUR_EYES"):
        return _("You asked for this restore yourself. Another person has to approve it.")
    return ""


def _obstacle_to_undo(restore: Restore) -> str:
    if restore.state != Restore.State.SUCCEEDED or not restore.safety_backup_id:
        return _("There is nothing to undo.")
    if undo_of(restore):
        return _("It was undone already, or its undo waits for approval.")
    return ""


def undo_of(restore: Restore) -> Restore | None:
    """The restore that undid this one, or is about to."""
    states = [*Restore.OPEN_STATES, Restore.State.SUCCEEDED]
    found: Restore | None = restore.undos.filter(state__in=states).first()
    return found


def open_job(restore: Restore | None) -> Job | None:
    """The job that waits to run this restore, or runs it now."""
    if restore is None:
        return None
    found: Job | None = restore.jobs.filter(state__in=Job.OPEN_STATES).first()
    return found


def is_own(user: Any, restore: Restore) -> bool:
    """Whether this person asked for it."""
    actor = Actor.of(user)
    return actor.id == restore.requested_by_id or actor.name == restore.requested_by_name
