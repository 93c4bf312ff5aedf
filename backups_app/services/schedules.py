"""Schedules: when work is due, and firing each due time once, whoever looks and however often."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from django.db import transaction
from django.db.models import QuerySet

from .. import conf
from ..core.errors import BackupError, InputError, NotFoundError, RefusedError
from ..jobs.cron import due_times, find_zone, next_times, parse
from ..models import Job, Schedule, ScheduledRun
from . import audit
from .audit import Actor
from .hosts import here
from .jobs.ask import ask_job
from .wording import english

logger = logging.getLogger(__name__)

LATE_AFTER = timedelta(minutes=2)
"""A run that starts later than this after its due time and jitter is marked as late."""

OVERDUE_AFTER = timedelta(minutes=5)
"""A due time that nobody has looked at for this long means that nobody ticks."""

MOST_RUNS_KEPT = 1000
"""Runs that are remembered of each schedule; older ones are removed."""

MOST_JITTER_SECONDS = 6 * 3600

_CHANGEABLE = ("cron", "time_zone", "jitter_seconds", "is_enabled")


# Changing


def check_schedule(schedule: Schedule) -> None:
    """Refuse a schedule that could not work, before anything is stored.

    Raises:
        InputError: the expression, the time zone or the jitter cannot be used.
    """
    times = next_times(parse(schedule.cron), find_zone(schedule.time_zone), after=schedule.handled_until, count=100)
    if schedule.jitter_seconds > MOST_JITTER_SECONDS:
        raise InputError(
            f"The jitter cannot be longer than {MOST_JITTER_SECONDS} seconds.", "Choose another time in its place."
        )
    shortest = min(((later - earlier) for earlier, later in pairwise(times)), default=timedelta.max)
    if timedelta(seconds=schedule.jitter_seconds) >= shortest:
        raise InputError(
            f"The jitter must be shorter than the time between two runs, {shortest.total_seconds():.0f} seconds.",
            "Shorten the jitter, or run less often.",
        )


def save_schedule(schedule: Schedule, *, actor: Actor, now: datetime) -> None:
    """Store a new or changed schedule as it stands in ``schedule``, and record that.

    A new expression or time zone, and enabling it again, count from ``now``: no due time before
    that is fired. Whatever else changes, due times stay handled that were.

    Raises:
        InputError: as :func:`check_schedule`.
        RefusedError: its database is not under care, there is one of this database and kind
            already, or database or kind would change. Nothing is stored.
        NotFoundError: it was deleted in the meantime.
    """
    schedule.cron = " ".join(schedule.cron.split())
    check_schedule(schedule)
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        before = Schedule.objects.select_for_update().filter(pk=schedule.pk).first() if schedule.pk else None
        if schedule.pk and before is None:
            raise NotFoundError("The schedule was deleted in the meantime.", "Add it again.")
        _require_allowed(schedule, before=before)
        if before is None:
            schedule.handled_until = now
            schedule.save()
        else:
            _save_change(schedule, before=before, now=now)
        audit.record(
            "add-schedule" if before is None else "change-schedule",
            actor=actor,
            database_name=schedule.database.name,
            detail=_detail(schedule),
        )


def _require_allowed(schedule: Schedule, *, before: Schedule | None) -> None:
    name, kind = schedule.database.name, english(schedule, "kind")
    if before is None and not schedule.database.is_under_care:
        raise RefusedError(f"The database {name!r} is not under care.", "Put it under care first.")
    if before is not None and (before.database_id, before.kind) != (schedule.database_id, schedule.kind):
        raise RefusedError(
            "A schedule stays with its database and its kind of work: its runs are those.", "Add another schedule."
        )
    if Schedule.objects.filter(database=schedule.database, kind=schedule.kind).exclude(pk=schedule.pk).exists():
        raise RefusedError(f"There is a schedule to {kind} {name!r} already.", "Change that one.")


def _save_change(schedule: Schedule, *, before: Schedule, now: datetime) -> None:
    fields = list(_CHANGEABLE)
    is_another = (before.cron, before.time_zone) != (schedule.cron, schedule.time_zone)
    if is_another or (schedule.is_enabled and not before.is_enabled):
        schedule.handled_until = now
        fields.append("handled_until")
    # Only these: a tick may have moved handled_until since this row was read.
    schedule.save(update_fields=fields)


def _detail(schedule: Schedule) -> str:
    state = "enabled" if schedule.is_enabled else "disabled"
    return f"{schedule.kind}: {schedule.cron} in {schedule.time_zone}, jitter {schedule.jitter_seconds} s, {state}"


def delete_schedule(schedule: Schedule, *, actor: Actor) -> None:
    """Remove a schedule with its runs, and record that. Jobs that it asked for stay."""
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        detail, name = _detail(schedule), schedule.database.name
        schedule.delete()
        audit.record("delete-schedule", actor=actor, database_name=name, detail=detail)


# Firing


@dataclass(frozen=True, kw_only=True)
class Fired:
    """What one look at all schedules came to."""

    runs: list[ScheduledRun]
    failures: list[BackupError]
    """One for each schedule that could not be fired; its due time is tried again at the next look."""


def fire_due(*, now: datetime) -> Fired:
    """Ask for the work of every schedule of this host's databases that is due at ``now``.

    Each due time is fired once, whoever looks, from how many processes, and also when the clock
    steps back. Of several that were missed the newest is fired and stands for the others. A
    schedule that fails leaves nothing behind and does not stop the others.
    """
    fired = Fired(runs=[], failures=[])
    for schedule in _schedules_here():
        try:
            run = _fire(schedule, now=now)
        except Exception as exc:
            is_known = isinstance(exc, BackupError)
            logger.log(logging.ERROR, "The schedule “%s” could not be fired: %s", schedule, exc, exc_info=not is_known)
            hint = exc.hint if isinstance(exc, BackupError) else "See the log. It is tried again at the next tick."
            fired.failures.append(BackupError(f"The schedule “{schedule}” could not be fired: {exc}", hint))
        else:
            if run is not None:
                fired.runs.append(run)
    return fired


def _schedules_here() -> list[Schedule]:
    return list(active_schedules().filter(here("database__host")))


def active_schedules() -> QuerySet[Schedule]:
    """The enabled schedules of databases under care, with their databases, in the order of their names."""
    enabled: QuerySet[Schedule] = Schedule.objects.filter(is_enabled=True, database__is_under_care=True)
    return enabled.select_related("database").order_by("database__name", "kind")


def jitter(schedule: Schedule, due_at: datetime) -> timedelta:
    """How much later a due time starts: the same whoever asks, and different from host to host."""
    seed = f"{schedule.database.identity} {schedule.kind} {due_at.astimezone(UTC).isoformat()}"
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8])
    return timedelta(seconds=number % (schedule.jitter_seconds + 1))


def _fire(schedule: Schedule, *, now: datetime) -> ScheduledRun | None:
    due = due_times(parse(schedule.cron), find_zone(schedule.time_zone), after=schedule.handled_until, until=now)
    ready = [each for each in due if each + jitter(schedule, each) <= now]
    if not ready:
        return None
    newest = ready[-1]
    is_late = now - newest > LATE_AFTER + jitter(schedule, newest)
    if is_late and newest != due[-1]:
        return None  # a newer one only waits for its jitter, and will stand for this one too
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        if not _claim(schedule, due_at=newest):
            return None
        job = ask_job(schedule.kind, schedule.database, actor=Actor.system(), trigger=Job.Trigger.SCHEDULE, options={})
        run = ScheduledRun.objects.create(
            schedule=schedule,
            due_at=newest,
            fired_at=now,
            is_late=is_late,
            missed=due.index(newest),
            job=job,
        )
        _forget_old_runs(schedule)
    return run


def _claim(schedule: Schedule, *, due_at: datetime) -> bool:
    """Take a due time for this process; False when another one has it, or the schedule was changed.

    The conditional UPDATE decides: it waits for a transaction that has moved ``handled_until``,
    and then finds another value there.
    """
    unchanged = Schedule.objects.filter(
        pk=schedule.pk,
        is_enabled=True,
        cron=schedule.cron,
        time_zone=schedule.time_zone,
        handled_until=schedule.handled_until,
    )
    if not unchanged.update(handled_until=due_at):
        return False
    # After a change made while the clock was wrong, it may have been fired long ago.
    return not ScheduledRun.objects.filter(schedule=schedule, due_at=due_at).exists()


def _forget_old_runs(schedule: Schedule) -> None:
    runs = ScheduledRun.objects.filter(schedule=schedule)
    oldest = runs.order_by("-due_at").values_list("due_at", flat=True)[MOST_RUNS_KEPT : MOST_RUNS_KEPT + 1].first()
    if oldest is not None:
        runs.filter(due_at__lte=oldest).delete()


# Health


@dataclass(frozen=True, kw_only=True)
class Overdue:
    """A schedule whose due time has passed without being fired, or that cannot become due."""

    schedule: Schedule
    due_at: datetime | None
    """The oldest due time that waits; None when there is none to be known."""
    reason: str
    hint: str


def overdue(*, now: datetime, schedules: Iterable[Schedule] | None = None) -> list[Overdue]:
    """The enabled schedules, of databases under care, on which one cannot rely now; ``schedules`` saves asking."""
    active = active_schedules() if schedules is None else schedules
    found = [_overdue(schedule, now=now) for schedule in active]
    return [each for each in found if each is not None]


def _overdue(schedule: Schedule, *, now: datetime) -> Overdue | None:
    try:
        cron, zone = parse(schedule.cron), find_zone(schedule.time_zone)
    except InputError as exc:
        return Overdue(schedule=schedule, due_at=None, reason=exc.message, hint=exc.hint)
    if schedule.handled_until > now + OVERDUE_AFTER:
        return Overdue(
            schedule=schedule,
            due_at=None,
            reason=f"It was last handled at {schedule.handled_until:%Y-%m-%d %H:%M} UTC, which is still to come.",
            hint="The clock was set back. Nothing is fired before then; disable and enable it to start from now.",
        )
    due = due_times(cron, zone, after=schedule.handled_until, until=now - OVERDUE_AFTER)
    waiting = [each for each in due if each + jitter(schedule, each) <= now - OVERDUE_AFTER]
    if not waiting:
        return None
    return Overdue(
        schedule=schedule,
        due_at=waiting[0],
        reason=f"It has been due since {waiting[0]:%Y-%m-%d %H:%M} UTC and was not fired.",
        hint="Start `manage.py backup serve`, or call `manage.py backup tick` every minute from cron.",
    )
