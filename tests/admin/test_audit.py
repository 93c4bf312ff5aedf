"""The audit trail on the screen."""

from __future__ import annotations

import pytest
from django.db import connections
from pytest_django import DjangoAssertNumQueries

from backups_app.models import AuditEvent, Backup
from tests.admin.conftest import Person
from tests.admin.markup import page_of

LIST = "/admin/backups_app/auditevent/"


def test_the_list_shows_who_did_what_and_how_it_ended(superuser: Person, backup: Backup):
    page = page_of(superuser.get(LIST))
    cells = page.cells()
    row = cells.index("create")
    assert cells[row - 1 : row + 4] == ["✓ done", "create", "anna", "shop", backup.pk]


@pytest.mark.parametrize(("outcome", "badge"), [("done", "✓ done"), ("failed", "✗ failed"), ("refused", "! refused")])
def test_each_outcome_has_a_badge_of_a_symbol_and_a_word(
    superuser: Person, every_state: list[Backup], outcome: str, badge: str
):
    assert set(page_of(superuser.get(LIST, {"outcome__exact": outcome})).badges) == {badge}


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("action=verify", 3),
        ("action=add-database", 1),
        ("outcome__exact=refused", 1),
        ("database_name=shop", 4),
        ("database_name=other", 0),
        ("q=anna", 4),
        ("q=nobody", 0),
        ("at__year=1999", 0),
    ],
)
def test_filters_search_and_dates_narrow_the_list(superuser: Person, every_state: list[Backup], query: str, count: int):
    response = superuser.get(f"{LIST}?{query}")
    assert response.status_code == 200
    assert len(response.context["cl"].result_list) == count


@pytest.mark.usefixtures("home")
def test_the_list_asks_a_bounded_number_of_questions(
    superuser: Person, django_assert_max_num_queries: DjangoAssertNumQueries
):
    AuditEvent.objects.bulk_create(
        [AuditEvent(actor_name="anna", action="create", outcome="done", detail="d" * 500) for _ in range(300)]
    )
    superuser.get(LIST)
    with django_assert_max_num_queries(8, connection=connections["catalog"]):
        response = superuser.get(LIST)
    assert len(response.context["cl"].result_list) == 50


def test_an_event_leads_to_what_it_is_about(superuser: Person, backup: Backup):
    event = AuditEvent.objects.get(action="create")
    links = page_of(superuser.get(f"{LIST}{event.pk}/change/")).links
    assert f"/admin/backups_app/backup/{backup.pk}/change/" in links
    assert f"/admin/backups_app/database/{backup.database_id}/change/" in links
    gone = AuditEvent.objects.create(actor_name="anna", action="x", outcome="done", database_name="no", subject="no")
    page = page_of(superuser.get(f"{LIST}{gone.pk}/change/"))
    assert not [each for each in page.links if each.endswith("/no/change/")]


def test_a_backup_leads_to_its_events(superuser: Person, backup: Backup):
    link = f"{LIST}?subject__exact={backup.pk}"
    assert link in page_of(superuser.get(f"/admin/backups_app/backup/{backup.pk}/change/")).links
    assert superuser.get(link).context["cl"].result_count == AuditEvent.objects.filter(subject=backup.pk).count()
