"""How the screens ask for jobs: once per form, and on to the page where the work can be watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponseRedirect
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.translation import ngettext

from ..models import Backup, Database, Job, Restore
from ..services.audit import Actor
from ..services.hosts import is_anybody_working
from ..services.jobs.ask import joined_options
from . import display
from .links import reverse
from .progress import nobody_works


def form_opened_at() -> str:
    """The moment for the hidden field ``opened`` of a form: see :func:`asked_with_this_form`."""
    return timezone.now().isoformat()


def asked_with_this_form(
    request: HttpRequest, *, kind: str, database: Database | None, is_same: Callable[[Job], bool] | None = None
) -> Job | None:
    """The job that this person asked for since the form was opened: a second click asks for no second one.

    Another form that was open at the same time may ask for something else: ``is_same`` says whether a job
    does all that this one asks for, see :func:`does`.
    """
    opened_at = _opened_at(request)
    if opened_at is None:
        return None
    since = Job.objects.filter(
        kind=kind, database=database, requested_by_id=Actor.of(request.user).id, created_at__gte=opened_at
    )
    return next((job for job in since if is_same is None or is_same(job)), None)


def does(**options: Any) -> Callable[[Job], bool]:
    """Whether a job does already what these options ask for: joined to its own, they would change nothing."""
    return lambda job: joined_options(job.options, options) == job.options


def requested_with_this_form(request: HttpRequest, *, backup: Backup) -> Restore | None:
    """The restore of ``backup`` that this person asked for, in these words, since the form was opened."""
    opened_at = _opened_at(request)
    if opened_at is None:
        return None
    since = Restore.objects.filter(backup=backup, requested_at__gte=opened_at)
    into, reason = request.POST.get("database", ""), request.POST.get("reason", "").strip()
    mine = since.filter(requested_by_id=Actor.of(request.user).id).order_by("requested_at")
    return next((each for each in mine if (str(each.database_id), each.reason) == (into, reason)), None)


def _opened_at(request: HttpRequest) -> datetime | None:
    try:
        opened_at = parse_datetime(request.POST.get("opened", ""))
        return opened_at.astimezone(UTC) if opened_at is not None and timezone.is_aware(opened_at) else None
    except (ValueError, OverflowError):  # well formed, but no date, or none that there is in UTC
        return None


def lead_to(request: HttpRequest, jobs: Sequence[Job], *, asked_at: datetime, otherwise: str) -> HttpResponseRedirect:
    """Say what was asked for, and go to the job, to the list of several, or ``otherwise``.

    ``asked_at`` is the moment before asking: older jobs were there already.
    """
    _tell(request, jobs, asked_at=asked_at)
    may_look = request.user.has_perm("backups_app.view_job")
    if may_look and len(jobs) == 1:
        return HttpResponseRedirect(display.page_url("job", jobs[0].pk))  # which warns by itself
    asked = {job.host for job in jobs if job.state == Job.State.QUEUED}
    if not all(is_anybody_working(timezone.now(), host=host) for host in asked):
        messages.warning(request, nobody_works())
    if may_look and jobs:
        return HttpResponseRedirect(job_list_url(jobs))
    return HttpResponseRedirect(otherwise)


def job_list_url(jobs: Sequence[Job]) -> str:
    """The list of exactly these jobs."""
    return f"{reverse('admin:backups_app_job_changelist')}?id__in={','.join(job.pk for job in jobs)}"


def _tell(request: HttpRequest, jobs: Sequence[Job], *, asked_at: datetime) -> None:
    new = sum(job.created_at >= asked_at for job in jobs)
    if new:
        text = ngettext("%(count)d job was queued.", "%(count)d jobs were queued.", new)
        messages.success(request, text % {"count": new})
    if len(jobs) > new:
        old = len(jobs) - new
        text = ngettext(
            "%(count)d job was asked for already: nothing is done twice.",
            "%(count)d jobs were asked for already: nothing is done twice.",
            old,
        )
        messages.info(request, text % {"count": old})
