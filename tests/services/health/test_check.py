"""Is the data safe? Silence is an alarm."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.core.sqlite import has_wal_reset_bug
from backups_app.models import Backup, Database, Host, Job, Notification, Schedule
from backups_app.services.databases import add_database
from backups_app.services.health import Health, check_health, freshness_limit
from backups_app.services.health.measures import measure
from backups_app.services.jobs import ask_create, cancel_job
from backups_app.services.keys.rekey import rekey_backup
from backups_app.services.notifications import notify
from backups_app.services.schedules import fire_due, save_schedule
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.keys import Key
from tests.support import build_shop

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def codes(health: Health) -> list[str]:
    return [problem.code for problem in health.problems]


def test_a_fresh_verified_backup_is_safe(shop: Database, make_backup: Callable[..., Backup]):
    backup = make_backup(shop)
    health = check_health()
    assert health.is_ok
    assert health.problems == []
    (found,) = health.databases
    assert found.last_verified == backup
    assert found.age(now=health.checked_at) == health.checked_at - backup.taken_at


def test_nothing_under_care_needs_attention():
    health = check_health()
    assert not health.is_ok
    assert codes(health) == ["nothing_under_care"]


def test_a_database_that_was_never_verified_needs_attention(shop: Database):
    health = check_health()
    assert codes(health) == ["never_verified"]
    assert health.problems[0].database == "shop"
    assert health.databases[0].age(now=health.checked_at) is None


def test_a_backup_at_its_limit_is_safe_and_after_it_is_not(shop: Database, make_backup: Callable[..., Backup]):
    taken_at = make_backup(shop).taken_at
    assert taken_at is not None
    assert check_health(now=taken_at + timedelta(hours=26)).is_ok
    late = check_health(now=taken_at + timedelta(hours=26, seconds=1))
    assert codes(late) == ["too_old"]
    assert "26" in late.problems[0].message


def test_the_limit_of_a_database_goes_before_the_setting(shop: Database, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "FRESHNESS_HOURS": 1.5}
    assert freshness_limit(shop) == timedelta(hours=1.5)
    shop.freshness_hours = 3
    assert freshness_limit(shop) == timedelta(hours=3)


def test_the_age_counts_from_the_data_and_not_from_the_last_verification(
    shop: Database, make_backup: Callable[..., Backup]
):
    backup = make_backup(shop)
    verify_backup(backup, level="full", actor=ACTOR)
    assert backup.taken_at is not None
    Backup.objects.update(taken_at=backup.taken_at - timedelta(hours=27))
    assert codes(check_health()) == ["too_old"]


def test_a_failed_last_run_needs_attention_with_its_reason(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup]
):
    make_backup(shop)
    shop_file.rename(shop_file.with_name("aside"))
    failed = make_backup(shop)
    shop_file.with_name("aside").rename(shop_file)
    health = check_health()
    assert codes(health) == ["last_run_failed"]
    assert failed.reason in health.problems[0].message
    make_backup(shop)
    assert check_health().is_ok


def test_a_cancelled_last_run_alone_is_no_alarm(shop: Database, make_backup: Callable[..., Backup]):
    make_backup(shop)
    make_backup(shop, is_cancelled=lambda: True)
    assert check_health().is_ok


def test_a_failure_is_told_until_a_backup_succeeds_whatever_was_cancelled_since(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup]
):
    make_backup(shop)
    shop_file.rename(shop_file.with_name("aside"))
    failed = make_backup(shop)
    shop_file.with_name("aside").rename(shop_file)
    make_backup(shop, is_cancelled=lambda: True)
    health = check_health()
    assert codes(health) == ["last_run_failed"]
    assert health.databases[0].last_attempt == failed
    (measured,) = [each for each in measure(now=timezone.now()) if each.name == "walsafe_last_attempt_failed"]
    assert measured.values == [(("shop",), 1.0)]
    make_backup(shop)
    assert check_health().is_ok


def test_a_backup_encrypted_anew_neither_hides_nor_makes_a_failed_run(
    shop: Database,
    shop_file: Path,
    make_backup: Callable[..., Backup],
    encrypting: Callable[..., None],
    key: Key,
):
    plain = make_backup(shop)
    assert rekey_backup(plain, actor=ACTOR).state == "failed", "no recipient is set"
    assert check_health().is_ok
    encrypting(key)
    shop_file.rename(shop_file.with_name("aside"))
    failed = make_backup(shop)
    shop_file.with_name("aside").rename(shop_file)
    anew = rekey_backup(plain, actor=ACTOR)
    assert anew.state == "verified"
    (found,) = check_health().databases
    assert (found.last_attempt, found.last_verified) == (failed, anew)
    assert "last_run_failed" in [each.code for each in found.problems]


def test_a_missing_file_needs_attention(shop: Database, shop_file: Path, make_backup: Callable[..., Backup]):
    make_backup(shop)
    shop_file.unlink()
    health = check_health()
    assert codes(health) == ["database_missing"]
    assert str(shop_file) in health.problems[0].message


def test_a_newest_backup_that_is_out_of_reach_needs_attention(
    shop: Database, make_backup: Callable[..., Backup], archive_of: Callable[[Backup], Path]
):
    backup = make_backup(shop)
    archive_of(backup).rename(archive_of(backup).with_name("aside"))
    verify_backup(backup, level="quick", actor=ACTOR)
    health = check_health()
    assert codes(health) == ["not_proven_again"]
    assert "unreachable" in health.problems[0].message
    assert backup.pk in health.problems[0].hint
    archive_of(backup).with_name("aside").rename(archive_of(backup))
    verify_backup(backup, level="quick", actor=ACTOR)
    assert check_health().is_ok


def test_a_backup_that_was_found_damaged_no_longer_counts(
    shop: Database, make_backup: Callable[..., Backup], archive_of: Callable[[Backup], Path]
):
    backup = make_backup(shop)
    archive_of(backup).write_bytes(b"altered")
    verify_backup(backup, level="quick", actor=ACTOR)
    assert codes(check_health()) == ["never_verified", "last_run_failed"]


def test_each_database_is_judged_by_itself(shop: Database, tmp_path: Path, make_backup: Callable[..., Backup]):
    add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR)
    make_backup(shop)
    health = check_health()
    assert [(each.database, each.code) for each in health.problems] == [("other", "never_verified")]


def test_a_database_that_left_care_is_not_judged(shop: Database, tmp_path: Path, make_backup: Callable[..., Backup]):
    other = add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR)
    make_backup(shop)
    Database.objects.filter(pk=other.pk).update(is_under_care=False)
    assert check_health().is_ok


def test_a_running_backup_is_no_last_attempt(shop: Database, make_backup: Callable[..., Backup]):
    verified = make_backup(shop)
    Backup.objects.create(database=shop, trigger="command", created_at=timezone.now() + timedelta(seconds=1))
    assert check_health().databases[0].last_attempt == verified


def test_every_problem_says_what_to_do(shop: Database, shop_file: Path, make_backup: Callable[..., Backup]):
    shop_file.unlink()
    make_backup(shop)
    problems = check_health().problems
    assert [each.code for each in problems] == ["database_missing", "never_verified", "last_run_failed"]
    assert all(problem.message and problem.hint for problem in problems)


def test_a_known_bug_of_sqlite_is_a_notice_and_not_a_problem(shop: Database, make_backup: Callable[..., Backup]):
    make_backup(shop)
    health = check_health()
    assert any("corruption bug" in notice for notice in health.notices) == has_wal_reset_bug()
    assert health.is_ok


def test_news_that_do_not_arrive_need_attention(shop: Database, settings: Settings, make_backup: Callable[..., Backup]):
    make_backup(shop)
    now = timezone.now()
    settings.BACKUPS = {**settings.BACKUPS, "WEBHOOK_URLS": ["http://one.example/t0ken"]}
    notify("failed", subject="News", content={}, now=now - timedelta(hours=2))
    health = check_health(now=now)
    assert codes(health) == ["notifications_undelivered"]
    assert (health.problems[0].database, "t0ken" in repr(health)) == ("", False)
    Notification.objects.all().delete()
    assert check_health(now=now).is_ok


# Is what was asked for being done?


def test_a_job_that_nobody_takes_needs_attention(shop: Database, make_backup):
    make_backup(shop)
    job = ask_create(shop, actor=ACTOR, trigger=Job.Trigger.ADMIN)
    assert "jobs_wait" not in codes(check_health())
    later = timezone.now() + timedelta(minutes=6)
    (found,) = [each for each in check_health(now=later).problems if each.code == "jobs_wait"]
    assert job.pk in found.message
    assert found.database == "shop"
    cancel_job(job, actor=ACTOR)
    assert "jobs_wait" not in codes(check_health(now=later))


def test_a_supervisor_that_died_needs_attention_and_one_that_ended_does_not(shop: Database):
    now = timezone.now()
    host = Host.objects.create(name="web1", seen_at=now, started_at=now)
    assert "host_silent" not in codes(check_health(now=now))
    later = now + timedelta(minutes=1)
    assert "host_silent" in codes(check_health(now=later))
    Host.objects.filter(pk=host.pk).update(stopped_at=now)
    assert "host_silent" not in codes(check_health(now=later))


def test_a_schedule_that_nobody_fires_needs_attention(shop: Database):
    now = timezone.now()
    schedule = Schedule(database=shop, kind="create", cron="* * * * *")
    save_schedule(schedule, actor=ACTOR, now=now)
    assert "schedule_overdue" not in codes(check_health(now=now + timedelta(minutes=3)))
    assert "schedule_overdue" in codes(check_health(now=now + timedelta(minutes=10)))
    fire_due(now=now + timedelta(minutes=10))
    assert "schedule_overdue" not in codes(check_health(now=now + timedelta(minutes=10)))
