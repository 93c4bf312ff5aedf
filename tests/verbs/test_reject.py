"""``reject`` on the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backups_app.models import Backup, Restore
from tests.console import Finished
from tests.verbs.test_restore import KEYS

Run = Callable[..., Finished]


@pytest.fixture
def restore_id(run: Run, changed: Backup) -> str:
    """A request of dora, who may not approve."""
    return str(run("restore", changed.pk, "--reason", "why", "--user", "dora", "--json").document["restore"]["id"])


def test_a_request_is_turned_down_with_a_reason(run: Run, restore_id: str):
    finished = run("reject", restore_id, "--reason", "not today", "--user", "ben", "--json")
    assert finished.code == 0
    restore = finished.document["restore"]
    assert restore.keys() >= KEYS
    assert (restore["state"], restore["outcome"]) == ("rejected", "not today")
    approve = run("approve", restore_id, "--user", "ben", "--yes")
    assert approve.code == 7
    assert "rejected" in approve.stderr


def test_who_asked_may_withdraw_without_being_an_approver(run: Run, restore_id: str):
    finished = run("reject", restore_id, "--reason", "found it", "--user", "dora", "--json")
    assert finished.code == 0, finished.stderr
    assert finished.document["restore"]["state"] == "cancelled"


@pytest.mark.parametrize(("user", "code"), [("staff", 7), ("nobody", 6), ("gone", 7)])
def test_who_may_not(run: Run, restore_id: str, user: str, code: int):
    assert run("reject", restore_id, "--reason", "x", "--user", user).code == code
    assert Restore.objects.get().state == "requested"


def test_somebody_elses_request_needs_the_right_to_approve(run: Run, changed: Backup):
    run("restore", changed.pk, "--reason", "why", "--user", "anna")
    assert run("reject", Restore.objects.get().pk, "--reason", "x", "--user", "dora").code == 7


def test_an_empty_reason_is_exit_code_2(run: Run, restore_id: str):
    assert run("reject", restore_id, "--reason", " ", "--user", "ben").code == 2
    assert Restore.objects.get().state == "requested"


def test_what_has_ended_is_not_rejected_again(run: Run, restore_id: str):
    run("reject", restore_id, "--reason", "no", "--user", "ben")
    assert run("reject", restore_id, "--reason", "no", "--user", "carl").code == 7
    assert Restore.objects.get().rejected_by_name == "ben"


def test_an_unknown_request_is_exit_code_6(run: Run, restore_id: str):
    assert run("reject", "nothing", "--reason", "x", "--user", "ben").code == 6
