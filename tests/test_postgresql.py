"""The catalogue on PostgreSQL: its own refusals and locks, and the tests of the services once more."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from tests.console import Console
from tests.postgres import Postgres, postgres_server
from tests.site import run_django
from tests.support import PROJECT

pytestmark = pytest.mark.slow

SAMPLE = (
    "tests/services/test_fleet.py",
    "tests/services/jobs/test_ask.py",
    "tests/services/jobs/test_reap.py",
    "tests/services/test_audit.py",
    "tests/services/test_heal.py",
    "tests/services/test_hosts.py",
    "tests/services/health/test_watch.py",
    "tests/services/restores/test_decide.py",
    "tests/models",
)
"""Constraints, triggers, conditional updates and queries that differ from those of SQLite."""


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def shared(server: Postgres, console: Console) -> Console:
    """A console with its catalogue on the server."""
    return Console(console.home, {**console.extra, "BACKUPS_CATALOG_URL": server.new_database()})


def rows(server: Postgres, shared: Console, statement: str) -> list[tuple[object, ...]]:
    return server.run(statement, name=shared.extra["BACKUPS_CATALOG_URL"].rpartition("/")[2])


def test_the_services_do_on_postgresql_what_they_do_on_sqlite(server: Postgres):
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", *SAMPLE],
        cwd=PROJECT,
        env={**variables, "WALSAFE_TEST_CATALOG_URL": server.url("sample")},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert finished.returncode == 0, finished.stdout[-6000:]
    assert " passed" in finished.stdout


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE backups_app_auditevent SET actor_name = 'nobody'",
        "DELETE FROM backups_app_auditevent",
        "TRUNCATE backups_app_auditevent",
        "TRUNCATE backups_app_auditevent CASCADE",
    ],
)
def test_the_audit_trail_refuses_to_be_changed(server: Postgres, shared: Console, statement: str):
    shared.run("create", "default")
    before = rows(server, shared, "SELECT id, actor_name FROM backups_app_auditevent")
    assert before
    with pytest.raises(psycopg.Error, match="append-only"):
        rows(server, shared, statement)
    assert rows(server, shared, "SELECT id, actor_name FROM backups_app_auditevent") == before


_HOSTILE = r"""
from backups_app.models import AuditEvent, Database
from backups_app.services import audit
from backups_app.services.audit import Actor
text = "a\0b \udcff \ud83d \N{PARTY POPPER}"
row = Database.objects.create(name="odd", path=text, required_tables=[text, {text: [text]}])
row.refresh_from_db()
print(ascii(row.path), ascii(row.required_tables))
assert Database.objects.filter(path=text).exists()
assert Database.objects.filter(path__contains=text[:3]).update(required_tables=[text]) == 1
Database.objects.bulk_update([row], ["path", "required_tables"])
audit.record("test", actor=Actor.system(), detail=text)
assert AuditEvent.objects.latest("pk").detail == row.path
"""


def test_text_that_postgresql_cannot_hold_is_stored_with_stand_ins(shared: Console):
    shared.ok("list")
    shown = "'a\\u2400b \\\\udcff \\\\ud83d \\U0001f389'"
    assert run_django(shared, _HOSTILE).strip() == f"{shown} [{shown}, {{{shown}: [{shown}]}}]"


def test_a_catalogue_that_somebody_else_is_making_is_waited_for(server: Postgres, shared: Console):
    name = shared.extra["BACKUPS_CATALOG_URL"].rpartition("/")[2]
    with psycopg.connect(server.url(name), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [0x57414C5341464543])
        process = shared.start("list", "--json")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=6)
        assert rows(server, shared, "SELECT to_regclass('backups_app_backup')") == [(None,)]
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert b'"backups": []' in stdout
    assert rows(server, shared, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


def test_a_backup_is_made_proven_and_restored_to_a_file(shared: Console, site: object):
    made = shared.ok("create", "default", "--json").backup()
    assert (made["state"], made["verdict"]) == ("verified", "passed")
    shared.ok("verify", made["id"])
    target = shared.home.parent / "new.sqlite3"
    shared.ok("restore", made["id"], "--to", target)
    assert target.exists()
    assert shared.run("status").code == 0
    assert not shared.catalog.exists() or shared.query("SELECT count(*) FROM backups_app_backup") == [(0,)]
