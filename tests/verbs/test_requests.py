"""``requests`` on the command line: what waits, and the truth about what died."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from backups_app.models import Backup, Restore
from tests.console import Finished
from tests.verbs.test_restore import KEYS, ask

Run = Callable[..., Finished]


@pytest.fixture
def restore_id(run: Run, changed: Backup) -> str:
    """A request of anna."""
    return str(ask(run, changed).document["restore"]["id"])


def listed(run: Run, *arguments: str) -> dict[str, str]:
    """Id → state."""
    return {each["id"]: each["state"] for each in run("requests", "--json", *arguments).document["restores"]}


def test_without_requests_the_list_is_empty(run: Run):
    finished = run("requests", "--json")
    assert (finished.code, finished.document) == (0, {"restores": []})
    assert "No restore is waiting" in run("requests").stdout


def test_open_requests_are_listed(run: Run, restore_id: str):
    (found,) = run("requests", "--json").document["restores"]
    assert found.keys() >= KEYS
    assert (found["id"], found["state"], found["requested_by"]) == (restore_id, "requested", "anna")
    assert restore_id in run("requests").stdout


def test_who_looks_may_be_named(run: Run, restore_id: str):
    assert [each["id"] for each in run("requests", "--user", "anna", "--json").document["restores"]] == [restore_id]
    assert run("requests", "--user", "nobody").code != 0


def test_what_has_ended_is_listed_when_asked_for(run: Run, restore_id: str):
    run("reject", restore_id, "--reason", "no", "--user", "ben")
    assert listed(run) == {}
    assert listed(run, "--all") == {restore_id: "rejected"}


def test_what_is_over_has_expired(run: Run, restore_id: str):
    Restore.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert listed(run) == {}
    assert listed(run, "--all") == {restore_id: "expired"}


def test_a_run_that_died_has_failed(run: Run, restore_id: str):
    restore = Restore.objects.get()
    restore.approved_by_id, restore.approved_by_name = "x", "ben"
    restore.approved_at, restore.approved_binding = timezone.now(), restore.binding_sha256
    restore.state = Restore.State.RUNNING
    restore.save()
    assert listed(run, "--all") == {restore_id: "failed"}
    assert Restore.objects.get().failure_code == "interrupted"


def test_a_long_reason_of_many_lines_does_not_break_the_table(run: Run, changed: Backup):
    run("restore", changed.pk, "--reason", "first\nsecond\x1b[31m " + "long " * 50, "--user", "anna")
    finished = run("requests")
    assert finished.code == 0
    assert "\x1b" not in finished.stdout
