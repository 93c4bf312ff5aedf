"""Verifications on the screen: each verdict with its evidence."""

from __future__ import annotations

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from backups_app.models import Backup, Database, Verification
from tests.admin.conftest import Person, backup_row, verification_row
from tests.admin.markup import page_of

LIST = "/admin/backups_app/verification/"


def test_the_page_shows_verdict_reason_hint_and_every_check(superuser: Person, shop: Database):
    made = backup_row(shop)
    made.save()
    verification = verification_row(made, verdict="failed", reason="A bit is wrong.", hint="Use another copy.")
    verification.save()
    page = page_of(superuser.get(f"{LIST}{verification.pk}/change/"))
    assert page.badges == ["✗ failed", "✗ failed", "! note"]
    assert "A bit is wrong." in page.text
    assert "Use another copy." in page.text
    cells = page.cells()
    assert cells[cells.index("content digest") + 2] == "SHA-256 of it"
    assert f"/admin/backups_app/backup/{made.pk}/change/" in page.links


def test_a_verification_that_made_no_check_renders(superuser: Person, every_state: list[Backup]):
    empty = Verification.objects.get(checks=[])
    page = page_of(superuser.get(f"{LIST}{empty.pk}/change/"))
    assert page.badges == ["? unreachable"]
    assert not page.all("table", "walsafe-table")


@pytest.mark.parametrize(
    ("verdict", "badge"),
    [
        ("passed", "✓ passed"),
        ("failed", "✗ failed"),
        ("unreachable", "? unreachable"),
        ("key_missing", "? key missing"),
    ],
)
def test_each_verdict_has_a_badge_of_a_symbol_and_a_word(
    superuser: Person, every_state: list[Backup], verdict: str, badge: str
):
    page = page_of(superuser.get(LIST, {"verdict__exact": verdict}))
    assert set(page.badges) == {badge}


def test_the_list_asks_a_bounded_number_of_questions_and_loads_no_evidence(
    superuser: Person, shop: Database, django_assert_max_num_queries: DjangoAssertNumQueries
):
    backups = Backup.objects.bulk_create([backup_row(shop) for _ in range(300)])
    Verification.objects.bulk_create([verification_row(backup) for backup in backups])
    superuser.get(LIST)
    with django_assert_max_num_queries(9, connection=connections["catalog"]):
        with CaptureQueriesContext(connections["catalog"]) as asked:
            response = superuser.get(LIST)
    assert len(response.context["cl"].result_list) == 50
    statements = [each["sql"] for each in asked.captured_queries]
    assert any("backups_app_verification" in each for each in statements)
    assert not [each for each in statements if '"census"' in each or '"checks"' in each or '"remarks"' in each]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("verdict__exact=passed", 3),
        ("level__exact=quick", 4),
        ("destination=local", 13),
        ("destination=elsewhere", 0),
        ("q=shop", 13),
        ("q=not+as+it+must", 10),
        ("o=1.-2.3.4.-5.6.7", 13),
        ("finished_at__year=1999", 0),
    ],
)
def test_filters_search_and_dates_narrow_the_list(superuser: Person, every_state: list[Backup], query: str, count: int):
    response = superuser.get(f"{LIST}?{query}")
    assert response.status_code == 200
    assert len(response.context["cl"].result_list) == count


def test_the_list_filters_by_database(superuser: Person, every_state: list[Backup]):
    other = Database.objects.create(name="other", path="/srv/other.sqlite3")
    for database, count in ((every_state[0].database, 13), (other, 0)):
        response = superuser.get(f"{LIST}?backup__database__id__exact={database.pk}")
        assert len(response.context["cl"].result_list) == count
