"""Deleting one backup on the screen: shown first, password and reason asked for, the last one only by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import AuditEvent, Backup, Database
from backups_app.services.hold import hold_backup
from tests.admin.conftest import Person
from tests.admin.markup import page_of
from tests.admin.restores import PASSWORD, somebody
from tests.conftest import ACTOR

BACKUPS = "/admin/backups_app/backup/"


@pytest.fixture
def paul(home: Path, db_catalog: None) -> Person:
    """Somebody who may prune."""
    return somebody("paul", "view_backup", "view_database", "prune_backup")


@pytest.fixture
def pair(shop: Database, make_backup: Callable[..., Backup]) -> tuple[Backup, Backup]:
    """An older and a newer verified backup."""
    return make_backup(shop), make_backup(shop)


def page(backup: Backup) -> str:
    return f"{BACKUPS}{backup.pk}/delete-archive/"


def state(backup: Backup) -> str:
    return Backup.objects.get(pk=backup.pk).state


def test_an_older_one_goes_with_reason_and_password(paul: Person, pair: tuple[Backup, Backup]):
    older = pair[0]
    found = page_of(paul.get(page(older)))
    assert "This cannot be undone." in found.text
    assert "newest verified" not in found.text
    assert "typed_name" not in {each.attributes.get("name") for each in found.all("input")}
    response = paul.post(page(older), {"reason": "too many", "password": PASSWORD}, follow=True)
    shown = page_of(response)
    assert ("success", "The archive was deleted. The record stays.") in shown.messages
    assert "deleted by paul: too many" in shown.text
    assert state(older) == "pruned"
    again = paul.post(page(older), {"reason": "too many", "password": PASSWORD}, follow=True)
    assert page_of(again).messages == [("info", "Its archive was deleted already: nothing is done twice.")]


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"reason": "x"},
        {"password": PASSWORD},
        {"reason": "x", "password": "wrong"},
        {"reason": " ", "password": PASSWORD},
    ],
)
def test_without_reason_or_password_it_stays(paul: Person, pair: tuple[Backup, Backup], form: dict[str, str]):
    assert page_of(paul.post(page(pair[0]), form)).errors
    assert state(pair[0]) == "verified"
    assert not AuditEvent.objects.filter(action="delete").exists()


@pytest.mark.parametrize("typed", ["", "SHOP", "shop ", "sho"])
def test_the_last_one_asks_for_its_name_exactly(paul: Person, pair: tuple[Backup, Backup], typed: str):
    newest = pair[1]
    found = page_of(paul.get(page(newest)))
    assert "This is the newest verified backup of the database" in found.text
    assert "It is the newest verified copy at the destination local." in found.text
    form = {"reason": "x", "password": PASSWORD}
    assert page_of(paul.post(page(newest), {**form, "typed_name": typed})).errors
    assert state(newest) == "verified"
    paul.post(page(newest), {**form, "typed_name": "shop"})
    assert state(newest) == "pruned"


def test_a_held_one_cannot_be_deleted_and_the_page_says_why(paul: Person, pair: tuple[Backup, Backup]):
    hold_backup(pair[0], actor=ACTOR)
    for response in (paul.get(page(pair[0])), paul.post(page(pair[0]), {"reason": "x", "password": PASSWORD})):
        found = page_of(response)
        assert "This backup is held by anna. Release it first." in found.text
        assert "Delete" not in {each.attributes.get("value") for each in found.all("input")}
    assert state(pair[0]) == "verified"


def test_without_the_permission_there_is_no_page_and_no_link(
    person: Callable[..., Person], pair: tuple[Backup, Backup]
):
    operator = person("operator")
    assert operator.get(page(pair[0])).status_code == 403
    assert operator.post(page(pair[0]), {"reason": "x"}).status_code == 403
    assert page(pair[0]) not in page_of(operator.get(f"{BACKUPS}{pair[0].pk}/change/")).links
    assert state(pair[0]) == "verified"
