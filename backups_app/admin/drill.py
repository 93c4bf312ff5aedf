"""*Drill* of databases: a rehearsal of the restore of the newest verified backup, away from what is live."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..core.errors import BackupError
from ..models import Database, Job
from ..services.audit import Actor
from ..services.jobs import ask_drill
from . import display
from .asking import asked_with_this_form, form_opened_at, lead_to
from .base import CatalogAdmin
from .links import reverse

_LIST = "admin:backups_app_database_changelist"


class DrillPages(CatalogAdmin):
    """The confirmation of *Drill*, and its action in the list of databases."""

    def get_urls(self) -> list[URLPattern]:
        """*Drill*."""
        own = self.own_path("drill/", self.drill_view, permission="verify_backup", name="backups_app_database_drill")
        return [own, *super().get_urls()]

    def has_drill_permission(self, request: HttpRequest) -> bool:
        """Whether *Drill* is offered."""
        return request.user.has_perm("backups_app.verify_backup")

    @admin.action(description=gettext_lazy("Drill"), permissions=["drill"])
    def drill_now(self, request: HttpRequest, queryset: QuerySet[Database]) -> HttpResponseRedirect:
        """From the list: ask for confirmation for the chosen databases."""
        chosen = "&".join(f"id={pk}" for pk in queryset.values_list("pk", flat=True))
        return HttpResponseRedirect(f"{reverse('admin:backups_app_database_drill')}?{chosen}")

    def drill_view(self, request: HttpRequest) -> HttpResponseBase:
        """GET shows what will happen, POST asks for the jobs."""
        given = request.POST if request.method == "POST" else request.GET
        # Up to 18 digits fit the column of the key; a longer number is nobody's.
        ids = [int(value) for value in given.getlist("id") if value.isdecimal() and len(value) <= 18]
        databases = list(self.get_queryset(request).filter(pk__in=ids))
        drilled = [each for each in databases if getattr(each, "last_id", None)]
        if not drilled:
            messages.warning(request, _("None of the chosen databases has a verified backup to drill with."))
            return HttpResponseRedirect(reverse(_LIST))
        if request.method == "POST":
            return _drill(request, drilled)
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Drill"),
            "databases": [
                {
                    "row": each,
                    "backup": getattr(each, "last_id", ""),
                    "age": display.age(getattr(each, "last_taken_at", None)),
                }
                for each in drilled
            ],
            "opened": form_opened_at(),
        }
        return TemplateResponse(request, "admin/backups_app/confirm_drill.html", context)


def _drill(request: HttpRequest, databases: list[Database]) -> HttpResponseRedirect:
    asked_at, jobs = timezone.now(), []
    for database in databases:
        twin = asked_with_this_form(request, kind=Job.Kind.DRILL, database=database)
        try:
            jobs.append(twin or ask_drill(database, actor=Actor.of(request.user), trigger=Job.Trigger.ADMIN))
        except BackupError as exc:  # of one database does not stop the others
            messages.error(request, display.refusal(exc))
    return lead_to(request, jobs, asked_at=asked_at, otherwise=reverse(_LIST))
