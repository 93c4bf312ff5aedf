"""What a day means, and the figures of the overview."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from backups_app.models import Backup, Database, Schedule, Verification
from backups_app.services import overview
from backups_app.services.overview import DATABASES_PER_PAGE, DAYS, DayState, days_of, last_drill, look, next_runs
from tests.admin.conftest import backup_row, job_row, verification_row

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

NOW = datetime(2026, 3, 10, 15, 0, tzinfo=UTC)


def database(name: str = "shop", **facts: Any) -> Database:
    return Database.objects.create(name=name, path=f"/srv/{name}", added_at=NOW - timedelta(days=100), **facts)


def made(of: Database, at: datetime, *, state: str = "verified", **facts: Any) -> Backup:
    times = {"created_at": at, "finished_at": at + timedelta(seconds=4)}
    if state == "verified":
        times |= {"taken_at": at, "verified_at": at}
    backup = backup_row(of, state=state, verdict="passed" if state == "verified" else "", **times, **facts)
    backup.save()
    return backup


def drilled(backup: Backup, at: datetime, *, verdict: str = "passed") -> Verification:
    found = verification_row(backup, level="drill", verdict=verdict)
    found.started_at, found.finished_at = at, at + timedelta(seconds=7)
    found.recovery_seconds = 7
    found.save()
    return found


def states(of: Database) -> list[DayState]:
    return [day.state for day in days_of([of], now=NOW)[of.pk]]


def test_there_is_one_day_for_each_of_sixty_with_today_last():
    days = days_of([shop := database()], now=NOW)[shop.pk]
    assert len(days) == DAYS
    assert days[-1].date == NOW.date()
    assert days[0].date == NOW.date() - timedelta(days=59)


def test_a_day_is_verified_when_one_backup_was_though_another_failed():
    shop = database()
    made(shop, NOW - timedelta(hours=3))
    made(shop, NOW - timedelta(hours=2), state="failed")
    today = days_of([shop], now=NOW)[shop.pk][-1]
    assert (today.state, today.verified, today.failed) == (DayState.VERIFIED, 1, 1)
    assert today.size_bytes == 1234567
    assert today.duration == timedelta(seconds=4)


def test_a_day_without_a_backup_is_missing_only_when_the_data_became_too_old():
    shop, weekly = database(), database("weekly", freshness_hours=8 * 24)
    for each in (shop, weekly):
        made(each, NOW - timedelta(days=3))
    assert states(shop)[-4:] == [DayState.VERIFIED, DayState.MISSING, DayState.MISSING, DayState.MISSING]
    assert states(weekly)[-4:] == [DayState.VERIFIED, DayState.QUIET, DayState.QUIET, DayState.QUIET]


def test_today_is_not_missing_before_the_limit_is_over():
    shop = database()
    made(shop, NOW - timedelta(hours=20))
    assert states(shop)[-2:] == [DayState.VERIFIED, DayState.QUIET]


def test_a_day_with_failures_only_has_failed():
    shop = database()
    made(shop, NOW - timedelta(hours=1), state="failed")
    assert states(shop)[-1] == DayState.FAILED


def test_days_before_a_database_came_under_care_are_nobodys_fault():
    shop = database()
    Database.objects.update(added_at=NOW - timedelta(days=2))
    shop.refresh_from_db()
    assert states(shop)[-4:] == [DayState.BEFORE, DayState.QUIET, DayState.MISSING, DayState.MISSING]


def test_days_are_those_of_the_current_time_zone():
    shop = database()
    made(shop, datetime(2026, 3, 9, 23, 30, tzinfo=UTC))
    assert states(shop)[-2:] == [DayState.VERIFIED, DayState.QUIET]
    with timezone.override("Europe/Athens"):
        assert states(shop)[-1] == DayState.VERIFIED


def test_drills_are_counted_on_their_day():
    shop = database()
    backup = made(shop, NOW - timedelta(days=1))
    drilled(backup, NOW - timedelta(hours=2))
    drilled(backup, NOW - timedelta(hours=1), verdict="failed")
    today = days_of([shop], now=NOW)[shop.pk][-1]
    assert (today.drills_passed, today.drills_failed) == (1, 1)


def test_the_last_drill_is_the_newest_one_with_its_time():
    shop = database()
    assert look(now=NOW).last_drill is None
    backup = made(shop, NOW - timedelta(days=1))
    drilled(backup, NOW - timedelta(days=2), verdict="failed")
    newest = drilled(backup, NOW)
    drill = look(now=NOW).last_drill
    assert drill is not None
    assert (drill.verification, drill.is_passed, drill.recovery) == (newest, True, timedelta(seconds=7))
    assert last_drill(database("other")) is None


def test_next_runs_are_the_earliest_of_enabled_schedules():
    shop, crm, gone = database(), database("crm"), database("gone", is_under_care=False)
    for each, cron, is_enabled in ((shop, "0 18 * * *", True), (crm, "0 16 * * *", True), (gone, "1 15 * * *", True)):
        Schedule.objects.create(database=each, cron=cron, is_enabled=is_enabled)
    Schedule.objects.create(database=shop, kind="verify", cron="2 15 * * *", is_enabled=False)
    Schedule.objects.create(database=crm, kind="verify", cron="not an expression")
    assert [each.due_at.hour for each in look(now=NOW).next_runs] == [16, 18]
    assert [each.schedule.database for each in next_runs(shop, now=NOW)] == [shop]


def test_stored_bytes_are_added_up():
    shop = database()
    made(shop, NOW - timedelta(days=40), archive_bytes=100)
    made(shop, NOW - timedelta(days=4), archive_bytes=10)
    found = overview.stored(now=NOW)
    assert (found.total_bytes, found.added_bytes) == (110, 10)


def test_what_needs_attention_comes_first_and_pages_end():
    for number in range(DATABASES_PER_PAGE + 2):
        each = database(f"d{number:02d}")
        if number != 12:
            made(each, NOW - timedelta(hours=1))
    first, last = look(now=NOW), look(now=NOW, page=99)
    assert (first.page, last.page, first.page_count) == (1, 2, 2)
    assert "d12" in [problem.database for problem in first.health.problems]
    assert len(first.lines) == DATABASES_PER_PAGE
    assert len(last.lines) == 2
    assert first.weakest is not None
    assert first.weakest.database.name == "d12"


def test_jobs_that_run_come_before_those_that_wait():
    shop = database()
    job_row(shop, state="queued", kind="verify").save()
    job_row(shop, state="running").save()
    job_row(shop, state="failed", kind="drill").save()
    assert [each.state for each in overview.open_jobs()] == ["running", "queued"]
