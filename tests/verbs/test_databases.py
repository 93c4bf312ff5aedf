"""``databases`` and ``add-database`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connections

from backups_app.models import Database
from tests.console import Finished
from tests.support import build_shop

Run = Callable[..., Finished]


def test_what_is_under_care_is_listed(run: Run, shop: Database):
    (database,) = run("databases", "--json").document["databases"]
    assert (database["name"], database["alias"], database["path"]) == ("shop", None, shop.path)
    assert shop.path in run("databases").stdout.replace("\n", "")


def test_what_is_left_out_is_said(run: Run, monkeypatch: pytest.MonkeyPatch):
    settings = {**connections.settings["default"], "ENGINE": "django.db.backends.postgresql", "NAME": "warehouse"}
    monkeypatch.setitem(connections.settings, "warehouse", settings)
    finished = run("databases", "--json")
    assert finished.code == 0
    skipped = {each["alias"]: each["reason"] for each in finished.document["skipped"]}
    assert skipped["warehouse"].startswith("postgresql is not SQLite")
    assert "'warehouse' is not under care" in finished.stderr
    del connections["warehouse"]  # the next test may have another one of that name


def test_a_database_that_left_care_is_not_listed(run: Run, shop: Database):
    Database.objects.update(is_under_care=False)
    assert run("databases", "--json").document["databases"] == []


def test_a_file_is_added_with_its_required_tables(run: Run, shop_file: Path):
    finished = run("add-database", "shop", shop_file, "--require", "product", "--require", "sale", "--json")
    assert finished.code == 0
    (database,) = finished.document["databases"]
    assert (database["name"], database["path"]) == ("shop", str(shop_file))
    assert database["required_tables"] == ["product", "sale"]
    assert run("create", "--all").code == 0


def test_a_required_table_that_is_missing_fails_the_backup(run: Run, shop_file: Path):
    assert run("add-database", "shop", shop_file, "--require", "refund").code == 0
    finished = run("create", "shop", "--json")
    assert finished.code == 3
    assert "refund" in finished.backup()["reason"]


@pytest.mark.parametrize(
    ("path", "code"), [("missing.sqlite3", 6), (".", 7), ("folder", 2), ("letter.txt", 2), ("/etc/hostname", 7)]
)
def test_what_cannot_be_added_leaves_no_row(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, code: int
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "letter.txt").write_text("Dear reader, this is no database at all. " * 50)
    finished = run("add-database", "thing", path, "--json")
    assert finished.code == code
    assert finished.document["errors"][0]["hint"]
    assert not Database.objects.exists()


def test_a_path_outside_the_roots_names_the_setting(run: Run, tmp_path_factory: pytest.TempPathFactory):
    file = build_shop(tmp_path_factory.mktemp("elsewhere") / "shop.sqlite3")
    finished = run("add-database", "shop", file)
    assert finished.code == 7
    assert "BACKUPS['ROOTS']" in finished.stderr


def test_the_same_file_or_name_twice_is_refused(run: Run, shop: Database, shop_file: Path, tmp_path: Path):
    assert run("add-database", "again", shop_file).code == 7
    assert run("add-database", "shop", build_shop(tmp_path / "other.sqlite3")).code == 7
    assert Database.objects.count() == 1


@pytest.mark.parametrize("name", ["a\nb", " ", "x" * 201, "a\x1b[2J"])
def test_a_name_that_cannot_be_used_is_exit_code_2(run: Run, shop_file: Path, name: str):
    finished = run("add-database", name, shop_file)
    assert finished.code == 2
    assert "\x1b" not in finished.stderr
    assert not Database.objects.exists()
