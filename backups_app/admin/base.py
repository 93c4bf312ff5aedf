"""What the screens share: nothing that is evidence can be edited, and the catalogue must be there."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import DateTimeField, Model
from django.forms import Script
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from ..models import Backup
from ..services import catalog
from . import display
from .dates import DatedList
from .links import stay_on

View = Callable[..., HttpResponseBase]


class CatalogAdmin(admin.ModelAdmin):
    """A screen on rows of the catalogue. Rows appear and go through services only."""

    save_on_top = False
    show_full_result_count = False
    empty_value_display = display.DASH
    nothing_yet: Any = gettext_lazy("There is nothing yet.")
    """What stands on an empty list: why it is empty, or what to do next."""
    show_facets = admin.ShowFacets.NEVER  # they count every choice of every filter over the whole table

    class Media:
        css = {"all": ["backups_app/admin.css"]}
        js = [Script("backups_app/time_zone.js", defer=True)]

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Rows are made by services."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Rows are removed by services."""
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, or what to do when there is no catalogue."""
        return self._missing(request) or super().changelist_view(request, extra_context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The detail page, or what to do when there is no catalogue."""
        return self._missing(request) or super().changeform_view(request, object_id, form_url, extra_context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **options: Any
    ) -> HttpResponse:
        """The detail page, with each time to the second and with its zone: the stock page leaves both out."""
        fields = [each for each in self.opts.get_fields() if isinstance(each, DateTimeField)]
        page, exact = context["adminform"], {each.name: _exact_time(each) for each in fields}
        page.readonly_fields = [exact.get(name, name) for name in page.readonly_fields]
        page.fieldsets = [
            (title, {**facts, "fields": [exact.get(name, name) for name in facts["fields"]]})
            for title, facts in page.fieldsets
        ]
        return super().render_change_form(request, context, *args, **options)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A refusal, or what to do when there is no catalogue."""
        return self._missing(request) or super().delete_view(request, object_id, extra_context)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The changes made on the screens, or what to do when there is no catalogue."""
        return self._missing(request) or super().history_view(request, object_id, extra_context)

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[DatedList]:
        """The kind of list: one that stays quick with very many rows."""
        return DatedList

    def is_list(self, request: HttpRequest) -> bool:
        """Whether the list is asked for: it does without the large facts of its rows."""
        match = request.resolver_match
        return match is not None and match.url_name == f"{self.opts.app_label}_{self.opts.model_name}_changelist"

    def own_path(self, route: str, view: View, *, permission: str | tuple[str, ...], name: str) -> URLPattern:
        """An extra page of this screen, for people with ``permission`` (of this app; one of several) only."""
        accepted = (permission,) if isinstance(permission, str) else permission

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not any(request.user.has_perm(f"backups_app.{each}") for each in accepted):
                raise PermissionDenied
            return self._missing(request) or view(request, *args, **kwargs)

        return path(route, self.admin_site.admin_view(guarded), name=name)

    def _missing(self, request: HttpRequest) -> TemplateResponse | None:
        """What to do when there is no catalogue. Every page asks this first, so it also notes on which site it is."""
        request.current_app = self.admin_site.name
        stay_on(self.admin_site.name)
        if catalog.is_ready():
            return None
        context = {
            **self.admin_site.each_context(request),
            "title": _("The backup catalogue is not ready"),
            "command": f"python manage.py migrate --database {conf.CATALOG_ALIAS}",
        }
        return TemplateResponse(request, "admin/backups_app/catalog_missing.html", context, status=503)


class EvidenceAdmin(CatalogAdmin):
    """A screen on rows that nobody may change."""

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Evidence is never edited."""
        return False


class BackupPages(EvidenceAdmin):
    """What the pages on which something is done with a backup share."""

    def backup_or_404(self, request: HttpRequest, backup_id: str) -> Backup:
        """The backup with its database."""
        backup: Backup | None = self.get_queryset(request).select_related("database").filter(pk=backup_id).first()
        if backup is None:
            raise Http404
        return backup

    def deed_page(self, request: HttpRequest, template: str, title: str, context: dict[str, Any]) -> TemplateResponse:
        """A page of this screen that is no stock page."""
        common = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": title,
        }
        return TemplateResponse(request, f"admin/backups_app/{template}.html", {**common, **context})


def _exact_time(field: DateTimeField[Any, Any]) -> Callable[[Model], Any]:
    """What shows a time of a row where the stock page would show its field."""

    @admin.display(description=field.verbose_name)
    def shown(row: Model) -> Any:
        return display.moment(getattr(row, field.name))

    shown.__name__ = field.name  # the page finds the help text by it
    return shown


def without_jobs(fieldsets: Any, request: HttpRequest) -> Any:
    """``fieldsets`` as they are for somebody who may see jobs, and without the field ``jobs`` for others."""
    if request.user.has_perm("backups_app.view_job"):
        return fieldsets
    kept = [
        (title, {**options, "fields": [name for name in options["fields"] if name != "jobs"]})
        for title, options in fieldsets
    ]
    return [(title, options) for title, options in kept if options["fields"]]
