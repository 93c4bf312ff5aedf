"""``undo`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission, User
from django.utils import timezone

from backups_app.models import Backup, Restore
from tests.console import Finished
from tests.verbs.test_restore import KEYS, ask, rows

Run = Callable[..., Finished]


@pytest.fixture
def restore_id(run: Run, changed: Backup, shop_file: Path) -> str:
    """A restore that anna asked for and ben approved, done."""
    found = str(ask(run, changed).document["restore"]["id"])
    assert run("approve", found, "--user", "ben", "--yes").code == 0
    assert rows(shop_file) == [3, 4]
    return found


@pytest.mark.parametrize("user", ["anna", "ben"])
def test_one_of_the_two_undoes_at_once(run: Run, restore_id: str, shop_file: Path, user: str):
    finished = run("undo", restore_id, "--user", user, "--yes", "--json")
    assert finished.code == 0, finished.stderr
    undo = finished.document["restore"]
    assert undo.keys() >= KEYS
    assert (undo["state"], undo["undo_of"], undo["requested_by"]) == ("succeeded", restore_id, user)
    assert {undo["requested_by"], undo["approved_by"]} == {"anna", "ben"}
    assert rows(shop_file) == [4, 0]


def test_without_a_terminal_there_is_no_question(run: Run, restore_id: str, shop_file: Path):
    finished = run("undo", restore_id, "--user", "anna", "--json")
    assert (finished.code, finished.document["restore"]["state"]) == (0, "succeeded")
    assert rows(shop_file) == [4, 0]


def test_a_third_person_files_a_request(run: Run, restore_id: str, shop_file: Path):
    finished = run("undo", restore_id, "--user", "carl", "--yes", "--json")
    assert finished.code == 0
    assert finished.document["restore"]["state"] == "requested"
    assert rows(shop_file) == [3, 4]
    undo = finished.document["restore"]["id"]
    assert run("approve", undo, "--user", "anna", "--yes").code == 0
    assert rows(shop_file) == [4, 0]


def test_after_the_window_a_request_is_filed(run: Run, restore_id: str, shop_file: Path):
    Restore.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    finished = run("undo", restore_id, "--user", "anna", "--yes")
    assert finished.code == 0
    assert "another person must approve it" in finished.stdout
    assert rows(shop_file) == [3, 4]


def test_the_system_account_that_asked_may_undo_what_it_asked_for(run: Run, changed: Backup, shop_file: Path):
    found = run("restore", changed.pk, "--reason", "why", "--json").document["restore"]["id"]
    assert run("approve", found, "--user", "ben", "--yes").code == 0
    assert run("undo", found, "--user", "ben", "--yes").code == 0
    assert rows(shop_file) == [4, 0]


def test_an_approver_who_may_not_ask_undoes_what_they_approved(run: Run, changed: Backup, shop_file: Path):
    approver = User.objects.create_user("erik", is_staff=True)
    approver.user_permissions.add(Permission.objects.get(codename="approve_restore"))
    found = ask(run, changed).document["restore"]["id"]
    assert run("approve", found, "--user", "erik", "--yes").code == 0
    assert run("undo", found, "--user", "erik", "--yes").code == 0
    assert rows(shop_file) == [4, 0]


@pytest.mark.parametrize(("user", "code"), [("staff", 7), ("nobody", 6), ("gone", 7)])
def test_who_may_not(run: Run, restore_id: str, shop_file: Path, user: str, code: int):
    assert run("undo", restore_id, "--user", user, "--yes").code == code
    assert rows(shop_file) == [3, 4]


def test_what_has_not_run_has_nothing_to_undo(run: Run, changed: Backup):
    found = ask(run, changed).document["restore"]["id"]
    assert run("undo", found, "--user", "anna", "--yes").code == 7


def test_an_undo_is_undone_by_its_own_id(run: Run, restore_id: str, shop_file: Path):
    undo = run("undo", restore_id, "--user", "anna", "--yes", "--json").document["restore"]["id"]
    assert run("undo", undo, "--user", "ben", "--yes").code == 0
    assert rows(shop_file) == [3, 4]
