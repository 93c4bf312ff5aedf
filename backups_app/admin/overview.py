"""The overview: what is safe, in words first; then figures, days, and what runs now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from math import ceil
from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.forms import Script
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.template.defaultfilters import filesizeformat
from django.template.response import TemplateResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_safe

from ..models import Job, Overview
from ..services import overview as service
from ..services.databases import sync_databases
from ..services.health import DatabaseHealth, Problem
from ..services.overview import Line
from . import display
from .base import EvidenceAdmin
from .chart import strip, trend
from .links import reverse
from .progress import percent_label, phase_label

_PROBLEMS_SHOWN = 10


@admin.register(Overview)
class OverviewAdmin(EvidenceAdmin):
    """One page, in place of a list of rows."""

    class Media:
        js = [Script("backups_app/poll.js", defer=True), Script("backups_app/overview.js", defer=True)]

    def has_view_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Whoever may see databases may see how they are."""
        return request.user.has_perm("backups_app.view_database")

    def has_module_permission(self, request: HttpRequest) -> bool:
        """The same: the page has no permission of its own."""
        return self.has_view_permission(request)

    def get_urls(self) -> list[URLPattern]:
        """The page, under the name by which an index finds it, and its jobs as JSON. There are no rows to open."""
        page = self.own_path(
            "", require_safe(self.page_view), permission="view_database", name="backups_app_overview_changelist"
        )
        jobs = self.own_path(
            "jobs.json", require_safe(self.jobs_view), permission="view_job", name="backups_app_overview_jobs"
        )
        return [page, jobs]

    def page_view(self, request: HttpRequest) -> HttpResponseBase:
        """The page."""
        now = timezone.now()
        seen = service.look(now=now, page=_page_number(request))
        if not seen.health.databases:
            sync_databases()  # nobody has opened the list of databases yet
            seen = service.look(now=now)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "media": self.media,
            "title": _("Backups overview"),
            "verdict": self._verdict(request, seen),
            "steps": self._first_steps(request, seen),
            "cards": self._cards(request, seen),
            "lines": [self._line(each, now=now) for each in seen.lines],
            "days": service.DAYS,
            "page": seen.page,
            "pages": _pages(seen.page, seen.page_count),
            "checked": display.age(now),
            **self._jobs(request, seen.jobs, now=now),
        }
        return TemplateResponse(request, "admin/backups_app/overview.html", context)

    def jobs_view(self, request: HttpRequest) -> HttpResponseBase:
        """The open jobs, in ready-made texts; never kept by a cache."""
        now = timezone.now()
        found = [self._job(each, now=now) for each in service.open_jobs()]
        return JsonResponse({"jobs": found}, headers={"Cache-Control": "no-store"})

    def _url(self, name: str, *args: Any) -> str:
        """A page of the app on this admin site, which may not be the default one."""
        return reverse(f"admin:backups_app_{name}", args=args)

    # The verdict

    def _verdict(self, request: HttpRequest, seen: service.Overview) -> dict[str, Any]:
        """What is safe, or what is wrong and what to do."""
        pages = {each.database.name: self._url("database_change", each.database.pk) for each in seen.health.databases}
        problems = seen.health.problems
        are_fresh = not any(each.problems for each in seen.health.databases)
        look, symbol = display.look_of("safe" if seen.health.is_ok else "attention" if are_fresh else "failed")
        return {
            "look": look,
            "symbol": symbol,
            "words": _in_words(seen),
            "problems": [
                {"row": _sendable(each), "page": pages.get(each.database)} for each in problems[:_PROBLEMS_SHOWN]
            ],
            "more": max(0, len(problems) - _PROBLEMS_SHOWN),
            "notices": [display.worded(each) for each in seen.health.notices],
            "back_up": self._back_up_url(request, seen),
        }

    def _back_up_url(self, request: HttpRequest, seen: service.Overview) -> str:
        """Where what is too old can be backed up; empty when nothing is, or this person may not."""
        ids = [each.database.pk for each in seen.health.databases if not _is_fresh(each, seen)]
        if not ids or not request.user.has_perm("backups_app.create_backup"):
            return ""
        return f"{self._url('database_back_up')}?{'&'.join(f'id={pk}' for pk in ids)}"

    def _first_steps(self, request: HttpRequest, seen: service.Overview) -> list[dict[str, Any]]:
        """What a newcomer does next; empty as soon as there is a verified backup."""
        if any(each.last_verified for each in seen.health.databases):
            return []
        may_schedule = request.user.has_perm("backups_app.add_schedule")
        return [
            {
                "words": _(
                    "Put a database under care. SQLite databases of this site’s settings are there by themselves."
                ),
                "command": "python manage.py backup add-database NAME PATH",
                "is_done": bool(seen.health.databases),
            },
            {
                "words": _("Make the first backup."),
                "command": "python manage.py backup create --all",
                "page": self._back_up_url(request, seen),
                "link": _("Back up now"),
            },
            {
                "words": _("Say when backups are due."),
                "page": self._url("schedule_add") if may_schedule else "",
                "link": _("Add a schedule"),
                "is_done": bool(seen.next_runs),
            },
            {
                "words": _("Keep the worker running. It makes the backups that are asked for or due."),
                "command": "python manage.py backup serve",
            },
        ]

    # Cards

    def _cards(self, request: HttpRequest, seen: service.Overview) -> list[dict[str, Any]]:
        """The figures that this person may see."""
        if not seen.health.databases:
            return []
        cards = [self._protected(seen), self._age(seen)]
        if request.user.has_perm("backups_app.view_verification"):
            cards.append(self._drill(seen))
        if request.user.has_perm("backups_app.view_backup"):
            cards.append(_stored(seen))
        if request.user.has_perm("backups_app.view_schedule"):
            cards.append(self._runs(seen))
        return [{**card, "edge": f"walsafe-card-{card['look']}"} for card in cards]

    def _protected(self, seen: service.Overview) -> dict[str, Any]:
        total = len(seen.health.databases)
        fresh = sum(_is_fresh(each, seen) for each in seen.health.databases)
        facts = {"fresh": number_format(fresh), "total": number_format(total)}
        return {
            "title": _("Protected databases"),
            "value": _("%(fresh)s of %(total)s") % facts,
            "detail": _("have a verified backup within their limit"),
            "page": self._url("database_changelist"),
            "look": "good" if fresh == total else "bad",
        }

    def _age(self, seen: service.Overview) -> dict[str, Any]:
        weakest = seen.weakest
        if weakest is None:
            return {}
        backup, name = weakest.last_verified, display.sendable(weakest.database.name)
        facts = {"name": name, "limit": _hours(weakest.limit.total_seconds())}
        return {
            "title": _("Oldest last verified backup"),
            "value": display.age(backup.taken_at if backup else None),
            "detail": _("limit %(limit)s; %(name)s") % facts,
            "page": self._url("database_change", weakest.database.pk),
            "look": "good" if _is_fresh(weakest, seen) else "bad",
        }

    def _drill(self, seen: service.Overview) -> dict[str, Any]:
        drill = seen.last_drill
        card: dict[str, Any] = {"title": _("Last drill")}
        if drill is None:
            return {**card, "value": _("never"), "detail": _("No restore was rehearsed yet."), "look": "warn"}
        name = display.sendable(drill.verification.backup.database.name)
        facts = {"name": name, "time": display.duration(drill.recovery)}
        passed, failed = _("%(name)s, recovered in %(time)s"), _("%(name)s: it did not pass")
        return {
            **card,
            "value": display.age(drill.verification.finished_at),
            "detail": (passed if drill.is_passed else failed) % facts,
            "page": self._url("verification_change", drill.verification.pk),
            "look": "good" if drill.is_passed else "bad",
        }

    def _runs(self, seen: service.Overview) -> dict[str, Any]:
        runs = [
            {"row": each, "due": display.due(each.due_at), "page": self._url("schedule_change", each.schedule.pk)}
            for each in seen.next_runs
        ]
        card = {"title": _("Next runs"), "runs": runs, "page": self._url("schedule_changelist"), "look": "idle"}
        if runs:
            return card
        return {**card, "value": _("none"), "detail": _("No schedule is enabled."), "look": "warn"}

    # Databases

    def _line(self, line: Line, *, now: datetime) -> dict[str, Any]:
        database, name = line.health.database, line.health.database.name
        return {
            "name": display.sendable(name),
            "page": self._url("database_change", database.pk),
            "badge": _health_badge(line.health),
            "age": display.age(line.health.last_verified.taken_at if line.health.last_verified else None),
            "strip": strip(line.days, name=name),
            "trends": [found for of in ("size", "duration") if (found := trend(line.days, of=of))],
        }

    # Jobs

    def _jobs(self, request: HttpRequest, jobs: Sequence[Job], *, now: datetime) -> dict[str, Any]:
        if not request.user.has_perm("backups_app.view_job"):
            return {}
        return {
            "jobs": [self._job(each, now=now) for each in jobs],
            "jobs_url": self._url("overview_jobs"),
            "jobs_page": self._url("job_changelist"),
            "shows_jobs": True,
        }

    def _job(self, job: Job, *, now: datetime) -> dict[str, Any]:
        """Where a job is, as plain text and numbers that can be sent as JSON."""
        look, symbol = display.look_of(job.state)
        is_running = job.state == Job.State.RUNNING
        left = job.time_left(now=now) if is_running else None
        return {
            "id": job.pk,
            "page": self._url("job_change", job.pk),
            "kind": capfirst(str(job.get_kind_display())),
            "database": display.sendable(job.database.name) if job.database else display.DASH,
            "state": str(job.get_state_display()),
            "look": look,
            "symbol": symbol,
            "is_running": is_running,
            "phase": phase_label(job),
            "percent": job.percent,
            "percent_label": percent_label(job),
            "time_left": _("%(time)s left") % {"time": display.duration(left)} if left is not None else "",
        }


def _page_number(request: HttpRequest) -> int:
    given = request.GET.get("p", "")
    return int(given) if given.isascii() and given.isdecimal() and len(given) <= 6 else 1


def _pages(page: int, count: int) -> list[int | None]:
    """The numbers to offer, None where some are left out; empty when there is one page only."""
    if count < 2:
        return []
    near = [each for each in range(1, count + 1) if each in (1, count) or abs(each - page) <= 2]
    gaps: list[int | None] = []
    for each in near:
        if gaps and gaps[-1] is not None and each - gaps[-1] > 1:
            gaps.append(None)
        gaps.append(each)
    return gaps


def _in_words(seen: service.Overview) -> str:
    weakest, total = seen.weakest, len(seen.health.databases)
    if weakest is None:
        return _("Nothing is under care yet.")
    age = weakest.age(now=seen.health.checked_at)
    if seen.health.is_ok and age is not None:
        hours = max(1, ceil(age.total_seconds() / 3600))
        text = ngettext(
            "Everything under care was verified in the last %(hours)d hour.",
            "Everything under care was verified in the last %(hours)d hours.",
            hours,
        )
        return text % {"hours": hours}
    if not any(each.last_verified for each in seen.health.databases):
        return _("There is no verified backup yet.")
    ill = sum(bool(each.problems) for each in seen.health.databases)
    if not ill:
        return _("Every database has a fresh verified backup, but something else needs attention.")
    text = ngettext(
        "%(ill)s of %(total)s databases needs attention.", "%(ill)s of %(total)s databases need attention.", ill
    )
    return text % {"ill": number_format(ill), "total": number_format(total)}


def _is_fresh(each: DatabaseHealth, seen: service.Overview) -> bool:
    age = each.age(now=seen.health.checked_at)
    return age is not None and age <= each.limit


def _health_badge(health: DatabaseHealth) -> SafeString:
    if not health.problems:
        return display.badge("safe", _("safe"))
    if health.last_verified is None:
        return display.badge("failed", _("never verified"))
    return display.badge("attention", _("needs attention"))


def _sendable(problem: Problem) -> dict[str, str]:
    return {
        "database": display.sendable(problem.database),
        "message": display.worded(problem.message),
        "hint": display.worded(problem.hint),
    }


def _stored(seen: service.Overview) -> dict[str, Any]:
    added = {"size": filesizeformat(seen.stored.added_bytes)}
    return {
        "title": _("Stored"),
        "value": display.size(seen.stored.total_bytes),
        "detail": _("%(size)s of it from the last 30 days") % added,
        "look": "idle",
    }


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return _("%(hours)s h") % {"hours": number_format(hours, decimal_pos=0 if hours == int(hours) else 1)}
