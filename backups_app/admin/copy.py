"""Copies: where each archive is kept, and what was found there last."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from ..models import Copy
from . import display
from .base import EvidenceAdmin

_VERIFICATIONS_SHOWN = 20


@admin.register(Copy)
class CopyAdmin(EvidenceAdmin):
    """One line per archive and destination."""

    nothing_yet = gettext_lazy("There is no copy yet. Each backup is stored at every destination.")
    list_display = ["backup_link", "state_badge", "destination", "database", "checked", "why"]
    list_display_links = ["destination"]
    list_filter = ["state", "destination", "backup__database"]
    list_per_page = 50
    search_fields = ["backup__id", "backup__database__name", "name", "reason"]
    date_hierarchy = "stored_at"
    ordering = ["-pk"]
    actions = None
    fieldsets = [
        (None, {"fields": ["state_badge", "why", "backup_link", "database", "destination", "name"]}),
        (gettext_lazy("When"), {"fields": ["stored", "checked"]}),
        (gettext_lazy("Evidence"), {"fields": ["verifications"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Copy]:
        """All copies, without the large facts of their backups."""
        queryset: QuerySet[Copy] = super().get_queryset(request).select_related("backup__database")
        return queryset.defer("backup__census", "backup__remarks")

    @admin.display(description=gettext_lazy("backup"))
    def backup_link(self, copy: Copy) -> SafeString:
        """The backup, linked."""
        return display.linked("backup", copy.backup_id)

    @admin.display(description=gettext_lazy("database"), ordering="backup__database__name")
    def database(self, copy: Copy) -> SafeString:
        """The database, linked."""
        return display.linked("database", copy.backup.database_id, copy.backup.database.name)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_badge(self, copy: Copy) -> SafeString:
        """The state."""
        return display.badge(copy.state, copy.get_state_display())

    @admin.display(description=gettext_lazy("stored"), ordering="stored_at")
    def stored(self, copy: Copy) -> SafeString | str:
        """How long ago it was stored."""
        return display.age(copy.stored_at)

    @admin.display(description=gettext_lazy("last checked"), ordering="checked_at")
    def checked(self, copy: Copy) -> SafeString | str:
        """How long ago somebody looked."""
        return display.age(copy.checked_at)

    @admin.display(description=gettext_lazy("reason"))
    def why(self, copy: Copy) -> SafeString | str:
        """Why it is not good."""
        return display.worded(copy.reason) or display.DASH

    @admin.display(description=gettext_lazy("verifications"))
    def verifications(self, copy: Copy) -> SafeString | str:
        """What was found there, newest first."""
        rows = copy.backup.verifications.filter(destination=copy.destination)[:_VERIFICATIONS_SHOWN]
        found: list[dict[str, Any]] = [
            {
                "row": each,
                "page": display.page_url("verification", each.pk),
                "badge": display.badge(each.verdict, each.get_verdict_display()),
                "age": display.age(each.finished_at),
                "checks": display.checks_table(each.checks),
            }
            for each in rows
        ]
        return render_to_string("admin/backups_app/evidence.html", {"verifications": found}) if found else display.DASH
