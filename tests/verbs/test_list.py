"""``list`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import Backup, Database
from backups_app.services.databases import add_database
from tests.conftest import ACTOR
from tests.console import Finished
from tests.support import build_shop

Run = Callable[..., Finished]


def ids(finished: Finished) -> list[str]:
    return [each["id"] for each in finished.document["backups"]]


def test_the_newest_comes_first(run: Run, shop: Database, make_backup: Callable[..., Backup]):
    first, second, third = (make_backup(shop) for _ in range(3))
    assert ids(run("list", "--json")) == [third.pk, second.pk, first.pk]


def test_an_empty_catalogue_is_an_empty_list(run: Run):
    assert run("list", "--json").document == {"backups": []}
    assert "no backup yet" in run("list").stdout


def test_the_limit_limits(run: Run, shop: Database, make_backup: Callable[..., Backup]):
    backups = [make_backup(shop) for _ in range(3)]
    assert ids(run("list", "--limit", "2", "--json")) == [backups[2].pk, backups[1].pk]
    assert ids(run("list", "--limit", "0", "--json")) == []


def test_one_database_can_be_asked_for(run: Run, shop: Database, tmp_path: Path, make_backup: Callable[..., Backup]):
    other = add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR)
    make_backup(shop)
    backup = make_backup(other)
    assert ids(run("list", "--database", "other", "--json")) == [backup.pk]


def test_a_database_that_left_care_still_shows_its_backups(
    run: Run, shop: Database, make_backup: Callable[..., Backup]
):
    backup = make_backup(shop)
    Database.objects.update(is_under_care=False)
    assert ids(run("list", "--database", "shop", "--json")) == [backup.pk]
    assert ids(run("list", "--json")) == [backup.pk]


def test_an_unknown_database_is_not_found(run: Run, shop: Database):
    finished = run("list", "--database", "shpo", "--json")
    assert finished.code == 6
    assert "backups" not in finished.document
    assert "Did you mean 'shop'?" in finished.stderr


def test_failed_backups_are_listed_with_their_reason(
    run: Run, shop: Database, shop_file: Path, make_backup: Callable[..., Backup]
):
    shop_file.unlink()
    make_backup(shop)
    backup = run("list", "--json").backup()
    assert (backup["state"], backup["copies"]) == ("failed", [])
    assert "failed" in run("list").stdout


@pytest.mark.parametrize("name", ["[bold]red[/bold]", "<script>", "\u202egnp"])
def test_a_name_is_printed_as_it_is_and_drives_nothing(
    run: Run, shop_file: Path, make_backup: Callable[..., Backup], name: str
):
    make_backup(add_database(name, shop_file, actor=ACTOR))
    printed = run("list").stdout
    assert "\u202e" not in printed
    assert name.replace("\u202e", "\\u202e") in printed
    assert run("list", "--json").backup()["database"] == name
