"""Health: is everything safe, what is wrong and what to do, and since when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, gettext_noop, ngettext

from ..models import HealthProblem, Host
from ..services.databases import sync_databases
from ..services.health import DatabaseHealth, FileSystem, Health, check_health
from . import display
from .base import EvidenceAdmin
from .host import state_badge

_PROBLEMS_SHOWN = 50

# The codes of problems as words. What is not among them is shown in English.
_PROBLEMS = (
    gettext_noop("Anomaly"),
    gettext_noop("Archive deleted"),
    gettext_noop("Archive replaced"),
    gettext_noop("Archives cannot be opened"),
    gettext_noop("Backup deleted"),
    gettext_noop("Chain broken"),
    gettext_noop("Chain cut"),
    gettext_noop("Clock set back"),
    gettext_noop("Copies bad"),
    gettext_noop("Copies missing"),
    gettext_noop("Database missing"),
    gettext_noop("Destination empty"),
    gettext_noop("Destination unreachable"),
    gettext_noop("Disk nearly full"),
    gettext_noop("Drill failed"),
    gettext_noop("Drill overdue"),
    gettext_noop("Encryption off"),
    gettext_noop("Forged"),
    gettext_noop("Host silent"),
    gettext_noop("Jobs wait"),
    gettext_noop("Key unknown"),
    gettext_noop("Keys not proven"),
    gettext_noop("Last run failed"),
    gettext_noop("Left care"),
    gettext_noop("Manifest deleted"),
    gettext_noop("Manifest unreadable"),
    gettext_noop("Misplaced"),
    gettext_noop("Never verified"),
    gettext_noop("Not a plain file"),
    gettext_noop("Not proven again"),
    gettext_noop("Nothing under care"),
    gettext_noop("Notifications undelivered"),
    gettext_noop("One proven recipient"),
    gettext_noop("Recipients unusable"),
    gettext_noop("Rolled back"),
    gettext_noop("Run failed"),
    gettext_noop("Schedule overdue"),
    gettext_noop("Signature missing"),
    gettext_noop("Stray archive"),
    gettext_noop("Stray manifest"),
    gettext_noop("Too old"),
    gettext_noop("Unreachable"),
    gettext_noop("Unsigned"),
    gettext_noop("Wal large"),
)


class CodeFilter(admin.AllValuesFieldListFilter):
    """The stock filter of all values, with codes as words."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = _("problem")

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        """The choices of the stock filter."""
        for choice in super().choices(changelist):
            is_code = choice["display"] in self.lookup_choices
            yield {**choice, "display": problem_name(str(choice["display"]))} if is_code else choice


class OpenFilter(admin.SimpleListFilter):
    """Open, or over."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        """Both."""
        return [("open", _("open")), ("over", _("over"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[HealthProblem]) -> QuerySet[HealthProblem]:
        """The chosen ones."""
        return queryset.filter(resolved_at__isnull=self.value() == "open") if self.value() else queryset


@admin.register(HealthProblem)
class HealthProblemAdmin(EvidenceAdmin):
    """Which problems there are and were, and the page that tells the health."""

    nothing_yet = gettext_lazy(
        "None is remembered. They are noted by the clock of “backup serve”, or by “backup tick”."
    )
    list_display = ["what", "state_badge", "database", "subject", "since", "last_look", "told", "settled"]
    list_filter = [OpenFilter, ("code", CodeFilter)]
    list_per_page = 50
    search_fields = ["code", "database", "subject", "message"]
    date_hierarchy = "first_seen"
    actions = None
    fieldsets = [
        (None, {"fields": ["state_badge", "what", "database", "subject", "said", "what_to_do"]}),
        (gettext_lazy("Times"), {"fields": ["first_seen", "last_seen", "told_at", "resolved_at"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    @admin.display(description=gettext_lazy("problem"), ordering="code")
    def what(self, problem: HealthProblem) -> str:
        """The code, as words."""
        return problem_name(problem.code)

    @admin.display(description=gettext_lazy("state"), ordering="resolved_at")
    def state_badge(self, problem: HealthProblem) -> SafeString:
        """Open, or over."""
        return _state_badge(problem)

    @admin.display(description=gettext_lazy("message"))
    def said(self, problem: HealthProblem) -> SafeString:
        """What is wrong."""
        return display.worded(problem.message)

    @admin.display(description=gettext_lazy("what to do"))
    def what_to_do(self, problem: HealthProblem) -> SafeString | str:
        """The hint."""
        return display.worded(problem.hint) or display.DASH

    @admin.display(description=gettext_lazy("since"), ordering="first_seen")
    def since(self, problem: HealthProblem) -> SafeString | str:
        """How long ago it was found."""
        return display.age(problem.first_seen)

    @admin.display(description=gettext_lazy("last seen"), ordering="last_seen")
    def last_look(self, problem: HealthProblem) -> SafeString | str:
        """How long ago it was there still."""
        return display.age(problem.last_seen)

    @admin.display(description=gettext_lazy("told"), ordering="told_at")
    def told(self, problem: HealthProblem) -> SafeString | str:
        """How long ago somebody was told."""
        return display.age(problem.told_at) if problem.told_at else display.DASH

    @admin.display(description=gettext_lazy("settled"), ordering="resolved_at")
    def settled(self, problem: HealthProblem) -> SafeString | str:
        """How long ago it was gone."""
        return display.age(problem.resolved_at) if problem.resolved_at else display.DASH

    # The page

    def get_urls(self) -> list[URLPattern]:
        """The stock pages and the page Health."""
        own = self.own_path("health/", self.health_view, permission="view_database", name="backups_app_health")
        return [own, *super().get_urls()]

    def health_view(self, request: HttpRequest) -> HttpResponseBase:
        """Everything that ``backup status`` tells, computed now, and what was remembered."""
        sync_databases()
        health = check_health()
        records = HealthProblem.objects.order_by("-first_seen", "-pk")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Health"),
            "health": health,
            "checked": display.moment(health.checked_at),
            "badge": _overall_badge(health),
            "words": _overall(health),
            "problems": [_problem(each) for each in health.problems],
            "databases": [_database(each) for each in health.databases],
            "disks": [_disk(each) for each in health.disks],
            "hosts": [_host(each) for each in Host.objects.order_by("name")],
            "records": [_record(each) for each in records[:_PROBLEMS_SHOWN]],
            "notices": [display.worded(each) for each in health.notices],
        }
        return TemplateResponse(request, "admin/backups_app/health.html", context)


def problem_name(code: str) -> str:
    """The code of a problem as words for people."""
    return _(code.replace("_", " ").capitalize())


def _overall(health: Health) -> str:
    count = len(health.problems)
    if not count:
        return _("Everything under care is safe. Nothing needs attention.")
    return ngettext("%(count)d problem needs attention.", "%(count)d problems need attention.", count) % {
        "count": count
    }


def _overall_badge(health: Health) -> SafeString:
    return display.badge("safe", _("safe")) if health.is_ok else display.badge("attention", _("needs attention"))


def _problem(problem: Any) -> dict[str, Any]:
    return {
        "what": problem_name(problem.code),
        "database": display.sendable(problem.database),
        "message": display.worded(problem.message),
        "hint": display.worded(problem.hint),
    }


def _database(each: DatabaseHealth) -> dict[str, Any]:
    last = each.last_verified
    name = display.sendable(each.database.name)
    return {
        "name": display.linked("database", each.database.pk, name),
        "badge": display.badge("attention", _("needs attention"))
        if each.problems
        else display.badge("safe", _("safe")),
        "verified": display.age(last.taken_at if last else None),
        "limit": display.duration(each.limit),
        "attempt": display.badge(each.last_attempt.state, each.last_attempt.get_state_display())
        if each.last_attempt
        else display.DASH,
        "drill": display.age(each.last_drill_at),
        "rows": display.count(last.row_count if last else None),
        "size": display.size(each.size_bytes),
        "wal": display.size(each.wal_bytes),
    }


def _disk(each: FileSystem) -> dict[str, Any]:
    is_full = each.is_nearly_full
    return {
        "folder": display.sendable(str(each.folder)),
        "places": display.sendable(", ".join(each.places)),
        "badge": display.badge("attention", _("nearly full")) if is_full else display.badge("safe", _("enough")),
        "free": display.size(each.free_bytes),
        "backup": display.size(each.backup_bytes),
        "restore": display.size(each.restore_bytes),
    }


def _host(host: Host) -> dict[str, Any]:
    return {"name": display.sendable(host.name), "badge": state_badge(host), "seen": display.age(host.seen_at)}


def _record(problem: HealthProblem) -> dict[str, Any]:
    about = ", ".join(each for each in (problem.database, problem.subject) if each)
    until = problem.resolved_at or timezone.now()
    return {
        "what": problem_name(problem.code),
        "about": display.sendable(about) or display.DASH,
        "message": display.worded(problem.message),
        "badge": _state_badge(problem),
        "since": display.age(problem.first_seen),
        "told": display.age(problem.told_at) if problem.told_at else display.DASH,
        "lasted": display.duration(until - problem.first_seen),
    }


def _state_badge(problem: HealthProblem) -> SafeString:
    return display.badge("attention", _("open")) if problem.is_open else display.badge("done", _("over"))
