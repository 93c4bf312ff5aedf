"""``verify`` on the command line."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from backups_app.models import Backup, Database, Verification
from backups_app.verbs import verify
from tests.console import Finished
from tests.support import connected

Run = Callable[..., Finished]
ArchiveOf = Callable[[Backup], Path]


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    return make_backup(shop)


def verdicts(finished: Finished) -> dict[str, str]:
    return {each["backup"]: each["verdict"] for each in finished.document["verifications"]}


def test_a_good_backup_passes(run: Run, backup: Backup):
    finished = run("verify", backup.pk, "--json")
    assert finished.code == 0
    (verification,) = finished.document["verifications"]
    assert (verification["backup"], verification["level"], verification["verdict"]) == (backup.pk, "full", "passed")


def test_the_level_can_be_chosen(run: Run, backup: Backup):
    (verification,) = run("verify", backup.pk, "--level", "quick", "--json").document["verifications"]
    assert verification["level"] == "quick"


def test_a_missing_archive_is_unreachable_with_exit_code_3(run: Run, backup: Backup, archive_of: ArchiveOf):
    archive_of(backup).unlink()
    finished = run("verify", backup.pk, "--json")
    assert finished.code == 3
    assert verdicts(finished) == {backup.pk: "unreachable"}
    assert "unreachable" in finished.stderr
    assert run("list", "--json").backup()["copies"][0]["state"] == "unreachable"


@pytest.mark.parametrize("level", ["quick", "full"])
def test_an_altered_archive_fails_with_exit_code_3(run: Run, backup: Backup, archive_of: ArchiveOf, level: str):
    content = bytearray(archive_of(backup).read_bytes())
    content[len(content) // 2] ^= 1
    archive_of(backup).write_bytes(content)
    finished = run("verify", backup.pk, "--level", level, "--json")
    assert finished.code == 3
    assert verdicts(finished) == {backup.pk: "failed"}
    assert run("show", backup.pk, "--json").backup()["state"] == "failed"


def test_the_original_bytes_pass_again(run: Run, backup: Backup, archive_of: ArchiveOf):
    original = archive_of(backup).read_bytes()
    archive_of(backup).write_bytes(original[:-5])
    assert run("verify", backup.pk).code == 3
    archive_of(backup).write_bytes(original)
    assert run("verify", backup.pk, "--level", "quick").code == 0
    assert run("show", backup.pk, "--json").backup()["state"] == "verified"


def test_one_bad_backup_does_not_stop_the_others(
    run: Run, shop: Database, make_backup: Callable[..., Backup], archive_of: ArchiveOf
):
    bad, good = make_backup(shop), make_backup(shop)
    archive_of(bad).unlink()
    finished = run("verify", "--all", "--json")
    assert finished.code == 3
    assert verdicts(finished) == {bad.pk: "unreachable", good.pk: "passed"}


def test_all_leaves_out_what_has_no_copy(
    run: Run, shop: Database, shop_file: Path, backup: Backup, make_backup: Callable[..., Backup]
):
    shop_file.unlink()
    make_backup(shop)
    finished = run("verify", "--all", "--json")
    assert finished.code == 0
    assert verdicts(finished) == {backup.pk: "passed"}


def test_all_of_nothing_is_no_failure(run: Run):
    finished = run("verify", "--all", "--json")
    assert (finished.code, finished.document) == (0, {"verifications": []})


def test_an_unknown_id_does_not_stop_the_others(run: Run, backup: Backup):
    finished = run("verify", "nothing", backup.pk, "--json")
    assert finished.code == 6
    assert verdicts(finished) == {backup.pk: "passed"}


def test_an_id_given_twice_is_verified_once(run: Run, backup: Backup):
    assert len(run("verify", backup.pk, backup.pk[:6], "--json").document["verifications"]) == 1


def test_a_backup_without_a_copy_is_not_found(
    run: Run, shop: Database, shop_file: Path, make_backup: Callable[..., Backup]
):
    shop_file.unlink()
    assert run("verify", make_backup(shop).pk).code == 6


@pytest.mark.parametrize("arguments", [[], ["--all", "abcd"]])
def test_ids_or_all_must_be_given(run: Run, arguments: list[str]):
    assert run("verify", *arguments).code == 2


def test_a_required_table_without_rows_stays_failed_until_the_policy_changes(
    run: Run, shop: Database, shop_file: Path, make_backup: Callable[..., Backup]
):
    Database.objects.update(required_tables=["sale"])
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM sale")
    backup = run("create", "shop", "--json").backup()
    assert run("verify", backup["id"]).code == 3
    assert run("verify", backup["id"], "--level", "quick").code == 0
    assert run("show", backup["id"], "--json").backup()["state"] == "failed"
    Database.objects.update(required_tables=[])
    assert run("verify", backup["id"]).code == 0
    assert run("show", backup["id"], "--json").backup()["state"] == "verified"


def test_a_stop_between_two_backups_is_a_cancel(
    run: Run, shop: Database, make_backup: Callable[..., Backup], monkeypatch: pytest.MonkeyPatch
):
    make_backup(shop)
    make_backup(shop)
    real = verify.verify_backup

    def verify_then_stop(*arguments: object, **options: object) -> list[Verification]:
        found = real(*arguments, **options)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    monkeypatch.setattr(verify, "verify_backup", verify_then_stop)
    finished = run("verify", "--all", "--json")
    assert finished.code == 130
    assert len(finished.document["verifications"]) == 1


# Due


def test_due_verifies_what_was_not_proven_for_long(run: Run, backup: Backup):
    nothing = run("verify", "--due")
    assert (nothing.code, nothing.stdout.strip()) == (0, "Nothing was due, or today's budget is used up.")
    long_ago = timezone.now() - timedelta(days=31)
    backup.verifications.update(started_at=long_ago, finished_at=long_ago)
    found = run("verify", "--due", "--json").document["verifications"]
    assert [(each["backup"], each["level"], each["verdict"]) for each in found] == [(backup.pk, "full", "passed")]
    assert run("verify", "--due", "--json").document["verifications"] == []


@pytest.mark.parametrize("arguments", [["--all"], ["0123456789ab"], ["--level", "quick"], ["--level", "drill"]])
def test_due_chooses_by_itself(run: Run, backup: Backup, arguments: list[str]):
    assert run("verify", "--due", *arguments).code == 2


def test_due_may_be_left_to_a_worker(run: Run, backup: Backup):
    jobs = run("verify", "--due", "--enqueue", "--json").document["jobs"]
    mine = [each for each in jobs if each["database"] == "shop"]
    assert [(each["kind"], each["options"]) for each in mine] == [("verify", {"due": True})]


def test_a_drill_takes_the_time(run: Run, backup: Backup):
    (drill,) = run("verify", backup.pk, "--level", "drill", "--json").document["verifications"]
    assert (drill["level"], drill["verdict"]) == ("drill", "passed")
    assert drill["recovery_seconds"] > 0
    assert drill["data_age_seconds"] >= 0
    shown = run("show", backup.pk, "--json").backup()["verifications"][0]
    assert shown["recovery_seconds"] == drill["recovery_seconds"]
    assert f"{drill['recovery_seconds']:.1f} s" in run("status").stdout
