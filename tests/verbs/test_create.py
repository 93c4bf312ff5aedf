"""``create`` on the command line."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Database
from backups_app.services.databases import add_database
from backups_app.verbs import create
from tests.conftest import ACTOR
from tests.console import Finished
from tests.support import build_shop, connected, holding

Run = Callable[..., Finished]


@pytest.fixture
def other(shop: Database, tmp_path: Path) -> Database:
    return add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR)


def states(finished: Finished) -> dict[str, str]:
    return {each["database"]: each["state"] for each in finished.document["backups"]}


def test_all_databases_are_backed_up(run: Run, shop: Database, other: Database):
    finished = run("create", "--all", "--json")
    assert finished.code == 0
    assert states(finished) == {"shop": "verified", "other": "verified"}
    assert "errors" not in finished.document


def test_only_the_named_ones_are(run: Run, shop: Database, other: Database):
    assert states(run("create", "other", "--json")) == {"other": "verified"}


def test_a_name_given_twice_is_backed_up_once(run: Run, shop: Database):
    assert len(run("create", "shop", "shop", "--json").document["backups"]) == 1


def test_the_note_is_kept(run: Run, shop: Database):
    assert run("create", "shop", "--note", "before <the> sale", "--json").backup()["note"] == "before <the> sale"
    assert Backup.objects.get().note == "before <the> sale"


def test_the_system_account_is_recorded(run: Run, shop: Database):
    backup = run("create", "shop", "--json").backup()
    assert (backup["trigger"], backup["requested_by"]) == ("command", "system")


def test_an_unknown_name_does_not_stop_the_others(run: Run, shop: Database):
    finished = run("create", "shpo", "shop", "--json")
    assert finished.code == 6
    assert states(finished) == {"shop": "verified"}
    (error,) = finished.document["errors"]
    assert (error["code"], error["hint"]) == ("not_found", "Did you mean 'shop'?")
    assert "Did you mean 'shop'?" in finished.stderr


def test_a_failing_database_does_not_stop_the_others(run: Run, shop: Database, other: Database, shop_file: Path):
    shop_file.unlink()
    finished = run("create", "shop", "other", "--json")
    assert finished.code == 6
    assert states(finished) == {"shop": "failed", "other": "verified"}


def test_a_required_table_without_rows_is_exit_code_3(run: Run, shop: Database, shop_file: Path):
    Database.objects.update(required_tables=["sale"])
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM sale")
    finished = run("create", "shop", "--json")
    assert finished.code == 3
    backup = finished.backup()
    assert (backup["state"], backup["verdict"]) == ("failed", "failed")
    assert "sale" in backup["reason"]
    assert "sale" in finished.stderr
    assert backup["copies"][0]["state"] == "failed"


def test_a_damaged_source_is_exit_code_3_and_its_copy_is_kept(run: Run, tmp_path: Path, home: Path):
    file = build_shop(tmp_path / "old.sqlite3", journal_mode="delete")
    with connected(file) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, '(product)', '(note)') WHERE type = 'index'")
    add_database("old", file, actor=ACTOR)
    finished = run("create", "old", "--json")
    assert finished.code == 3
    backup = finished.backup()
    assert (backup["state"], backup["copies"][0]["state"]) == ("failed", "failed")
    assert "integrity_check" in backup["reason"]
    assert (home / "archives" / backup["copies"][0]["name"]).exists()


def test_a_locked_database_is_exit_code_4(run: Run, settings: Settings, tmp_path: Path):
    settings.BACKUPS = {**settings.BACKUPS, "BUSY_TIMEOUT_SECONDS": 0.2}
    file = build_shop(tmp_path / "old.sqlite3", journal_mode="delete")
    add_database("old", file, actor=ACTOR)
    with holding(file, "BEGIN EXCLUSIVE"):
        finished = run("create", "old", "--json")
    assert (finished.code, finished.backup()["failure"]) == (4, "busy")


def test_a_withdrawn_root_is_exit_code_7(run: Run, shop: Database, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": []}
    finished = run("create", "shop", "--json")
    assert (finished.code, finished.backup()["failure"]) == (7, "refused")
    assert "BACKUPS['ROOTS']" in finished.stderr


@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["shop", "empty", "nobody", "gone"], 3),
        (["shop", "nobody", "gone"], 6),
        (["empty", "shop"], 3),
        (["shop"], 0),
    ],
)
def test_the_most_serious_outcome_is_the_exit_code(
    run: Run, shop: Database, tmp_path: Path, names: list[str], code: int
):
    add_database("empty", build_shop(tmp_path / "empty.sqlite3"), actor=ACTOR, tables=("refund",))
    add_database("gone", build_shop(tmp_path / "gone.sqlite3"), actor=ACTOR)
    (tmp_path / "gone.sqlite3").unlink()
    assert run("create", *names).code == code


@pytest.mark.parametrize("arguments", [[], ["--all", "shop"]])
def test_names_or_all_must_be_given(run: Run, shop: Database, arguments: list[str]):
    finished = run("create", *arguments, "--json")
    assert finished.code == 2
    assert finished.document["errors"][0]["code"] == "usage"
    assert not Backup.objects.exists()


def test_all_of_nothing_is_an_error(run: Run):
    finished = run("create", "--all", "--json")
    assert finished.code == 2
    assert "add-database" in finished.stderr


def test_remarks_are_said_on_stderr(run: Run, tmp_path: Path):
    add_database("old", build_shop(tmp_path / "old.sqlite3", journal_mode="delete"), actor=ACTOR)
    finished = run("create", "old", "--json")
    assert "rollback journal" in finished.stderr
    assert "rollback journal" in finished.backup()["remarks"][0]


def test_people_get_a_table(run: Run, shop: Database):
    finished = run("create", "shop")
    assert Backup.objects.get().pk in finished.stdout
    assert "verified" in finished.stdout
    assert finished.stderr == ""


def test_a_stop_between_two_databases_is_a_cancel(
    run: Run, shop: Database, other: Database, monkeypatch: pytest.MonkeyPatch
):
    real = create.create_backup

    def create_then_stop(*arguments: object, **options: object) -> Backup:
        backup = real(*arguments, **options)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        return backup

    monkeypatch.setattr(create, "create_backup", create_then_stop)
    finished = run("create", "other", "shop", "--json")
    assert finished.code == 130
    assert states(finished) == {"other": "verified"}


def test_a_stop_after_the_last_database_changes_nothing(run: Run, shop: Database, monkeypatch: pytest.MonkeyPatch):
    real = create.create_backup

    def create_then_stop(*arguments: object, **options: object) -> Backup:
        backup = real(*arguments, **options)  # type: ignore[arg-type]
        os.kill(os.getpid(), signal.SIGTERM)
        return backup

    monkeypatch.setattr(create, "create_backup", create_then_stop)
    assert run("create", "shop").code == 0
