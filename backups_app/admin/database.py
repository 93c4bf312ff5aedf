"""Databases under care: are they safe, and *Back up now*."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Exists, Model, OuterRef, QuerySet, Subquery
from django.forms import ModelForm
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from ..core.errors import BackupError
from ..core.manifest import MAX_POSITION
from ..models import Backup, Database, HealthProblem, Job
from ..services import overview
from ..services.audit import Actor
from ..services.databases import change_policy, sync_databases
from ..services.health import freshness_limit
from ..services.jobs import ask_create, ask_prune
from . import display
from .asking import asked_with_this_form, does, form_opened_at, lead_to
from .base import without_jobs
from .chart import chronicle
from .drill import DrillPages
from .links import reverse
from .retention import MOST, SimulationForm, refuse_empty_policy, simulation

_MAX_FRESHNESS_HOURS = 10 * 366 * 24
_JOBS_SHOWN = 5


class TableNamesField(forms.JSONField):
    """JSON may spell half a character, which no page can hold: it is shown as its escape."""

    def prepare_value(self, value: Any) -> str:
        """The text in the form."""
        return display.sendable(str(super().prepare_value(value)))


class PolicyForm(ModelForm):
    """What a person may decide about a database."""

    destinations = forms.MultipleChoiceField(
        label=gettext_lazy("Destinations"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=gettext_lazy("Where its backups are stored. None chosen: as in the setting DESTINATIONS."),
    )

    class Meta:
        model = Database
        fields = ["required_tables", "freshness_hours", "destinations", "delta_chain", *Database.KEEP_FIELDS]
        field_classes = {"required_tables": TableNamesField}
        widgets = {"required_tables": forms.Textarea(attrs={"rows": 3, "cols": 60})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "destinations" in self.fields:
            # One that is gone from the settings can still be seen and taken away.
            names = [*conf.destinations(), *map(str, self.instance.destinations)]
            self.fields["destinations"].choices = [(name, name) for name in dict.fromkeys(names)]  # type: ignore[attr-defined]

    def clean_required_tables(self) -> list[str]:
        """A list of table names."""
        given = self.cleaned_data["required_tables"]
        if not isinstance(given, list) or not all(isinstance(each, str) and each for each in given):
            raise forms.ValidationError(_('Give a list of table names, such as ["auth_user"], or [].'))
        try:
            "".join(given).encode()
        except UnicodeEncodeError as exc:
            raise forms.ValidationError(_("A table name holds an incomplete character.")) from exc
        return list(dict.fromkeys(given))

    def clean_freshness_hours(self) -> int | None:
        """A limit that means something, or none."""
        given: int | None = self.cleaned_data["freshness_hours"]
        if given is not None and not 1 <= given <= _MAX_FRESHNESS_HOURS:
            raise forms.ValidationError(
                _("Give 1 to %(most)d hours, or leave it empty.") % {"most": _MAX_FRESHNESS_HOURS}
            )
        return given

    def clean_delta_chain(self) -> int | None:
        """A length that can be read again, or none."""
        given: int | None = self.cleaned_data["delta_chain"]
        if given is not None and given > MAX_POSITION:
            raise forms.ValidationError(_("Give 0 to %(most)d, or leave it empty.") % {"most": MAX_POSITION})
        return given

    @property
    def rules(self) -> dict[str, int | None]:
        """The rules of retention that were given."""
        return {name: self.cleaned_data[name] for name in Database.KEEP_FIELDS if name in self.cleaned_data}

    def clean(self) -> dict[str, Any]:
        """Rules that mean something together."""
        found: dict[str, Any] = super().clean() or {}
        for name, number in self.rules.items():
            if number is not None and number > MOST:
                self.add_error(name, _("Give 0 to %(most)d, or leave it empty.") % {"most": MOST})
        refuse_empty_policy(self.instance, self.rules)
        return found


@admin.register(Database)
class DatabaseAdmin(DrillPages):
    """One line per database: what is proven, when, how big, how many rows."""

    form = PolicyForm
    nothing_yet = gettext_lazy("No database is under care. “manage.py backup add-database NAME PATH” adds one.")
    list_display = ["name", "health", "last_verified", "rows", "size", "path"]
    list_filter = ["is_under_care"]
    search_fields = ["name", "path"]
    actions = ["back_up_now", "drill_now"]
    readonly_fields = [
        "health",
        "last_verified",
        "rows",
        "size",
        "host",
        "path",
        "alias",
        "identity",
        "added_at",
        "last_days",
        "tables",
        "jobs",
    ]
    fieldsets = [
        (None, {"fields": ["health", "last_verified", "rows", "size", "host", "path"]}),
        (gettext_lazy("Last days"), {"fields": ["last_days"]}),
        (gettext_lazy("Policy"), {"fields": ["required_tables", "freshness_hours", "destinations", "delta_chain"]}),
        (
            gettext_lazy("Retention"),
            {
                "fields": list(Database.KEEP_FIELDS),
                "description": gettext_lazy(
                    "What pruning keeps. Empty: as in the setting RETENTION. Without any rule everything is kept."
                ),
            },
        ),
        (gettext_lazy("Rows in the last verified backup"), {"fields": ["tables"]}),
        (gettext_lazy("Latest jobs"), {"fields": ["jobs"]}),
        (gettext_lazy("Identity"), {"fields": ["alias", "identity", "added_at"]}),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """Jobs are shown to those who may see them."""
        return without_jobs(self.fieldsets, request)

    def get_list_display(self, request: HttpRequest) -> list[Any]:
        """The host as well, where there are several."""
        names: list[Any] = list(self.list_display)
        return names if conf.is_catalog_local() else [*names[:1], "host", *names[1:]]

    def get_list_filter(self, request: HttpRequest) -> list[Any]:
        """By host as well, where there are several."""
        names: list[Any] = list(self.list_filter)
        return names if conf.is_catalog_local() else [*names, "host"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Database]:
        """Each database with its last verified backup, in one query."""
        own = Backup.objects.filter(database=OuterRef("pk"), origin_sha256="").exclude(trigger=Backup.Trigger.IMPORT)
        last = own.filter(state=Backup.State.VERIFIED).order_by("-taken_at")
        names = ["id", "taken_at", "row_count", "size_bytes"]
        if not self.is_list(request):
            names.append("census")
        databases: QuerySet[Database] = super().get_queryset(request)
        open_problems = HealthProblem.objects.filter(database=OuterRef("name"), resolved_at=None)
        return databases.annotate(
            has_problems=Exists(open_problems),
            **{f"last_{name}": Subquery(last.values(name)[:1]) for name in names},
        )

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, brought in line with the settings first."""
        missing = self._missing(request)
        if missing is not None:
            return missing
        if self.has_view_permission(request):
            sync_databases()
        return super().changelist_view(request, extra_context)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Only the policy can be changed."""
        return request.user.has_perm("backups_app.change_database")

    def save_model(self, request: HttpRequest, obj: Database, form: Any, change: bool) -> None:
        """Record the policy through the service."""
        change_policy(
            obj,
            required_tables=form.cleaned_data["required_tables"],
            freshness_hours=form.cleaned_data["freshness_hours"],
            retention=form.rules,
            destinations=form.cleaned_data["destinations"],
            delta_chain=form.cleaned_data["delta_chain"],
            actor=Actor.of(request.user),
        )

    @admin.display(description=gettext_lazy("state"))
    def health(self, database: Database) -> SafeString:
        """Safe, or not."""
        if database.is_imported:
            return display.badge("cancelled", _("imported archives only"))
        if not database.is_under_care:
            return display.badge("cancelled", _("not under care"))
        taken_at = getattr(database, "last_taken_at", None)
        if taken_at is None:
            return display.badge("failed", _("never verified"))
        if timezone.now() - taken_at > freshness_limit(database):
            return display.badge("attention", _("too old"))
        if getattr(database, "has_problems", False):  # as the overview and the page Health have it
            return display.badge("attention", _("needs attention"))
        return display.badge("safe", _("safe"))

    @admin.display(description=gettext_lazy("last verified backup"), ordering="last_taken_at")
    def last_verified(self, database: Database) -> SafeString | str:
        """How old the newest proven data is, linked to its backup."""
        ago = display.age(getattr(database, "last_taken_at", None))
        backup_id = getattr(database, "last_id", None)
        if backup_id is None:
            return ago
        return format_html('<a href="{}">{}</a>', reverse("admin:backups_app_backup_change", args=[backup_id]), ago)

    @admin.display(description=gettext_lazy("rows"), ordering="last_row_count")
    def rows(self, database: Database) -> SafeString | str:
        """Rows in the last verified backup."""
        return display.count(getattr(database, "last_row_count", None))

    @admin.display(description=gettext_lazy("size"), ordering="last_size_bytes")
    def size(self, database: Database) -> SafeString | str:
        """Size of the last verified backup's database."""
        return display.size(getattr(database, "last_size_bytes", None))

    @admin.display(description=gettext_lazy("last days"))
    def last_days(self, database: Database) -> SafeString:
        """Its days, trends, last drill and next runs."""
        now = timezone.now()
        days = overview.days_of([database], now=now)[database.pk]
        drill, runs = overview.last_drill(database), overview.next_runs(database, now=now)
        return chronicle(days, name=database.name, drill=drill, runs=runs)

    @admin.display(description=gettext_lazy("tables"))
    def tables(self, database: Database) -> SafeString | str:
        """Rows per table in the last verified backup."""
        census = getattr(database, "last_census", None) or {}
        return display.rows_table(census.get("tables", {}))

    @admin.display(description=gettext_lazy("jobs"))
    def jobs(self, database: Database) -> SafeString | str:
        """What was asked for lately, and how it went."""
        return display.jobs_table(database.jobs.defer("log", "options")[:_JOBS_SHOWN])

    # Back up now

    def get_urls(self) -> list[URLPattern]:
        """The stock pages, the confirmations of *Back up now* and *Prune*, and the simulator of retention."""
        own = self.own_path(
            "back-up-now/", self.back_up_view, permission="create_backup", name="backups_app_database_back_up"
        )
        simulate = self.own_path(
            "<int:database_id>/retention/",
            self.simulate_view,
            permission=("change_database", "prune_backup"),
            name="backups_app_database_retention",
        )
        prune = self.own_path(
            "<int:database_id>/prune/", self.prune_view, permission="prune_backup", name="backups_app_database_prune"
        )
        return [own, simulate, prune, *super().get_urls()]

    def has_create_permission(self, request: HttpRequest) -> bool:
        """Whether *Back up now* is offered."""
        return request.user.has_perm("backups_app.create_backup")

    @admin.action(description=gettext_lazy("Back up now"), permissions=["create"])
    def back_up_now(self, request: HttpRequest, queryset: QuerySet[Database]) -> HttpResponseRedirect:
        """From the list: ask for confirmation for the chosen databases."""
        chosen = "&".join(f"id={pk}" for pk in queryset.values_list("pk", flat=True))
        return HttpResponseRedirect(reverse("admin:backups_app_database_back_up") + "?" + chosen)

    def back_up_view(self, request: HttpRequest) -> HttpResponseBase:
        """GET shows what will happen, POST asks for it."""
        given = request.POST if request.method == "POST" else request.GET
        # Up to 18 digits fit the column of the key; a longer number is nobody's.
        ids = [int(value) for value in given.getlist("id") if value.isdecimal() and len(value) <= 18]
        databases = list(self.get_queryset(request).filter(pk__in=ids, is_under_care=True))
        if not databases:
            messages.warning(request, _("No database under care was chosen."))
            return HttpResponseRedirect(reverse("admin:backups_app_database_changelist"))
        if request.method == "POST":
            return self._back_up(request, databases, note=request.POST.get("note", "").strip()[:2000])
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Back up now"),
            "databases": databases,
            "opened": form_opened_at(),
        }
        return TemplateResponse(request, "admin/backups_app/confirm_back_up.html", context)

    def _back_up(self, request: HttpRequest, databases: list[Database], *, note: str) -> HttpResponseRedirect:
        asked_at, jobs = timezone.now(), []
        for database in databases:
            try:
                jobs.append(self._ask(request, database, note=note))
            except BackupError as exc:  # of one database does not stop the others
                facts = {"name": database.name, "reason": exc.message, "hint": exc.hint}
                messages.error(request, display.worded(_("No job for %(name)s: %(reason)s %(hint)s") % facts))
        otherwise = reverse("admin:backups_app_database_changelist")
        return lead_to(request, jobs, asked_at=asked_at, otherwise=otherwise)

    def _ask(self, request: HttpRequest, database: Database, *, note: str) -> Job:
        is_same = does(note=note) if note else None
        twin = asked_with_this_form(request, kind=Job.Kind.CREATE, database=database, is_same=is_same)
        return twin or ask_create(database, actor=Actor.of(request.user), trigger=Job.Trigger.ADMIN, note=note)

    # Retention

    def _one(self, database_id: int) -> Database:
        database: Database | None = Database.objects.filter(pk=database_id).first() if database_id < 2**63 else None
        if database is None:
            raise Http404
        return database

    def simulate_view(self, request: HttpRequest, database_id: int) -> HttpResponseBase:
        """What the rules in the address would keep and delete; without any, those of the policy. Changes nothing."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        database = self._one(database_id)
        own = {name: getattr(database, name) for name in Database.KEEP_FIELDS}
        is_given = any(name in request.GET for name in own)
        form = SimulationForm(request.GET if is_given else None, initial=own)
        is_usable = not is_given or form.is_valid()
        rules = form.cleaned_data if is_given and is_usable else own
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Simulate retention"),
            "database": database,
            "form": form,
            "can_prune": request.user.has_perm("backups_app.prune_backup"),
            "simulation": simulation(database, now=timezone.now(), rules=rules) if is_usable else None,
        }
        return TemplateResponse(request, "admin/backups_app/simulate_retention.html", context)

    def prune_view(self, request: HttpRequest, database_id: int) -> HttpResponseBase:
        """GET shows what would be deleted by the stored policy, POST asks for it."""
        database = self._one(database_id)
        if request.method == "POST":
            return self._prune(request, database)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Prune"),
            "database": database,
            "simulation": simulation(database, now=timezone.now()),
            "opened": form_opened_at(),
        }
        return TemplateResponse(request, "admin/backups_app/confirm_prune.html", context)

    def _prune(self, request: HttpRequest, database: Database) -> HttpResponseRedirect:
        asked_at, page = timezone.now(), display.page_url("database", database.pk)
        twin = asked_with_this_form(request, kind=Job.Kind.PRUNE, database=database)
        try:
            job = twin or ask_prune(database, actor=Actor.of(request.user), trigger=Job.Trigger.ADMIN)
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
            return HttpResponseRedirect(page)
        return lead_to(request, [job], asked_at=asked_at, otherwise=page)
