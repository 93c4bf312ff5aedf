"""The overview as people get it: words first, figures they may see, pictures with names, nothing inline."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group
from django.test import Client
from django.urls import path
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Database
from tests.admin.conftest import Person, backup_row, job_row, verification_row
from tests.admin.markup import Page, page_of

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

OVERVIEW = "/admin/backups_app/overview/"

# A site of a host project, beside the default one.
own_site = admin.AdminSite(name="office")
own_site.register(Group)
for model, screen in admin.site._registry.items():
    if model._meta.app_label == "backups_app":
        own_site.register(model, type(screen))
urlpatterns = [path("admin/", admin.site.urls), path("office/", own_site.urls)]


def overview(someone: Person, **query: Any) -> Page:
    response = someone.get(OVERVIEW, query)
    assert response.status_code == 200
    return page_of(response)


def verdict(page: Page) -> str:
    return " ".join(page.all("section", "walsafe-verdict")[0].text.split())


def test_when_all_is_well_it_says_so_in_one_sentence(superuser: Person, backup: Backup):
    page = overview(superuser)
    assert verdict(page).startswith("✓ Everything under care was verified in the last 1 hour.")
    assert "1 of 1" in page.text


def test_what_is_wrong_is_named_with_what_to_do(superuser: Person, shop: Database):
    old = timezone.now() - timedelta(hours=40)
    backup_row(shop, created_at=old, taken_at=old).save()
    page = overview(superuser)
    assert "1 of 1 databases needs attention." in verdict(page)
    assert len(page.all("section", "walsafe-bad")) == 1
    assert "The last verified backup is 40.0 h old; the limit is 26 h." in verdict(page)
    assert f"/admin/backups_app/database/back-up-now/?id={shop.pk}" in page.links


def test_a_problem_of_no_database_warns_while_every_backup_is_fresh(superuser: Person, backup: Backup):
    job_row(backup.database, created_at=timezone.now() + timedelta(days=3)).save()
    page = overview(superuser)
    assert "Every database has a fresh verified backup, but something else needs attention." in verdict(page)
    assert "Set the clock of this host right" in verdict(page)
    assert [len(page.all("section", f"walsafe-{look}")) for look in ("good", "warn", "bad")] == [0, 1, 0]


def test_a_newcomer_is_told_the_next_steps(superuser: Person):
    page = overview(superuser)
    assert "Nothing is under care yet." in verdict(page)
    assert "python manage.py backup add-database NAME PATH" in [each.text for each in page.all("code")]


def test_with_a_database_the_next_step_is_the_first_backup(superuser: Person, shop: Database):
    page = overview(superuser)
    assert "There is no verified backup yet." in verdict(page)
    assert "Next steps" in page.text
    assert f"/admin/backups_app/database/back-up-now/?id={shop.pk}" in page.links


def test_it_is_reached_from_the_indexes(superuser: Person):
    for address in ("/admin/", "/admin/backups_app/"):
        assert OVERVIEW in page_of(superuser.get(address)).links


def test_each_day_has_a_title_and_the_strip_a_name(superuser: Person, backup: Backup):
    page = overview(superuser)
    (strip,) = page.all("svg", "walsafe-strip")
    assert strip.attributes["aria-label"].startswith("shop, the last 60 days: 1 day verified, 0 failed")
    titles = [each.text for each in page.all("title")]
    assert sum("not under care yet" in each for each in titles) == 59
    assert any("1 backup verified" in each for each in titles)


def test_coordinates_are_numbers_in_every_language(superuser: Person, shop: Database, settings: Settings):
    for day in range(5):
        at = timezone.now() - timedelta(days=day, hours=1)
        backup_row(shop, created_at=at, taken_at=at, size_bytes=1_000_000 + day * 777).save()
    settings.LANGUAGE_CODE, settings.USE_THOUSAND_SEPARATOR = "el", True
    page = overview(superuser)
    lines = [each.attributes["points"] for each in page.all("polyline")]
    assert len(lines) == 4
    assert all(re.fullmatch(r"\d+\.\d,\d+\.\d( \d+\.\d,\d+\.\d)*", each) for each in lines)
    assert all(re.fullmatch(r"translate\(\d+ 0\)", each.attributes["transform"]) for each in page.all("g"))


def test_a_last_drill_shows_its_recovery_time(superuser: Person, backup: Backup):
    assert "No restore was rehearsed yet." in overview(superuser).text
    drill = verification_row(backup, level="drill")
    drill.started_at = drill.finished_at - timedelta(seconds=7)
    drill.recovery_seconds = 7
    drill.save()
    assert "shop, recovered in 7 s" in overview(superuser).text


def test_running_jobs_are_shown_with_their_progress_and_as_json(superuser: Person, shop: Database):
    job = job_row(shop, state="running")
    job.save()
    page = overview(superuser)
    (bar,) = [each for each in page.all("progress") if each.attributes.get("value")]
    assert bar.attributes["value"] == "25"
    response = superuser.get(f"{OVERVIEW}jobs.json")
    assert "no-store" in response["Cache-Control"]
    (found,) = response.json()["jobs"]
    assert (found["id"], found["percent"], found["database"]) == (job.pk, 25, "shop")
    assert f"{OVERVIEW}jobs.json" in [each.attributes.get("data-overview-jobs") for each in page.all("section")]


def test_people_see_only_what_they_may(person: Callable[..., Person], backup: Backup):
    job_row(backup.database, state="running").save()
    someone = person("viewer")
    assert someone.user is not None
    kept = someone.user.user_permissions.filter(codename="view_database")
    someone.user.user_permissions.set(kept)
    page = overview(someone)
    assert "Protected databases" in page.text
    for hidden in ("Last drill", "Stored", "Next runs", "Jobs that run", "Back up"):
        assert hidden not in page.text, hidden
    assert someone.get(f"{OVERVIEW}jobs.json").status_code == 403


@pytest.mark.parametrize("page", ["0", "-1", "x", "9" * 30, "²", ""])
def test_a_page_that_does_not_exist_is_the_nearest_one(superuser: Person, backup: Backup, page: str):
    assert "shop" in overview(superuser, p=page).text


def test_nothing_is_inline_and_the_scripts_are_ours(superuser: Person, backup: Backup):
    page = overview(superuser)
    assert page.inline_code == []
    sources = [each.attributes.get("src") for each in page.all("script")]
    # In this order: the second one calls the first one.
    assert sources.index("/static/backups_app/poll.js") < sources.index("/static/backups_app/overview.js")


def test_the_page_of_a_database_shows_its_days(superuser: Person, backup: Backup):
    page = page_of(superuser.get(f"/admin/backups_app/database/{backup.database_id}/change/"))
    assert len(page.all("svg", "walsafe-strip")) == 1
    assert "shop, the last 60 days" in page.text


@pytest.mark.urls("tests.admin.test_overview")
def test_it_works_on_a_site_of_the_host(person: Callable[..., Person], backup: Backup):
    superuser = person("superuser")
    where = "/office/backups_app/overview/"
    assert where in page_of(superuser.get("/office/")).links
    page = page_of(superuser.get(where))
    ours = [each for each in page.links if "backups_app" in each]
    assert f"/office/backups_app/database/{backup.database_id}/change/" in ours
    assert [each for each in ours if not each.startswith("/office/")] == []


def test_a_visitor_is_sent_to_the_login():
    response = Client().get(OVERVIEW)
    assert response["Location"] == f"/admin/login/?next={OVERVIEW}"
