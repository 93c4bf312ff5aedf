"""Hosts: which machines work, when each was last heard of, what it looks after and what is wrong there."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.db.models import Count, Model, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Database, HealthProblem, Host, Job
from ..services.hosts import SILENCE
from . import display
from .base import EvidenceAdmin, without_jobs
from .links import reverse

_SHOWN = 50


@admin.register(Host)
class HostAdmin(EvidenceAdmin):
    """One line per machine with a supervisor."""

    nothing_yet = gettext_lazy("No host has reported yet. It does when “manage.py backup serve” starts there.")
    list_display = ["name", "state_badge", "seen", "databases", "problems", "waiting", "worker_restarts"]
    list_per_page = 50
    search_fields = ["name", "worker_problem"]
    actions = None
    fieldsets = [
        (None, {"fields": ["name", "state_badge", "seen_at", "started_at", "stopped_at"]}),
        (gettext_lazy("Databases"), {"fields": ["database_list"]}),
        (gettext_lazy("Problems that only it can see"), {"fields": ["problem_list"]}),
        (gettext_lazy("Worker"), {"fields": ["worker_restarts", "worker_restarted_at", "worker_problem"]}),
        (gettext_lazy("Latest jobs"), {"fields": ["jobs"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Jobs are shown to those who may see them."""
        return without_jobs(self.fieldsets, request)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Host]:
        """Each host with its numbers, in one query."""
        hosts: QuerySet[Host] = super().get_queryset(request)
        return hosts.annotate(
            databases_count=_count(Database.objects.filter(is_under_care=True), by="host"),
            problems_count=_count(HealthProblem.objects.filter(resolved_at=None), by="host"),
            waiting_count=_count(Job.objects.filter(state=Job.State.QUEUED), by="host"),
        )

    @admin.display(description=gettext_lazy("state"))
    def state_badge(self, host: Host) -> SafeString:
        """Whether it works."""
        return state_badge(host)

    @admin.display(description=gettext_lazy("last sign of life"), ordering="seen_at")
    def seen(self, host: Host) -> SafeString | str:
        """How long ago."""
        return display.age(host.seen_at)

    @admin.display(description=gettext_lazy("databases"), ordering="databases_count")
    def databases(self, host: Host) -> SafeString | str:
        """How many are under care there."""
        return display.count(getattr(host, "databases_count", None))

    @admin.display(description=gettext_lazy("open problems"), ordering="problems_count")
    def problems(self, host: Host) -> SafeString | str:
        """How many only it can see."""
        return display.count(getattr(host, "problems_count", None))

    @admin.display(description=gettext_lazy("waiting jobs"), ordering="waiting_count")
    def waiting(self, host: Host) -> SafeString | str:
        """How many wait for its worker."""
        return display.count(getattr(host, "waiting_count", None))

    @admin.display(description=gettext_lazy("databases"))
    def database_list(self, host: Host) -> SafeString | str:
        """Their names, linked."""
        found = Database.objects.filter(host=host.name, is_under_care=True).only("pk", "name")[:_SHOWN]
        links = [(display.linked("database", each.pk, display.sendable(each.name)),) for each in found]
        return format_html_join("", "<div>{}</div>", links) or display.DASH

    @admin.display(description=gettext_lazy("problems"))
    def problem_list(self, host: Host) -> SafeString | str:
        """What is open, in words."""
        found = HealthProblem.objects.filter(host=host.name, resolved_at=None)[:_SHOWN]
        return format_html_join("", "<div>{}</div>", [(display.sendable(each.message),) for each in found]) or (
            display.DASH
        )

    @admin.display(description=gettext_lazy("jobs"))
    def jobs(self, host: Host) -> SafeString | str:
        """What it did lately, and what waits for it; all of them in a list of their own."""
        found = Job.objects.filter(host=host.name).select_related("database").defer("log", "options")[:5]
        return format_html(
            '{}<p><a href="{}?{}">{}</a></p>',
            display.jobs_table(found),
            reverse("admin:backups_app_job_changelist"),
            urlencode({"host": host.name}),
            _("All jobs of this host"),
        )


def _count(rows: QuerySet[Any], *, by: str) -> Coalesce:
    counted = rows.filter(**{by: OuterRef("name")}).order_by().values(by).annotate(count=Count("pk"))
    return Coalesce(Subquery(counted.values("count")), 0)


def state_badge(host: Host) -> SafeString:
    """Whether a host works, was told to end, or is silent."""
    if host.stopped_at is not None:
        return display.badge("cancelled", _("told to end"))
    if timezone.now() - host.seen_at > SILENCE:
        return display.badge("attention", _("silent"))
    return display.badge("safe", _("works"))
