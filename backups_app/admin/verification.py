"""Verifications: each verdict with its evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils.formats import number_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..documents import backup_document, verification_document
from ..models import Verification
from . import display
from .base import EvidenceAdmin
from .links import reverse


@admin.register(Verification)
class VerificationAdmin(EvidenceAdmin):
    """Who looked at what, when, and what was found."""

    nothing_yet = gettext_lazy("Nothing was verified yet. Each backup is verified when it is made.")
    list_display = ["when", "verdict_badge", "level", "database", "backup_link", "destination", "why"]
    list_display_links = ["when"]
    list_filter = ["verdict", "level", "destination", "backup__database"]
    list_per_page = 50
    search_fields = ["backup__id", "backup__database__name", "reason"]
    date_hierarchy = "finished_at"
    actions = None
    fieldsets = [
        (None, {"fields": ["verdict_badge", "why", "what_to_do", "database", "backup_link", "destination", "level"]}),
        (gettext_lazy("Checks"), {"fields": ["evidence"]}),
        (
            gettext_lazy("Details"),
            {
                "fields": [
                    "started_at",
                    "finished_at",
                    "requested_by_name",
                    "job_link",
                    "recovery_time",
                    "data_age",
                ]
            },
        ),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Verification]:
        """All verifications; the large evidence only where it is shown."""
        queryset: QuerySet[Verification] = super().get_queryset(request).select_related("backup__database")
        large = ["backup__census", "backup__remarks", *(["checks"] if self.is_list(request) else [])]
        return queryset.defer(*large)

    @admin.display(description=gettext_lazy("finished"), ordering="finished_at")
    def when(self, verification: Verification) -> SafeString | str:
        """How long ago."""
        return display.age(verification.finished_at)

    @admin.display(description=gettext_lazy("database"), ordering="backup__database__name")
    def database(self, verification: Verification) -> SafeString:
        """The database, linked."""
        return display.linked("database", verification.backup.database_id, verification.backup.database.name)

    @admin.display(description=gettext_lazy("backup"))
    def backup_link(self, verification: Verification) -> SafeString:
        """The backup, linked."""
        url = reverse("admin:backups_app_backup_change", args=[verification.backup_id])
        return format_html('<a href="{}">{}</a>', url, verification.backup_id)

    @admin.display(description=gettext_lazy("job"))
    def job_link(self, verification: Verification) -> SafeString | str:
        """The job that looked, linked."""
        return display.linked("job", verification.job_id) if verification.job_id else display.DASH

    @admin.display(description=gettext_lazy("verdict"), ordering="verdict")
    def verdict_badge(self, verification: Verification) -> SafeString:
        """The verdict."""
        return display.badge(verification.verdict, verification.get_verdict_display())

    @admin.display(description=gettext_lazy("reason"), ordering="reason")
    def why(self, verification: Verification) -> SafeString | str:
        """Why it did not pass."""
        return display.worded(verification.reason) or display.DASH

    @admin.display(description=gettext_lazy("what to do"))
    def what_to_do(self, verification: Verification) -> SafeString | str:
        """The hint."""
        return display.worded(verification.hint) or display.DASH

    @admin.display(description=gettext_lazy("recovery time"))
    def recovery_time(self, verification: Verification) -> str:
        """From the start of a drill to a usable database file."""
        return _seconds(verification.recovery_seconds)

    @admin.display(description=gettext_lazy("age of the data"))
    def data_age(self, verification: Verification) -> str:
        """How old the data was when the drill started."""
        return display.duration(_length(verification.data_age_seconds))

    @admin.display(description=gettext_lazy("checks"))
    def evidence(self, verification: Verification) -> SafeString | str:
        """Each check with its evidence."""
        return display.checks_table(verification.checks)

    # The report of a drill

    def get_urls(self) -> list[URLPattern]:
        """The stock pages, and the report of a drill for people and for machines."""
        report = self.own_path(
            "<int:verification_id>/report/",
            self.report_view,
            permission="view_verification",
            name="backups_app_verification_report",
        )
        evidence = self.own_path(
            "<int:verification_id>/report.json",
            self.report_json_view,
            permission="view_verification",
            name="backups_app_verification_report_json",
        )
        return [report, evidence, *super().get_urls()]

    def _drill(self, verification_id: int) -> Verification:
        drills = Verification.objects.select_related("backup__database").filter(level=Verification.Level.DRILL)
        drill = drills.filter(pk=verification_id).first() if verification_id < 2**63 else None
        if drill is None:
            raise Http404
        return drill

    def report_view(self, request: HttpRequest, verification_id: int) -> HttpResponseBase:
        """A page to print or to keep as PDF: what was restored, how long it took, what was checked."""
        drill = self._drill(verification_id)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Restore drill of %(name)s") % {"name": drill.backup.database.name},
            "drill": drill,
            "facts": _facts(drill),
            "reason": display.worded(f"{drill.reason} {drill.hint}".strip()),
            "checks": display.checks_table(drill.checks),
            "tables": display.rows_table(drill.backup.tables),
        }
        return TemplateResponse(request, "admin/backups_app/drill_report.html", context)

    def report_json_view(self, request: HttpRequest, verification_id: int) -> HttpResponseBase:
        """The same evidence as `backup show --json` gives it."""
        drill = self._drill(verification_id)
        document = {"backup": backup_document(drill.backup), "verification": verification_document(drill)}
        return JsonResponse(document, json_dumps_params={"indent": 2})


def _facts(drill: Verification) -> list[tuple[str, Any]]:
    """What a reader of the report wants to know first."""
    backup = drill.backup
    return [
        (_("Verdict"), display.badge(drill.verdict, drill.get_verdict_display())),
        (_("Recovery time"), _seconds(drill.recovery_seconds)),
        (_("Age of the data"), display.duration(_length(drill.data_age_seconds))),
        (_("Database"), backup.database.name),
        (_("Backup"), backup.pk),
        (_("Taken"), _moment(backup.taken_at)),
        (_("Copy at"), drill.destination),
        (_("Size"), display.size(backup.size_bytes)),
        (_("Rows"), display.count(backup.row_count)),
        (_("Drill began"), _moment(drill.started_at)),
        (_("Drill ended"), _moment(drill.finished_at)),
        (_("Asked for by"), drill.requested_by_name),
        (_("SHA-256 of the database"), backup.sha256),
        (_("SHA-256 of the archive"), backup.archive_sha256),
        (_("SHA-256 of the manifest"), backup.manifest_sha256),
    ]


def _moment(moment: datetime | None) -> str:
    """The exact time: a printed page has nothing to hover over."""
    return display.DASH if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _length(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=seconds)


def _seconds(seconds: float | None) -> str:
    """Short times to the tenth of a second, the shortest to the hundredth: most drills take less than a minute."""
    if seconds is None or seconds >= 60 or 0 < seconds < 0.005:
        return display.duration(_length(seconds))
    return _("%(seconds)s s") % {"seconds": number_format(seconds, decimal_pos=1 if seconds >= 1 else 2)}
