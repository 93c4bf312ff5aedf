"""Fixtures for tests that use the catalogue: a home of its own for each test."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from pytest_django.fixtures import Settings

from backups_app import conf
from backups_app.models import Backup, Database
from backups_app.services.audit import Actor
from backups_app.services.create import create_backup
from backups_app.services.databases import add_database
from tests.console import Console, Finished, end_started
from tests.keys import Key
from tests.lengths import too_long_texts
from tests.site import Site, copy_site, make_site
from tests.support import build_shop

ACTOR = Actor(id="7", name="anna")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that use the catalogue need both databases, and pytest-django wants to know early."""
    if "db_catalog" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.django_db(databases=["default", "catalog"]))
    if item.get_closest_marker("sqlite_catalog") and os.environ.get("WALSAFE_TEST_CATALOG_URL"):
        item.add_marker(pytest.mark.skip(reason="the catalogue is on PostgreSQL"))


@pytest.fixture(autouse=True)
def no_process_outlives_its_test() -> Iterator[None]:
    """What a test started and did not wait for."""
    yield
    end_started()


@pytest.fixture
def home(tmp_path: Path, settings: Settings) -> Path:
    """A fresh BACKUPS home; files below ``tmp_path`` may be put under care."""
    folder = tmp_path / "home"
    # Most tests make many backups of one unchanged database, and look at the archive of each.
    settings.BACKUPS = {"HOME": folder, "ROOTS": [tmp_path], "REUSE_UNCHANGED": False}
    return folder


@pytest.fixture
def shop_file(tmp_path: Path) -> Path:
    """A small WAL database: 3 products, 4 sales."""
    return build_shop(tmp_path / "shop.sqlite3")


@pytest.fixture
def shop(home: Path, shop_file: Path, db_catalog: None) -> Database:
    """The small database, under care as ``shop``."""
    return add_database("shop", shop_file, actor=ACTOR)


@pytest.fixture
def db_catalog(db: None) -> Iterator[None]:
    """The catalogue, rolled back after the test. (The audit triggers forbid a flush.)

    SQLite takes a text that is longer than its column, PostgreSQL refuses it: no test may leave one.
    """
    yield
    assert too_long_texts() == []


@pytest.fixture
def as_host(home: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that makes this process work as a host of a fleet: the catalogue is shared, whatever holds it."""
    monkeypatch.setattr(conf, "is_catalog_local", lambda: False)

    def be(name: str) -> None:
        # Its locks, scratch and archives are nowhere else.
        settings.BACKUPS = {**settings.BACKUPS, "HOST": name, "HOME": home.parent / f"home-{name}"}

    return be


@pytest.fixture
def make_backup(home: Path) -> Callable[..., Backup]:
    """A function that backs a database up through the service."""

    def make(database: Database, **options: object) -> Backup:
        return create_backup(database, actor=ACTOR, trigger=Backup.Trigger.COMMAND, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def archive_of(home: Path) -> Callable[[Backup], Path]:
    """A function that says where the archive of a backup lies."""
    return lambda backup: home / "archives" / backup.archive_name


@pytest.fixture
def run(home: Path, db_catalog: None) -> Callable[..., Finished]:
    """A function that runs a verb inside this process, on the catalogue of the test."""

    def run(*arguments: object) -> Finished:
        out, err = io.StringIO(), io.StringIO()
        code = 0
        try:
            call_command("backup", *map(str, arguments), stdout=out, stderr=err)
        except SystemExit as exc:
            code = int(exc.code or 0)
        if "--json" in arguments:
            json.loads(out.getvalue())
        return Finished(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def fresh_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose catalogue was just made; copied, because making it takes half a second."""
    home = tmp_path_factory.mktemp("template") / "home"
    Console(home).ok("list")
    return home


@pytest.fixture
def console(tmp_path: Path, fresh_catalog: Path) -> Console:
    """The real command with a home that has a catalogue and nothing else."""
    home = tmp_path / "home"
    shutil.copytree(fresh_catalog, home)
    return Console(home, {"BACKUPS_ROOTS": str(tmp_path)})


@pytest.fixture
def site(console: Console) -> Path:
    """The site's own database, small, in WAL mode."""
    return build_shop(console.site)


@pytest.fixture(scope="session")
def site_template(fresh_catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a migrated site with people; copied, because making it takes seconds."""
    home = tmp_path_factory.mktemp("site") / "home"
    shutil.copytree(fresh_catalog, home)
    make_site(Console(home))
    return home


@pytest.fixture
def people_site(site_template: Path, tmp_path: Path) -> Site:
    """A site with people: anna, ben and carl may do everything, dora may ask, staff may nothing."""
    return copy_site(site_template, tmp_path / "home", roots=tmp_path)


# Keys


@pytest.fixture
def key(tmp_path: Path) -> Key:
    """An encryption key in a file."""
    return Key(tmp_path / "key.txt")


@pytest.fixture
def other(tmp_path: Path) -> Key:
    """Another one."""
    return Key(tmp_path / "other.txt")


@pytest.fixture
def encrypting(home: Path, settings: Settings) -> Callable[..., None]:
    """A function that sets the recipients of archives, and the identity of this host."""

    def encrypt_for(*keys: Key, identity: Path | None = None, **more: object) -> None:
        recipients = [each.recipient for each in keys]
        settings.BACKUPS = {
            **settings.BACKUPS,
            "AGE_RECIPIENTS": recipients,
            "AGE_IDENTITY_FILE": identity,
            **more,
        }

    return encrypt_for
