"""Restores: the queue of requests, the preview, approval with the password, undo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from ..core.errors import BackupError
from ..models import Job, Restore
from ..services.audit import Actor
from ..services.jobs import ask_restore
from ..services.restores import (
    approve_restore,
    ask_undo,
    bring_up_to_date,
    reject_restore,
    runs_at_once,
)
from . import display
from .asking import lead_to
from .base import EvidenceAdmin, without_jobs
from .decision import PasswordForm, RejectForm, is_own, may, obstacle, open_job, undo_of

_PERMISSIONS = ("view_restore", "request_restore", "approve_restore")
_VERBS = ("approve", "reject", "undo")
_RELOAD_AFTER_SECONDS = 3
_JOBS_SHOWN = 5


class TargetFilter(admin.RelatedFieldListFilter):
    """The stock filter, under a name that goes with “by”."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = _("database")


@admin.register(Restore)
class RestoreAdmin(EvidenceAdmin):
    """Who asked for what, who approved it, and how it ended."""

    nothing_yet = gettext_lazy("Nobody has asked for a restore. It is asked for on the page of a backup.")
    list_display = ["when", "state_badge", "database", "requested_by_name", "short_reason"]
    list_display_links = ["when"]
    list_filter = ["state", ("database", TargetFilter)]
    list_select_related = ["database"]
    list_per_page = 50
    search_fields = ["id", "backup__id", "database__name", "reason", "requested_by_name", "approved_by_name"]
    date_hierarchy = "requested_at"
    actions = None
    fieldsets = [
        (None, {"fields": ["state_badge", "explanation", "database", "backup_link", "reason", "people", "undo_link"]}),
        (gettext_lazy("Jobs"), {"fields": ["jobs"]}),
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

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """What there is to say: no empty preview, report or safety backup."""
        empty = {
            name
            for name, value in (
                ("jobs", obj and obj.jobs.exists()),
                ("undo_link", obj and obj.safety_backup_id),
                ("preview_shown", obj and obj.preview),
                ("report_shown", obj and obj.report and obj.report != {"notes": []}),
            )
            if not value
        }
        wanted = [
            (title, {**options, "fields": [name for name in options["fields"] if name not in empty]})
            for title, options in without_jobs(self.fieldsets, request)
        ]
        return [(title, options) for title, options in wanted if options["fields"]]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Restore]:
        """All restores; the large documents only where they are shown."""
        queryset: QuerySet[Restore] = super().get_queryset(request)
        return queryset.defer("preview", "report") if self.is_list(request) else queryset

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whoever asks for restores or decides on them may see them."""
        return any(request.user.has_perm(f"backups_app.{each}") for each in _PERMISSIONS)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The queue, with what is over closed first."""
        missing = self._missing(request)
        if missing is not None:
            return missing
        self._bring_up_to_date(request)
        return super().changelist_view(request, extra_context)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The detail page, with the decisions for those who may take them."""
        missing = self._missing(request)
        if missing is not None:
            return missing
        self._bring_up_to_date(request)
        restore = Restore.objects.filter(pk=object_id).first()
        offered = {
            f"can_{verb}": may(request.user, restore, verb) and not obstacle(request.user, restore, verb)
            for verb in _VERBS
            if restore is not None
        }
        if restore is not None:
            offered["is_own"] = is_own(request.user, restore)
        response = super().change_view(request, object_id, form_url, {**(extra_context or {}), **offered})
        if restore is not None and (restore.state == Restore.State.RUNNING or open_job(restore)):
            response.headers["Refresh"] = str(_RELOAD_AFTER_SECONDS)
        return response

    def _bring_up_to_date(self, request: HttpRequest) -> None:
        """Close what has expired, and tell the truth about what was killed, before it is shown."""
        if self.has_view_permission(request):
            bring_up_to_date()

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
        return display.linked("backup", restore.backup_id)

    @admin.display(description=gettext_lazy("reason"), ordering="reason")
    def short_reason(self, restore: Restore) -> SafeString:
        """The beginning of the reason."""
        return format_html("<bdi>{}</bdi>", Truncator(restore.reason).chars(80))

    @admin.display(description=gettext_lazy("explanation"))
    def explanation(self, restore: Restore) -> SafeString | str:
        """What the state means, in words."""
        words, undo = display.worded(in_words(restore)), undo_of(restore)
        if undo is not None:
            return format_html("{} {}: {}", words, _("Its undo"), display.linked("restore", undo.pk))
        return format_html("{}<br>{}", words, display.worded(restore.hint)) if restore.hint else words

    @admin.display(description=gettext_lazy("people"))
    def people(self, restore: Restore) -> SafeString:
        """Who asked and who decided."""
        parts = [(_("asked for by"), restore.requested_by_name, "")]
        if restore.approved_by_name:
            remark = _("the same person: the four-eyes rule is off")
            alone = f" ({remark})" if restore.is_self_approved else ""
            parts.append((_("approved by"), restore.approved_by_name, alone))
        if restore.rejected_by_name:
            is_withdrawn = restore.state == Restore.State.CANCELLED
            parts.append((_("withdrawn by") if is_withdrawn else _("rejected by"), restore.rejected_by_name, ""))
        return format_html_join(", ", "{} <bdi>{}</bdi>{}", parts)

    @admin.display(description=gettext_lazy("safety backup"))
    def undo_link(self, restore: Restore) -> SafeString | str:
        """The backup that would undo it."""
        return display.linked("backup", restore.safety_backup_id) if restore.safety_backup_id else display.DASH

    @admin.display(description=gettext_lazy("jobs"))
    def jobs(self, restore: Restore) -> SafeString | str:
        """What ran it, or will."""
        return display.jobs_table(restore.jobs.defer("log", "options")[:_JOBS_SHOWN])

    @admin.display(description=gettext_lazy("preview"))
    def preview_shown(self, restore: Restore) -> SafeString | str:
        """What it does to the live database."""
        return preview_html(restore)

    @admin.display(description=gettext_lazy("report"))
    def report_shown(self, restore: Restore) -> SafeString | str:
        """What was done and checked."""
        report = display.sendable_document(restore.report)
        if not report:
            return display.DASH
        lists = (
            (_("Moved aside"), report.get("moved_aside")),
            (_("Pending migrations"), report.get("pending_migrations")),
            (_("Migrated"), report.get("migrated")),
            (_("Notes"), report.get("notes")),
        )
        checks = [*report.get("checks", []), *report.get("roll_back_checks", [])]
        context = {
            "report": report,
            "checks": display.checks_table(checks) if checks else "",
            "lists": [(title, names) for title, names in lists if names],
        }
        return render_to_string("admin/backups_app/restore_report.html", context)

    # Decisions

    def get_urls(self) -> list[URLPattern]:
        """The stock pages and the decisions."""
        views = {"approve": self.approve_view, "reject": self.reject_view, "undo": self.undo_view}
        own = [
            self.own_path(
                f"<str:restore_id>/{verb}/",
                view,
                permission=("request_restore", "approve_restore"),
                name=f"backups_app_restore_{verb}",
            )
            for verb, view in views.items()
        ]
        return [*own, *super().get_urls()]

    def approve_view(self, request: HttpRequest, restore_id: str) -> HttpResponseBase:
        """GET shows what will happen; POST with the password approves it and asks for the job that runs it."""
        restore = self._restore(request, restore_id, verb="approve")
        is_approved = restore.state == Restore.State.APPROVED

        def approve() -> tuple[Restore, Job | None]:
            actor = Actor.of(request.user)
            # When it is approved already, a backup perhaps kept it from running.
            decided = restore if is_approved else approve_restore(restore, actor=actor)
            return decided, ask_restore(decided, actor=actor, trigger=Job.Trigger.ADMIN)

        title = _("Run the approved restore") if is_approved else _("Approve and restore")
        return self._with_password(request, restore, approve, verb="approve", title=title)

    def undo_view(self, request: HttpRequest, restore_id: str) -> HttpResponseBase:
        """GET shows what will happen; POST with the password files the undo, and asks for its job where it may run."""
        restore = self._restore(request, restore_id, verb="undo")

        def undo() -> tuple[Restore, Job | None]:
            return ask_undo(restore, actor=Actor.of(request.user), trigger=Job.Trigger.ADMIN)

        return self._with_password(request, restore, undo, verb="undo", title=_("Undo this restore"))

    def reject_view(self, request: HttpRequest, restore_id: str) -> HttpResponseBase:
        """GET asks why; POST with the password rejects, or withdraws one's own."""
        restore = self._restore(request, restore_id, verb="reject")
        title = _("Withdraw request") if is_own(request.user, restore) else _("Reject request")
        form = RejectForm(request.POST if request.method == "POST" else None, user=request.user)
        if not form.is_valid():
            return self._page(request, restore, form, verb="reject", title=title)
        try:
            reject_restore(restore, reason=form.cleaned_data["reason"], actor=Actor.of(request.user))
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
        else:
            messages.success(request, _("The request is closed. Nothing was changed."))
        return HttpResponseRedirect(display.page_url("restore", restore.pk))

    def _restore(self, request: HttpRequest, restore_id: str, *, verb: str) -> Restore:
        rows = Restore.objects.select_related("database", "backup__database", "safety_backup")
        restore = rows.filter(pk=restore_id).first()
        if restore is None:
            raise Http404
        if not may(request.user, restore, verb):
            raise PermissionDenied
        return restore

    def _with_password(
        self,
        request: HttpRequest,
        restore: Restore,
        decide: Callable[[], tuple[Restore, Job | None]],
        *,
        verb: str,
        title: str,
    ) -> HttpResponseBase:
        form = PasswordForm(request.POST if request.method == "POST" else None, user=request.user)
        if not form.is_valid():
            return self._page(request, restore, form, verb=verb, title=title)
        asked_at, decided = timezone.now(), restore
        job = _under_way(restore, verb)
        if job is None:
            try:
                decided, job = decide()
                if job is None:
                    messages.warning(request, _("A request was filed. It runs when it is approved."))
                    return HttpResponseRedirect(display.page_url("restore", decided.pk))
            except BackupError as exc:
                job = _under_way(restore, verb)  # the same form was sent twice at the same moment
                if job is None:
                    messages.error(request, display.refusal(exc))
                    return HttpResponseRedirect(display.page_url("restore", decided.pk))
        return lead_to(request, [job], asked_at=asked_at, otherwise=display.page_url("restore", decided.pk))

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
            "obstacle": obstacle(request.user, restore, verb),
            "job": open_job(restore) if request.user.has_perm("backups_app.view_job") else None,
            "runs_at_once": verb == "undo" and runs_at_once(restore, actor=Actor.of(request.user)),
            "requested": display.age(restore.requested_at),
            "expires": display.moment(restore.expires_at),
            "preview": preview_html(restore),
        }
        return TemplateResponse(request, "admin/backups_app/confirm_restore.html", context)


def _under_way(restore: Restore, verb: str) -> Job | None:
    """The job that a decision would ask for, when it is there already."""
    return open_job(undo_of(restore) if verb == "undo" else restore)


def in_words(restore: Restore) -> str:
    """What the state of a restore means."""
    report = restore.report or {}
    if restore.state == Restore.State.REQUESTED:
        waits = _("Waits for the approval of another person.") if conf.get("FOUR_EYES") else _("Waits for approval.")
        unchanged = _("Nothing was changed.")
        return f"{waits} {unchanged}"
    if restore.state == Restore.State.APPROVED and open_job(restore):
        return _("Approved. A job waits to run it; nothing was changed yet.")
    if restore.state == Restore.State.APPROVED:
        return _("Approved, but not run yet. Nothing was changed.")
    if restore.state == Restore.State.RUNNING:
        return _("It runs now. This page loads again by itself.")
    if restore.state == Restore.State.SUCCEEDED and report.get("checks"):
        return _("The live database holds the content of the backup, and was checked.")
    if restore.state == Restore.State.SUCCEEDED:
        return _("The live database holds the content of the backup.")
    return display.sendable(restore.outcome) or display.DASH


def preview_html(restore: Restore) -> SafeString | str:
    """The preview of a request as a readable page part."""
    preview = display.sendable_document(restore.preview)
    if not preview:
        return display.DASH
    blockers = [
        {**each, "message": display.worded(each["message"]), "override": restore.overrides.get(each["code"], "")}
        for each in preview["blockers"]
    ]
    context = {
        "preview": preview,
        "changed": [each for each in preview["tables"] if each["now"] != each["after"]],
        "same": sum(each["now"] == each["after"] for each in preview["tables"]),
        "blockers": blockers,
        "taken": display.age(restore.backup.taken_at or restore.backup.created_at),
        "computed": display.age(parse_datetime(preview["computed_at"])),
        "differences": [
            (title, names)
            for title, names in (
                (_("Only in the live database"), preview["schema"]["only_now"]),
                (_("Only in the backup"), preview["schema"]["only_after"]),
                (_("Defined differently"), preview["schema"]["changed"]),
                (_("Migrations that the code does not know"), preview["migrations"]["unknown_to_code"]),
                (_("Migrations that the backup lacks"), preview["migrations"]["missing_in_backup"]),
            )
            if names
        ],
        "has_people": bool(restore.database.alias or preview["superusers"] or preview["sessions_ending"]),
        "needed": display.size(preview["needed_bytes"]),
        "free": display.size(preview["free_bytes"]),
    }
    return render_to_string("admin/backups_app/restore_preview.html", context)
