"""Schedules: checked when saved, fired once, late when late, and nothing fired that should not be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backups_app.core.errors import BusyError, InputError, NotFoundError, RefusedError
from backups_app.models import AuditEvent, Database, Job, Schedule, ScheduledRun
from backups_app.services import clock, schedules
from backups_app.services.schedules import (
    Fired,
    delete_schedule,
    fire_due,
    jitter,
    overdue,
    save_schedule,
)
from tests.conftest import ACTOR

START = datetime(2026, 3, 4, 12, tzinfo=UTC)
DUE = datetime(2026, 3, 5, 3, 15, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def added(database: Database, *, kind: str = "create", now: datetime = START, **facts: Any) -> Schedule:
    given = {"cron": "15 3 * * *", "time_zone": "UTC", **facts}
    schedule = Schedule(database=database, kind=kind, **given)
    save_schedule(schedule, actor=ACTOR, now=now)
    return schedule


def fired(now: datetime) -> list[ScheduledRun]:
    """Fire, and insist that nothing failed."""
    found = fire_due(now=now)
    assert found.failures == []
    return found.runs


def facts() -> list[tuple[datetime, bool, int]]:
    """Every run on record, oldest first."""
    return list(ScheduledRun.objects.order_by("due_at").values_list("due_at", "is_late", "missed"))


def nothing_was_fired() -> bool:
    return not ScheduledRun.objects.exists() and not Job.objects.exists()


def finish_jobs() -> None:
    Job.objects.update(state="succeeded", finished_at=START)


# Firing


def test_a_due_time_is_fired_once_and_becomes_a_job(shop: Database):
    schedule = added(shop)
    assert fired(DUE - MINUTE) == []
    assert nothing_was_fired()
    (run,) = fired(DUE + timedelta(seconds=20))
    job = Job.objects.get()
    assert (run.schedule, run.due_at, run.fired_at) == (schedule, DUE, DUE + timedelta(seconds=20))
    assert (run.is_late, run.missed, run.job) == (False, 0, job)
    assert (job.kind, job.database, job.trigger, job.state) == ("create", shop, "schedule", "queued")
    assert (job.options, job.requested_by_id, job.requested_by_name) == ({}, "", "system")
    for later in (20, 21, 60, 600, 80_000):
        assert fired(DUE + timedelta(seconds=later)) == []
    assert (ScheduledRun.objects.count(), Job.objects.count()) == (1, 1)
    (second,) = fired(DUE + DAY)
    assert second.due_at == DUE + DAY


@pytest.mark.parametrize("kind", Schedule.Kind.values)
def test_each_kind_of_schedule_asks_for_its_kind_of_job(shop: Database, kind: str):
    added(shop, kind=kind)
    fired(DUE)
    assert Job.objects.get().kind == kind


def test_a_time_that_falls_while_its_job_still_waits_is_recorded_with_that_job(shop: Database):
    added(shop, cron="* * * * *")
    (first,) = fired(START + MINUTE)
    (second,) = fired(START + 2 * MINUTE)
    assert first.job == second.job == Job.objects.get()


def test_of_several_that_were_missed_the_newest_runs_once_and_is_late(shop: Database):
    added(shop)
    (run,) = fired(DUE + 3 * DAY + 5 * MINUTE)
    assert (run.due_at, run.is_late, run.missed) == (DUE + 3 * DAY, True, 3)
    assert Job.objects.count() == 1
    assert fired(DUE + 3 * DAY + 6 * MINUTE) == []
    (after,) = fired(DUE + 4 * DAY)
    assert (after.is_late, after.missed) == (False, 0)


def test_a_run_within_two_minutes_is_not_late_and_after_them_it_is(shop: Database):
    added(shop)
    assert [run.is_late for run in fired(DUE + timedelta(seconds=120))] == [False]
    assert [run.is_late for run in fired(DUE + DAY + timedelta(seconds=121))] == [True]


def test_after_a_year_of_absence_one_run_stands_for_all(shop: Database):
    added(shop, cron="* * * * *")
    (run,) = fired(START + 365 * DAY)
    assert (run.due_at, run.is_late) == (START + 365 * DAY, False)
    assert run.missed == 7 * 24 * 60 - 1, "counted up to a week of minutes"
    assert (ScheduledRun.objects.count(), Job.objects.count()) == (1, 1)


def test_a_monthly_time_that_was_missed_weeks_ago_is_made_up_for(shop: Database):
    added(shop, cron="@monthly", now=datetime(2026, 3, 20, tzinfo=UTC))
    (run,) = fired(datetime(2026, 4, 25, tzinfo=UTC))
    assert (run.due_at, run.is_late, run.missed) == (datetime(2026, 4, 1, tzinfo=UTC), True, 0)


def test_only_enabled_schedules_of_databases_under_care_fire(shop: Database):
    schedule = added(shop)
    Schedule.objects.update(is_enabled=False)
    assert fired(DUE) == []
    Schedule.objects.update(is_enabled=True)
    Database.objects.update(is_under_care=False)
    assert fired(DUE) == []
    assert nothing_was_fired()
    Database.objects.update(is_under_care=True)
    assert [run.schedule for run in fired(DUE)] == [schedule]


@pytest.mark.parametrize(
    ("zone", "expression", "first"),
    [
        ("Europe/Athens", "30 3 * * *", datetime(2026, 3, 28, 12, tzinfo=UTC)),
        ("Europe/Athens", "30 3 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC)),
        ("America/New_York", "30 2 * * *", datetime(2026, 3, 7, 12, tzinfo=UTC)),
        ("America/New_York", "30 1 * * *", datetime(2026, 10, 31, 12, tzinfo=UTC)),
        ("Australia/Lord_Howe", "45 1 * * *", datetime(2026, 4, 4, 2, tzinfo=UTC)),
    ],
)
def test_a_tick_every_minute_across_a_change_of_clocks_fires_a_daily_schedule_once(
    shop: Database, zone: str, expression: str, first: datetime
):
    added(shop, cron=expression, time_zone=zone, now=first)
    for minute in range(24 * 60):
        fired(first + minute * MINUTE)
    assert [(is_late, missed) for _, is_late, missed in facts()] == [(False, 0)]


def test_an_hourly_schedule_fires_in_each_real_hour_of_both_days(shop: Database):
    for first in (datetime(2026, 3, 29, 0, 30, tzinfo=UTC), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)):
        schedule = added(shop, cron="@hourly", time_zone="Europe/Athens", now=first)
        for minute in range(4 * 60):
            fired(first + minute * MINUTE)
        assert [due for due, _, _ in facts()] == [first + MINUTE * 30 + timedelta(hours=each) for each in range(4)]
        delete_schedule(schedule, actor=ACTOR)


def test_a_clock_that_steps_back_fires_nothing_again(shop: Database):
    added(shop, cron="* * * * *")
    for minute in (1, 2, 3):
        assert len(fired(START + minute * MINUTE)) == 1
    for minute in (2, 1, 0, -600, 2, 3):
        assert fired(START + minute * MINUTE) == []
    assert len(fired(START + 4 * MINUTE)) == 1
    assert ScheduledRun.objects.count() == 4


def test_a_due_time_on_record_is_not_fired_again_even_when_its_schedule_forgot(shop: Database):
    """The clock was wrong, then set back, and the schedule was enabled anew."""
    schedule = added(shop)
    fired(DUE)
    finish_jobs()
    Schedule.objects.update(handled_until=START)
    assert fired(DUE + MINUTE) == []
    assert (ScheduledRun.objects.count(), Job.objects.count()) == (1, 1)
    schedule.refresh_from_db()
    assert schedule.handled_until == DUE


def test_a_process_that_read_the_schedule_before_another_one_fired_it_does_nothing(
    shop: Database, monkeypatch: pytest.MonkeyPatch
):
    added(shop)
    stale = list(Schedule.objects.select_related("database"))
    assert len(fired(DUE)) == 1
    monkeypatch.setattr(schedules, "_schedules_here", lambda: stale)
    assert fired(DUE) == []
    assert (ScheduledRun.objects.count(), Job.objects.count()) == (1, 1)


def test_a_process_that_read_the_schedule_before_it_was_changed_does_nothing(
    shop: Database, monkeypatch: pytest.MonkeyPatch
):
    schedule = added(shop)
    stale = list(Schedule.objects.select_related("database"))
    schedule.cron = "0 5 * * *"
    save_schedule(schedule, actor=ACTOR, now=DUE)
    monkeypatch.setattr(schedules, "_schedules_here", lambda: stale)
    assert fired(DUE) == []
    assert nothing_was_fired()


def test_a_schedule_that_fails_leaves_nothing_and_does_not_stop_the_others(
    shop: Database, monkeypatch: pytest.MonkeyPatch
):
    added(shop, kind="create")
    prune = added(shop, kind="prune")
    ask = schedules.ask_job

    def refuse_backups(kind: str, database: Database, **options: Any) -> Job:
        job = ask(kind, database, **options)
        if kind == "create":
            raise BusyError("The queue is closed.", "Open it.")
        return job

    monkeypatch.setattr(schedules, "ask_job", refuse_backups)
    found = fire_due(now=DUE)
    assert [run.schedule for run in found.runs] == [prune]
    (failure,) = found.failures
    assert "The queue is closed." in failure.message
    assert failure.hint == "Open it."
    assert Job.objects.get().kind == "prune"
    assert ScheduledRun.objects.get().schedule == prune
    monkeypatch.setattr(schedules, "ask_job", ask)
    (run,) = fired(DUE + MINUTE)
    assert (run.due_at, run.is_late) == (DUE, False)


@pytest.mark.parametrize("broken", [{"cron": "nonsense"}, {"time_zone": "Europe/Nowhere"}])
def test_a_row_that_cannot_be_read_is_told_and_does_not_stop_the_others(shop: Database, broken: dict[str, str]):
    schedule, prune = added(shop), added(shop, kind="prune")
    Schedule.objects.filter(pk=schedule.pk).update(**broken)
    found = fire_due(now=DUE)
    assert [run.schedule for run in found.runs] == [prune]
    assert len(found.failures) == 1
    (problem,) = overdue(now=DUE)
    assert (problem.schedule, problem.due_at) == (schedule, None)
    assert next(iter(broken.values())) in problem.reason + found.failures[0].message
    assert problem.hint


def test_the_newest_thousand_runs_are_kept(shop: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(schedules, "MOST_RUNS_KEPT", 3)
    added(shop, cron="* * * * *")
    other = added(shop, kind="prune", cron="1 12 * * *")
    for minute in range(1, 7):
        fired(START + minute * MINUTE)
    kept = ScheduledRun.objects.exclude(schedule=other).order_by("due_at")
    assert [run.due_at for run in kept] == [START + minute * MINUTE for minute in (4, 5, 6)]
    assert ScheduledRun.objects.filter(schedule=other).count() == 1


# Jitter


def test_jitter_is_the_same_whoever_asks_and_lies_within_its_bounds(shop: Database):
    schedule = added(shop, jitter_seconds=600)
    found = [jitter(schedule, DUE + day * DAY) for day in range(300)]
    assert found == [jitter(Schedule.objects.get(), DUE + day * DAY) for day in range(300)]
    assert all(timedelta(0) <= each <= timedelta(seconds=600) for each in found)
    assert len(set(found)) > 150
    assert min(found) < timedelta(seconds=60)
    assert max(found) > timedelta(seconds=540)


def test_without_jitter_there_is_no_delay(shop: Database):
    assert jitter(added(shop), DUE) == timedelta(0)


def test_a_run_waits_for_its_jitter_and_is_not_late_for_it(shop: Database):
    schedule = added(shop, jitter_seconds=3600)
    delay = jitter(schedule, DUE)
    assert delay > 2 * MINUTE, "the identity decides; see the fixture below"
    for each in range(0, int(delay.total_seconds()), 60):
        assert fired(DUE + timedelta(seconds=each)) == []
    (run,) = fired(DUE + delay)
    assert (run.due_at, run.is_late, run.missed) == (DUE, False, 0)
    assert fired(DUE + timedelta(seconds=3600)) == []


def test_a_missed_time_leaves_the_work_to_a_newer_one_that_only_waits_for_its_jitter(shop: Database):
    added(shop, jitter_seconds=3600)
    assert fired(DUE + DAY) == []
    (run,) = fired(DUE + DAY + timedelta(seconds=3600))
    assert (run.due_at, run.missed) == (DUE + DAY, 1)
    assert Job.objects.count() == 1


def test_with_jitter_every_due_time_is_fired_once_by_a_tick_a_minute(shop: Database):
    added(shop, cron="*/15 * * * *", jitter_seconds=600)
    for minute in range(4 * 60):
        fired(START + minute * MINUTE)
    found = facts()
    assert len(found) in (14, 15), "the last one may still wait"
    assert all((is_late, missed) == (False, 0) for _, is_late, missed in found)


@pytest.fixture(autouse=True)
def fixed_identity(shop: Database) -> None:
    """Jitter follows from it."""
    Database.objects.filter(pk=shop.pk).update(identity="a" * 32)
    shop.refresh_from_db()


# Saving


def test_a_new_schedule_counts_from_now_and_is_recorded(shop: Database):
    schedule = added(shop, cron=" 15  3 * * * ", time_zone="Europe/Athens", jitter_seconds=60, now=DUE)
    assert (schedule.handled_until, schedule.cron) == (DUE, "15 3 * * *")
    event = AuditEvent.objects.get(action="add-schedule")
    assert (event.actor_name, event.database_name, event.outcome) == ("anna", "shop", "done")
    assert event.detail == "create: 15 3 * * * in Europe/Athens, jitter 60 s, enabled"
    assert fired(DUE) == []


@pytest.mark.parametrize(
    "change", [{"cron": "0 4 * * *"}, {"time_zone": "Europe/Berlin"}, {"cron": "0 4 * * *", "is_enabled": False}]
)
def test_a_changed_time_fires_nothing_that_lies_in_the_past(shop: Database, change: dict[str, Any]):
    schedule, now = added(shop), DUE + 10 * DAY + timedelta(hours=3)
    for name, value in change.items():
        setattr(schedule, name, value)
    save_schedule(schedule, actor=ACTOR, now=now)
    stored = Schedule.objects.get()
    assert (stored.handled_until, stored.cron, stored.time_zone) == (now, schedule.cron, schedule.time_zone)
    assert fired(now + MINUTE) == []
    assert nothing_was_fired()
    assert AuditEvent.objects.filter(action="change-schedule").count() == 1


def test_a_schedule_that_is_enabled_again_fires_nothing_that_lies_in_the_past(shop: Database):
    schedule = added(shop)
    schedule.is_enabled = False
    save_schedule(schedule, actor=ACTOR, now=START)
    assert fired(DUE + DAY) == []
    schedule.is_enabled = True
    save_schedule(schedule, actor=ACTOR, now=DUE + DAY + MINUTE)
    assert fired(DUE + DAY + 2 * MINUTE) == []
    assert nothing_was_fired()
    assert [run.due_at for run in fired(DUE + 2 * DAY)] == [DUE + 2 * DAY]


def test_another_change_leaves_alone_what_a_tick_has_handled_meanwhile(shop: Database):
    schedule = added(shop)
    assert len(fired(DUE)) == 1
    assert schedule.handled_until == START, "read before the tick"
    schedule.jitter_seconds = 30
    save_schedule(schedule, actor=ACTOR, now=DUE + MINUTE)
    stored = Schedule.objects.get()
    assert (stored.handled_until, stored.jitter_seconds) == (DUE, 30)
    assert fired(DUE + 2 * MINUTE) == []


def test_a_change_of_jitter_does_not_lose_a_due_time_that_waits(shop: Database):
    schedule = added(shop)
    schedule.jitter_seconds = 60
    save_schedule(schedule, actor=ACTOR, now=DUE + timedelta(seconds=1))
    assert [run.due_at for run in fired(DUE + MINUTE)] == [DUE]


@pytest.mark.parametrize(
    "wrong",
    [
        {"cron": "0 3 30 2 *"},
        {"cron": ""},
        {"cron": "* * * * * *"},
        {"time_zone": "Mars/Olympus"},
        {"time_zone": ""},
        {"jitter_seconds": 6 * 3600 + 1},
        {"cron": "*/5 * * * *", "jitter_seconds": 300},
        {"cron": "0,1 3 * * *", "jitter_seconds": 60},
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_stored(shop: Database, wrong: dict[str, Any]):
    before = AuditEvent.objects.count()
    with pytest.raises(InputError) as refusal:
        added(shop, **wrong)
    assert refusal.value.hint
    assert not Schedule.objects.exists()
    assert AuditEvent.objects.count() == before


def test_a_refused_change_leaves_the_stored_schedule(shop: Database):
    schedule = added(shop)
    schedule.cron = "nonsense"
    with pytest.raises(InputError):
        save_schedule(schedule, actor=ACTOR, now=DUE)
    assert Schedule.objects.get().cron == "15 3 * * *"
    assert not AuditEvent.objects.filter(action="change-schedule").exists()


def test_the_longest_jitter_that_fits_is_accepted(shop: Database):
    assert added(shop, cron="*/5 * * * *", jitter_seconds=299).pk


def test_there_is_one_schedule_of_a_database_and_kind(shop: Database):
    added(shop)
    with pytest.raises(RefusedError, match="already"):
        added(shop, cron="0 5 * * *")
    assert Schedule.objects.get().cron == "15 3 * * *"


def test_a_schedule_stays_with_its_database_and_kind(shop: Database):
    schedule = added(shop)
    schedule.kind = "prune"
    with pytest.raises(RefusedError):
        save_schedule(schedule, actor=ACTOR, now=DUE)
    assert Schedule.objects.get().kind == "create"


def test_a_database_that_is_not_under_care_gets_no_schedule(shop: Database):
    Database.objects.update(is_under_care=False)
    shop.refresh_from_db()
    with pytest.raises(RefusedError, match="not under care"):
        added(shop)
    assert not Schedule.objects.exists()


def test_a_schedule_that_was_deleted_meanwhile_is_not_saved_again(shop: Database):
    schedule = added(shop)
    Schedule.objects.all().delete()
    with pytest.raises(NotFoundError):
        save_schedule(schedule, actor=ACTOR, now=DUE)
    assert not Schedule.objects.exists()


def test_deleting_removes_the_runs_and_leaves_the_jobs(shop: Database):
    schedule = added(shop)
    fired(DUE)
    delete_schedule(schedule, actor=ACTOR)
    assert not Schedule.objects.exists()
    assert not ScheduledRun.objects.exists()
    assert Job.objects.count() == 1
    event = AuditEvent.objects.get(action="delete-schedule")
    assert (event.actor_name, event.database_name) == ("anna", "shop")
    assert "15 3 * * *" in event.detail


# Overdue


def test_nothing_is_overdue_while_somebody_ticks(shop: Database):
    added(shop, cron="*/5 * * * *", jitter_seconds=200)
    for minute in range(60):
        now = START + minute * MINUTE
        fired(now)
        assert overdue(now=now) == []


def test_a_due_time_that_nobody_fires_is_overdue_after_five_minutes(shop: Database):
    schedule = added(shop)
    assert overdue(now=DUE + 5 * MINUTE - timedelta(seconds=1)) == []
    (found,) = overdue(now=DUE + 3 * DAY)
    assert (found.schedule, found.due_at) == (schedule, DUE)
    assert "backup tick" in found.hint
    fired(DUE + 3 * DAY)
    assert overdue(now=DUE + 3 * DAY) == []


def test_jitter_is_no_delay_to_complain_of(shop: Database):
    schedule = added(shop, jitter_seconds=3600)
    ready = DUE + jitter(schedule, DUE)
    assert overdue(now=ready + 4 * MINUTE) == []
    assert len(overdue(now=ready + 5 * MINUTE)) == 1


def test_disabled_schedules_and_databases_that_left_care_are_not_overdue(shop: Database):
    added(shop)
    Schedule.objects.update(is_enabled=False)
    assert overdue(now=DUE + DAY) == []
    Schedule.objects.update(is_enabled=True)
    Database.objects.update(is_under_care=False)
    assert overdue(now=DUE + DAY) == []


def test_a_schedule_that_a_wrong_clock_carried_into_the_future_is_told(shop: Database):
    added(shop)
    fired(DUE + 300 * DAY)
    (found,) = overdue(now=DUE)
    assert found.due_at is None
    assert "set back" in found.hint


# The duties of a tick


def test_a_tick_fires_what_is_due(shop: Database):
    schedule = added(shop)
    ticked = clock.tick(now=DUE)
    assert [run.schedule for run in ticked.runs] == [schedule]
    assert ticked.failures == []


def test_a_duty_that_fails_is_told_and_does_not_stop_the_others(shop: Database, monkeypatch: pytest.MonkeyPatch):
    added(shop)

    def fail(ticked: clock.Ticked, now: datetime) -> None:
        raise ValueError("no luck")

    monkeypatch.setattr(clock, "DUTIES", (("Failing", fail), *clock.DUTIES, ("Failing again", fail)))
    ticked = clock.tick(now=DUE)
    assert len(ticked.runs) == 1
    assert [each.message for each in ticked.failures] == [
        "Failing failed: ValueError: no luck",
        "Failing again failed: ValueError: no luck",
    ]


def test_failures_of_schedules_reach_the_tick(shop: Database, monkeypatch: pytest.MonkeyPatch):
    failure = BusyError("The queue is closed.")
    monkeypatch.setattr(clock, "fire_due", lambda *, now: Fired(runs=[], failures=[failure]))
    assert clock.tick(now=DUE).failures == [failure]
