"""A site as it is run: Django's tables, people, a ledger that a writer can use; in processes of its own."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.console import Console, Finished, environment
from tests.support import PROJECT, add_filler, connected

_SET_UP = """
import json, os, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
django.setup()
"""

_MAKE = """
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
call_command("migrate", verbosity=0, interactive=False)
for name in ("anna", "ben", "carl"):
    User.objects.create_superuser(name, password=name)
dora = User.objects.create_user("dora", password="dora", is_staff=True)
dora.user_permissions.add(Permission.objects.get(codename="request_restore"))
User.objects.create_superuser("gone", password="gone", is_active=False)
User.objects.create_user("staff", password="staff", is_staff=True)
"""

LEDGER = """
    CREATE TABLE events (id INTEGER PRIMARY KEY, what TEXT);
    CREATE TABLE counter (value INTEGER NOT NULL);
    CREATE TABLE filler (id INTEGER PRIMARY KEY, payload BLOB);
    INSERT INTO counter VALUES (0);
"""


def django_program(console: Console, program: str) -> list[str]:
    """The argument list that runs ``program`` inside the project of ``console``."""
    return [sys.executable, "-c", _SET_UP + program]


def run_django(console: Console, program: str) -> str:
    """Run a program inside the project; returns its stdout."""
    finished = subprocess.run(
        django_program(console, program),
        cwd=PROJECT,
        env=environment(console.home, **console.extra),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def make_site(console: Console) -> None:
    """Migrate the site, and add people: anna, ben and carl may do everything, dora may ask, staff may nothing."""
    run_django(console, _MAKE)
    with connected(console.site) as connection:
        connection.executescript(LEDGER)


def fill(console: Console, size_bytes: int) -> None:
    """Replace the filler of the site by new random content."""
    with connected(console.site) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("DELETE FROM filler")
        add_filler(connection, size_bytes)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def digest(path: Path, *, tables: tuple[str, ...] = ()) -> str:
    """SHA-256 over schema and every row, read through a connection of its own; only ``tables``, when given."""
    found = hashlib.sha256()
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        connection.text_factory = bytes
        connection.execute("BEGIN")
        schema = connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2").fetchall()
        found.update(repr(schema).encode())
        for kind, name, _ in schema:
            if kind == b"table" and (not tables or name.decode() in tables):
                for row in connection.execute(f'SELECT rowid, * FROM "{name.decode()}" ORDER BY rowid'):
                    for value in row:
                        found.update(value if isinstance(value, bytes) else repr(value).encode())
                        found.update(b"\0")
    return found.hexdigest()


def quick_check(path: Path) -> str:
    """What ``quick_check`` says of a live database."""
    with closing(sqlite3.connect(path, timeout=20)) as connection:
        return str(connection.execute("PRAGMA quick_check").fetchone()[0])


@dataclass(frozen=True)
class Site:
    """A console with a site, and the verbs of restores in short."""

    console: Console

    @property
    def path(self) -> Path:
        """The live database."""
        return self.console.site

    def backup(self) -> str:
        """Back the site up; returns the id."""
        return str(self.console.ok("create", "default", "--json").backup()["id"])

    def request(self, backup: str, *arguments: object, user: str = "anna") -> Finished:
        """Ask for a restore."""
        return self.console.run("restore", backup, "--reason", "a test", "--user", user, "--json", *arguments)

    def asked(self, backup: str, *arguments: object, user: str = "anna") -> str:
        """Ask for a restore, and insist; returns its id."""
        finished = self.request(backup, *arguments, user=user)
        assert finished.code == 0, finished.stderr
        return str(finished.document["restore"]["id"])

    def approve(self, restore: str, *, user: str = "ben") -> Finished:
        """Approve and run."""
        return self.console.run("approve", restore, "--user", user, "--yes", "--json")

    def row(self, restore: str) -> dict[str, Any]:
        """The request, after the next verb has looked at it."""
        documents = self.console.ok("requests", "--all", "--json").document["restores"]
        (found,) = [each for each in documents if each["id"] == restore]
        assert isinstance(found, dict)
        return found

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement on the live database."""
        with connected(self.path) as connection:
            return connection.execute(statement).fetchall()


def copy_site(template: Path, home: Path, *, roots: Path) -> Site:
    """A site of its own for a test, from a template that nobody has open."""
    shutil.copytree(template, home)
    return Site(Console(home, {"BACKUPS_ROOTS": str(roots)}))
