"""Verifications: each verdict with its evidence."""

from __future__ import annotations

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from ..models import Verification
from . import display
from .base import EvidenceAdmin


@admin.register(Verification)
class VerificationAdmin(EvidenceAdmin):
    """Who looked at what, when, and what was found."""

    list_display = ["when", "database", "backup_link", "destination", "level", "verdict_badge", "reason"]
    list_display_links = ["when"]
    list_filter = ["verdict", "level", "destination", "backup__database"]
    list_per_page = 50
    search_fields = ["backup__id", "backup__database__name", "reason"]
    date_hierarchy = "finished_at"
    actions = None
    fieldsets = [
        (None, {"fields": ["verdict_badge", "reason", "hint", "database", "backup_link", "destination", "level"]}),
        (gettext_lazy("Checks"), {"fields": ["evidence"]}),
        (gettext_lazy("Details"), {"fields": ["started_at", "finished_at", "requested_by_name"]}),
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
    def database(self, verification: Verification) -> str:
        """The database's name."""
        return verification.backup.database.name

    @admin.display(description=gettext_lazy("backup"))
    def backup_link(self, verification: Verification) -> SafeString:
        """The backup, linked."""
        url = reverse("admin:backups_app_backup_change", args=[verification.backup_id])
        return format_html('<a href="{}">{}</a>', url, verification.backup_id)

    @admin.display(description=gettext_lazy("verdict"), ordering="verdict")
    def verdict_badge(self, verification: Verification) -> SafeString:
        """The verdict."""
        return display.badge(verification.verdict, verification.get_verdict_display())

    @admin.display(description=gettext_lazy("checks"))
    def evidence(self, verification: Verification) -> SafeString | str:
        """Each check with its evidence."""
        return display.checks_table(verification.checks)
