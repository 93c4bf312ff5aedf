"""Restores: the queue of requests, the preview, approval with the password, undo."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth import get_user
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.shortcuts import render
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..core.errors import BackupError
from ..models import Restore
from ..services.audit import Actor
from ..services.restores import (
    approve_restore,
    expire_restores,
    heal_restores,
    reject_restore,
    run_restore,
    undo_restore,
)
from . import display
from .base import EvidenceAdmin


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


class RejectForm(forms.Form):
    """Why a request is turned down."""

    reason = forms.CharField(label=gettext_lazy("Reason"), max_length=2000)


@admin.register(Restore)
class RestoreAdmin(EvidenceAdmin):
    """Who asked for what, who approved it, and how it ended."""

    list_display = ["when", "database", "backup_link", "state_badge", "requested_by_name", "approved_by_name", "reason"]
    list_display_links = ["when"]
    list_filter = ["state", "database"]
    list_select_related = ["database"]
    list_per_page = 50
    search_fields = ["id", "backup__id", "database__name", "reason", "requested_by_name", "approved_by_name"]
    date_hierarchy = "requested_at"
    actions = None
    fieldsets = [
        (None, {"fields": ["state_badge", "explanation", "database", "backup_link", "reason", "people", "undo_link"]}),
        (gettext_lazy("What it changes"), {"fields": ["preview_shown"]}),
        (gettext_lazy("What was done"), {"fields": ["report_shown"]}),
        (
            gettext_lazy("Details"),
            {
                "classes": ["collapse"],
                "fields": [
                    "id",
                    "requested_at",
                    "expires_at",
                    "approved_at",
                    "is_self_approved",
                    "rejected_by_name",
                    "started_at",
                    "finished_at",
                    "archive_sha256",
                    "binding_sha256",
                ],
            },
        ),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Restore]:
        """All restores; the large documents only where they are shown."""
        queryset: QuerySet[Restore] = super().get_queryset(request)
        return queryset.defer("preview", "report") if self.is_list(request) else queryset

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The queue, with what is over closed first."""
        missing = self._missing(request)
        if missing is not None:
            return missing
        expire_restores()
        heal_restores()
        return super().changelist_view(request, extra_context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The detail page, with the decisions for those who may take them."""
        may = {
            "can_approve": request.user.has_perm("backups_app.approve_restore"),
            "can_undo": request.user.has_perm("backups_app.request_restore"),
        }
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **may})

    @admin.display(description=gettext_lazy("requested"), ordering="requested_at")
    def when(self, restore: Restore) -> SafeString | str:
        """How long ago it was asked for."""
        return display.age(restore.requested_at)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_badge(self, restore: Restore) -> SafeString:
        """The state."""
        return display.badge(restore.state, restore.get_state_display())

    @admin.display(description=gettext_lazy("backup"))
    def backup_link(self, restore: Restore) -> SafeString:
        """The backup, linked."""
        return _linked("backup", restore.backup_id)

    @admin.display(description=gettext_lazy("explanation"))
    def explanation(self, restore: Restore) -> SafeString | str:
        """What the state means, in words."""
        if restore.state == Restore.State.REQUESTED:
            return _("Waits for the approval of another person. Nothing was changed.")
        if restore.state == Restore.State.SUCCEEDED:
            return _("The live database holds the content of the backup, and was checked.")
        return format_html("{}<br>{}", restore.outcome, restore.hint) if restore.outcome else display.DASH

    @admin.display(description=gettext_lazy("people"))
    def people(self, restore: Restore) -> str:
        """Who asked and who approved."""
        asked = _("asked for by %(name)s") % {"name": restore.requested_by_name}
        if not restore.approved_by_name:
            return asked
        approved = _("approved by %(name)s") % {"name": restore.approved_by_name}
        alone = f" ({_('the same person: the four-eyes rule is off')})" if restore.is_self_approved else ""
        return f"{asked}, {approved}{alone}"

    @admin.display(description=gettext_lazy("safety backup"))
    def undo_link(self, restore: Restore) -> SafeString | str:
        """The backup that would undo it."""
        return _linked("backup", restore.safety_backup_id) if restore.safety_backup_id else display.DASH

    @admin.display(description=gettext_lazy("preview"))
    def preview_shown(self, restore: Restore) -> SafeString | str:
        """What it does to the live database."""
        return preview_html(restore)

    @admin.display(description=gettext_lazy("report"))
    def report_shown(self, restore: Restore) -> SafeString | str:
        """What was done and checked."""
        report = restore.report
        if not report:
            return display.DASH
        context = {"report": report, "checks": display.checks_table(report.get("checks", []))}
        return render_to_string("admin/backups_app/restore_report.html", context)

    # Decisions

    def get_urls(self) -> list[URLPattern]:
        """The stock pages and the decisions."""
        own = [
            self.own_path(f"<str:restore_id>/{verb}/", view, permission=permission, name=f"backups_app_restore_{verb}")
            for verb, view, permission in (
                ("approve", self.approve_view, "approve_restore"),
                ("reject", self.reject_view, "approve_restore"),
                ("undo", self.undo_view, "request_restore"),
            )
        ]
        return [*own, *super().get_urls()]

    def approve_view(self, request: HttpRequest, restore_id: str) -> HttpResponseBase:
        """GET shows what will happen; POST with the password approves and runs it."""
        restore = self._restore(restore_id)

        def approve_and_run() -> Restore:
            actor = Actor.of(request.user)
            approve_restore(restore, actor=actor)
            return run_restore(restore, actor=actor)

        return self._with_password(request, restore, approve_and_run, verb="approve", title=_("Approve and restore"))

    def undo_view(self, request: HttpRequest, restore_id: str) -> HttpResponseBase:
        """GET shows what will happen; POST with the password undoes the restore."""
        restore = self._restore(restore_id)

        def undo() -> Restore:
            return undo_restore(restore, actor=Actor.of(request.user))

        return self._with_password(request, restore, undo, verb="undo", title=_("Undo this restore"))

    def reject_view(self, request: HttpRequest, restore_id: str) -> HttpResponseBase:
        """GET asks why; POST rejects."""
        restore = self._restore(restore_id)
        form = RejectForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                reject_restore(restore, reason=form.cleaned_data["reason"], actor=Actor.of(request.user))
            except BackupError as exc:
                messages.error(request, display.sendable(f"{exc.message} {exc.hint}"))
            else:
                messages.success(request, _("The request was turned down."))
            return HttpResponseRedirect(_url("restore", restore.pk))
        return self._page(request, restore, form, verb="reject", title=_("Reject restore"))

    def _restore(self, restore_id: str) -> Restore:
        rows = Restore.objects.select_related("database", "backup__database", "safety_backup")
        restore = rows.filter(pk=restore_id).first()
        if restore is None:
            raise Http404
        return restore

    def _with_password(
        self, request: HttpRequest, restore: Restore, act: Callable[[], Restore], *, verb: str, title: str
    ) -> HttpResponseBase:
        form = PasswordForm(request.POST or None, user=request.user)
        if request.method != "POST" or not form.is_valid():
            return self._page(request, restore, form, verb=verb, title=title)
        try:
            done = act()
        except BackupError as exc:
            messages.error(request, display.sendable(f"{exc.message} {exc.hint}"))
            return HttpResponseRedirect(_url("restore", restore.pk))
        return after_restore(request, done)

    def _page(
        self, request: HttpRequest, restore: Restore, form: forms.Form, *, verb: str, title: str
    ) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": title,
            "restore": restore,
            "form": form,
            "verb": verb,
            "preview": preview_html(restore),
        }
        return TemplateResponse(request, "admin/backups_app/confirm_restore.html", context)


def preview_html(restore: Restore) -> SafeString | str:
    """The preview of a request as a readable page part."""
    preview = restore.preview
    if not preview:
        return display.DASH
    blockers = [{**each, "override": restore.overrides.get(each["code"], "")} for each in preview["blockers"]]
    context = {
        "preview": preview,
        "changed": [each for each in preview["tables"] if each["now"] != each["after"]],
        "same": sum(each["now"] == each["after"] for each in preview["tables"]),
        "blockers": blockers,
        "age_hours": preview["backup_age_seconds"] / 3600,
        "needed": display.size(preview["needed_bytes"]),
        "free": display.size(preview["free_bytes"]),
    }
    return render_to_string("admin/backups_app/restore_preview.html", context)


def after_restore(request: HttpRequest, restore: Restore) -> HttpResponse:
    """Where a run leads: to its page, or to a plain one when the session went with the old content."""
    if _is_still_signed_in(request):
        if restore.state == Restore.State.SUCCEEDED:
            messages.success(request, _("The restore succeeded and was checked."))
        elif restore.state == Restore.State.REQUESTED:
            messages.warning(request, _("A request was filed; another person must approve it."))
        else:
            messages.error(request, display.sendable(f"{restore.get_state_display()}: {restore.outcome}"))
        return HttpResponseRedirect(_url("restore", restore.pk))
    # The session's row is gone; saving this one would end in an error page.
    request.session = _session_store()
    return render(request, "admin/backups_app/restored.html", {"restore": restore, "login": reverse("admin:login")})


def _session_store(key: str | None = None) -> Any:
    return import_module(settings.SESSION_ENGINE).SessionStore(key)


def _is_still_signed_in(request: HttpRequest) -> bool:
    probe = HttpRequest()
    probe.session = _session_store(request.session.session_key)
    return get_user(probe).is_authenticated


def _url(model: str, pk: str) -> str:
    return reverse(f"admin:backups_app_{model}_change", args=[pk])


def _linked(model: str, pk: str) -> SafeString:
    return format_html('<a href="{}">{}</a>', _url(model, pk), pk)
