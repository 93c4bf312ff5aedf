"""The audit trail: read only, for everybody."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from ..models import AuditEvent
from . import display
from .base import EvidenceAdmin


@admin.register(AuditEvent)
class AuditEventAdmin(EvidenceAdmin):
    """Who did what, and how it ended."""

    list_display = ["at", "actor_name", "action", "outcome_badge", "database_name", "subject", "detail"]
    list_filter = ["outcome", "action", "database_name"]
    list_per_page = 50
    search_fields = ["actor_name", "subject", "database_name", "detail"]
    date_hierarchy = "at"
    actions = None
    fields = ["at", "actor_name", "actor_id", "action", "outcome_badge", "database_name", "subject", "detail"]
    readonly_fields = ["outcome_badge"]

    @admin.display(description=gettext_lazy("outcome"), ordering="outcome")
    def outcome_badge(self, event: AuditEvent) -> SafeString:
        """The outcome."""
        return display.badge(event.outcome, event.get_outcome_display())
