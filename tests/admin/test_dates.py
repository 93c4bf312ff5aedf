"""The dates above a list are those of the stock admin, and no row is looked at one by one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from backups_app.admin.dates import spans_with_rows
from backups_app.models import AuditEvent
from tests.admin.conftest import Person

FIRST = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["Europe/Athens", "Australia/Lord_Howe", "UTC"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """A time zone that is the current one."""
    with timezone.override(request.param):
        yield request.param


def happen(*moments: datetime) -> None:
    AuditEvent.objects.bulk_create(AuditEvent(at=each, action="create", actor_name="anna") for each in moments)


@pytest.mark.parametrize("days", [1, 40, 300, 900])
def test_they_are_those_that_django_finds(db_catalog: None, zone: str, days: int):
    chance = random.Random(days)
    happen(*(FIRST + timedelta(days=chance.uniform(0, days)) for _ in range(25)))
    rows = AuditEvent.objects.filter(at__gte=FIRST + timedelta(days=days / 9))
    for kind in ("year", "month", "day"):
        assert spans_with_rows(rows, "at", kind) == list(rows.datetimes("at", kind))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["month", "day"])
def test_a_day_on_which_the_clock_changes_is_one_day(db_catalog: None, kind: str):
    with timezone.override("Europe/Athens"):
        happen(*(datetime(2026, 10, 24, 20, tzinfo=UTC) + timedelta(minutes=30 * step) for step in range(60)))
        assert spans_with_rows(AuditEvent.objects.all(), "at", kind) == list(
            AuditEvent.objects.datetimes("at", kind)  # type: ignore[arg-type]
        )


def test_a_row_with_a_wrong_clock_is_shown_as_well(db_catalog: None):
    happen(datetime(3, 2, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC), datetime(9990, 2, 1, tzinfo=UTC))
    found = spans_with_rows(AuditEvent.objects.all(), "at", "year")
    assert [each.year for each in found] == [3, 2026, 9990]


@pytest.mark.parametrize("moment", [datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)])
def test_a_row_at_an_end_of_the_calendar_is_shown_as_well(db_catalog: None, moment: datetime):
    happen(moment)
    for kind in ("year", "month", "day"):
        assert [each.year for each in spans_with_rows(AuditEvent.objects.all(), "at", kind)] == [moment.year]


@pytest.mark.parametrize(
    "wrong",
    [
        "at__year=9999",
        "at__year=99999999999999",
        "at__year=2026&at__month=13",
        "at__year=2026&at__month=99999999999999999999",
        "at__year=9999&at__month=12&at__day=31",
        "at__year=abc",
        "at__gte=0001-01-01T00:00:00%2B14:00",
    ],
)
def test_a_date_that_no_calendar_has_leads_back_to_the_list(superuser: Person, wrong: str):
    response = superuser.get(f"/admin/backups_app/auditevent/?{wrong}")
    assert (response.status_code, response.headers["Location"]) == (302, "/admin/backups_app/auditevent/?e=1")


def test_without_rows_there_are_none(db_catalog: None):
    assert spans_with_rows(AuditEvent.objects.none(), "at", "month") == []
    assert spans_with_rows(AuditEvent.objects.all(), "at", "month") == []


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("", ["2025", "2026"]),
        ("at__year=2026", ["February 2026", "November 2026"]),
        ("at__year=2026&at__month=11", ["November 3", "November 9"]),
    ],
)
def test_a_list_offers_them_and_calls_no_function_for_each_row(superuser: Person, chosen: str, said: list[str]):
    happen(*(datetime(*day, 12, tzinfo=UTC) for day in ((2025, 1, 5), (2026, 2, 1), (2026, 11, 3), (2026, 11, 9))))
    with CaptureQueriesContext(connections["catalog"]) as asked:
        page = superuser.get(f"/admin/backups_app/auditevent/?{chosen}").content.decode()
    places = [page.index(f">{each}<") for each in said]
    assert places == sorted(places)
    assert not [each["sql"] for each in asked if "django_datetime" in each["sql"]]
