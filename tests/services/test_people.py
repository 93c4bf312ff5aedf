"""Who may act, on the command line, also when the site's users cannot be read."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import Permission, User

from backups_app.core.errors import BusyError, InputError, NotFoundError, RefusedError
from backups_app.services import people
from backups_app.services.audit import Actor
from backups_app.services.people import actor_for, find_person, is_same_person
from tests.console import Console, environment, finish
from tests.support import PROJECT, build_shop, holding

pytestmark = pytest.mark.django_db(databases=["default", "catalog"])


def test_a_person_with_the_permission_acts_under_their_own_name():
    anna = User.objects.create_user("anna", is_staff=True)
    anna.user_permissions.add(Permission.objects.get(codename="request_restore"))
    assert actor_for("anna", permission="request_restore") == Actor(id=str(anna.pk), name="anna")
    with pytest.raises(RefusedError, match="approve restore"):
        actor_for("anna", permission="approve_restore")


def test_a_superuser_has_every_permission():
    User.objects.create_superuser("root")
    assert actor_for("root", permission="approve_restore").name == "root"


def test_nobody_named_is_the_system_account():
    assert actor_for(None, permission="approve_restore") == Actor.system()


def test_an_unknown_person_is_not_found():
    with pytest.raises(NotFoundError):
        actor_for("nobody", permission="request_restore")


@pytest.mark.parametrize("name", ["", " ", "ROOT"])
def test_names_are_taken_literally(name: str):
    User.objects.create_superuser("root")
    with pytest.raises(NotFoundError):
        find_person(name)


def test_an_account_that_is_not_active_is_refused():
    User.objects.create_superuser("gone", is_active=False)
    with pytest.raises(RefusedError, match="not active"):
        actor_for("gone", permission="approve_restore")


@pytest.fixture
def site_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """A function that says where the site's users live."""

    def at(path: Path) -> None:
        connection = SimpleNamespace(settings_dict={"NAME": str(path)}, vendor="sqlite")
        monkeypatch.setattr(people, "connections", {"default": connection})

    return at


@pytest.mark.parametrize("is_empty", [True, False])
def test_without_users_names_are_taken_as_given_and_marked(tmp_path: Path, site_at, is_empty: bool):
    if is_empty:
        (tmp_path / "site.db").touch()
    site_at(tmp_path / "site.db")
    actor = actor_for("anna", permission="approve_restore")
    assert actor == Actor(id="unchecked:anna", name="anna (unchecked)")
    assert (tmp_path / "site.db").exists() is is_empty


@pytest.mark.parametrize("name", ["", "  ", "(unchecked)", "\u200b"])
def test_an_unchecked_name_may_not_be_empty(tmp_path: Path, site_at, name: str):
    site_at(tmp_path / "site.db")
    with pytest.raises(InputError):
        actor_for(name, permission="approve_restore")


@pytest.mark.parametrize("trick", ["anna", " anna ", "Anna", "anna (unchecked)", "an\u200bna", "ａｎｎａ"])
def test_no_spelling_makes_two_people_of_one(tmp_path: Path, site_at, trick: str):
    site_at(tmp_path / "site.db")
    anna = actor_for("anna", permission="request_restore")
    assert is_same_person(anna, actor_for(trick, permission="approve_restore"))
    assert is_same_person(Actor(id="7", name="anna"), actor_for(trick, permission="approve_restore"))


def test_two_people_are_two(tmp_path: Path, site_at):
    site_at(tmp_path / "site.db")
    assert not is_same_person(
        actor_for("anna", permission="request_restore"), actor_for("ben", permission="request_restore")
    )
    # Accounts of the site are told apart exactly as the site does.
    assert not is_same_person(Actor(id="1", name="anna"), Actor(id="2", name="Anna"))


# Real processes: what Django itself does with the file


def test_a_lock_does_not_switch_the_check_of_names_off(console: Console, tmp_path: Path):
    site = build_shop(console.site, journal_mode="delete")
    program = (
        "import os, sys, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'project.settings'; django.setup()\n"
        "from django.db import connections\n"
        "connections['default'].settings_dict['OPTIONS'] = {'timeout': 0.2}\n"
        "from backups_app.services.people import actor_for\n"
        "from backups_app.core.errors import BackupError\n"
        "try: print(actor_for('anna', permission='approve_restore'))\n"
        "except BackupError as exc: print(type(exc).__name__)\n"
    )
    with holding(site, "BEGIN EXCLUSIVE"):
        found = subprocess.run(
            [sys.executable, "-c", program],
            cwd=PROJECT,
            env=environment(console.home),
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
    assert found.stdout.strip() == BusyError.__name__
    assert site.exists()


def test_looking_for_a_person_creates_no_database_of_the_site(console: Console):
    assert not console.site.exists()
    console.run("requests", "--json")
    finished = finish(console.start("approve", "nothing", "--user", "anna", "--yes"))
    assert finished.code == 6
    assert not console.site.exists()


def test_garbage_in_place_of_the_users_is_unreadable(console: Console):
    console.site.write_bytes(b"garbage " * 1000)
    with closing(sqlite3.connect(console.site)) as connection, pytest.raises(sqlite3.DatabaseError):
        connection.execute("SELECT 1 FROM sqlite_schema")
    assert console.run("requests", "--json").code == 0
    assert console.site.read_bytes() == b"garbage " * 1000
