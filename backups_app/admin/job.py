"""Jobs: what waits, what runs and how far it is, how it ended, and *Cancel*."""

from __future__ import annotations

import json
from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.forms import Script
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from ..core.errors import BackupError
from ..models import Job
from ..services.audit import Actor
from ..services.jobs import cancel_job
from . import display
from .base import EvidenceAdmin
from .links import reverse
from .progress import elapsed, percent_label, phase_label, progress_of

_ROWS_SHOWN = 20


@admin.register(Job)
class JobAdmin(EvidenceAdmin):
    """One line per piece of work; the page of an open one keeps itself up to date."""

    nothing_yet = gettext_lazy("There is no job yet. Whatever is asked for or due becomes one.")
    list_display = ["state_badge", "kind", "database_name", "progress", "when", "took", "asked_by"]
    list_display_links = ["state_badge", "kind"]
    list_filter = ["state", "kind", "trigger", "database"]
    list_select_related = ["database"]
    list_per_page = 50
    search_fields = ["id", "database__name", "requested_by_name", "outcome", "host"]
    date_hierarchy = "created_at"
    actions = None
    change_form_template = "admin/backups_app/job/change_form.html"
    fieldsets = [
        (
            None,
            {
                "fields": [
                    "kind",
                    "database_link",
                    "restore_link",
                    "triage_link",
                    "made",
                    "verified",
                    "asked_by",
                    "when",
                ]
            },
        ),
        (
            gettext_lazy("Details"),
            {
                "classes": ["collapse"],
                "fields": [
                    "id",
                    "trigger",
                    "is_inline",
                    "options_shown",
                    "attempts",
                    "created_at",
                    "started_at",
                    "finished_at",
                    "heartbeat_at",
                    "woken_at",
                    "host",
                    "owner",
                    "token",
                    "cancel_requested_at",
                    "cancelled_by_name",
                    "failure_code",
                ],
            },
        ),
    ]

    class Media:
        js = [Script("backups_app/poll.js", defer=True), Script("backups_app/job.js", defer=True)]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """What there is to say: no empty links."""
        if obj is None:
            return self.fieldsets
        empty = {
            name
            for name, is_there in (
                ("restore_link", obj.restore_id),
                ("triage_link", "run" in obj.options),
                ("made", obj.backups.exists()),
                ("verified", obj.verifications.exists()),
            )
            if not is_there
        }
        return [
            (title, {**options, "fields": [name for name in options["fields"] if name not in empty]})
            for title, options in self.fieldsets
        ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        """All jobs; their logs only where they are shown."""
        queryset: QuerySet[Job] = super().get_queryset(request)
        return queryset.defer("log", "options") if self.is_list(request) else queryset

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page of a job: where it is first, then what it is about."""
        missing = self._missing(request)
        if missing is not None:
            return missing
        job = Job.objects.filter(pk=object_id).first() if self.has_view_permission(request) else None
        context = {} if job is None else self._panel(request, job)
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **context})

    def _panel(self, request: HttpRequest, job: Job) -> dict[str, Any]:
        page = display.page_url("job", job.pk)
        return {
            "progress": progress_of(job, now=timezone.now()),
            "outcome": display.worded(job.outcome),
            "hint": display.worded(job.hint),
            "progress_url": reverse("admin:backups_app_job_progress", args=[job.pk]),
            "login_url": f"{reverse('admin:login')}?next={page}",
            "may_sign_out": bool(job.restore_id and job.database and job.database.alias),
            "can_cancel": job.is_open and request.user.has_perm("backups_app.cancel_job"),
        }

    # Columns and fields

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_badge(self, job: Job) -> SafeString:
        """The state."""
        return display.badge(job.state, job.get_state_display())

    @admin.display(description=gettext_lazy("database"), ordering="database__name")
    def database_name(self, job: Job) -> SafeString | str:
        """The database's name."""
        return format_html("<bdi>{}</bdi>", job.database.name) if job.database else display.DASH

    @admin.display(description=gettext_lazy("database"))
    def database_link(self, job: Job) -> SafeString | str:
        """The database, linked."""
        return display.linked("database", job.database_id, job.database.name) if job.database else display.DASH

    @admin.display(description=gettext_lazy("restore"))
    def restore_link(self, job: Job) -> SafeString | str:
        """The restore that it runs."""
        return display.linked("restore", job.restore_id) if job.restore_id else display.DASH

    @admin.display(description=gettext_lazy("triage"))
    def triage_link(self, job: Job) -> SafeString | str:
        """The list of files that it is about."""
        return display.linked("triagerun", job.options["run"]) if "run" in job.options else display.DASH

    @admin.display(description=gettext_lazy("backups made"))
    def made(self, job: Job) -> SafeString | str:
        """The backups that it made."""
        rows = job.backups.defer("census", "remarks")[:_ROWS_SHOWN]
        return _lines(
            (display.linked("backup", each.pk), display.badge(each.state, each.get_state_display())) for each in rows
        )

    @admin.display(description=gettext_lazy("verifications"))
    def verified(self, job: Job) -> SafeString | str:
        """The verdicts that it recorded."""
        rows = job.verifications.defer("checks")[:_ROWS_SHOWN]
        return _lines(
            (
                display.linked("verification", each.pk, each.backup_id),
                display.badge(each.verdict, each.get_verdict_display()),
            )
            for each in rows
        )

    @admin.display(description=gettext_lazy("asked for by"), ordering="requested_by_name")
    def asked_by(self, job: Job) -> SafeString | str:
        """Who asked, and where."""
        return format_html("<bdi>{}</bdi> ({})", job.requested_by_name or display.DASH, job.get_trigger_display())

    @admin.display(description=gettext_lazy("asked for"), ordering="created_at")
    def when(self, job: Job) -> SafeString | str:
        """How long ago it was asked for."""
        return display.age(job.created_at)

    @admin.display(description=gettext_lazy("duration"))
    def took(self, job: Job) -> SafeString:
        """How long it has run, or ran."""
        return format_html('<span class="walsafe-number">{}</span>', display.duration(elapsed(job, now=timezone.now())))

    @admin.display(description=gettext_lazy("progress or outcome"))
    def progress(self, job: Job) -> SafeString | str:
        """Phase and percent while it runs, the beginning of how it ended afterwards."""
        if job.is_open:
            return " ".join(filter(None, (phase_label(job), percent_label(job)))) or display.DASH
        return format_html("<bdi>{}</bdi>", display.worded(job.outcome, most=80)) if job.outcome else display.DASH

    @admin.display(description=gettext_lazy("options"))
    def options_shown(self, job: Job) -> SafeString | str:
        """What was asked for, as it is kept."""
        return format_html("<code>{}</code>", json.dumps(job.options)) if job.options else display.DASH

    # Cancel, progress

    def get_urls(self) -> list[URLPattern]:
        """The stock pages, the confirmation of *Cancel*, and where the job is as JSON."""
        cancel = self.own_path(
            "<str:job_id>/cancel/", self.cancel_view, permission="cancel_job", name="backups_app_job_cancel"
        )
        progress = self.own_path(
            "<str:job_id>/progress.json",
            require_safe(self.progress_view),
            permission="view_job",
            name="backups_app_job_progress",
        )
        return [cancel, progress, *super().get_urls()]

    def progress_view(self, request: HttpRequest, job_id: str) -> HttpResponseBase:
        """Where the job is, in ready-made texts; never kept by a cache."""
        document = progress_of(_find(job_id), now=timezone.now())
        return JsonResponse(document, headers={"Cache-Control": "no-store"})

    def cancel_view(self, request: HttpRequest, job_id: str) -> HttpResponseBase:
        """GET shows what will happen, POST does it."""
        job = _find(job_id)
        if request.method == "POST":
            return self._cancel(request, job)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Cancel job"),
            "job": job,
            "asked": display.age(job.created_at),
        }
        return TemplateResponse(request, "admin/backups_app/confirm_cancel.html", context)

    def _cancel(self, request: HttpRequest, job: Job) -> HttpResponseRedirect:
        may_look = self.has_view_permission(request)
        back = HttpResponseRedirect(display.page_url("job", job.pk) if may_look else reverse("admin:index"))
        if not job.is_open:
            text = _("This job is %(state)s. There is nothing to cancel.")
            messages.warning(request, text % {"state": job.get_state_display()})
            return back
        if job.cancel_requested_at:
            messages.info(request, _("It was asked to stop already."))
            return back
        try:
            job = cancel_job(job, actor=Actor.of(request.user))
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
            return back
        if job.state == Job.State.CANCELLED:
            messages.success(request, _("The job was cancelled before it began. Nothing was done."))
        else:
            messages.success(request, _("The job was asked to stop. It ends at the next safe moment."))
        return back


def _find(job_id: str) -> Job:
    job: Job | None = Job.objects.select_related("database").filter(pk=job_id).first()
    if job is None:
        raise Http404
    return job


def _lines(rows: Any) -> SafeString | str:
    return format_html_join("", '<div class="walsafe-note">{} {}</div>', rows) or display.DASH
