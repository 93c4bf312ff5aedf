"""Triage: have archives of others judged, look at the verdicts, *Import*, *Delete useless files*."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db.models import Model, Q, QuerySet, Sum
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf
from ..core.errors import BackupError
from ..models import Database, Job, TriageFile, TriageRun
from ..services.audit import Actor
from ..services.triage.runs import (
    DELETE,
    IMPORT,
    JUDGE,
    allowed_path,
    among,
    ask_deletion,
    ask_import,
    ask_triage,
    importable_files,
    useless_files,
)
from . import display
from .asking import asked_with_this_form, lead_to
from .base import EvidenceAdmin
from .decision import PasswordForm
from .links import reverse
from .upload import UploadPages

_MAX_PATHS = 50
_MAX_CHOSEN = 900  # Django takes forms of at most 1000 fields, DATA_UPLOAD_MAX_NUMBER_FIELDS
_NAMES_SHOWN = 20
_VIEWERS = ("run_triage", "import_backup", "discard_archive")


class StartForm(forms.Form):
    """What is to be judged."""

    paths = forms.CharField(
        label=gettext_lazy("Folders and files, one per line"),
        widget=forms.Textarea(attrs={"rows": 4, "cols": 80, "spellcheck": "false"}),
        max_length=20_000,
    )

    def clean_paths(self) -> list[str]:
        """Paths that are open to triage, with links resolved."""
        given = list(dict.fromkeys(filter(None, map(str.strip, self.cleaned_data["paths"].splitlines()))))
        if not 1 <= len(given) <= _MAX_PATHS:
            raise forms.ValidationError(_("Give 1 to %(most)d paths.") % {"most": _MAX_PATHS})
        try:
            return [str(allowed_path(each)) for each in given]
        except BackupError as exc:
            raise forms.ValidationError(display.refusal(exc)) from exc


class ImportForm(forms.Form):
    """Whose backups the imports become."""

    into = forms.ModelChoiceField(
        label=gettext_lazy("They belong to"),
        queryset=Database.objects.none(),
        required=False,
        empty_label=gettext_lazy("a database of their own, named after the file"),
        help_text=gettext_lazy("Choose a database under care to be able to restore them into it without an override."),
    )

    def __init__(self, data: Any = None, *, is_upload: bool = False) -> None:
        super().__init__(data)
        into = self.fields["into"]
        into.queryset = Database.objects.filter(is_under_care=True)  # type: ignore[attr-defined]
        if is_upload:
            into.required, into.empty_label = True, "---------"  # type: ignore[attr-defined]


@admin.register(TriageRun)
class TriageRunAdmin(UploadPages):
    """What was judged, with the sums; the way to import and to delete."""

    nothing_yet = gettext_lazy("Nothing was judged yet. Upload an archive, or have folders judged.")
    list_display = ["when", "state_badge", "places", "files_judged", "good", "reclaimable", "asked_by"]
    list_display_links = ["when"]
    list_filter = ["job__state"]
    list_select_related = ["job"]
    list_per_page = 50
    search_fields = ["id", "requested_by_name"]
    date_hierarchy = "created_at"
    actions = None
    fieldsets = [
        (None, {"fields": ["state_badge", "job_link", "places", "asked_by", "when"]}),
        (gettext_lazy("What was found"), {"fields": ["sums", "reclaimable"]}),
    ]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    def get_queryset(self, request: HttpRequest) -> QuerySet[TriageRun]:
        """Each run with the size of its useless files that are still there."""
        runs: QuerySet[TriageRun] = super().get_queryset(request)
        is_left = Q(files__is_useless=True, files__member="", files__deleted_at=None)
        return runs.annotate(useless_bytes=Sum("files__size_bytes", filter=is_left))

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whoever starts a triage, imports or deletes may see what was found."""
        return _may_view(request, "view_triagerun")

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The page of a run, with what this person may do."""
        missing = self._missing(request)
        if missing is not None:
            return missing
        run = TriageRun.objects.select_related("job").filter(pk=object_id).first()
        is_over = run is not None and not (run.job and run.job.is_open)
        is_there = run is not None and run.upload_removed_at is None
        can_import = is_over and is_there and request.user.has_perm("backups_app.import_backup")
        offered = {
            "can_import": can_import,
            "can_remove_upload": can_import and run is not None and run.is_upload,
            "can_delete": is_over
            and run is not None
            and not run.is_upload
            and request.user.has_perm("backups_app.discard_archive"),
            "files_url": _files_url(object_id),
        }
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **offered})

    # Columns and fields

    @admin.display(description=gettext_lazy("asked for"), ordering="created_at")
    def when(self, run: TriageRun) -> SafeString | str:
        """How long ago."""
        return display.age(run.created_at)

    @admin.display(description=gettext_lazy("state"), ordering="job__state")
    def state_badge(self, run: TriageRun) -> SafeString | str:
        """The state of its job."""
        return display.badge(run.job.state, run.job.get_state_display()) if run.job else display.DASH

    @admin.display(description=gettext_lazy("job"))
    def job_link(self, run: TriageRun) -> SafeString | str:
        """Its job, linked."""
        return display.linked("job", run.job_id) if run.job_id else display.DASH

    @admin.display(description=gettext_lazy("folders and files"))
    def places(self, run: TriageRun) -> SafeString | str:
        """What was to be judged."""
        if run.is_upload:
            gone = _("removed") if run.upload_removed_at else _("in quarantine")
            return format_html("{} <bdi>{}</bdi> ({})", _("Upload"), display.sendable(run.upload_name), gone)
        return format_html_join(", ", "<bdi>{}</bdi>", [(display.sendable(str(each)),) for each in run.paths])

    @admin.display(description=gettext_lazy("asked for by"), ordering="requested_by_name")
    def asked_by(self, run: TriageRun) -> SafeString:
        """Who asked."""
        return format_html("<bdi>{}</bdi>", run.requested_by_name)

    @admin.display(description=gettext_lazy("files"))
    def files_judged(self, run: TriageRun) -> SafeString | str:
        """How many files were judged."""
        return display.count(run.totals["files"] if run.totals else None)

    @admin.display(description=gettext_lazy("hold data"))
    def good(self, run: TriageRun) -> SafeString | str:
        """How many of them hold data."""
        return display.count(run.totals["verdicts"]["holds data"]["files"] if run.totals else None)

    @admin.display(description=gettext_lazy("can be reclaimed"))
    def reclaimable(self, run: TriageRun) -> SafeString | str:
        """How much room the useless files take that are still there."""
        return display.size(getattr(run, "useless_bytes", None) or 0)

    @admin.display(description=gettext_lazy("verdicts"))
    def sums(self, run: TriageRun) -> SafeString | str:
        """Files and bytes of each verdict, linked to the list of files."""
        if not run.totals:
            return display.DASH
        found = [
            {
                "badge": display.badge(verdict, label),
                "files": display.count(run.totals["verdicts"][verdict]["files"]),
                "size": display.size(run.totals["verdicts"][verdict]["bytes"]),
                "url": _files_url(run.pk, verdict=str(verdict)),
            }
            for verdict, label in TriageFile.Verdict.choices
        ]
        context = {"sums": found, "totals": run.totals, "size": display.size(run.totals["bytes"])}
        return render_to_string("admin/backups_app/triage_sums.html", context)

    # Start, import, delete

    def get_urls(self) -> list[URLPattern]:
        """The stock pages, the form that starts a triage, and two confirmations."""
        own = [
            self.own_path("start/", self.start_view, permission="run_triage", name="backups_app_triagerun_start"),
            self.own_path(
                "<str:run_id>/import/",
                self.import_view,
                permission="import_backup",
                name="backups_app_triagerun_import",
            ),
            self.own_path(
                "<str:run_id>/delete-useless/",
                self.delete_useless_view,
                permission="discard_archive",
                name="backups_app_triagerun_delete_useless",
            ),
        ]
        return [*own, *super().get_urls()]

    def start_view(self, request: HttpRequest) -> HttpResponseBase:
        """GET asks what is to be judged, POST asks for the job."""
        roots = [str(root) for root in conf.triage_roots()]
        form = StartForm(request.POST if request.method == "POST" else None, initial={"paths": "\n".join(roots)})
        if not form.is_valid():
            context = {"form": form, "roots": roots, "keys": len(conf.triage_key_files())}
            return self._page(request, "start_triage", _("Judge archives"), context)

        def ask() -> Job:
            run = ask_triage(form.cleaned_data["paths"], actor=Actor.of(request.user), trigger=Job.Trigger.ADMIN)
            return Job.objects.get(triage_run=run)

        def is_same(job: Job) -> bool:
            run = TriageRun.objects.filter(job=job).first()
            return job.options["do"] == JUDGE and run is not None and set(run.paths) == set(form.cleaned_data["paths"])

        return _asked(request, ask, is_same=is_same, otherwise=reverse("admin:backups_app_triagerun_changelist"))

    def import_view(self, request: HttpRequest, run_id: str) -> HttpResponseBase:
        """GET shows what will be imported and asks whose it is, POST asks for the job."""
        run, chosen = self._run(run_id), _chosen_ids(request)
        form = ImportForm(request.POST if request.method == "POST" else None, is_upload=run.is_upload)
        if not form.is_valid():
            return self._confirmation(
                request, run, among(importable_files(run), chosen), chosen, form, do=IMPORT, title=_("Import archives")
            )

        def ask() -> Job:
            into = form.cleaned_data["into"]
            actor = Actor.of(request.user)
            return ask_import(run, files=chosen, into=into, actor=actor, trigger=Job.Trigger.ADMIN)

        def is_same(job: Job) -> bool:
            into = form.cleaned_data["into"]
            return _is_about(job, run, chosen, do=IMPORT) and job.options.get("into") == (into.name if into else None)

        return _asked(request, ask, is_same=is_same, otherwise=display.page_url("triagerun", run.pk))

    def delete_useless_view(self, request: HttpRequest, run_id: str) -> HttpResponseBase:
        """GET shows what will be deleted, POST with the password asks for the job."""
        run, chosen = self._run(run_id), _chosen_ids(request)
        form = PasswordForm(request.POST if request.method == "POST" else None, user=request.user)
        if not form.is_valid():
            title = _("Delete useless files")
            rows = among(useless_files(run), chosen)
            return self._confirmation(request, run, rows, chosen, form, do=DELETE, title=title)

        def ask() -> Job:
            return ask_deletion(run, files=chosen, actor=Actor.of(request.user), trigger=Job.Trigger.ADMIN)

        def is_same(job: Job) -> bool:
            return _is_about(job, run, chosen, do=DELETE)

        return _asked(request, ask, is_same=is_same, otherwise=display.page_url("triagerun", run.pk))

    def _confirmation(
        self,
        request: HttpRequest,
        run: TriageRun,
        rows: QuerySet[TriageFile],
        chosen: list[int],
        form: forms.Form,
        *,
        do: str,
        title: str,
    ) -> TemplateResponse:
        count = rows.count()
        context = {
            "run": run,
            "is_open": bool(run.job and run.job.is_open),
            "do": do,
            "form": form,
            "chosen": chosen,
            "count": display.count(count),
            "has_files": bool(count),
            "size": display.size(rows.aggregate(total=Sum("size_bytes"))["total"] or 0),
            "names": [
                display.sendable(path) for path in rows.order_by("pk").values_list("path", flat=True)[:_NAMES_SHOWN]
            ],
            "more": max(0, count - _NAMES_SHOWN),
            "places": self.places(run),
        }
        return self._page(request, "confirm_triage", title, context)


@admin.register(TriageFile)
class TriageFileAdmin(EvidenceAdmin):
    """One line per file or member of a ZIP, with its verdict and why."""

    nothing_yet = gettext_lazy("No file was judged yet.")
    list_display = [
        "file",
        "verdict_badge",
        "why",
        "rows_counted",
        "newest",
        "size",
        "done",
        "format",
        "tables_counted",
    ]
    list_display_links = ["file"]
    list_filter = ["verdict", "is_useless", "is_importable", "run"]
    list_select_related = ["run"]
    list_per_page = 100
    search_fields = ["path", "sha256", "reason"]
    actions = ["import_chosen", "delete_chosen"]
    fieldsets = [
        (
            None,
            {"fields": ["file", "verdict_badge", "why", "format", "tables_counted", "rows_counted", "newest", "size"]},
        ),
        (gettext_lazy("What was done with it"), {"fields": ["done", "outcome_shown"]}),
        (gettext_lazy("Details"), {"fields": ["run_link", "sha256", "is_judged", "is_useless", "is_importable"]}),
    ]

    def get_queryset(self, request: HttpRequest) -> QuerySet[TriageFile]:
        """All files; the path in bytes is for the work only."""
        queryset: QuerySet[TriageFile] = super().get_queryset(request)
        return queryset.defer("location")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """As for the runs."""
        return _may_view(request, "view_triagefile")

    @admin.display(description=gettext_lazy("file"), ordering="path")
    def file(self, row: TriageFile) -> SafeString:
        """Its path, with what cannot be shown spelled out."""
        return format_html("<bdi>{}</bdi>", display.sendable(row.path))

    @admin.display(description=gettext_lazy("verdict"), ordering="verdict")
    def verdict_badge(self, row: TriageFile) -> SafeString:
        """The verdict."""
        return display.badge(row.verdict, row.get_verdict_display())

    @admin.display(description=gettext_lazy("tables"), ordering="tables")
    def tables_counted(self, row: TriageFile) -> SafeString | str:
        """How many tables."""
        return display.count(row.tables)

    @admin.display(description=gettext_lazy("rows"), ordering="rows")
    def rows_counted(self, row: TriageFile) -> SafeString | str:
        """How many rows."""
        return display.count(row.rows)

    @admin.display(description=gettext_lazy("newest row"), ordering="newest_row_at")
    def newest(self, row: TriageFile) -> SafeString | str:
        """How old its newest row is."""
        return display.age(row.newest_row_at) if row.newest_row_at else display.DASH

    @admin.display(description=gettext_lazy("size"), ordering="size_bytes")
    def size(self, row: TriageFile) -> SafeString | str:
        """Size of the stored file."""
        return display.size(row.size_bytes)

    @admin.display(description=gettext_lazy("reason"))
    def why(self, row: TriageFile) -> SafeString | str:
        """Why it got this verdict."""
        return format_html("<bdi>{}</bdi>", display.worded(row.reason)) if row.reason else display.DASH

    @admin.display(description=gettext_lazy("imported or deleted"))
    def done(self, row: TriageFile) -> SafeString | str:
        """The backup that it became, or that it is gone."""
        if row.backup_id:
            return display.linked("backup", row.backup_id)
        if row.deleted_at:
            return format_html("{} {}", _("deleted"), display.age(row.deleted_at))
        return display.badge("attention", _("refused")) if row.outcome else display.DASH

    @admin.display(description=gettext_lazy("outcome"))
    def outcome_shown(self, row: TriageFile) -> SafeString | str:
        """Why it was not done."""
        return format_html("<bdi>{}</bdi>", display.worded(row.outcome)) if row.outcome else display.DASH

    @admin.display(description=gettext_lazy("triage"))
    def run_link(self, row: TriageFile) -> SafeString:
        """The run that judged it."""
        return display.linked("triagerun", row.run_id)

    # Actions

    def has_import_permission(self, request: HttpRequest) -> bool:
        """Whether *Import* is offered."""
        return request.user.has_perm("backups_app.import_backup")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Whether *Delete useless files* is offered."""
        return request.user.has_perm("backups_app.discard_archive")

    @admin.action(description=gettext_lazy("Import those that hold data"), permissions=["import"])
    def import_chosen(self, request: HttpRequest, queryset: QuerySet[TriageFile]) -> HttpResponseRedirect:
        """From the list: ask for confirmation."""
        return _to_confirmation(request, queryset, "admin:backups_app_triagerun_import")

    @admin.action(description=gettext_lazy("Delete those that are useless"), permissions=["discard"])
    def delete_chosen(self, request: HttpRequest, queryset: QuerySet[TriageFile]) -> HttpResponseRedirect:
        """From the list: ask for confirmation."""
        return _to_confirmation(request, queryset, "admin:backups_app_triagerun_delete_useless")


def _may_view(request: HttpRequest, own: str) -> bool:
    return any(request.user.has_perm(f"backups_app.{each}") for each in (own, *_VIEWERS))


def _files_url(run_id: str, **filters: str) -> str:
    named = {"run__id__exact": run_id, **{f"{name}__exact": value for name, value in filters.items()}}
    return f"{reverse('admin:backups_app_triagefile_changelist')}?{urlencode(named)}"


def _chosen_ids(request: HttpRequest) -> list[int]:
    """The ids of chosen files; none means all that can be."""
    given = request.POST if request.method == "POST" else request.GET
    # Up to 18 digits fit the column of the key; what is no id is nobody's.
    found = [int(each) if each.isdecimal() and len(each) <= 18 else 0 for each in given.getlist("file")]
    return found[:_MAX_CHOSEN]


def _to_confirmation(request: HttpRequest, queryset: QuerySet[TriageFile], page: str) -> HttpResponseRedirect:
    back = HttpResponseRedirect(request.get_full_path())
    runs = list(queryset.order_by().values_list("run", flat=True).distinct()[:2])
    ids = list(queryset.order_by("pk").values_list("pk", flat=True)[: _MAX_CHOSEN + 1])
    if len(runs) != 1:
        messages.warning(request, _("Choose files of one triage at a time."))
        return back
    if len(ids) > _MAX_CHOSEN:
        text = _("Choose at most %(most)d files, or go to the page of the triage, which does all of them.")
        messages.warning(request, text % {"most": _MAX_CHOSEN})
        return back
    return HttpResponseRedirect(f"{reverse(page, args=[runs[0]])}?{'&'.join(f'file={pk}' for pk in ids)}")


def _is_about(job: Job, run: TriageRun, chosen: list[int], *, do: str) -> bool:
    """Whether a job does this with all the files that were chosen, or with all there were when none was chosen."""
    wanted = {"do": do, "run": run.pk}
    return wanted.items() <= job.options.items() and set(chosen) <= set(job.options["files"])


def _asked(
    request: HttpRequest, ask: Callable[[], Job], *, is_same: Callable[[Job], bool], otherwise: str
) -> HttpResponseBase:
    """Ask for the job once per form, and go to its page."""
    asked_at = timezone.now()
    job = asked_with_this_form(request, kind=Job.Kind.TRIAGE, database=None, is_same=is_same)
    if job is None:
        try:
            job = ask()
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
            return HttpResponseRedirect(otherwise)
    return lead_to(request, [job], asked_at=asked_at, otherwise=otherwise)
