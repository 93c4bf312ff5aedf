"""*Download* of a backup, and its manifest to read: one form, the password, one recorded event."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import FileResponse, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..core.errors import BackupError
from ..models import Backup
from ..services.audit import Actor
from ..services.copies import require_copies
from ..services.download import (
    ARCHIVE,
    DATABASE,
    MANIFEST,
    SIGNATURE,
    open_download,
    read_manifest_text,
    refuse_database,
)
from . import display
from .base import BackupPages
from .decision import PasswordForm


class DownloadForm(PasswordForm):
    """What is wanted, and who wants it."""

    what = forms.ChoiceField(label=gettext_lazy("What?"), widget=forms.RadioSelect)
    field_order = ["what", "password"]

    def __init__(self, data: Any = None, *, user: Any, choices: list[tuple[str, Any]]) -> None:
        super().__init__(data, user=user)
        self.fields["what"].choices = choices  # type: ignore[attr-defined]
        self.fields["what"].initial = choices[0][0]


class DownloadPages(BackupPages):
    """The pages of a backup from which something of it goes out."""

    def get_urls(self) -> list[URLPattern]:
        """*Download*, and the manifest."""
        download = self.own_path(
            "<str:backup_id>/download/",
            self.download_view,
            permission="download_backup",
            name="backups_app_backup_download",
        )
        manifest = self.own_path(
            "<str:backup_id>/manifest/",
            self.manifest_view,
            permission="view_backup",
            name="backups_app_backup_manifest",
        )
        return [download, manifest, *super().get_urls()]

    def download_view(self, request: HttpRequest, backup_id: str) -> HttpResponseBase:
        """GET shows what can be had, POST with the password sends it."""
        backup = self.backup_or_404(request, backup_id)
        try:
            require_copies(backup)
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
            return HttpResponseRedirect(display.page_url("backup", backup.pk))
        locked = _why_locked(backup)
        data = request.POST if request.method == "POST" else None
        form = DownloadForm(data, user=request.user, choices=_choices(backup, has_database=not locked))
        if form.is_valid():
            try:
                return _sent(backup, what=form.cleaned_data["what"], actor=Actor.of(request.user))
            except BackupError as exc:
                form.add_error(None, display.refusal(exc))
        context = {
            "backup": backup,
            "form": form,
            "locked": locked,
            "taken": display.age(backup.taken_at or backup.created_at),
            "size": display.size(backup.size_bytes),
            "stored": display.size(backup.archive_bytes),
        }
        return self.deed_page(request, "confirm_download", _("Download backup"), context)

    def manifest_view(self, request: HttpRequest, backup_id: str) -> TemplateResponse:
        """The manifest as it is stored, to read and to copy."""
        backup = self.backup_or_404(request, backup_id)
        context: dict[str, Any] = {"backup": backup}
        try:
            context["manifest"] = display.sendable(read_manifest_text(backup))
        except BackupError as exc:
            context["problem"] = display.refusal(exc)
        return self.deed_page(request, "manifest", _("Manifest"), context)


def _why_locked(backup: Backup) -> str:
    """Why the database inside cannot be had from this host; empty when it can be tried."""
    try:
        refuse_database(backup)
    except BackupError as exc:
        return display.refusal(exc)
    return ""


def _choices(backup: Backup, *, has_database: bool) -> list[tuple[str, str]]:
    archive = (
        _("The archive as it is stored: encrypted, opened with the age key and zstd")
        if backup.is_encrypted
        else _("The archive as it is stored: not encrypted, opened with zstd")
    )
    found: list[tuple[str, str]] = [
        (ARCHIVE, archive),
        (MANIFEST, _("Its manifest: digests and row counts")),
    ]
    if backup.sequence is not None:
        found.append((SIGNATURE, _("The signature of the manifest")))
    if has_database:
        found.append((DATABASE, _("The database, unpacked and proven here first: readable by whoever gets the file")))
    return found


def _sent(backup: Backup, *, what: str, actor: Actor) -> FileResponse:
    download = open_download(backup, what=what, actor=actor)
    response = FileResponse(
        download,  # it has what is needed: read and close
        as_attachment=True,
        filename=download.name,
        content_type="application/octet-stream",
    )
    response["Content-Length"] = str(download.size_bytes)
    response["Cache-Control"] = "no-store"
    response["X-Content-Type-Options"] = "nosniff"
    return response
