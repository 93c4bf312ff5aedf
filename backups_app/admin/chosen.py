"""Actions on the backups that were chosen in the list: each leads to a page that says what will happen."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..core.errors import BackupError
from ..models import Backup, Job, Verification
from ..services.audit import Actor
from ..services.copies import require_copies
from ..services.hold import hold_backup, release_backup
from ..services.jobs import ask_verify
from ..services.prune import is_held_by_hand
from . import display
from .asking import asked_with_this_form, does, form_opened_at, lead_to
from .base import BackupPages
from .links import reverse

_MAX_CHOSEN = 100
_LIST = "admin:backups_app_backup_changelist"
_LEVELS = {Verification.Level.QUICK, Verification.Level.FULL, Verification.Level.DRILL}

ACTIONS = [
    "verify_chosen",
    "drill_chosen",
    "hold_chosen",
    "release_chosen",
    "restore_chosen",
    "download_chosen",
    "delete_chosen",
]


class ChosenPages(BackupPages):
    """The actions of the list, and the confirmations of those that take several backups."""

    def get_urls(self) -> list[URLPattern]:
        """*Verify* and *Hold* of several."""
        verify = self.own_path(
            "verify-chosen/",
            self.verify_chosen_view,
            permission="verify_backup",
            name="backups_app_backup_verify_chosen",
        )
        hold = self.own_path(
            "hold-chosen/", self.hold_chosen_view, permission="hold_backup", name="backups_app_backup_hold_chosen"
        )
        return [verify, hold, *super().get_urls()]

    # Who is offered what

    def has_verify_permission(self, request: HttpRequest) -> bool:
        """Whether *Verify* and *Drill* are offered."""
        return request.user.has_perm("backups_app.verify_backup")

    def has_hold_permission(self, request: HttpRequest) -> bool:
        """Whether *Hold* and *Release* are offered."""
        return request.user.has_perm("backups_app.hold_backup")

    def has_restore_permission(self, request: HttpRequest) -> bool:
        """Whether *Request restore* is offered."""
        return request.user.has_perm("backups_app.request_restore")

    def has_download_permission(self, request: HttpRequest) -> bool:
        """Whether *Download* is offered."""
        return request.user.has_perm("backups_app.download_backup")

    def has_prune_permission(self, request: HttpRequest) -> bool:
        """Whether *Delete* is offered."""
        return request.user.has_perm("backups_app.prune_backup")

    # Actions

    @admin.action(description=gettext_lazy("Verify"), permissions=["verify"])
    def verify_chosen(self, request: HttpRequest, queryset: QuerySet[Backup]) -> HttpResponseRedirect:
        """Ask how deep."""
        return _to_chosen(request, queryset, "verify")

    @admin.action(description=gettext_lazy("Drill: restore away from the live database"), permissions=["verify"])
    def drill_chosen(self, request: HttpRequest, queryset: QuerySet[Backup]) -> HttpResponseRedirect:
        """The same page, with the deepest level chosen."""
        return _to_chosen(request, queryset, "verify", level="drill")

    @admin.action(description=gettext_lazy("Hold"), permissions=["hold"])
    def hold_chosen(self, request: HttpRequest, queryset: QuerySet[Backup]) -> HttpResponseRedirect:
        """Keep them from retention."""
        return _to_chosen(request, queryset, "hold", verb="hold")

    @admin.action(description=gettext_lazy("Release"), permissions=["hold"])
    def release_chosen(self, request: HttpRequest, queryset: QuerySet[Backup]) -> HttpResponseRedirect:
        """Leave them to retention."""
        return _to_chosen(request, queryset, "hold", verb="release")

    @admin.action(description=gettext_lazy("Request restore"), permissions=["restore"])
    def restore_chosen(self, request: HttpRequest, queryset: QuerySet[Backup]) -> HttpResponseRedirect:
        """The form for one backup."""
        return _to_one(request, queryset, "restore")

    @admin.action(description=gettext_lazy("Download"), permissions=["download"])
    def download_chosen(self, request: HttpRequest, queryset: QuerySet[Backup]) -> HttpResponseRedirect:
        """The form for one backup."""
        return _to_one(request, queryset, "download")

    @admin.action(description=gettext_lazy("Delete"), permissions=["prune"])
    def delete_chosen(self, request: HttpRequest, queryset: QuerySet[Backup]) -> HttpResponseRedirect:
        """The form for one backup."""
        return _to_one(request, queryset, "delete_archive")

    # Confirmations for several

    def verify_chosen_view(self, request: HttpRequest) -> HttpResponseBase:
        """GET shows which backups and asks how deep, POST asks for the jobs."""
        backups = self._chosen(request)
        if not backups:
            return _nothing_chosen(request)
        if request.method == "POST":
            if request.POST.get("level") in _LEVELS:
                return self._verify_several(request, backups, level=request.POST["level"])
            messages.error(request, _("Choose how deep to look: quick, full or drill."))
        context = {
            "backups": _shown(backups),
            "level": request.GET.get("level") or "full",
            "opened": form_opened_at(),
        }
        return self.deed_page(request, "confirm_verify_chosen", _("Verify backups"), context)

    def _verify_several(self, request: HttpRequest, backups: list[Backup], *, level: str) -> HttpResponseRedirect:
        asked_at, fresh, jobs = timezone.now(), [], []
        for backup in backups:
            is_same = does(backups=[backup.pk], level=level)
            twin = asked_with_this_form(request, kind=Job.Kind.VERIFY, database=backup.database, is_same=is_same)
            if twin is not None:
                jobs.append(twin)
                continue
            try:
                require_copies(backup)
            except BackupError as exc:  # of one backup does not stop the others
                messages.error(request, display.refusal(exc))
            else:
                fresh.append(backup)
        try:
            jobs += ask_verify(fresh, level=level, actor=Actor.of(request.user), trigger=Job.Trigger.ADMIN)
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
        once = list({job.pk: job for job in jobs}.values())
        return lead_to(request, once, asked_at=asked_at, otherwise=reverse(_LIST))

    def hold_chosen_view(self, request: HttpRequest) -> HttpResponseBase:
        """GET shows which backups, POST holds or releases them."""
        backups = self._chosen(request)
        if not backups:
            return _nothing_chosen(request)
        given = request.POST if request.method == "POST" else request.GET
        verb = "release" if given.get("verb") == "release" else "hold"
        if request.method == "POST":
            return _hold(request, backups, act=release_backup if verb == "release" else hold_backup, verb=verb)
        title = _("Release backups") if verb == "release" else _("Hold backups")
        return self.deed_page(request, "confirm_hold_chosen", title, {"backups": _shown(backups), "verb": verb})

    def _chosen(self, request: HttpRequest) -> list[Backup]:
        given = request.POST if request.method == "POST" else request.GET
        ids = given.getlist("id")[:_MAX_CHOSEN]
        found = self.get_queryset(request).select_related("database").defer("census", "remarks")
        return list(found.filter(pk__in=ids).order_by("-created_at"))


def _hold(
    request: HttpRequest, backups: list[Backup], *, act: Callable[..., Backup], verb: str
) -> HttpResponseRedirect:
    done = 0
    for backup in backups:
        try:
            act(backup, actor=Actor.of(request.user))
        except BackupError as exc:
            messages.error(request, display.refusal(exc))
        else:
            done += 1
    if done and verb == "release":
        text = ngettext("%(count)d backup is released.", "%(count)d backups are released.", done)
        messages.success(request, text % {"count": done})
    elif done:
        text = ngettext("%(count)d backup is held.", "%(count)d backups are held.", done)
        messages.success(request, text % {"count": done})
    return HttpResponseRedirect(reverse(_LIST))


def _shown(backups: list[Backup]) -> list[dict[str, object]]:
    return [
        {
            "row": each,
            "age": display.age(each.taken_at or each.created_at),
            "state": display.badge(each.state, each.get_state_display()),
            "is_held": is_held_by_hand(each),
        }
        for each in backups
    ]


def _nothing_chosen(request: HttpRequest) -> HttpResponseRedirect:
    messages.warning(request, _("No backup was chosen."))
    return HttpResponseRedirect(reverse(_LIST))


def _to_chosen(request: HttpRequest, queryset: QuerySet[Backup], page: str, **more: str) -> HttpResponseRedirect:
    ids = list(queryset.order_by().values_list("pk", flat=True)[: _MAX_CHOSEN + 1])
    if len(ids) > _MAX_CHOSEN:
        messages.warning(request, _("Choose at most %(most)d backups at a time.") % {"most": _MAX_CHOSEN})
        return HttpResponseRedirect(request.get_full_path())
    query = urlencode([*(("id", pk) for pk in ids), *more.items()])
    return HttpResponseRedirect(f"{reverse(f'admin:backups_app_backup_{page}_chosen')}?{query}")


def _to_one(request: HttpRequest, queryset: QuerySet[Backup], page: str) -> HttpResponseRedirect:
    ids = list(queryset.order_by().values_list("pk", flat=True)[:2])
    if len(ids) != 1:
        messages.warning(request, _("Choose one backup for this."))
        return HttpResponseRedirect(request.get_full_path())
    return HttpResponseRedirect(reverse(f"admin:backups_app_backup_{page}", args=ids))
