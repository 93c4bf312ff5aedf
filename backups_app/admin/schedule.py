"""Schedules: when work is due, in words and in times, and what became of each due time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Max, Model, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.dates import WEEKDAYS
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import get_language, gettext_lazy, override
from django.utils.translation import gettext as _

from ..core.errors import BackupError, InputError
from ..jobs.cron import Cron, describe, find_zone, next_times, parse, zone_names
from ..models import Database, Schedule, ScheduledRun
from ..services.audit import Actor
from ..services.schedules import check_schedule, delete_schedule, save_schedule
from . import display
from .base import CatalogAdmin, EvidenceAdmin
from .links import reverse

_RUNS_SHOWN = 10


class ScheduleForm(ModelForm):
    """What a person may decide about a schedule. Database and kind are decided once."""

    class Meta:
        model = Schedule
        fields = ["database", "kind", "cron", "time_zone", "jitter_seconds", "is_enabled"]
        widgets = {"cron": forms.TextInput(attrs={"size": 30, "autocomplete": "off", "spellcheck": "false"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "database" in self.fields:
            self.fields["database"].queryset = Database.objects.filter(is_under_care=True)  # type: ignore[attr-defined]
        if "time_zone" in self.fields:
            # One that this machine no longer knows stays in the list, to be seen and replaced.
            names = sorted({*zone_names(), self.instance.time_zone})
            self.fields["time_zone"].widget = forms.Select(choices=[(name, name) for name in names])

    def clean_cron(self) -> str:
        """An expression that can be read and comes to pass."""
        try:
            return parse(self.cleaned_data["cron"]).text
        except InputError as exc:
            raise _refusal(exc) from exc

    def clean_time_zone(self) -> str:
        """The name of a time zone."""
        name: str = self.cleaned_data["time_zone"]
        try:
            find_zone(name)
        except InputError as exc:
            raise _refusal(exc) from exc
        return name

    def clean_jitter_seconds(self) -> int:
        """Seconds that fit between two runs."""
        seconds: int = self.cleaned_data["jitter_seconds"]
        if {"cron", "time_zone"} <= set(self.cleaned_data):
            facts = {name: self.cleaned_data[name] for name in ("cron", "time_zone")}
            try:
                check_schedule(Schedule(**facts, jitter_seconds=seconds))
            except InputError as exc:
                raise _refusal(exc) from exc
        return seconds


def _refusal(exc: BackupError) -> forms.ValidationError:
    return forms.ValidationError(display.refusal(exc))


@admin.register(Schedule)
class ScheduleAdmin(CatalogAdmin):
    """One line per database and kind of work: when it is due, in words, and the next times."""

    form = ScheduleForm
    nothing_yet = gettext_lazy("There is no schedule yet. Add one, and backups are made without anybody asking.")
    list_display = ["database", "kind", "state", "expression", "coming", "last_run", "time_zone"]
    list_filter = ["is_enabled", "kind", "database"]
    list_select_related = ["database"]
    search_fields = ["database__name", "cron", "time_zone"]
    fieldsets = [
        (None, {"fields": ["database", "kind", "is_enabled"]}),
        (gettext_lazy("When"), {"fields": ["cron", "time_zone", "jitter_seconds", "expression", "next_five"]}),
        (gettext_lazy("Last runs"), {"fields": ["last_runs"]}),
    ]
    _shown = ("expression", "next_five", "last_runs")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Schedule]:
        """Each schedule with when it last fired, in one query."""
        schedules: QuerySet[Schedule] = super().get_queryset(request)
        return schedules.annotate(last_fired_at=Max("runs__fired_at"))

    # Permissions and pages: the stock ones, which the other screens switch off

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """By the stock permission."""
        return request.user.has_perm("backups_app.add_schedule")

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """By the stock permission."""
        return request.user.has_perm("backups_app.delete_schedule")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """Database and kind cannot change: the runs are theirs."""
        return self._shown if obj is None else ("database", "kind", *self._shown)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """A new schedule has no runs yet."""
        return self.fieldsets if obj is not None else self.fieldsets[:-1]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The form. What it could not foresee, because somebody else was faster, is told on the list."""
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
            return HttpResponseRedirect(reverse("admin:backups_app_schedule_changelist"))

    def save_model(self, request: HttpRequest, obj: Schedule, form: Any, change: bool) -> None:
        """Store it through the service."""
        save_schedule(obj, actor=Actor.of(request.user), now=timezone.now())

    def delete_model(self, request: HttpRequest, obj: Schedule) -> None:
        """Remove it through the service."""
        delete_schedule(obj, actor=Actor.of(request.user))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Schedule]) -> None:
        """Remove the chosen ones through the service."""
        for schedule in queryset:
            self.delete_model(request, schedule)

    def get_deleted_objects(
        self, objs: QuerySet[Any] | Iterable[Any], request: HttpRequest
    ) -> tuple[list[Any], dict[Any, int], set[str], list[str]]:
        """What goes with it. Its runs go too, though nobody may delete a run alone."""
        names, counts, needed, protected = super().get_deleted_objects(objs, request)  # type: ignore[arg-type]
        runs = str(ScheduledRun._meta.verbose_name)
        return names, counts, {each for each in needed if str(each) != runs}, protected

    # What is shown

    @admin.display(description=gettext_lazy("state"), ordering="is_enabled")
    def state(self, schedule: Schedule) -> SafeString:
        """Whether it fires."""
        if not schedule.database.is_under_care:
            return display.badge("cancelled", _("not under care"))
        return display.badge("safe", _("on")) if schedule.is_enabled else display.badge("cancelled", _("off"))

    @admin.display(description=gettext_lazy("in words"), ordering="cron")
    def expression(self, schedule: Schedule) -> SafeString | str:
        """The expression with its meaning."""
        if not schedule.cron:
            return _("Shown when the schedule is saved.")
        try:
            words = _in_words(parse(schedule.cron))
        except InputError as exc:
            words = exc.message
        return format_html("<code><bdi>{}</bdi></code> <bdi>{}</bdi>", schedule.cron, words)

    @admin.display(description=gettext_lazy("next five times"))
    def next_five(self, schedule: Schedule) -> SafeString | str:
        """The next due times, on the clock of its zone."""
        found = self._times(schedule)
        return render_to_string("admin/backups_app/schedule_times.html", {"times": found}) if found else display.DASH

    @admin.display(description=gettext_lazy("next times"))
    def coming(self, schedule: Schedule) -> SafeString | str:
        """The next due time, and the four after it behind a click."""
        found = self._times(schedule) if schedule.is_enabled and schedule.database.is_under_care else []
        context = {"first": found[0], "times": found[1:]} if found else {}
        return render_to_string("admin/backups_app/schedule_coming.html", context) if found else display.DASH

    @staticmethod
    def _times(schedule: Schedule) -> list[SafeString]:
        try:
            cron, zone = parse(schedule.cron), find_zone(schedule.time_zone)
        except InputError:
            return []
        return [_local_time(each.astimezone(zone)) for each in next_times(cron, zone, after=timezone.now())]

    @admin.display(description=gettext_lazy("last run"), ordering="last_fired_at")
    def last_run(self, schedule: Schedule) -> SafeString | str:
        """When it last fired."""
        return display.age(getattr(schedule, "last_fired_at", None))

    @admin.display(description=gettext_lazy("runs"))
    def last_runs(self, schedule: Schedule) -> SafeString | str:
        """Its newest due times with what became of them."""
        runs = [
            {"row": run, "due": _due(run), "fired": display.age(run.fired_at), "late": _late(run), "job": _job(run)}
            for run in schedule.runs.select_related("job", "schedule")[:_RUNS_SHOWN]
        ]
        address = reverse("admin:backups_app_scheduledrun_changelist")
        context = {"runs": runs, "more": f"{address}?schedule__id__exact={schedule.pk}"}
        return render_to_string("admin/backups_app/scheduled_runs.html", context) if runs else display.DASH


@admin.register(ScheduledRun)
class ScheduledRunAdmin(EvidenceAdmin):
    """Each due time that was fired."""

    nothing_yet = gettext_lazy("No schedule has come due yet.")
    list_display = ["due", "database", "kind", "fired", "late", "missed", "job_link"]
    list_display_links = ["due"]
    list_filter = ["is_late", "schedule__kind", "schedule__database"]
    list_per_page = 50
    list_select_related = ["schedule__database", "job"]
    search_fields = ["schedule__database__name", "job__id"]
    date_hierarchy = "due_at"
    actions = None
    fields = ["due", "schedule_link", "database", "kind", "fired", "late", "missed", "job_link"]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for name in self.fields or []]

    @admin.display(description=gettext_lazy("due"), ordering="due_at")
    def due(self, run: ScheduledRun) -> SafeString:
        """The due time, on the clock of its zone."""
        return _due(run)

    @admin.display(description=gettext_lazy("database"), ordering="schedule__database__name")
    def database(self, run: ScheduledRun) -> str:
        """The database's name."""
        return run.schedule.database.name

    @admin.display(description=gettext_lazy("kind"), ordering="schedule__kind")
    def kind(self, run: ScheduledRun) -> str:
        """The kind of work."""
        return str(run.schedule.get_kind_display())

    @admin.display(description=gettext_lazy("schedule"))
    def schedule_link(self, run: ScheduledRun) -> SafeString:
        """The schedule, linked."""
        url = reverse("admin:backups_app_schedule_change", args=[run.schedule_id])
        return format_html('<a href="{}">{}</a>', url, run.schedule)

    @admin.display(description=gettext_lazy("fired"), ordering="fired_at")
    def fired(self, run: ScheduledRun) -> SafeString | str:
        """How long ago."""
        return display.age(run.fired_at)

    @admin.display(description=gettext_lazy("punctual"), ordering="is_late")
    def late(self, run: ScheduledRun) -> SafeString:
        """On time, or late."""
        return _late(run)

    @admin.display(description=gettext_lazy("job"))
    def job_link(self, run: ScheduledRun) -> SafeString | str:
        """The job that it became."""
        return _job(run)


def _local_time(moment: datetime) -> SafeString:
    """A time on the clock of its zone, with the same instant in UTC on hover."""
    in_utc = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        in_utc.isoformat(),
        f"{date_format(in_utc, 'D')} {in_utc:%Y-%m-%d %H:%M} UTC",
        f"{date_format(moment, 'D')} {moment:%Y-%m-%d %H:%M} {moment.tzname()}",
    )


def _in_words(cron: Cron) -> str:
    """The expression in the reader's language where that gives whole words, else in English."""
    if (get_language() or "").partition("-")[0] != "el":
        return describe(cron)
    words = describe(cron, locale="el_GR").replace("μόνο το ", "μόνο ")
    for day in WEEKDAYS.values():
        with override(None):
            name = str(day)
        words = words.replace(name, str(day))
    # Months stand in a case that their names do not have: half a sentence is worse than a foreign one.
    return describe(cron) if re.search("[A-Za-z]", words) else words


def _due(run: ScheduledRun) -> SafeString:
    try:
        zone = find_zone(run.schedule.time_zone)
    except InputError:
        return _local_time(run.due_at.astimezone(UTC))
    return _local_time(run.due_at.astimezone(zone))


def _late(run: ScheduledRun) -> SafeString:
    return display.badge("attention", _("late")) if run.is_late else display.badge("safe", _("on time"))


def _job(run: ScheduledRun) -> SafeString | str:
    if run.job is None:
        return display.DASH
    url = reverse("admin:backups_app_job_change", args=[run.job.pk])
    state = display.badge(run.job.state, run.job.get_state_display())
    return format_html('<a href="{}">{}</a> {}', url, run.job.pk, state)
