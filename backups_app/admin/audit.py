"""The audit trail: read only, for everybody."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from ..models import AuditEvent, Backup, Database, Job, Restore, TriageRun
from . import display
from .base import EvidenceAdmin

_CHOICES = 500


class _TextFilter(admin.SimpleListFilter):
    """The stock filter of a text asks for all its values several times, of a table that only grows."""

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        """The events with the chosen text."""
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class ActionFilter(_TextFilter):
    """By what was done."""

    title = gettext_lazy("action")
    parameter_name = "action"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Every action that there is an event of."""
        actions = AuditEvent.objects.order_by("action").values_list("action", flat=True).distinct()
        return [(each, each) for each in actions[:_CHOICES]]


class DatabaseNameFilter(_TextFilter):
    """By the database, of those that there are; events name databases by text, and outlive them."""

    title = gettext_lazy("database")
    parameter_name = "database_name"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        """Every database."""
        return [(each, each) for each in Database.objects.values_list("name", flat=True)[:_CHOICES]]


@admin.register(AuditEvent)
class AuditEventAdmin(EvidenceAdmin):
    """Who did what, and how it ended."""

    nothing_yet = gettext_lazy("Nothing was done yet.")
    list_display = ["when", "outcome_badge", "action", "actor_name", "database_name", "subject", "detail"]
    list_filter = ["outcome", ActionFilter, DatabaseNameFilter]
    list_per_page = 50
    search_fields = ["actor_name", "subject", "database_name", "detail"]
    date_hierarchy = "at"
    actions = None
    fields = ["at", "actor_name", "actor_id", "action", "outcome_badge", "database_name", "subject", "about", "detail"]
    readonly_fields = ["outcome_badge", "about"]

    @admin.display(description=gettext_lazy("time"), ordering="at")
    def when(self, event: AuditEvent) -> SafeString | str:
        """The time to the second: the order of deeds counts."""
        return display.moment(event.at)

    @admin.display(description=gettext_lazy("outcome"), ordering="outcome")
    def outcome_badge(self, event: AuditEvent) -> SafeString:
        """The outcome."""
        return display.badge(event.outcome, event.get_outcome_display())

    @admin.display(description=gettext_lazy("leads to"))
    def about(self, event: AuditEvent) -> SafeString | str:
        """The rows that the event is about, as far as they are there; an event outlives them."""
        links = [
            (display.linked(model, event.subject),)
            for model, rows in _SUBJECTS
            if event.subject and _is_there(rows, event.subject)
        ]
        named = Database.objects.filter(name=event.database_name).first() if event.database_name else None
        if named is not None:
            links.append((display.linked("database", named.pk, named.name),))
        return format_html_join(", ", "{}", links) or display.DASH


_SUBJECTS: tuple[tuple[str, Any], ...] = (
    ("backup", Backup),
    ("restore", Restore),
    ("job", Job),
    ("triagerun", TriageRun),
)


def _is_there(model: Any, pk: str) -> bool:
    return bool(model._default_manager.filter(pk=pk).exists())
