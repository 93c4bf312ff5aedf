"""Actions on several backups of the list: offered to who may, confirmed first, done once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backups_app.models import Backup, Database, Job
from tests.admin.conftest import Person, backup_row
from tests.admin.markup import Page, page_of

BACKUPS = "/admin/backups_app/backup/"
MakePerson = Callable[..., Person]


@pytest.fixture
def pair(shop: Database, make_backup: Callable[..., Backup]) -> list[Backup]:
    """Two verified backups."""
    return [make_backup(shop), make_backup(shop)]


def choose(person: Person, action: str, backups: list[Backup]) -> Any:
    ids = [each.pk for each in backups]
    return person.post(BACKUPS, {"action": action, "_selected_action": ids}, follow=True)


def offered(page: Page) -> set[str]:
    return {each.attributes.get("value", "") for each in page.all("option")} - {""}


@pytest.mark.parametrize(
    ("name", "actions"),
    [
        ("viewer", set()),
        ("operator", {"verify_chosen", "drill_chosen"}),
        ("holder", {"hold_chosen", "release_chosen"}),
        ("pruner", {"delete_chosen"}),
        (
            "superuser",
            {
                "verify_chosen",
                "drill_chosen",
                "hold_chosen",
                "release_chosen",
                "restore_chosen",
                "download_chosen",
                "delete_chosen",
            },
        ),
    ],
)
def test_each_is_offered_what_they_may_do(person: MakePerson, shop: Database, name: str, actions: set[str]):
    backup_row(shop).save()
    assert offered(page_of(person(name).get(BACKUPS))) == actions


def test_several_are_verified_by_one_job_and_once(person: MakePerson, pair: list[Backup]):
    operator = person("operator")
    response = choose(operator, "drill_chosen", pair)
    where, page = response.redirect_chain[-1][0], page_of(response)
    assert all(each.pk in page.text for each in pair)
    (checked,) = [each for each in page.all("input") if "checked" in each.attributes]
    assert checked.attributes["value"] == "drill"
    assert not Job.objects.filter(kind="verify").exists()
    hidden = {"opened": page.hidden["opened"]}
    form = {**hidden, "id": [each.pk for each in pair], "level": "drill"}
    for _ in range(2):
        assert operator.post(where.partition("?")[0], form).status_code == 302
    job = Job.objects.get(kind="verify")
    assert (sorted(job.options["backups"]), job.options["level"]) == (sorted(each.pk for each in pair), "drill")


def test_one_without_a_copy_does_not_stop_the_others(person: MakePerson, pair: list[Backup]):
    pair[0].copies.all().delete()
    operator = person("operator")
    response = operator.post(
        f"{BACKUPS}verify-chosen/", {"id": [each.pk for each in pair], "level": "quick"}, follow=True
    )
    assert Job.objects.get(kind="verify").options["backups"] == [pair[1].pk]
    assert f"Backup {pair[0].pk} has no stored copy." in page_of(response).text


def test_several_are_held_and_released(person: MakePerson, pair: list[Backup]):
    holder = person("holder")
    response = choose(holder, "hold_chosen", pair)
    assert "No policy deletes these backups" in page_of(response).text
    assert not Backup.objects.filter(is_held=True).exists()
    form = {"id": [each.pk for each in pair]}
    holder.post(f"{BACKUPS}hold-chosen/", {**form, "verb": "hold"})
    assert Backup.objects.filter(is_held=True, held_by_name="holder").count() == 2
    response = choose(holder, "release_chosen", pair)
    assert "Once released" in page_of(response).text
    holder.post(f"{BACKUPS}hold-chosen/", {**form, "verb": "release"})
    assert not Backup.objects.filter(is_held=True).exists()


@pytest.mark.parametrize("page", ["verify-chosen", "hold-chosen"])
def test_without_a_choice_or_with_a_strange_one_nothing_happens(superuser: Person, shop: Database, page: str):
    for query in ({}, {"id": ["nobody", "'; --", "\u202e"]}):
        for response in (superuser.get(f"{BACKUPS}{page}/", query), superuser.post(f"{BACKUPS}{page}/", query)):
            assert response.status_code == 302
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("action", "page"),
    [("restore_chosen", "restore"), ("download_chosen", "download"), ("delete_chosen", "delete-archive")],
)
def test_what_concerns_one_backup_leads_to_its_page(superuser: Person, pair: list[Backup], action: str, page: str):
    response = choose(superuser, action, pair[:1])
    assert response.redirect_chain[-1][0] == f"{BACKUPS}{pair[0].pk}/{page}/"
    assert "Choose one backup for this." in page_of(choose(superuser, action, pair)).text


def test_a_drill_of_databases_is_confirmed_and_asked_for_once(person: MakePerson, pair: list[Backup], shop: Database):
    operator = person("operator")
    databases = "/admin/backups_app/database/"
    response = operator.post(databases, {"action": "drill_now", "_selected_action": [shop.pk]}, follow=True)
    page = page_of(response)
    assert pair[1].pk in page.text
    assert not Job.objects.filter(kind="drill").exists()
    hidden = {name: page.hidden[name] for name in ("opened", "id")}
    for _ in range(2):
        operator.post(f"{databases}drill/", hidden)
    assert Job.objects.get(kind="drill").requested_by_name == "operator"
    assert f"{databases}drill/?id={shop.pk}" in page_of(operator.get(f"{databases}{shop.pk}/change/")).links


def test_a_database_without_a_verified_backup_cannot_be_drilled(superuser: Person, shop: Database):
    response = superuser.post("/admin/backups_app/database/drill/", {"id": shop.pk}, follow=True)
    assert "None of the chosen databases has a verified backup" in page_of(response).text
    assert not Job.objects.exists()
