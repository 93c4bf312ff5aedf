"""``restore --to`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import Backup, Database
from tests.console import Finished
from tests.support import content_of, names_in

Run = Callable[..., Finished]


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    return make_backup(shop)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_the_new_file_equals_the_source(run: Run, backup: Backup, shop_file: Path, out: Path):
    finished = run("restore", backup.pk, "--to", out / "new.sqlite3", "--reason", "a look", "--json")
    assert finished.code == 0
    restore = finished.document["restore"]
    assert (restore["state"], restore["backup"], restore["reason"]) == ("succeeded", backup.pk, "a look")
    assert content_of(out / "new.sqlite3") == content_of(shop_file)
    assert names_in(out) == {"new.sqlite3"}


def test_people_are_told_where_it_is(run: Run, backup: Backup, out: Path):
    assert str(out / "new.sqlite3") in run("restore", backup.pk, "--to", out / "new.sqlite3").stdout


def test_a_relative_path_counts_from_here(run: Run, backup: Backup, out: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(out)
    assert run("restore", backup.pk, "--to", "new.sqlite3").code == 0
    assert names_in(out) == {"new.sqlite3"}


def test_an_existing_file_is_refused_byte_for_byte_untouched(run: Run, backup: Backup, out: Path):
    (out / "new.sqlite3").write_bytes(b"precious")
    finished = run("restore", backup.pk, "--to", out / "new.sqlite3", "--json")
    assert finished.code == 7
    assert "restore" not in finished.document
    assert (out / "new.sqlite3").read_bytes() == b"precious"


def test_a_left_over_wal_is_refused(run: Run, backup: Backup, out: Path):
    (out / "new.sqlite3-wal").write_bytes(b"stale")
    assert run("restore", backup.pk, "--to", out / "new.sqlite3").code == 7
    assert names_in(out) == {"new.sqlite3-wal"}


@pytest.mark.parametrize("target", ["", "/", "out"])
def test_a_folder_is_refused(
    run: Run, backup: Backup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: Path, target
):
    monkeypatch.chdir(tmp_path)
    assert run("restore", backup.pk, "--to", target).code == 7
    assert names_in(out) == set()


def test_a_missing_folder_is_exit_code_6(run: Run, backup: Backup, out: Path):
    assert run("restore", backup.pk, "--to", out / "missing" / "new.sqlite3").code == 6
    assert names_in(out) == set()


def test_a_file_in_place_of_the_folder_is_exit_code_6(run: Run, backup: Backup, out: Path):
    (out / "file").write_text("x")
    assert run("restore", backup.pk, "--to", out / "file" / "new.sqlite3").code == 6
    assert names_in(out) == {"file"}


def test_a_name_that_is_too_long_is_a_message(run: Run, backup: Backup, out: Path):
    finished = run("restore", backup.pk, "--to", out / ("n" * 300))
    assert finished.code == 1
    assert "Error:" in finished.stderr
    assert names_in(out) == set()


def test_a_missing_archive_is_exit_code_3_and_no_file(
    run: Run, backup: Backup, out: Path, archive_of: Callable[[Backup], Path]
):
    archive_of(backup).unlink()
    finished = run("restore", backup.pk, "--to", out / "new.sqlite3", "--json")
    assert finished.code == 3
    assert finished.document["errors"][0]["code"] == "unreachable"
    assert names_in(out) == set()


def test_an_altered_archive_is_exit_code_3_and_no_file(
    run: Run, backup: Backup, out: Path, archive_of: Callable[[Backup], Path]
):
    content = bytearray(archive_of(backup).read_bytes())
    content[-1] ^= 1
    archive_of(backup).write_bytes(content)
    assert run("restore", backup.pk, "--to", out / "new.sqlite3").code == 3
    assert names_in(out) == set()


def test_an_unknown_id_is_exit_code_6(run: Run, backup: Backup, out: Path):
    assert run("restore", "nothing", "--to", out / "new.sqlite3").code == 6
    assert names_in(out) == set()


def test_the_beginning_of_an_id_is_enough(run: Run, backup: Backup, out: Path):
    assert run("restore", backup.pk[:5], "--to", out / "new.sqlite3").code == 0


def test_a_backup_that_never_had_an_archive_is_exit_code_6(
    run: Run, shop: Database, shop_file: Path, make_backup: Callable[..., Backup], out: Path
):
    shop_file.unlink()
    assert run("restore", make_backup(shop).pk, "--to", out / "new.sqlite3").code == 6
    assert names_in(out) == set()
