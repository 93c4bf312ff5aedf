"""A restore of a site that is in use: other processes keep their connections, and nothing restarts."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.console import Console, environment, finish, wait_until
from tests.site import Site, digest, django_program, fill, run_django
from tests.support import PROJECT, connected, holding, writing

_SQL = """
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
for line in sys.stdin:
    try:
        print(json.dumps(connection.execute(line).fetchall()), flush=True)
    except sqlite3.Error as exc:
        print(json.dumps(f"error: {exc}"), flush=True)
"""

# What a Django worker with CONN_MAX_AGE=None does: the signals of a request around each query, one connection.
_DJANGO = """
from django.core.signals import request_finished, request_started
from django.db import Error, connection
connection.settings_dict["CONN_MAX_AGE"] = None
connection.ensure_connection()
first = connection.connection
for line in sys.stdin:
    request_started.send(sender=None, environ={})
    try:
        with connection.cursor() as cursor:
            cursor.execute(line)
            rows = cursor.fetchall() if cursor.description else []
        print(json.dumps([list(row) for row in rows]), flush=True)
    except Error as exc:
        print(json.dumps(f"error: {exc}"), flush=True)
    request_finished.send(sender=None)
    assert connection.connection is first, "the connection was made anew"
"""


class Other:
    """Another process with one connection, that runs what it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def __call__(self, statement: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(statement + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@contextmanager
def other(command: list[str], console: Console) -> Iterator[Other]:
    """A process that is attached until the block ends."""
    with subprocess.Popen(
        command,
        cwd=PROJECT,
        env=environment(console.home, **console.extra),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Other(process)
            assert process.poll() is None, "the process ended"
        finally:
            process.kill()


@contextmanager
def connection_process(site: Site) -> Iterator[Other]:
    with other([sys.executable, "-c", _SQL, str(site.path)], site.console) as process:
        process("SELECT count(*) FROM filler")
        yield process


@contextmanager
def django_process(site: Site) -> Iterator[Other]:
    with other(django_program(site.console, _DJANGO), site.console) as process:
        process("SELECT count(*) FROM filler")
        yield process


@pytest.fixture
def site(people_site: Site) -> Site:
    """With 100 rows of filler, and in WAL mode."""
    fill(people_site.console, 360_000)
    return people_site


def rows(site: Site) -> int:
    (found,) = site.execute("SELECT count(*) FROM filler")[0]
    return int(found)


@pytest.mark.slow
def test_everybody_who_is_attached_sees_the_restored_content_at_once(site: Site):
    wanted_rows, wanted = rows(site), digest(site.path, tables=("filler", "auth_user"))
    backup = site.backup()
    site.execute("DELETE FROM filler WHERE id > 10")
    site.execute("UPDATE auth_user SET first_name = 'changed'")
    restore = site.asked(backup)
    with (
        connection_process(site) as idle,
        connection_process(site) as reader,
        django_process(site) as worker,
        writing(site.path, per_second=100) as writer,
    ):
        assert idle("SELECT count(*) FROM filler") == [[10]]
        reader("BEGIN")
        assert reader("SELECT count(*) FROM filler") == [[10]]
        assert worker("SELECT count(*) FROM filler") == [[10]]
        writer.wait_for(20)
        finished = site.approve(restore)
        assert finished.code == 0, finished.stderr
        document = finished.document["restore"]
        assert document["state"] == "succeeded"
        # At once, without a restart, on the connections that were open all the time.
        assert idle("SELECT count(*) FROM filler") == [[wanted_rows]]
        assert worker("SELECT count(*) FROM filler") == [[wanted_rows]]
        assert worker("SELECT count(*) FROM auth_user WHERE first_name = 'changed'") == [[0]]
        assert reader("SELECT count(*) FROM filler") == [[10]]
        reader("COMMIT")
        assert reader("SELECT count(*) FROM filler") == [[wanted_rows]]
        # Later writes and checkpoints on those connections do not undo it.
        writer.wait_for(writer.acknowledged + 50)
        for each in (idle, worker, reader):
            assert each("INSERT INTO counter SELECT 0 WHERE 0") == []
            assert each("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] in (0, 1)
            assert each("PRAGMA quick_check") == [["ok"]]
        assert writer.refusals == []
    assert digest(site.path, tables=("filler", "auth_user")) == wanted
    ((events, value),) = site.execute("SELECT (SELECT count(*) FROM events), value FROM counter")
    assert events == value > 0
    assert site.execute("PRAGMA integrity_check") == [("ok",)]


_CYCLES = """
from backups_app.models import Backup, Restore
from backups_app.services.audit import Actor
from backups_app.services.restores import approve_restore, request_restore, run_restore, undo_restore
from django.contrib.auth.models import User
from django.db import connections
from tests.site import digest
from pathlib import Path
anna, ben = (Actor.of(User.objects.get(username=name)) for name in ("anna", "ben"))
connections["default"].close()
backup = Backup.objects.select_related("database").get(trigger="command")
path = Path(backup.database.path)
tables = ("filler", "auth_user")
changed = digest(path, tables=tables)
found = []
for _ in range(CYCLES):
    restore = request_restore(backup, backup.database, reason="cycle", actor=anna)
    restore = run_restore(approve_restore(restore, actor=ben), actor=ben)
    found.append((restore.state, digest(path, tables=tables)))
    undo = undo_restore(restore, actor=anna)
    found.append((undo.state, digest(path, tables=tables)))
    undo.refresh_from_db()
print(json.dumps({"changed": changed, "found": found}))
"""


@pytest.mark.slow
def test_fifty_cycles_of_restore_and_undo_under_continuous_writes(site: Site):
    """The writer keeps writing to its own tables; the others hold exactly what was chosen, each time."""
    wanted = digest(site.path, tables=("filler", "auth_user"))
    site.backup()
    site.execute("DELETE FROM filler WHERE id > 10")
    with connection_process(site) as idle, writing(site.path, per_second=50) as writer:
        result = json.loads(run_django(site.console, _CYCLES.replace("CYCLES", "50")))
        assert writer.refusals == []
        assert writer.acknowledged > 50
        assert idle("PRAGMA quick_check") == [["ok"]]
    assert result["changed"] != wanted
    assert result["found"] == [["succeeded", wanted], ["succeeded", result["changed"]]] * 50
    ((events, value),) = site.execute("SELECT (SELECT count(*) FROM events), value FROM counter")
    assert events == value
    assert site.execute("PRAGMA integrity_check") == [("ok",)]
    assert site.console.scratch() == set()


@pytest.mark.slow
def test_of_two_approvals_at_once_one_runs(site: Site):
    backup = site.backup()
    site.execute("DELETE FROM filler")
    restore = site.asked(backup)
    processes = [site.console.start("approve", restore, "--user", name, "--yes", "--json") for name in ("ben", "carl")]
    finished = [finish(process) for process in processes]
    codes = sorted(each.code for each in finished)
    assert codes[0] == 0, [each.stderr for each in finished]
    assert codes[1] in (4, 7)
    assert "Traceback" not in "".join(each.stderr for each in finished)
    assert site.console.query("SELECT count(*) FROM backups_app_backup WHERE \"trigger\" = 'safety'") == [(1,)]
    assert site.row(restore)["state"] == "succeeded"
    assert rows(site) > 0


def is_stopped_outside_a_transaction(process: subprocess.Popen[bytes], site: Site) -> bool:
    """Stop a process; one that holds the lock of the catalogue goes on, or nobody could be told anything."""
    process.send_signal(signal.SIGSTOP)
    with closing(sqlite3.connect(site.console.home / "catalog.sqlite3", timeout=0, isolation_level=None)) as catalog:
        try:
            catalog.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
            return False
    return True


@contextmanager
def held_up(process: subprocess.Popen[bytes], site: Site, table: str) -> Iterator[None]:
    """Stop a run in the middle of its work, until the block ends."""
    wait_until(lambda: site.console.query(f"SELECT count(*) FROM {table} WHERE state = 'running'") == [(1,)])
    wait_until(lambda: is_stopped_outside_a_transaction(process, site))
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@pytest.mark.slow
def test_a_backup_that_runs_keeps_a_restore_out_and_its_approval_can_be_used_later(site: Site):
    fill(site.console, 30 << 20)
    restore = site.asked(site.backup())
    running = site.console.start("create", "default", "--json")
    with held_up(running, site, "backups_app_backup"):
        refused = site.approve(restore)
    assert refused.code == 4, refused.stderr
    assert finish(running).code == 0
    assert site.row(restore)["state"] == "approved"
    assert site.approve(restore).code == 0
    assert site.row(restore)["state"] == "succeeded"


@pytest.mark.slow
def test_a_restore_that_runs_keeps_backups_and_other_restores_out(site: Site):
    fill(site.console, 30 << 20)
    backup = site.backup()
    first, second = site.asked(backup), site.asked(backup)
    running = site.console.start("approve", first, "--user", "ben", "--yes", "--json")
    with held_up(running, site, "backups_app_restore"):
        assert site.console.run("create", "default").code == 4
        assert site.approve(second, user="carl").code == 4
        assert site.row(first)["state"] == "running"  # it lives: nobody may call it dead
    finished = finish(running)
    assert finished.code == 0, finished.stderr
    assert site.row(second)["state"] == "approved"


@pytest.mark.slow
def test_a_writer_that_holds_its_lock_too_long_ends_it_with_4(site: Site, tmp_path: Path):
    backup = site.backup()
    site.execute("DELETE FROM filler")
    restore = site.asked(backup)
    before = digest(site.path)
    with holding(site.path, "BEGIN IMMEDIATE"):
        finished = approve_with(site, restore, RESTORE_WAIT_SECONDS=1)
    assert finished.code == 4, finished.stderr
    assert "nothing was changed" in finished.stderr
    document = finished.document["restore"]
    assert (document["state"], document["failure"]) == ("failed", "busy")
    assert document["safety_backup"]
    assert digest(site.path) == before
    assert site.console.scratch() == set()


def approve_with(site: Site, restore: str, **settings: object) -> Any:
    """``approve`` under other settings of the app."""
    module = site.console.home.parent / "other_settings.py"
    module.write_text(f"from project.settings import *\nBACKUPS = {{**BACKUPS, **{settings!r}}}\n")
    console = Console(site.console.home, {**site.console.extra, "PYTHONPATH": str(module.parent)})
    return console.run("approve", restore, "--user", "ben", "--yes", "--json", "--settings", "other_settings")


@pytest.mark.slow
def test_an_interrupt_before_the_exchange_cancels_and_changes_nothing(site: Site):
    backup = site.backup()
    site.execute("DELETE FROM filler")
    restore = site.asked(backup)
    before = digest(site.path)
    with holding(site.path, "BEGIN IMMEDIATE"):  # the restore waits for it, before its exchange
        process = site.console.start("approve", restore, "--user", "ben", "--yes", "--json")
        wait_until(
            lambda: (
                site.console.query("SELECT safety_backup_id FROM backups_app_restore WHERE state = 'running'")
                not in ([], [(None,)])
            )
        )
        process.send_signal(signal.SIGINT)
        finished = finish(process)
    assert finished.code == 130, finished.stderr
    assert finished.document["restore"]["state"] == "cancelled"
    assert digest(site.path) == before
    assert site.row(restore)["state"] == "cancelled"
    assert site.console.scratch() == set()


@pytest.mark.slow
def test_a_missing_site_database_is_made_anew_by_two_names_that_nobody_could_check(site: Site):
    wanted = digest(site.path)
    backup = site.backup()
    with closing(sqlite3.connect(site.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    mode = 0o640
    site.path.chmod(mode)
    for each in site.console.home.glob("site.sqlite3*"):
        each.unlink()
    restore = site.asked(backup)
    assert not site.path.exists()
    alone = site.approve(restore, user="anna")
    assert alone.code == 7
    assert "somebody else must approve" in alone.stderr
    assert not site.path.exists()
    finished = site.approve(restore, user="ben")
    assert finished.code == 0, finished.stderr
    document = finished.document["restore"]
    assert (document["requested_by"], document["approved_by"]) == ("anna (unchecked)", "ben (unchecked)")
    assert digest(site.path) == wanted


@pytest.mark.slow
def test_garbage_in_place_of_the_site_is_moved_aside(site: Site):
    wanted = digest(site.path)
    backup = site.backup()
    for each in site.console.home.glob("site.sqlite3-*"):
        each.unlink()
    site.path.write_bytes(b"garbage " * 4000)
    site.path.chmod(0o644)
    restore = site.asked(backup)
    finished = site.approve(restore)
    assert finished.code == 0, finished.stderr
    (aside,) = finished.document["restore"]["report"]["moved_aside"][:1]
    assert Path(aside).read_bytes() == b"garbage " * 4000
    assert site.path.stat().st_mode & 0o777 == 0o644
    assert digest(site.path) == wanted


@pytest.mark.slow
def test_pending_migrations_are_reported_and_run_only_when_asked(site: Site):
    with connected(site.path) as connection:
        connection.execute("DELETE FROM django_migrations WHERE app = 'auth' AND name LIKE '0012%'")
    backup = site.backup()
    override = ("--override", "migration=we migrate afterwards")
    refused = site.request(backup)
    assert refused.code == 7
    assert "auth.0012_alter_user_first_name_max_length" in refused.stderr
    done = site.approve(site.asked(backup, *override)).document["restore"]
    assert done["report"]["pending_migrations"] == ["auth.0012_alter_user_first_name_max_length"]
    assert site.execute("SELECT count(*) FROM django_migrations WHERE name LIKE '0012%' AND app = 'auth'") == [(0,)]
    migrated = site.approve(site.asked(backup, *override, "--migrate")).document["restore"]
    assert migrated["report"]["migrated"] == ["auth.0012_alter_user_first_name_max_length"]
    assert migrated["report"]["pending_migrations"] == []
    assert site.execute("SELECT count(*) FROM django_migrations WHERE name LIKE '0012%' AND app = 'auth'") == [(1,)]
