"""Hosts: the machines that work, and when each was last heard of."""

from __future__ import annotations

from datetime import timedelta

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Host
from . import display
from .base import EvidenceAdmin

_SILENT_AFTER = timedelta(minutes=2)
"""A supervisor writes its row every few seconds."""


@admin.register(Host)
class HostAdmin(EvidenceAdmin):
    """One line per machine with a supervisor."""

    list_display = ["name", "state_badge", "seen", "started", "worker_restarts"]
    list_per_page = 50
    search_fields = ["name", "worker_problem"]
    date_hierarchy = "seen_at"
    actions = None
    fieldsets = [
        (None, {"fields": ["name", "state_badge", "seen", "started", "stopped"]}),
        (
            gettext_lazy("Worker"),
            {"fields": ["supervisor_pid", "worker_restarts", "worker_restarted_at", "worker_problem"]},
        ),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    @admin.display(description=gettext_lazy("state"))
    def state_badge(self, host: Host) -> SafeString:
        """Whether it works."""
        if host.stopped_at and host.stopped_at >= host.seen_at:
            return display.badge("cancelled", _("stopped"))
        if timezone.now() - host.seen_at > _SILENT_AFTER:
            return display.badge("attention", _("silent"))
        return display.badge("running", _("works"))

    @admin.display(description=gettext_lazy("last sign of life"), ordering="seen_at")
    def seen(self, host: Host) -> SafeString | str:
        """How long ago."""
        return display.age(host.seen_at)

    @admin.display(description=gettext_lazy("started"), ordering="started_at")
    def started(self, host: Host) -> SafeString | str:
        """How long ago."""
        return display.age(host.started_at)

    @admin.display(description=gettext_lazy("stopped"), ordering="stopped_at")
    def stopped(self, host: Host) -> SafeString | str:
        """How long ago it said goodbye."""
        return display.age(host.stopped_at) if host.stopped_at else display.DASH
