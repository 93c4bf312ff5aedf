"""The catalogue on PostgreSQL: its refusals and locks, lost connections, and the tests of the services once more."""

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


# A connection that is lost while a job runs


@pytest.fixture
def made(shared: Console, site: object) -> Console:
    """A console whose catalogue on the server is made."""
    shared.ok("list")
    return shared


_LOSING = """
import json, os, time
import psycopg
from backups_app.core.errors import CancelledError
from backups_app.jobs import claim as claiming
from backups_app.jobs.claim import claim_queued, job_lock
from backups_app.models import Backup, Job, Notification, Verification
from backups_app.services.audit import Actor
from backups_app.services.databases import get_database, sync_databases
from backups_app.services.jobs import ask_create, ask_verify
from backups_app.services.jobs.ending import Ending, finish
from backups_app.services.jobs.run import run_job

URL = os.environ["BACKUPS_CATALOG_URL"]

def lose_connections():
    with psycopg.connect(URL, autocommit=True) as other:
        lost = other.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND datname = current_database()"
        ).fetchone()[0]
    assert lost >= 1, lost

def seen(statement):
    with psycopg.connect(URL, autocommit=True) as other:
        return other.execute(statement).fetchall()

sync_databases()
database = get_database("default")
actor = Actor.system()
"""

_DEAF = """
job = ask_create(database, actor=actor, trigger="command")
with job_lock(database) as is_ours:
    claim = claim_queued(job.pk)
    watch = claim.watch()
    with claim.alive():
        time.sleep(1)
        lose_connections()
        ((before,),) = seen("SELECT heartbeat_at FROM backups_app_job")
        give_up_at = time.monotonic() + 15
        while seen("SELECT heartbeat_at FROM backups_app_job") == [(before,)]:
            assert time.monotonic() < give_up_at, "no sign of life any more"
            time.sleep(0.1)
        watch.check()
        with psycopg.connect(URL, autocommit=True) as other:
            other.execute("UPDATE backups_app_job SET cancel_requested_at = now()")
        asked_at = time.monotonic()
        try:
            while True:
                watch.check()
                assert time.monotonic() < asked_at + 5, "the cancel was not heard"
                time.sleep(0.02)
        except CancelledError as exc:
            error = exc
    Job.objects.get()
    lose_connections()
    assert finish(claim, Ending.of(error))
assert seen("SELECT state, failure_code FROM backups_app_job") == [("cancelled", "cancelled")]
"""


def test_a_job_that_lost_its_connection_gives_signs_of_life_and_hears_a_cancel(made: Console):
    run_django(made, _LOSING + _DEAF)


_IN_PHASES = """
def lose_in(phase):
    note = claiming.Claim._note_progress
    done = []
    def losing(self, now, *amounts):
        note(self, now, *amounts)
        if now == phase and not done:
            done.append(now)
            lose_connections()
    claiming.Claim._note_progress = losing
    return done

def run(job, phase):
    note = claiming.Claim._note_progress
    done = lose_in(phase)
    run_job(job.pk)
    claiming.Claim._note_progress = note
    assert done, phase
    job = Job.objects.get(pk=job.pk)
    assert (job.state, job.attempts, job.failure_code) == ("succeeded", 1, ""), (phase, job.state, job.outcome)
    return job

"""

_IN_A_BACKUP = """
for phase in ("copy", "compress", "read back"):
    job = run(ask_create(database, actor=actor, trigger="command"), phase)
    assert [each.state for each in job.backups.all()] == ["verified"]
(job,) = ask_verify([job.backups.get()], level="full", actor=actor, trigger="command")
job = run(job, "unpack")
assert [each.verdict for each in job.verifications.all()] == ["passed"]
print(Backup.objects.count(), Verification.objects.count())
"""


def test_a_backup_and_a_verification_are_done_once_in_whatever_phase_the_connection_is_lost(made: Console):
    assert run_django(made, _LOSING + _IN_PHASES + _IN_A_BACKUP).split() == ["3", "4"]
    assert made.scratch() == set()


_IN_A_RESTORE = """
from backups_app.services.jobs import ask_restore
from backups_app.services.restores import approve_restore, request_restore
from backups_app.services.databases import add_database
from tests.support import add_filler, build_shop, connected
from pathlib import Path
anna, ben = Actor(id="1", name="anna"), Actor(id="2", name="ben")
path = build_shop(Path(os.environ["BACKUPS_ROOTS"]) / "shop.sqlite3")
with connected(path) as connection:
    connection.execute("CREATE TABLE filler (id INTEGER PRIMARY KEY, payload BLOB)")
    add_filler(connection, 20_000_000)
shop = add_database("shop", path, actor=anna)
backup = run(ask_create(shop, actor=anna, trigger="command"), "copy").backups.get()
for phase in ("unpack", "copy", "restore"):
    restore = approve_restore(request_restore(backup, shop, reason="x", actor=anna), actor=ben)
    run(ask_restore(restore, actor=ben, trigger="command"), phase)
    restore.refresh_from_db()
    assert (restore.state, restore.safety_backup.state) == ("succeeded", "verified"), (phase, restore.outcome)
"""


def test_a_restore_is_done_in_whatever_phase_the_connection_is_lost(made: Console):
    run_django(made, _LOSING + _IN_PHASES + _IN_A_RESTORE)
    assert made.scratch() == set()


_OUT_OF_REACH = """
name = URL.rpartition("/")[2]
def allow(answer):
    with psycopg.connect(URL.removesuffix(name) + "postgres", autocommit=True) as other:
        other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {answer}')
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

note, done = claiming.Claim._note_progress, []
def losing(self, phase, *amounts):
    note(self, phase, *amounts)
    if phase == "compress" and not done:
        done.append(phase)
        allow("false")
claiming.Claim._note_progress = losing
job = ask_create(database, actor=actor, trigger="command")
run_job(job.pk)
claiming.Claim._note_progress = note
assert done
allow("true")
assert seen("SELECT state FROM backups_app_job") == [("running",)]
from backups_app.services.jobs.reap import reap_jobs
from django.db import connections
connections.close_all()  # what django-q2 does between tasks
assert [each.state for each in reap_jobs()] == ["queued"]
run_job(job.pk)
assert seen("SELECT state, attempts FROM backups_app_job") == [("succeeded", 2)]
assert seen("SELECT state FROM backups_app_backup ORDER BY created_at") == [("failed",), ("verified",)]
"""


def test_a_worker_whose_catalogue_is_out_of_reach_raises_nothing_and_the_job_is_done_later(made: Console):
    run_django(made, _LOSING + _OUT_OF_REACH)
    assert made.scratch() == set()
    assert len(made.archived()) == 3, "archive, manifest and signature of the second attempt"
