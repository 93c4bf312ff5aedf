"""Folders of media on the command line: put under care, shown, and restored to a new folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import Backup, Database
from tests.console import Finished
from tests.core.media.packed import tree_of
from tests.support import content_of, names_in

Run = Callable[..., Finished]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder with a name of the worst kind in it."""
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "line\nbreak \x1b[2J").write_text("content")
    return folder


@pytest.fixture
def backup(run: Run, shop_file: Path, media: Path) -> Backup:
    assert run("add-database", "shop", shop_file, "--media", media).code == 0
    made = run("create", "shop", "--json").backup()
    assert made["state"] == "verified"
    return Backup.objects.get(pk=made["id"])


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_database_is_added_with_folders(run: Run, shop_file: Path, media: Path, tmp_path: Path):
    (tmp_path / "more").mkdir()
    finished = run("add-database", "shop", shop_file, "--media", media, "--media", tmp_path / "more", "--json")
    assert finished.code == 0
    assert finished.document["databases"][0]["media"] == [str(media), str(tmp_path / "more")]
    assert Database.objects.get(name="shop").media == [str(media), str(tmp_path / "more")]


@pytest.mark.parametrize(("folder", "code"), [("missing", 6), ("shop.sqlite3", 2), ("/etc", 7), ("home", 7)])
def test_a_folder_that_cannot_be_stored_leaves_no_row(
    run: Run, shop_file: Path, home: Path, tmp_path: Path, folder: str, code: int
):
    finished = run("add-database", "shop", shop_file, "--media", tmp_path / folder)
    assert finished.code == code
    assert "Hint:" in finished.stderr
    assert not Database.objects.filter(name="shop").exists()


def test_show_and_its_json_say_what_there_is(run: Run, backup: Backup):
    shown = run("show", backup.pk).stdout
    assert "1 files" in shown
    assert "media folders" in shown
    document = run("show", backup.pk, "--json").backup()
    assert document["media"] == {
        "files": 1,
        "folders": ["media"],
        "bytes": 7,
        "archive_bytes": backup.media_bytes,
    }


def test_both_come_back(run: Run, backup: Backup, shop_file: Path, media: Path, out: Path):
    finished = run("restore", backup.pk, "--to", out / "new.db", "--media-to", out / "new", "--json")
    assert finished.code == 0
    report = finished.document["restore"]["report"]
    assert (report["to"], report["media_to"]) == (str(out / "new.db"), str(out / "new"))
    assert "media files" in [check["name"] for check in report["checks"]]
    assert content_of(out / "new.db") == content_of(shop_file)
    assert tree_of(out / "new" / "media") == tree_of(media)


def test_the_database_comes_back_alone(run: Run, backup: Backup, out: Path):
    finished = run("restore", backup.pk, "--to", out / "new.db", "--json")
    assert finished.document["restore"]["report"]["media_to"] is None
    assert names_in(out) == {"new.db"}


def test_links_that_lead_out_are_said(run: Run, backup: Backup, media: Path, out: Path):
    (media / "out").symlink_to("/etc")
    made = run("create", "shop", "--json").backup()
    finished = run("restore", made["id"], "--to", out / "new.db", "--media-to", out / "new")
    assert "lead out of their folder" in finished.stdout
    assert "out" not in names_in(out / "new" / "media")


@pytest.mark.parametrize("name", ["new.db", "new.db-wal", "new.db-journal", "new.db-shm"])
def test_a_folder_in_the_way_of_the_database_is_refused(run: Run, backup: Backup, out: Path, name: str):
    assert run("restore", backup.pk, "--to", out / "new.db", "--media-to", out / name).code == 2
    assert names_in(out) == set()


def test_an_existing_folder_is_refused_and_nothing_is_written(run: Run, backup: Backup, out: Path):
    (out / "new").mkdir()
    assert run("restore", backup.pk, "--to", out / "new.db", "--media-to", out / "new").code == 7
    assert names_in(out) == {"new"}
    assert names_in(out / "new") == set()


def test_a_live_database_takes_no_folder(run: Run, backup: Backup, out: Path):
    finished = run("restore", backup.pk, "--reason", "x", "--media-to", out / "new")
    assert finished.code == 2
    assert "needs --to" in finished.stderr
    assert names_in(out) == set()


def test_the_preview_of_a_restore_in_place_says_that_folders_stay(run: Run, backup: Backup):
    finished = run("restore", backup.pk, "--reason", "x")
    assert f"restore {backup.pk} --to FILE --media-to FOLDER" in finished.stdout.replace("\n", " ")


@pytest.mark.parametrize("level", ["quick", "full", "drill"])
def test_verify_fails_for_damage_to_the_folders_and_names_them(run: Run, backup: Backup, home: Path, level: str):
    (path,) = (home / "archives").rglob("*.media.tar.zst")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    finished = run("verify", backup.pk, "--level", level, "--json")
    assert finished.code == 3
    assert "media stored bytes" in finished.document["verifications"][0]["reason"]
