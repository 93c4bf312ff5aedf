"""``setup-groups`` tells what it did."""

from __future__ import annotations

from collections.abc import Callable

from tests.console import Finished


def test_the_groups_are_made_and_then_left(run: Callable[..., Finished]):
    first, second = run("setup-groups"), run("setup-groups")
    assert first.code == second.code == 0
    assert "Backup operator: made, with " in first.stdout
    assert second.stdout.splitlines()[0] == "Backup viewer: nothing to do"


def test_the_document_names_what_was_added(run: Callable[..., Finished]):
    groups = run("setup-groups", "--json").document["groups"]
    assert [each["name"] for each in groups] == [
        "Backup viewer",
        "Backup operator",
        "Backup approver",
        "Backup auditor",
    ]
    assert all(each["created"] for each in groups)
    assert groups[3]["added"][-1] == "view_auditevent"
