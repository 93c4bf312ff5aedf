"""Verifications on the screen: each verdict with its evidence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from backups_app.models import Backup, Database, Verification
from backups_app.services.verify import verify_backup
from tests.admin.conftest import Person, backup_row, verification_row
from tests.admin.markup import page_of
from tests.conftest import ACTOR
from tests.support import PROJECT

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
        ("verdict__exact=passed", 4),
        ("level__exact=quick", 4),
        ("destination=local", 17),
        ("destination=elsewhere", 0),
        ("q=shop", 17),
        ("q=not+as+it+must", 13),
        ("o=1.-2.3.4.-5.6.7", 17),
        ("finished_at__year=1999", 0),
    ],
)
def test_filters_search_and_dates_narrow_the_list(superuser: Person, every_state: list[Backup], query: str, count: int):
    response = superuser.get(f"{LIST}?{query}")
    assert response.status_code == 200
    assert len(response.context["cl"].result_list) == count


def test_the_list_filters_by_database(superuser: Person, every_state: list[Backup]):
    other = Database.objects.create(name="other", path="/srv/other.sqlite3")
    for database, count in ((every_state[0].database, 17), (other, 0)):
        response = superuser.get(f"{LIST}?backup__database__id__exact={database.pk}")
        assert len(response.context["cl"].result_list) == count


# The report of a drill


@pytest.fixture
def drill(backup: Backup) -> Verification:
    (found,) = verify_backup(backup, level="drill", actor=ACTOR)
    return found


def test_the_report_of_a_drill_names_what_was_restored_how_long_it_took_and_each_check(
    superuser: Person, drill: Verification
):
    page = page_of(superuser.get(f"{LIST}{drill.pk}/report/"))
    for text in (
        "Restore drill of shop",
        "Recovery time",
        "Age of the data",
        drill.backup.pk,
        drill.backup.sha256,
        drill.backup.manifest_sha256,
        "Read by (name, date):",
    ):
        assert text in page.text, text
    assert {"integrity_check", "census", "restore", "product"} <= set(page.cells())
    assert page.inline_code == []
    assert f"{LIST}{drill.pk}/report.json" in page.links
    assert f"{LIST}{drill.pk}/report/" in page_of(superuser.get(f"{LIST}{drill.pk}/change/")).links


def test_the_evidence_of_a_drill_is_there_as_json(superuser: Person, drill: Verification):
    found = superuser.get(f"{LIST}{drill.pk}/report.json").json()
    assert found["verification"]["recovery_seconds"] == drill.recovery_seconds
    assert found["verification"]["checks"] == drill.checks
    assert found["backup"]["sha256"] == drill.backup.sha256


@pytest.mark.parametrize("verdict", ["failed", "unreachable", "key_missing"])
def test_a_drill_that_did_not_pass_has_a_report_too(superuser: Person, shop: Database, verdict: str):
    made = backup_row(shop)
    made.save()
    drill = verification_row(made, level="drill", verdict=verdict, reason="It broke.", checks=[])
    drill.save()
    page = page_of(superuser.get(f"{LIST}{drill.pk}/report/"))
    assert "It broke." in page.text
    assert superuser.get(f"{LIST}{drill.pk}/report.json").status_code == 200


@pytest.mark.parametrize("page", ["report/", "report.json"])
def test_only_drills_have_a_report_and_only_for_those_who_may_see_them(
    superuser: Person, person: Callable[..., Person], backup: Backup, drill: Verification, page: str
):
    other = backup.verifications.exclude(pk=drill.pk).get()
    assert superuser.get(f"{LIST}{other.pk}/{page}").status_code == 404
    assert superuser.get(f"{LIST}{'9' * 30}/{page}").status_code == 404
    assert person("staff").get(f"{LIST}{drill.pk}/{page}").status_code == 403
    assert person("anonymous").get(f"{LIST}{drill.pk}/{page}").status_code == 302


def test_the_report_prints_without_the_frame_of_the_admin():
    sheet = (PROJECT / "backups_app" / "static" / "backups_app" / "admin.css").read_text()
    printing = sheet[sheet.index("@media print") :]
    assert all(part in printing for part in ("#header", "#nav-sidebar", ".breadcrumbs", "break-inside: avoid"))
