"""``approve`` on the command line: a second person, a confirmation, and the truth about the outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.core import restore as core_restore
from backups_app.core.verify import Check
from backups_app.jobs.claim import job_lock
from backups_app.models import AuditEvent, Backup, Restore
from tests.console import Finished
from tests.services.restores.test_request import SPOILED
from tests.support import holding
from tests.verbs.test_restore import KEYS, ask, rows

Run = Callable[..., Finished]


@pytest.fixture
def restore_id(run: Run, changed: Backup) -> str:
    """A request of anna."""
    return str(ask(run, changed).document["restore"]["id"])


def test_a_second_person_approves_and_it_runs(run: Run, restore_id: str, shop_file: Path):
    finished = run("approve", restore_id, "--user", "ben", "--yes", "--json")
    assert finished.code == 0, finished.stderr
    assert set(finished.document) == {"restore"}
    restore = finished.document["restore"]
    assert restore.keys() >= KEYS
    assert (restore["state"], restore["requested_by"], restore["approved_by"]) == ("succeeded", "anna", "ben")
    assert restore["self_approved"] is False
    assert restore["report"]["tables"] == {"product": 3, "sale": 4}
    assert Backup.objects.get(pk=restore["safety_backup"]).trigger == "safety"
    assert rows(shop_file) == [3, 4]


def test_people_read_how_to_undo_it(run: Run, restore_id: str):
    finished = run("approve", restore_id, "--user", "ben", "--yes")
    assert f"backup undo {restore_id} --user NAME" in finished.stdout


@pytest.mark.parametrize(
    ("user", "code", "says"),
    [
        ("anna", 7, "somebody else must approve"),
        (None, 7, "system account"),
        ("nobody", 6, "no user"),
        ("gone", 7, "not active"),
        ("staff", 7, "permission approve restore"),
        ("dora", 7, "permission approve restore"),
    ],
)
def test_who_may_not_approve(run: Run, restore_id: str, shop_file: Path, user: str | None, code: int, says: str):
    given = ["--user", user] if user else []
    finished = run("approve", restore_id, "--yes", "--json", *given)
    assert finished.code == code
    assert says in finished.stderr
    assert "restore" not in finished.document
    assert Restore.objects.get().state == "requested"
    assert rows(shop_file) == [4, 0]


def test_without_a_terminal_nothing_is_asked_and_nothing_runs(run: Run, restore_id: str, shop_file: Path):
    finished = run("approve", restore_id, "--user", "ben", "--json")
    assert finished.code == 7
    assert "--yes" in finished.stderr
    assert Restore.objects.get().state == "requested"
    assert rows(shop_file) == [4, 0]


def test_it_runs_once(run: Run, restore_id: str):
    assert run("approve", restore_id, "--user", "ben", "--yes").code == 0
    again = run("approve", restore_id, "--user", "ben", "--yes", "--json")
    assert again.code == 7
    assert "succeeded" in again.stderr
    assert Backup.objects.filter(trigger="safety").count() == 1


def test_an_unknown_request_is_exit_code_6(run: Run, restore_id: str):
    assert run("approve", "nothing", "--user", "ben", "--yes").code == 6
    assert run("approve", restore_id[:4], "--user", "ben", "--yes").code == 0


@pytest.mark.parametrize("spoil", SPOILED)
def test_an_archive_spoiled_since_is_exit_code_3(
    run: Run, restore_id: str, changed: Backup, shop_file: Path, archive_of: Callable[[Backup], Path], spoil
):
    spoil(archive_of(changed))
    before = (shop_file.read_bytes(), shop_file.stat().st_mtime_ns)
    finished = run("approve", restore_id, "--user", "ben", "--yes", "--json")
    assert finished.code == 3
    assert finished.document["restore"]["state"] == "failed"
    assert (shop_file.read_bytes(), shop_file.stat().st_mtime_ns) == before


def test_a_busy_database_is_exit_code_4_and_the_same_command_works_later(run: Run, restore_id: str, changed: Backup):
    with job_lock(changed.database):
        finished = run("approve", restore_id, "--user", "ben", "--yes", "--json")
    assert finished.code == 4
    assert Restore.objects.get().state == "approved"
    assert run("approve", restore_id, "--user", "ben", "--yes").code == 0
    assert AuditEvent.objects.filter(action="approve-restore", outcome="done").count() == 1


def test_a_lock_for_too_long_is_exit_code_4(run: Run, restore_id: str, shop_file: Path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "RESTORE_WAIT_SECONDS": 0.3}
    with holding(shop_file, "BEGIN IMMEDIATE"):
        finished = run("approve", restore_id, "--user", "ben", "--yes", "--json")
    assert finished.code == 4
    assert finished.document["restore"]["failure"] == "busy"
    assert rows(shop_file) == [4, 0]


@pytest.mark.parametrize(("times", "state"), [(1, "rolled_back"), (2, "failed")])
def test_a_failed_check_is_exit_code_3(
    run: Run, restore_id: str, shop_file: Path, monkeypatch: pytest.MonkeyPatch, times: int, state: str
):
    original, left = core_restore.check_live, [times]

    def check(*args: object) -> list[Check]:
        left[0] -= 1
        if left[0] >= 0:
            return [Check(name="quick_check", ok=False, evidence="damage was found")]
        return original(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(core_restore, "check_live", check)
    finished = run("approve", restore_id, "--user", "ben", "--yes", "--json")
    assert finished.code == 3
    assert finished.document["restore"]["state"] == state
    assert "damage was found" in finished.stderr
    assert rows(shop_file) == [4, 0]


def test_a_second_person_sees_the_preview_first(run: Run, restore_id: str):
    finished = run("approve", restore_id, "--user", "ben")
    assert finished.code == 7
    assert "rows after" in finished.stdout
