"""Stored copies on which one cannot rely."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from backups_app.models import Backup, Copy, Database
from backups_app.services.health import check_health
from tests.services.health.rows import verified

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


@pytest.fixture
def old(shop: Database) -> Backup:
    """An older backup; there is a newer one with a good copy."""
    made = [verified(shop, age=timedelta(hours=age)) for age in (5, 1)]
    for each in made:
        each.save()
        now = timezone.now()
        Copy.objects.create(
            backup=each, destination="local", name=each.pk, state="verified", stored_at=now, checked_at=now
        )
    return made[0]


def test_good_copies_are_no_problem(old: Backup):
    assert check_health().is_ok


@pytest.mark.parametrize("state", ["failed", "unreachable", "key_missing"])
def test_a_bad_copy_of_an_older_backup_is_a_problem_until_it_is_good_again(old: Backup, state: str):
    old.copies.update(state=state)
    (problem,) = check_health().problems
    assert (problem.code, problem.database, problem.subject) == ("copies_bad", "shop", "local")
    assert f"1 {Copy.State(state).label}" in problem.message
    old.copies.update(state="verified")
    assert check_health().is_ok


def test_a_backup_that_rotted_away_is_not_forgotten(old: Backup):
    old.copies.update(state="failed")
    Backup.objects.filter(pk=old.pk).update(state="failed", verdict="failed", reason="rotten")
    assert [each.code for each in check_health().problems] == ["copies_bad"]


def test_evidence_of_a_backup_that_was_never_good_is_told_by_the_run(old: Backup):
    old.copies.update(state="failed")
    Backup.objects.filter(pk=old.pk).update(state="failed", verdict="failed", reason="damaged", verified_at=None)
    assert check_health().is_ok
