"""What left care by a slip, and a clock that was set back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from backups_app.models import Database, Job
from backups_app.services.databases import sync_databases
from backups_app.services.health import check_health
from tests.services.health.rows import verified

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def codes() -> list[str]:
    return [each.code for each in check_health().problems]


def test_an_alias_that_vanished_is_a_problem_for_a_week(shop: Database):
    verified(shop).save()
    gone = Database.objects.create(name="gone", alias="gone", path="/srv/gone.sqlite3")
    backup = verified(gone, age=timedelta(days=6))
    backup.save()
    sync_databases()
    (problem,) = [each for each in check_health().problems if each.code == "left_care"]
    assert problem.database == "gone"
    backup.created_at -= timedelta(days=2)
    backup.save()
    assert "left_care" not in codes()


def test_an_alias_without_backups_and_a_file_taken_out_of_care_are_nobodys_loss(shop: Database):
    verified(shop).save()
    Database.objects.create(name="new", alias="new", path="/srv/new.sqlite3", is_under_care=False)
    verified(Database.objects.create(name="added", path="/srv/added.sqlite3", is_under_care=False)).save()
    assert codes() == []


def test_records_that_are_still_to_come_mean_that_the_clock_was_set_back(shop: Database):
    backup = verified(shop, age=timedelta(minutes=-4), finished_at=timezone.now())
    backup.save()
    assert codes() == [], "clocks of hosts may differ a little"
    backup.created_at = backup.taken_at = timezone.now() + timedelta(hours=30)
    backup.save()
    assert codes() == ["clock_set_back"], "too old it will not be for a long time"


def test_jobs_tell_of_the_clock_too(shop: Database):
    verified(shop).save()
    Job.objects.create(database=shop, kind="verify", trigger="admin", created_at=timezone.now() + timedelta(minutes=6))
    assert codes() == ["clock_set_back"]
