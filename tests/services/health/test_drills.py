"""Rehearsed restores."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Database, Verification
from backups_app.services.health import Health, check_health
from tests.services.health.rows import verified

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


@pytest.fixture
def backup(shop: Database) -> Backup:
    """A verified backup."""
    made = verified(shop)
    made.save()
    return made


def drill(backup: Backup, *, age: timedelta, verdict: str = "passed") -> Verification:
    at = timezone.now() - age
    reason = "" if verdict == "passed" else "It did not start."
    return Verification.objects.create(
        backup=backup,
        destination="local",
        level="drill",
        verdict=verdict,
        reason=reason,
        started_at=at,
        finished_at=at,
        recovery_seconds=1,
        data_age_seconds=1,
    )


def codes(health: Health) -> list[str]:
    return [each.code for each in health.problems]


def test_without_the_setting_no_drill_is_missed(backup: Backup):
    assert check_health().is_ok
    assert check_health().databases[0].last_drill_at is None


def test_a_drill_must_have_passed_within_the_limit(backup: Backup, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "DRILL_DAYS": 30}
    assert codes(check_health()) == ["drill_overdue"]
    made = drill(backup, age=timedelta(days=29))
    assert check_health().databases[0].last_drill_at == made.finished_at
    assert check_health().is_ok
    (found,) = check_health(now=timezone.now() + timedelta(hours=25)).problems[-1:]
    assert (found.code, "30 days" in found.message) == ("drill_overdue", True)


def test_a_failed_drill_is_a_problem_until_one_passes(backup: Backup, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "DRILL_DAYS": 30}
    drill(backup, age=timedelta(days=2))
    drill(backup, age=timedelta(days=1), verdict="failed")
    assert codes(check_health()) == ["drill_failed"]
    drill(backup, age=timedelta(hours=1))
    assert check_health().is_ok


def test_other_verifications_are_no_drills(backup: Backup, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "DRILL_DAYS": 30}
    made: Any = drill(backup, age=timedelta(days=1))
    Verification.objects.filter(pk=made.pk).update(level="full")
    assert codes(check_health()) == ["drill_overdue"]
