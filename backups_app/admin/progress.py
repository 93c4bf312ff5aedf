"""Where a job is, in words: ready-made texts, the same ones for the page and for the script on it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.template.defaultfilters import filesizeformat
from django.utils.formats import number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Job
from ..services.hosts import is_anybody_working
from . import display

_LOG_LINES = 200
_LOG_CHARACTERS = 20_000
_LINKED_ROWS = 20

# Phases as the engine names them.
_PHASES = {
    "copy": gettext_lazy("Copying"),
    "compare": gettext_lazy("Looking for what changed"),
    "compress": gettext_lazy("Checking and compressing"),
    "media": gettext_lazy("Reading the media folders"),
    "store": gettext_lazy("Storing"),
    "fetch": gettext_lazy("Fetching a good copy"),
    "read back": gettext_lazy("Reading the stored copy back"),
    "read": gettext_lazy("Reading the stored copy"),
    "unpack": gettext_lazy("Unpacking"),
    "restore": gettext_lazy("Exchanging the content"),
    "judge": gettext_lazy("Judging"),
    "decrypt": gettext_lazy("Decrypting"),
    "hash": gettext_lazy("Computing the digest"),
    "check": gettext_lazy("Comparing with what was judged"),
    "import": gettext_lazy("Importing"),
    "delete": gettext_lazy("Deleting"),
    "prune": gettext_lazy("Deleting"),
}

_RUNNING = {
    Job.Kind.CREATE: gettext_lazy("The backup is being made."),
    Job.Kind.VERIFY: gettext_lazy("Stored copies are being verified."),
    Job.Kind.RESTORE: gettext_lazy("The restore is under way."),
    Job.Kind.PRUNE: gettext_lazy("Backups that the policy no longer keeps are being removed."),
    Job.Kind.TRIAGE: gettext_lazy("Archives are being judged."),
    Job.Kind.DRILL: gettext_lazy("A restore is being rehearsed, away from the live database."),
    Job.Kind.COPY: gettext_lazy("Copies that could not be stored are stored again."),
}

_ENDED = {
    Job.State.SUCCEEDED: gettext_lazy("It is done."),
    Job.State.FAILED: gettext_lazy("It failed."),
    Job.State.INTERRUPTED: gettext_lazy("It was cut short: the process that ran it ended."),
}


def progress_of(job: Job, *, now: datetime) -> dict[str, Any]:
    """Everything about the state of ``job`` that a page shows, as plain text, numbers and addresses.

    ``percent`` is None while unknown. No text is markup, and each can be sent as JSON.
    """
    look, symbol = display.look_of(job.state)
    return {
        "id": job.pk,
        "state": job.state,
        "state_label": str(job.get_state_display()),
        "look": look,
        "symbol": symbol,
        "words": in_words(job),
        "warning": warning_about(job, now=now),
        "is_open": job.is_open,
        "is_running": job.state == Job.State.RUNNING,
        "cancel_requested": job.cancel_requested_at is not None,
        "outcome": display.sendable(job.outcome),
        "hint": display.sendable(job.hint),
        **_numbers(job, now=now),
        "log": log_tail(job.log),
        "links": links_of(job),
    }


def in_words(job: Job) -> str:
    """What the state of a job means."""
    if job.state == Job.State.QUEUED:
        return _in_line(job)
    if job.state == Job.State.RUNNING and job.cancel_requested_at:
        return _("It was asked to stop, and ends at the next safe moment.")
    if job.state == Job.State.RUNNING:
        return str(_RUNNING[Job.Kind(job.kind)])
    if job.state == Job.State.CANCELLED:
        by = {"name": display.sendable(job.cancelled_by_name)}
        return _("It was cancelled by %(name)s.") % by if job.cancelled_by_name else _("It was cancelled.")
    return str(_ENDED[Job.State(job.state)])


def _in_line(job: Job) -> str:
    earlier = None
    if job.database_id:
        earlier = Job.objects.filter(database=job.database_id, state=Job.State.RUNNING).only("kind").first()
    if earlier is not None:
        return _("It waits for another job on this database to end: %(kind)s.") % {"kind": earlier.get_kind_display()}
    if job.is_inline:
        return _("It waits for the command that asked for it.")
    return _("It waits for a worker.")


def warning_about(job: Job, *, now: datetime) -> str:
    """What keeps a job from being done, when somebody has to do something about it."""
    if job.state == Job.State.QUEUED and not job.is_inline and not is_anybody_working(now, host=job.host):
        return nobody_works()
    return ""


def nobody_works() -> str:
    """What to do when there is no worker."""
    return _("No worker is running. Start it on the server with “manage.py backup serve”; the job waits until then.")


def phase_label(job: Job) -> str:
    """The phase for people; empty before the first one."""
    return str(_PHASES.get(job.phase, display.sendable(job.phase[:1].upper() + job.phase[1:])))


def percent_label(job: Job) -> str:
    """How much of the phase is done; empty while unknown."""
    return "" if job.percent is None else _("%(percent)d %%") % {"percent": job.percent}


def elapsed(job: Job, *, now: datetime) -> timedelta | None:
    """How long it has run, or ran; None before it began."""
    return (job.finished_at or now) - job.started_at if job.started_at else None


def log_tail(log: str) -> str:
    """The end of a log, short enough to be sent every second."""
    tail = log[-_LOG_CHARACTERS:]
    lines = tail.splitlines()[-_LOG_LINES:]
    return display.sendable("\n".join(lines)).replace("\x00", "\N{REPLACEMENT CHARACTER}")


def links_of(job: Job) -> dict[str, Any]:
    """The addresses of what a job is about, and of what it made."""
    backups = job.backups.values_list("pk", flat=True)[:_LINKED_ROWS]
    verifications = job.verifications.values_list("pk", flat=True)[:_LINKED_ROWS]
    return {
        "job": display.page_url("job", job.pk),
        "database": display.page_url("database", job.database_id) if job.database_id else None,
        "restore": display.page_url("restore", job.restore_id) if job.restore_id else None,
        "backups": [display.page_url("backup", pk) for pk in backups],
        "verifications": [display.page_url("verification", pk) for pk in verifications],
    }


def _numbers(job: Job, *, now: datetime) -> dict[str, Any]:
    is_running = job.state == Job.State.RUNNING
    speed = job.bytes_per_second(now=now) if is_running else None
    left = job.time_left(now=now) if is_running else None
    done = filesizeformat(job.done_bytes) if job.done_bytes else ""
    total = filesizeformat(job.total_bytes) if job.total_bytes > 0 else ""
    return {
        "phase": phase_label(job),
        "percent": job.percent,
        "percent_label": percent_label(job),
        "done": done,
        "total": total,
        "amount": _("%(done)s of %(total)s") % {"done": done, "total": total} if done and total else done,
        "speed": _("%(size)s/s") % {"size": filesizeformat(speed)} if speed else "",
        "time_left": display.duration(left) if left is not None else "",
        "elapsed": display.duration(elapsed(job, now=now)) if job.started_at else "",
        "attempts": job.attempts,
        "attempts_label": number_format(job.attempts) if job.attempts else "",
    }
