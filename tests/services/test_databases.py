"""What is under care."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from pytest_django.fixtures import Settings

from backups_app.core.errors import BackupError, BusyError, InputError, NotFoundError, RefusedError
from backups_app.models import AuditEvent, Backup, Database
from backups_app.services.databases import (
    add_database,
    databases_under_care,
    get_database,
    live_path,
    required_tables,
    sync_databases,
)
from tests.conftest import ACTOR
from tests.services.test_names import HARD_NAMES
from tests.support import build_shop, bytes_in, connected, holding, names_in

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


@pytest.fixture
def add_alias(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """A function that adds an alias to DATABASES for one test."""
    added: list[str] = []

    def add(alias: str, engine: str, name: object) -> None:
        settings = {**connections.settings["default"], "ENGINE": engine, "NAME": name}
        monkeypatch.setitem(connections.settings, alias, settings)
        added.append(alias)

    yield add
    for alias in added:
        with suppress(AttributeError):  # nobody has asked for its connection
            del connections[alias]


SQLITE = "django.db.backends.sqlite3"


def test_an_added_file_is_under_care(shop_file: Path):
    database = add_database("shop", shop_file, actor=ACTOR, tables=("product",))
    assert databases_under_care() == [database]
    assert (database.path, database.alias, database.required_tables) == (str(shop_file), "", ["product"])
    assert database.is_under_care


def test_adding_is_recorded(shop_file: Path):
    add_database("shop", shop_file, actor=ACTOR)
    event = AuditEvent.objects.get()
    assert (event.action, event.outcome, event.database_name) == ("add-database", "done", "shop")
    assert (event.actor_id, event.actor_name) == ("7", "anna")


def test_adding_leaves_the_file_and_its_folder_as_they_were(tmp_path: Path):
    folder = tmp_path / "site"
    folder.mkdir()
    build_shop(folder / "shop.sqlite3")
    before = bytes_in(folder)
    add_database("shop", folder / "shop.sqlite3", actor=ACTOR)
    assert bytes_in(folder) == before


@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_hard_name_is_accepted(shop_file: Path, name: str):
    assert get_database(add_database(name, shop_file, actor=ACTOR).name).name == name


@pytest.mark.parametrize("name", ["", " ", " shop", "shop ", "-v", "--all", "x" * 201, "a\nb", "a\x00b", "a\x1b[31m"])
def test_a_name_that_cannot_be_typed_or_printed_is_refused(shop_file: Path, name: str):
    with pytest.raises(InputError):
        add_database(name, shop_file, actor=ACTOR)
    assert not Database.objects.exists()
    assert not AuditEvent.objects.exists()


def _folder(path: Path) -> None:
    path.mkdir()


def _text(path: Path) -> None:
    path.write_text("This is no database, but it is long enough to have been one. " * 20)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    # The name is bound relative to its folder: socket addresses are short.
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [_folder, _text, _fifo, _socket, _loop])
def test_what_is_no_database_file_is_refused(home: Path, tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / "thing")
    with pytest.raises(InputError) as caught:
        add_database("thing", tmp_path / "thing", actor=ACTOR)
    assert caught.value.message
    assert caught.value.hint
    assert not Database.objects.exists()
    assert not (home / "archives").exists()
    assert not (home / "scratch").exists() or names_in(home / "scratch") == set()


def test_a_missing_file_is_not_found_and_not_created(tmp_path: Path):
    with pytest.raises(NotFoundError):
        add_database("gone", tmp_path / "gone.sqlite3", actor=ACTOR)
    assert not (tmp_path / "gone.sqlite3").exists()
    assert not Database.objects.exists()


def test_an_exclusively_locked_file_is_busy(settings: Settings, tmp_path: Path):
    settings.BACKUPS = {**settings.BACKUPS, "BUSY_TIMEOUT_SECONDS": 0.2}
    file = build_shop(tmp_path / "shop.sqlite3", journal_mode="delete")
    with holding(file, "BEGIN EXCLUSIVE"), pytest.raises(BusyError):
        add_database("shop", file, actor=ACTOR)
    assert not Database.objects.exists()


def test_a_file_outside_the_roots_is_refused_by_naming_the_setting(
    tmp_path_factory: pytest.TempPathFactory, shop_file: Path, settings: Settings
):
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": [tmp_path_factory.mktemp("elsewhere")]}
    with pytest.raises(RefusedError) as caught:
        add_database("shop", shop_file, actor=ACTOR)
    assert "BACKUPS['ROOTS']" in caught.value.hint
    assert not Database.objects.exists()


def test_by_default_no_file_may_be_added(shop_file: Path, settings: Settings):
    settings.BACKUPS = {"HOME": settings.BACKUPS["HOME"]}
    with pytest.raises(RefusedError, match="outside"):
        add_database("shop", shop_file, actor=ACTOR)


def test_a_root_is_a_folder_and_not_the_beginning_of_a_name(tmp_path: Path, settings: Settings):
    (tmp_path / "data").mkdir()
    (tmp_path / "data2").mkdir()
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": [tmp_path / "data"]}
    with pytest.raises(RefusedError):
        add_database("shop", build_shop(tmp_path / "data2" / "shop.sqlite3"), actor=ACTOR)


def test_a_link_that_leads_out_of_the_root_is_refused(tmp_path: Path, shop_file: Path, settings: Settings):
    (tmp_path / "inside").mkdir()
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": [tmp_path / "inside"]}
    (tmp_path / "inside" / "link.sqlite3").symlink_to(shop_file)
    with pytest.raises(RefusedError):
        add_database("shop", tmp_path / "inside" / "link.sqlite3", actor=ACTOR)


def test_dots_do_not_lead_out_of_the_root(tmp_path: Path, shop_file: Path, settings: Settings):
    (tmp_path / "inside").mkdir()
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": [tmp_path / "inside"]}
    with pytest.raises(RefusedError):
        add_database("shop", tmp_path / "inside" / ".." / shop_file.name, actor=ACTOR)


def test_a_root_may_itself_be_a_link(tmp_path: Path, shop_file: Path, settings: Settings):
    (tmp_path / "link").symlink_to(tmp_path)
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": [tmp_path / "link"]}
    assert add_database("shop", shop_file, actor=ACTOR).path == str(shop_file)


def test_a_file_is_under_care_once(tmp_path: Path, shop_file: Path):
    add_database("shop", shop_file, actor=ACTOR)
    (tmp_path / "link.sqlite3").symlink_to(shop_file)
    for path in (shop_file, tmp_path / "link.sqlite3"):
        with pytest.raises(RefusedError, match="as 'shop'"):
            add_database("other", path, actor=ACTOR)
    assert Database.objects.count() == 1


def test_a_name_is_used_once(tmp_path: Path, shop_file: Path):
    add_database("shop", shop_file, actor=ACTOR)
    with pytest.raises(RefusedError, match="taken"):
        add_database("shop", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR)


def test_a_root_that_is_withdrawn_later_counts(shop: Database, settings: Settings):
    assert live_path(shop) == Path(shop.path)
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": []}
    with pytest.raises(RefusedError, match="outside"):
        live_path(shop)


def test_an_unknown_name_gets_a_suggestion(shop: Database):
    with pytest.raises(NotFoundError) as caught:
        get_database("shpo")
    assert caught.value.hint == "Did you mean 'shop'?"


def test_an_unknown_name_without_a_likeness_gets_the_list(shop: Database):
    with pytest.raises(NotFoundError) as caught:
        get_database("zzz")
    assert "shop" in caught.value.hint


def test_required_tables_come_from_row_and_settings_without_doubles(shop: Database, settings: Settings):
    shop.required_tables = ["product"]
    settings.BACKUPS = {**settings.BACKUPS, "REQUIRED_TABLES": {"shop": ["sale", "product"], "other": ["x"]}}
    assert required_tables(shop) == ("product", "sale")


def test_a_further_sqlite_alias_comes_under_care_by_itself(add_alias: Callable[..., None], tmp_path: Path):
    add_alias("extra", SQLITE, tmp_path / "extra.sqlite3")
    sync_databases()
    row = Database.objects.get(alias="extra")
    assert (row.name, row.path, row.is_under_care) == ("extra", str(tmp_path / "extra.sqlite3"), True)


def test_an_alias_named_by_an_uri_is_found_at_its_path(add_alias: Callable[..., None], tmp_path: Path):
    add_alias("extra", SQLITE, f"file:{tmp_path}/two%20words.sqlite3?mode=rw")
    sync_databases()
    assert Database.objects.get(alias="extra").path == str(tmp_path / "two words.sqlite3")


@pytest.mark.parametrize("name", [":memory:", "file::memory:?cache=shared", "file:x?mode=memory", ""])
def test_an_alias_in_memory_is_left_out_with_a_reason(add_alias: Callable[..., None], name: str):
    add_alias("fleeting", SQLITE, name)
    skipped = {each.alias: each.reason for each in sync_databases()}
    assert "memory" in skipped["fleeting"]
    assert not Database.objects.filter(alias="fleeting").exists()


@pytest.mark.parametrize("vendor", ["postgresql", "mysql", "oracle"])
def test_an_alias_of_another_kind_is_left_out_without_its_driver(add_alias: Callable[..., None], vendor: str):
    add_alias("warehouse", f"django.db.backends.{vendor}", "warehouse")
    skipped = {each.alias: each.reason for each in sync_databases()}
    assert skipped["warehouse"] == f"{vendor} is not SQLite; back it up with its own tools"
    assert not Database.objects.filter(alias="warehouse").exists()


def test_the_catalogue_is_never_under_care():
    sync_databases()
    assert not Database.objects.filter(alias="catalog").exists()


def test_syncing_twice_changes_nothing(add_alias: Callable[..., None], tmp_path: Path):
    add_alias("extra", SQLITE, tmp_path / "extra.sqlite3")
    sync_databases()
    before = list(Database.objects.values())
    sync_databases()
    assert list(Database.objects.values()) == before


def test_an_alias_that_moved_keeps_its_identity(add_alias: Callable[..., None], tmp_path: Path):
    add_alias("extra", SQLITE, tmp_path / "old.sqlite3")
    sync_databases()
    before = Database.objects.get(alias="extra")
    add_alias("extra", SQLITE, tmp_path / "new.sqlite3")
    sync_databases()
    after = Database.objects.get(alias="extra")
    assert (after.pk, after.identity) == (before.pk, before.identity)
    assert after.path == str(tmp_path / "new.sqlite3")


def test_an_alias_that_is_gone_leaves_care_and_keeps_its_backups(
    add_alias: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_backup: Callable[..., Backup],
):
    add_alias("extra", SQLITE, build_shop(tmp_path / "extra.sqlite3"))
    sync_databases()
    backup = make_backup(Database.objects.get(alias="extra"))
    monkeypatch.delitem(connections.settings, "extra")
    sync_databases()
    assert "extra" not in [each.name for each in databases_under_care()]
    assert Backup.objects.get(pk=backup.pk).state == Backup.State.VERIFIED
    with pytest.raises(NotFoundError):
        get_database("extra")


def test_an_alias_that_comes_back_is_under_care_again(
    add_alias: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    add_alias("extra", SQLITE, tmp_path / "extra.sqlite3")
    sync_databases()
    identity = Database.objects.get(alias="extra").identity
    monkeypatch.delitem(connections.settings, "extra")
    sync_databases()
    add_alias("extra", SQLITE, tmp_path / "extra.sqlite3")
    sync_databases()
    row = Database.objects.get(alias="extra")
    assert (row.identity, row.is_under_care) == (identity, True)


def test_an_alias_whose_name_an_added_file_has_gets_another(
    add_alias: Callable[..., None], tmp_path: Path, shop: Database
):
    add_alias("shop", SQLITE, tmp_path / "other.sqlite3")
    sync_databases()
    assert Database.objects.get(alias="shop").name == "shop (site)"
    assert get_database("shop") == shop


@pytest.mark.sqlite_catalog
def test_the_catalogue_cannot_be_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = build_shop(tmp_path / "catalog.sqlite3")
    settings: dict[str, Any] = {**connections.settings["catalog"], "NAME": str(file)}
    monkeypatch.setattr(connections["catalog"], "settings_dict", settings)
    with pytest.raises(RefusedError, match="catalogue"):
        add_database("records", file, actor=ACTOR)
    assert not Database.objects.exists()


def test_no_failure_leaves_a_lock_on_the_file(shop_file: Path):
    with pytest.raises(BackupError):
        add_database("-", shop_file, actor=ACTOR)
    add_database("shop", shop_file, actor=ACTOR)
    with connected(shop_file) as connection:
        connection.execute("BEGIN EXCLUSIVE")
