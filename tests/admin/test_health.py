"""The page Health, and the record of problems."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from backups_app import conf
from backups_app.models import Backup, Database, HealthProblem, Host
from tests.admin.conftest import Person
from tests.admin.markup import Page, page_of
from tests.services.health.rows import verified

PAGE = "/admin/backups_app/healthproblem/health/"
LIST = "/admin/backups_app/healthproblem/"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def problem(shop: Database) -> HealthProblem:
    """A problem that was told and is over."""
    now = timezone.now()
    return HealthProblem.objects.create(
        code="wal_large",
        database=HOSTILE,
        subject=HOSTILE,
        message=HOSTILE,
        hint=HOSTILE,
        first_seen=now - timedelta(hours=3),
        last_seen=now - timedelta(hours=1),
        told_at=now - timedelta(hours=2),
        resolved_at=now - timedelta(minutes=30),
    )


def test_all_is_well_in_words_first(superuser: Person, backup: Backup):
    text = page_of(superuser.get(PAGE)).text
    assert "Everything under care is safe" in text
    assert "What needs attention" not in text
    for title in ("Databases", "Room on the disks", "Problems, open and over"):
        assert title in text
    assert text.index("Everything under care") < text.index("Room on the disks")


def test_problems_come_with_what_to_do(superuser: Person, shop: Database):
    text = page_of(superuser.get(PAGE)).text
    assert "1 problem needs attention." in text
    assert "There is no verified backup." in text
    assert "Back up now in the admin" in text


def test_the_record_tells_since_when_and_how_long(superuser: Person, problem: HealthProblem):
    text = page_of(superuser.get(PAGE)).text
    assert "Wal large" in text
    assert "2 h 30 min" in text
    assert "over" in text


@pytest.mark.parametrize(
    ("name", "expected"), [("anonymous", 302), ("staff", 403), ("viewer", 200), ("superuser", 200)]
)
def test_it_is_for_those_who_may_view_databases(
    person: Callable[..., Person], shop: Database, name: str, expected: int
):
    assert person(name).get(PAGE).status_code == expected


def test_the_index_of_the_app_leads_there(person: Callable[..., Person], shop: Database):
    links = [each.attributes.get("href") for each in page_of(person("viewer").get("/admin/backups_app/")).all("a")]
    assert PAGE in links


def test_the_index_of_the_app_hides_it_from_others(person: Callable[..., Person], shop: Database):
    viewer = person("schedule viewer")
    viewer.user.user_permissions.remove(*viewer.user.user_permissions.filter(codename="view_database"))  # type: ignore[union-attr]
    response = viewer.get("/admin/backups_app/")
    assert response.status_code == 200
    assert PAGE not in response.content.decode()


def test_hostile_text_is_inert(superuser: Person, problem: HealthProblem, shop: Database):
    now = timezone.now()
    Host.objects.create(name=HOSTILE, seen_at=now, started_at=now)
    Database.objects.filter(pk=shop.pk).update(name=HOSTILE)
    for address in (PAGE, LIST, f"{LIST}{problem.pk}/change/"):
        response = superuser.get(address)
        assert response.status_code == 200, address
        source = response.content.decode()
        assert HOSTILE not in source, address
        assert Page(source).inline_code == [], address


def test_the_record_is_read_only(superuser: Person, problem: HealthProblem):
    assert superuser.get(f"{LIST}add/").status_code == 403
    assert superuser.post(f"{LIST}{problem.pk}/delete/", {"post": "yes"}).status_code == 403
    assert superuser.post(f"{LIST}{problem.pk}/change/", {"message": "nothing"}).status_code == 403
    problem.refresh_from_db()
    assert problem.message == HOSTILE


def test_the_page_changes_nothing_and_asks_as_much_for_many_databases(superuser: Person, shop: Database):
    verified(shop).save()
    superuser.get(PAGE)

    def queries() -> list[str]:
        with CaptureQueriesContext(connections["catalog"]) as found:
            assert superuser.get(PAGE).status_code == 200
        return [each["sql"] for each in found]

    few = queries()
    assert all(each.startswith(("SELECT", "UPDATE", "SAVEPOINT", "RELEASE")) for each in few)
    Database.objects.bulk_create(
        Database(name=f"more{n}", path=f"/srv/more{n}", host=conf.host_name()) for n in range(30)
    )
    Backup.objects.bulk_create(verified(each) for each in Database.objects.filter(name__startswith="more"))
    assert len(queries()) == len(few)


def test_a_missing_catalogue_is_explained(superuser: Person, unready: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backups_app.services.catalog.missing_migrations", lambda: ["backups_app.0010_health"])
    assert superuser.get(PAGE).status_code == 503
