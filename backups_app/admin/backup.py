"""Backups: what is proven, and *Verify*."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..core.errors import BackupError
from ..models import Backup, Copy, Job, Restore, Verification
from ..models.backup import Verdict
from ..services.audit import Actor
from ..services.hold import hold_backup, release_backup
from ..services.jobs import ask_verify
from ..services.links import object_name
from ..services.media import stored_folders
from ..services.prune import is_held_by_hand
from ..services.restores import request_restore
from ..services.restores.guards import GuardError
from . import display
from .asking import asked_with_this_form, does, form_opened_at, lead_to, requested_with_this_form
from .base import without_jobs
from .chosen import ACTIONS, ChosenPages
from .delete import DeletePages
from .download import DownloadPages
from .links import reverse
from .request import RequestForm

_JOBS_SHOWN = 10
_LEVELS = {Verification.Level.QUICK, Verification.Level.FULL, Verification.Level.DRILL}


# What is said of a backup that was proven once, by what was found since.
_DOUBTS = {
    Verdict.FAILED: gettext_lazy("It was proven when it was made, but does not pass any more."),
    Verdict.UNREACHABLE: gettext_lazy("It was proven when it was made, but could not be reached since."),
    Verdict.KEY_MISSING: gettext_lazy("It was proven when it was made, but no key at hand opens it now."),
}


@admin.register(Backup)
class BackupAdmin(ChosenPages, DownloadPages, DeletePages):
    """Every attempt, its outcome and its evidence."""

    nothing_yet = gettext_lazy("There is no backup yet. Back up a database now, or add a schedule.")
    list_display = ["when", "state_badge", "database", "rows", "size", "stored", "id"]
    list_display_links = ["when"]
    list_filter = ["state", "verdict", "is_held", "trigger", "database"]
    list_select_related = ["database"]
    list_per_page = 50
    search_fields = ["id", "database__name", "note", "sha256", "archive_sha256"]
    date_hierarchy = "created_at"
    actions = ACTIONS
    fieldsets = [
        (None, {"fields": ["state_badge", "explanation", "database_link", "when", "rows", "size", "stored", "note"]}),
        (gettext_lazy("Evidence"), {"fields": ["evidence"]}),
        (gettext_lazy("Rows per table"), {"fields": ["tables"]}),
        (gettext_lazy("Copies and recovery"), {"fields": ["copies_table", "recovery"]}),
        (gettext_lazy("Restores"), {"fields": ["restores_table"]}),
        (gettext_lazy("Jobs"), {"fields": ["jobs"]}),
        (
            gettext_lazy("Details"),
            {
                "classes": ["collapse"],
                "fields": [
                    "id",
                    "trigger",
                    "requested_by_name",
                    "created_at",
                    "taken_at",
                    "finished_at",
                    "pinned_seconds",
                    "is_held",
                    "held_by_name",
                    "pruned_at",
                    "remarks_list",
                    "sha256",
                    "archive_sha256",
                    "content_sha256",
                    "manifest_sha256",
                    "archive_of",
                    "media_facts",
                    "encrypted_for",
                    "signature",
                    "chain_number",
                ],
            },
        ),
    ]

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        """What there is to say: no restores of what has no archive. Jobs are shown to those who may see them."""
        fieldsets = without_jobs(self.fieldsets, request)
        if obj is None or obj.archive_sha256:
            return fieldsets
        empty = {"recovery", "restores_table"} | (set() if obj.census else {"tables"})
        kept = [
            (title, {**options, "fields": [name for name in options["fields"] if name not in empty]})
            for title, options in fieldsets
        ]
        return [(title, options) for title, options in kept if options["fields"]]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        """Everything."""
        return [str(name) for _title, options in self.fieldsets for name in options["fields"]]

    @admin.display(description=gettext_lazy("taken"), ordering="created_at")
    def when(self, backup: Backup) -> SafeString | str:
        """Age of the data, or of the attempt."""
        return display.age(backup.taken_at or backup.created_at)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def state_badge(self, backup: Backup) -> SafeString:
        """The state; beside it a last verdict that says something else, and whether it is held."""
        badges = [display.badge(backup.state, backup.get_state_display())]
        if backup.verdict not in ("", Verdict.PASSED, backup.state):
            badges.append(display.badge(backup.verdict, backup.get_verdict_display()))
        if backup.is_held:
            badges.append(display.badge("held", _("held")))
        return format_html_join(" ", "{}", [(each,) for each in badges])

    @admin.display(description=gettext_lazy("rows"), ordering="row_count")
    def rows(self, backup: Backup) -> SafeString | str:
        """Rows in all tables."""
        return display.count(backup.row_count)

    @admin.display(description=gettext_lazy("size"), ordering="size_bytes")
    def size(self, backup: Backup) -> SafeString | str:
        """Size of the database."""
        return display.size(backup.size_bytes)

    @admin.display(description=gettext_lazy("stored"), ordering="archive_bytes")
    def stored(self, backup: Backup) -> SafeString | str:
        """Size of the archives."""
        return display.size(None if backup.archive_bytes is None else backup.stored_bytes)

    @admin.display(description=gettext_lazy("archive"))
    def archive_of(self, backup: Backup) -> SafeString | str:
        """Whether its archive is its own and whole, shared with another backup, or built on one."""
        if backup.shares_with:
            return self._about(_("shares the archive of backup %s: nothing had changed"), backup.shares_with)
        if backup.builds_on:
            return self._about(_("holds the pages that changed since backup %s"), backup.builds_on)
        return _("its own, and whole") if backup.archive_sha256 else display.DASH

    @staticmethod
    def _about(text: str, other: str) -> SafeString:
        before, after = text.split("%s")
        return format_html("{}{}{}", before, display.linked("backup", other, other), after)

    @admin.display(description=gettext_lazy("explanation"))
    def explanation(self, backup: Backup) -> SafeString | str:
        """What the state means, in words."""
        if backup.state == Backup.State.VERIFIED and backup.verdict in _DOUBTS:
            return _doubt(backup)
        if backup.state == Backup.State.VERIFIED:
            return _(
                "The stored archive was read back and gives exactly the database as it was at the time taken, "
                "with every row that was committed by then."
            )
        if backup.state == Backup.State.RUNNING:
            return _("The backup is being made.")
        if backup.is_gone:
            return _("Its archive was deleted: %(reason)s. The record stays.") % {
                "reason": display.sendable(backup.prune_reason).rstrip(".")
            }
        return format_html("{}<br>{}", display.worded(backup.reason), display.worded(backup.hint))

    @admin.display(description=gettext_lazy("database"))
    def database_link(self, backup: Backup) -> SafeString:
        """The database, linked."""
        return display.linked("database", backup.database_id, backup.database.name)

    @admin.display(description=gettext_lazy("tables"))
    def tables(self, backup: Backup) -> SafeString | str:
        """Rows per table."""
        return display.rows_table(backup.tables)

    @admin.display(description=gettext_lazy("verifications"))
    def evidence(self, backup: Backup) -> SafeString | str:
        """Each verification with its checks."""
        found = [
            {
                "row": each,
                "page": display.page_url("verification", each.pk),
                "badge": display.badge(each.verdict, each.get_verdict_display()),
                "age": display.age(each.finished_at),
                "checks": display.checks_table(each.checks),
            }
            for each in backup.verifications.all()[:10]
        ]
        return render_to_string("admin/backups_app/evidence.html", {"verifications": found}) if found else display.DASH

    @admin.display(description=gettext_lazy("copies"))
    def copies_table(self, backup: Backup) -> SafeString | str:
        """Where the archive is kept."""
        found = [
            {
                "row": copy,
                "link": display.linked("copy", copy.pk, copy.destination),
                "name": object_name(backup, copy),
                "badge": display.badge(copy.state, copy.get_state_display()),
                "age": display.age(copy.checked_at),
            }
            for copy in backup.copies.all()
        ]
        return render_to_string("admin/backups_app/copies_table.html", {"copies": found}) if found else display.DASH

    @admin.display(description=gettext_lazy("recovery without this app"))
    def recovery(self, backup: Backup) -> SafeString | str:
        """The commands that give the database back with stock tools, and without a catalogue; to copy."""
        if not backup.archive_sha256 or backup.is_gone:
            return display.DASH
        name = backup.archive_name.rsplit("/", 1)[-1]
        identity = " --identity KEYFILE" if backup.is_encrypted else ""
        commands = [
            (_("With the engine alone, proven"), f"python -m backups_app.core restore {name} --to NEW{identity}"),
            (_("On this host, proven"), f"python manage.py backup restore {backup.pk} --to NEW.sqlite3"),
        ]
        if backup.media:
            media = str(backup.media["name"]).rsplit("/", 1)[-1]
            opening = "age -d -i KEYFILE {} | zstd -d" if backup.is_encrypted else "zstd -dc {}"
            unpacking = f"{opening.format(media)} | tar -x -C NEW_FOLDER"
            commands.insert(0, (_("Its folders, with stock tools"), unpacking))
        if not backup.builds_on:  # with stock tools that is a loop over the chain: docs/space.md
            stock = (
                f"age -d -i KEYFILE -o recovered.zst {name} && zstd -d recovered.zst -o recovered.sqlite3"
                if backup.is_encrypted
                else f"zstd -d {name} -o recovered.sqlite3"
            )
            commands.insert(0, (_("With stock tools"), stock))
        context = {
            "backup": backup,
            "manifest_url": reverse("admin:backups_app_backup_manifest", args=[backup.pk]),
            "commands": commands,
        }
        return render_to_string("admin/backups_app/recovery.html", context)

    @admin.display(description=gettext_lazy("jobs"))
    def jobs(self, backup: Backup) -> SafeString | str:
        """What made it, verified it or restored it, and what is open on its database."""
        # Each part has an index of its own, so no list of all jobs is walked.
        concerned = (
            Q(pk=backup.job_id)
            | Q(pk__in=backup.verifications.exclude(job=None).values("job"))
            | Q(restore__in=backup.restores.values("pk"))
            | Q(database=backup.database_id, state__in=Job.OPEN_STATES)
        )
        return display.jobs_table(Job.objects.filter(concerned).defer("log", "options")[:_JOBS_SHOWN])

    @admin.display(description=gettext_lazy("restores"))
    def restores_table(self, backup: Backup) -> SafeString | str:
        """What it was restored into or is asked for, and the restore that it can undo."""
        concerned = Restore.objects.filter(Q(backup=backup) | Q(safety_backup=backup)).select_related("database")
        found = [
            {
                "row": restore,
                "link": display.linked("restore", restore.pk),
                "badge": display.badge(restore.state, restore.get_state_display()),
                "age": display.age(restore.requested_at),
                "is_safety": restore.safety_backup_id == backup.pk,
            }
            for restore in concerned.defer("preview", "report")[:_JOBS_SHOWN]
        ]
        return render_to_string("admin/backups_app/restores_table.html", {"restores": found}) if found else display.DASH

    @admin.display(description=gettext_lazy("signature"))
    def signature(self, backup: Backup) -> str:
        """Whether its manifest is signed, and with which key."""
        if not backup.signing_key_id:
            return _("not signed") if backup.manifest_sha256 else display.DASH
        return _("Ed25519, key %(key)s") % {"key": backup.signing_key_id}

    @admin.display(description=gettext_lazy("number in the chain"))
    def chain_number(self, backup: Backup) -> str:
        """Its place among the manifests of its database."""
        return display.DASH if backup.sequence is None else str(backup.sequence)

    @admin.display(description=gettext_lazy("remarks"))
    def remarks_list(self, backup: Backup) -> str:
        """What an operator should know."""
        return " ".join(backup.remarks) or display.DASH

    @admin.display(description=gettext_lazy("media"))
    def media_facts(self, backup: Backup) -> SafeString | str:
        """The folders stored beside the database."""
        if backup.media is None or not backup.manifest_sha256:
            return display.DASH
        words = ngettext(
            "{files} file with {size} in {folders}, stored as {stored}",
            "{files} files with {size} in {folders}, stored as {stored}",
            backup.media["files"],
        )
        return format_html(
            words,
            files=display.count(backup.media["files"]),
            size=display.size(backup.media["content_bytes"]),
            folders=", ".join(stored_folders(backup)),
            stored=display.size(backup.media_bytes),
        )

    @admin.display(description=gettext_lazy("encrypted for"))
    def encrypted_for(self, backup: Backup) -> str:
        """The keys that open the archive."""
        return ", ".join(f"{each[:16]}…" for each in backup.key_ids) or display.DASH

    # Verify

    def get_urls(self) -> list[URLPattern]:
        """The stock pages, the confirmations of *Verify* and *Hold*, and the form of *Request restore*."""
        verify = self.own_path(
            "<str:backup_id>/verify/", self.verify_view, permission="verify_backup", name="backups_app_backup_verify"
        )
        restore = self.own_path(
            "<str:backup_id>/restore/",
            self.restore_view,
            permission="request_restore",
            name="backups_app_backup_restore",
        )
        hold = self.own_path(
            "<str:backup_id>/hold/", self.hold_view, permission="hold_backup", name="backups_app_backup_hold"
        )
        return [verify, restore, hold, *super().get_urls()]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The detail page, with what this person may do."""
        missing = self._missing(request)
        if missing is not None:
            return missing
        may = {
            "can_verify": request.user.has_perm("backups_app.verify_backup"),
            "can_restore": request.user.has_perm("backups_app.request_restore"),
            "can_hold": request.user.has_perm("backups_app.hold_backup"),
            "can_download": request.user.has_perm("backups_app.download_backup"),
            "can_delete": request.user.has_perm("backups_app.prune_backup"),
            "is_held_by_hand": self._is_held(object_id),
        }
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **may})

    def verify_view(self, request: HttpRequest, backup_id: str) -> HttpResponseBase:
        """GET shows what will happen, POST asks for it."""
        backup = self.backup_or_404(request, backup_id)
        has_copies = backup.copies.filter(state__in=Copy.STORED_STATES).exists()
        if request.method == "POST" and not has_copies:
            messages.error(request, _("This backup has no stored copy, so there is nothing to verify."))
            return HttpResponseRedirect(display.page_url("backup", backup.pk))
        if request.method == "POST":
            if request.POST.get("level") in _LEVELS:
                return self._verify(request, backup, level=request.POST["level"])
            messages.error(request, _("Choose how deep to look: quick, full or drill."))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Verify backup"),
            "backup": backup,
            "has_copies": has_copies,
            "level": request.GET.get("level") if request.GET.get("level") in _LEVELS else "full",
            "opened": form_opened_at(),
        }
        return TemplateResponse(request, "admin/backups_app/confirm_verify.html", context)

    def _verify(self, request: HttpRequest, backup: Backup, *, level: str) -> HttpResponseRedirect:
        asked_at, page = timezone.now(), display.page_url("backup", backup.pk)
        is_same = does(backups=[backup.pk], level=level)
        twin = asked_with_this_form(request, kind=Job.Kind.VERIFY, database=backup.database, is_same=is_same)
        if twin is not None:
            return lead_to(request, [twin], asked_at=asked_at, otherwise=page)
        try:
            jobs = ask_verify([backup], level=level, actor=Actor.of(request.user), trigger=Job.Trigger.ADMIN)
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
            return HttpResponseRedirect(page)
        return lead_to(request, jobs, asked_at=asked_at, otherwise=page)

    # Hold and release

    def _is_held(self, backup_id: str) -> bool:
        backup = Backup.objects.defer("census", "remarks").filter(pk=backup_id).first()
        return backup is not None and is_held_by_hand(backup)

    def hold_view(self, request: HttpRequest, backup_id: str) -> HttpResponseBase:
        """GET shows what will happen, POST does it."""
        backup = self.backup_or_404(request, backup_id)
        page = display.page_url("backup", backup.pk)
        if request.method == "POST":
            act = release_backup if request.POST.get("verb") == "release" else hold_backup
            try:
                held = act(backup, actor=Actor.of(request.user)).is_held
            except BackupError as exc:
                messages.error(request, display.refusal(exc))
            else:
                messages.success(request, _("The backup is held.") if held else _("The backup is released."))
            return HttpResponseRedirect(page)
        is_held = is_held_by_hand(backup)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Release backup") if is_held else _("Hold backup"),
            "backup": backup,
            "verb": "release" if is_held else "hold",
        }
        return TemplateResponse(request, "admin/backups_app/confirm_hold.html", context)

    # Request restore

    def restore_view(self, request: HttpRequest, backup_id: str) -> HttpResponseBase:
        """GET asks into which database and why; POST computes the preview and files the request."""
        backup = self.backup_or_404(request, backup_id)
        twin = requested_with_this_form(request, backup=backup) if request.method == "POST" else None
        if twin is not None:
            messages.info(request, _("The request was filed already: nothing is done twice."))
            return HttpResponseRedirect(display.page_url("restore", twin.pk))
        form = RequestForm(request.POST if request.method == "POST" else None, initial={"database": backup.database})
        if form.is_valid():
            try:
                restore = request_restore(
                    backup,
                    form.cleaned_data["database"],
                    reason=form.cleaned_data["reason"],
                    actor=Actor.of(request.user),
                    overrides=form.overrides,
                    is_migrating=form.cleaned_data["is_migrating"],
                )
            except GuardError as exc:
                form = RequestForm(request.POST, objections=exc.objections)
            except BackupError as exc:
                form.add_error(None, display.refusal(exc))
            else:
                messages.success(request, _("The request was filed. It runs when it is approved."))
                return HttpResponseRedirect(reverse("admin:backups_app_restore_change", args=[restore.pk]))
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Request restore"),
            "backup": backup,
            "taken": display.age(backup.taken_at or backup.created_at),
            "doubt": _doubt(backup) if backup.verdict in _DOUBTS else "",
            "form": form,
            "opened": request.POST.get("opened") or form_opened_at(),
        }
        return TemplateResponse(request, "admin/backups_app/request_restore.html", context)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Backup]:
        """All backups; in the list without the large census, and without those that were pruned unless asked for."""
        queryset = super().get_queryset(request)
        if not self.is_list(request):
            return queryset
        if not any(name.startswith("state") for name in request.GET):
            queryset = queryset.exclude(state__in=Backup.GONE_STATES)
        return queryset.defer("census", "remarks")


def _doubt(backup: Backup) -> SafeString:
    """What speaks against a backup that was proven once: the newest verdict that was not good, and what to do."""
    found = backup.verifications.exclude(verdict=Verdict.PASSED).first()
    said = f"{found.reason} {found.hint}" if found else ""
    return format_html("{} {}", _DOUBTS[Verdict(backup.verdict)], display.worded(said))
