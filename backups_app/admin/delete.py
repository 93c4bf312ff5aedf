"""*Delete* of one backup: what is lost is shown; a reason, the password and perhaps a name are asked for."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..core.errors import BackupError
from ..models import Backup
from ..services.audit import Actor
from ..services.delete import Last, delete_backup, last_of, refuse_deletion
from . import display
from .base import BackupPages
from .decision import PasswordForm


class DeleteForm(PasswordForm):
    """Why, who, and for the last one of its sort: which database."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"), max_length=500, help_text=gettext_lazy("It stays on the record of the backup.")
    )
    typed_name = forms.CharField(
        label=gettext_lazy("Name of the database"),
        strip=False,
        help_text=gettext_lazy("Type it exactly as it is shown above."),
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    field_order = ["reason", "typed_name", "password"]

    def __init__(self, data: Any = None, *, user: Any, database_name: str, is_last: bool) -> None:
        super().__init__(data, user=user)
        self._database_name = database_name
        if not is_last:
            del self.fields["typed_name"]

    def clean_typed_name(self) -> str:
        """Exactly the name."""
        typed = str(self.cleaned_data["typed_name"])
        if typed != self._database_name:
            raise forms.ValidationError(_("This is not the name of the database."))
        return typed


class DeletePages(BackupPages):
    """The page on which a backup is deleted."""

    def get_urls(self) -> list[URLPattern]:
        """*Delete*. The stock page of that name refuses everybody: rows stay."""
        own = self.own_path(
            "<str:backup_id>/delete-archive/",
            self.delete_archive_view,
            permission="prune_backup",
            name="backups_app_backup_delete_archive",
        )
        return [own, *super().get_urls()]

    def delete_archive_view(self, request: HttpRequest, backup_id: str) -> HttpResponseBase:
        """GET shows what is lost, POST with the password deletes it."""
        backup, now = self.backup_or_404(request, backup_id), timezone.now()
        page = display.page_url("backup", backup.pk)
        if backup.is_gone and request.method == "POST":
            messages.info(request, _("Its archive was deleted already: nothing is done twice."))
            return HttpResponseRedirect(page)
        obstacle = _obstacle(backup)
        last = Last() if obstacle else last_of(backup, now=now)
        data = request.POST if request.method == "POST" and not obstacle else None
        form = DeleteForm(data, user=request.user, database_name=backup.database.name, is_last=bool(last))
        if form.is_valid():
            return self._delete(request, backup, form)
        context = {
            "backup": backup,
            "obstacle": obstacle,
            "last": last,
            "form": form,
            "taken": display.age(backup.taken_at or backup.created_at),
            "state": display.badge(backup.state, backup.get_state_display()),
            "stored": display.size(backup.archive_bytes),
            "rows": display.count(backup.row_count),
            "places": ", ".join(copy.destination for copy in backup.copies.all()),
        }
        return self.deed_page(request, "confirm_delete", _("Delete backup"), context)

    def _delete(self, request: HttpRequest, backup: Backup, form: DeleteForm) -> HttpResponseRedirect:
        given = form.cleaned_data
        try:
            delete_backup(
                backup,
                reason=given["reason"],
                typed_name=given.get("typed_name", ""),
                actor=Actor.of(request.user),
            )
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
        else:
            messages.success(request, _("The archive was deleted. The record stays."))
        return HttpResponseRedirect(display.page_url("backup", backup.pk))


def _obstacle(backup: Backup) -> str:
    try:
        refuse_deletion(backup, now=timezone.now())
    except BackupError as exc:
        return display.refusal(exc)
    return ""
