"""``show`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import Backup, Database
from tests.console import Finished

Run = Callable[..., Finished]


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    return make_backup(shop, note="a note")


def test_everything_known_is_shown(run: Run, backup: Backup):
    document = run("show", backup.pk, "--json").backup()
    assert document["id"] == backup.pk
    assert [each["level"] for each in document["verifications"]] == ["creation"]


def test_people_see_tables_digest_and_evidence(run: Run, backup: Backup):
    printed = run("show", backup.pk).stdout
    for expected in (backup.pk, "shop", "verified", backup.sha256, backup.archive_name, "a note", "product", "census"):
        assert expected in printed


def test_a_note_cannot_add_a_line_of_its_own(run: Run, shop: Database, make_backup: Callable[..., Backup]):
    backup = make_backup(shop, note="weekly\nverdict          failed")
    printed = run("show", backup.pk).stdout.splitlines()
    assert not [each for each in printed if each.startswith("verdict") and "failed" in each]
    assert any(each.startswith("note") and "\\n" in each for each in printed)
    assert run("show", backup.pk, "--json").backup()["note"] == backup.note


def test_the_beginning_of_an_id_is_enough(run: Run, backup: Backup):
    assert run("show", backup.pk[:4], "--json").backup()["id"] == backup.pk


@pytest.mark.parametrize("given", ["", "abc", "%%%%", "____", "nothing-like-it", "../../etc/passwd", "'; DROP TABLE x"])
def test_an_unknown_id_is_not_found(run: Run, backup: Backup, given: str):
    finished = run("show", given, "--json")
    assert finished.code == 6
    assert finished.document["errors"][0]["code"] == "not_found"


def test_three_characters_are_too_few(run: Run, backup: Backup):
    assert "at least 4 characters" in run("show", backup.pk[:3]).stderr
    assert run("show", backup.pk[:3]).code == 6


def test_a_beginning_of_several_ids_is_ambiguous(run: Run, shop: Database):
    for pk in ("abcd00000001", "abcd00000002"):
        Backup.objects.create(pk=pk, database=shop, trigger="command")
    finished = run("show", "abcd", "--json")
    assert finished.code == 2
    assert "Several" in finished.stderr
    assert run("show", "abcd00000001", "--json").backup()["id"] == "abcd00000001"


def test_a_whole_id_that_begins_another_is_meant_itself(run: Run, shop: Database):
    for pk in ("abcd", "abcd00000002"):
        Backup.objects.create(pk=pk, database=shop, trigger="command")
    assert run("show", "abcd", "--json").backup()["id"] == "abcd"


def test_a_failed_backup_is_shown_with_reason_and_hint(
    run: Run, shop: Database, shop_file: Path, make_backup: Callable[..., Backup]
):
    shop_file.unlink()
    failed = make_backup(shop)
    printed = run("show", failed.pk).stdout
    assert failed.reason in printed
    assert failed.hint in printed


def test_a_running_backup_is_shown(run: Run, shop: Database):
    backup = Backup.objects.create(database=shop, trigger="command")
    assert run("show", backup.pk, "--json").backup()["state"] == "running"
    assert "running" in run("show", backup.pk).stdout
