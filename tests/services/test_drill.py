"""Drills: a real restore away from the live database, timed, with the site's own questions."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.documents import health_document, verification_document
from backups_app.models import Backup, Database, Job, Verification
from backups_app.services.drill import site_checks_for
from backups_app.services.health import check_health
from backups_app.services.jobs import ask_drill
from backups_app.services.jobs.run import run_job
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.support import connected, names_in

MakeBackup = Callable[..., Backup]
HERE = "tests.services.test_drill"


# The questions of a site


def has_products(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT count(*) = 3 FROM product").fetchone()[0])


def finds_nothing_wrong(_connection: sqlite3.Connection) -> None:
    return None


def complains(_connection: sqlite3.Connection) -> str:
    return "the till is empty"


def breaks(connection: sqlite3.Connection) -> None:
    connection.execute("SELECT * FROM no_such_table")


def writes(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM product")


def sleeps(_connection: sqlite3.Connection) -> None:
    time.sleep(2)


def never_ends(connection: sqlite3.Connection) -> None:
    connection.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n")


def exits(_connection: sqlite3.Connection) -> None:
    raise SystemExit(3)


@pytest.fixture
def ask(settings: Settings) -> Callable[..., None]:
    """A function that sets the questions of a drill."""

    def set_checks(*names: str, **others: object) -> None:
        checks = [f"{HERE}.{name}" for name in names]
        settings.BACKUPS = {**settings.BACKUPS, "DRILL_CHECKS": checks, "DRILL_CHECK_SECONDS": 0.5, **others}

    return set_checks


@pytest.fixture
def backup(shop: Database, make_backup: MakeBackup) -> Backup:
    return make_backup(shop)


def drill(backup: Backup) -> Verification:
    (found,) = verify_backup(backup, level="drill", actor=ACTOR)
    backup.refresh_from_db()
    return found


def test_a_drill_restores_checks_and_takes_the_time(backup: Backup, home: Path, ask: Callable[..., None]):
    ask("has_products", "finds_nothing_wrong")
    found = drill(backup)
    assert (found.verdict, found.level, found.reason) == ("passed", "drill", "")
    assert [each["name"] for each in found.checks] == [
        "manifest",
        "signature",
        "chain",
        "stored bytes",
        "content digest",
        "restore",
        "integrity_check",
        "foreign_key_check",
        "census",
        f"site check {HERE}.has_products",
        f"site check {HERE}.finds_nothing_wrong",
    ]
    assert found.recovery_seconds is not None
    assert 0 < found.recovery_seconds <= (found.finished_at - found.started_at).total_seconds()
    assert found.data_age_seconds == pytest.approx((found.started_at - backup.taken_at).total_seconds())
    assert names_in(home / "scratch") == set()
    document = verification_document(found)
    assert document["recovery_seconds"] == found.recovery_seconds
    assert document["data_age_seconds"] == found.data_age_seconds


def test_required_tables_are_asked_for_in_a_drill(shop: Database, make_backup: MakeBackup):
    Database.objects.update(required_tables=["product", "missing"])
    shop.refresh_from_db()
    backup = make_backup(shop)
    found = drill(backup)
    assert found.verdict == "failed"
    assert "required tables" in found.reason
    assert backup.state == "failed"


@pytest.mark.parametrize(
    ("name", "evidence"),
    [
        ("complains", "the till is empty"),
        ("breaks", "no such table"),
        ("writes", "readonly"),
        ("sleeps", "longer than 0.5 s"),
        ("never_ends", "longer than 0.5 s"),
        ("exits", "SystemExit"),
        ("missing", "ImportError"),
    ],
)
def test_an_objection_of_the_site_fails_the_drill_and_not_the_backup(
    backup: Backup, ask: Callable[..., None], name: str, evidence: str, home: Path
):
    ask(name, "has_products")
    started = time.monotonic()
    found = drill(backup)
    assert time.monotonic() - started < 1.9
    assert found.verdict == "failed"
    assert evidence in found.reason or "interrupted" in found.reason
    assert found.checks[-1]["ok"], "the next question was asked all the same"
    assert (backup.state, backup.verdict) == ("verified", "failed"), "the copy is what was backed up"
    assert backup.copies.get().state == "verified"
    assert found.recovery_seconds is not None
    assert verify_backup(backup, level="quick", actor=ACTOR)[0].verdict == "passed"
    backup.refresh_from_db()
    assert backup.copies.get().state == "verified"
    assert names_in(home / "scratch") == set()


def test_questions_may_be_given_per_database(shop: Database, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "DRILL_CHECKS": {"shop": ["a.b"], "other": ["c.d"]}}
    assert site_checks_for(shop) == ["a.b"]
    assert site_checks_for(Database(name="third")) == []
    settings.BACKUPS = {**settings.BACKUPS, "DRILL_CHECKS": ("e.f",)}
    assert site_checks_for(shop) == ["e.f"]


def test_a_damaged_archive_fails_the_drill_and_the_backup(backup: Backup, archive_of: Callable[[Backup], Path]):
    archive = archive_of(backup)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    found = drill(backup)
    assert (found.verdict, found.recovery_seconds, backup.state) == ("failed", None, "failed")


def test_a_missing_archive_is_unreachable(backup: Backup, archive_of: Callable[[Backup], Path]):
    archive_of(backup).unlink()
    assert drill(backup).verdict == "unreachable"
    assert backup.state == "verified"


def test_a_drill_that_passed_has_been_timed(backup: Backup):
    found = drill(backup)
    with pytest.raises(IntegrityError), transaction.atomic(using="catalog"):
        Verification.objects.filter(pk=found.pk).update(recovery_seconds=None)


def test_the_job_drills_the_newest_verified_backup(shop: Database, make_backup: MakeBackup):
    make_backup(shop)
    newest = make_backup(shop)
    job = ask_drill(shop, actor=ACTOR, trigger="schedule")
    run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.verifications.get().backup_id, job.verifications.get().level) == (
        "succeeded",
        newest.pk,
        "drill",
    )


def test_a_drill_without_a_backup_fails_with_the_reason(shop: Database):
    job = ask_drill(shop, actor=ACTOR, trigger="schedule")
    run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.failure_code) == ("failed", "not_found")
    assert Job.objects.count() == 1


# Health


def codes(**options: object) -> list[str]:
    return [each.code for each in check_health(**options).problems]  # type: ignore[arg-type]


def test_the_last_drill_and_its_time_are_in_the_health(backup: Backup):
    assert health_document(check_health())["databases"][0]["last_drill_at"] is None
    found = drill(backup)
    health = health_document(check_health())
    assert health["ok"]
    assert health["databases"][0]["recovery_seconds"] == found.recovery_seconds
    assert health["databases"][0]["last_drill_verdict"] == "passed"
    assert health["databases"][0]["last_drill_at"].startswith(f"{found.finished_at:%Y-%m-%dT%H:%M}")


def test_a_drill_that_is_too_old_needs_attention_when_drills_are_asked_for(backup: Backup, settings: Settings):
    assert codes() == []
    settings.BACKUPS = {**settings.BACKUPS, "DRILL_DAYS": 7, "FRESHNESS_HOURS": 9999}
    assert codes() == ["drill_overdue"]
    drill(backup)
    assert codes() == []
    assert codes(now=timezone.now() + timedelta(days=8)) == ["drill_overdue"]


def test_a_drill_that_failed_needs_attention_until_one_passes(backup: Backup, ask: Callable[..., None]):
    ask("complains")
    drill(backup)
    assert "drill_failed" in codes()
    ask("has_products")
    drill(backup)
    assert codes() == []


def test_the_live_database_is_not_touched(backup: Backup, shop_file: Path, ask: Callable[..., None]):
    ask("has_products")
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM product")
    assert drill(backup).verdict == "passed", "three products are in the backup"
    with connected(shop_file) as connection:
        assert connection.execute("SELECT count(*) FROM product").fetchone() == (0,)
