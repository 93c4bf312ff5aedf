"""Deltas and shared archives in real processes, killed with SIGKILL at each step, and run by the command line."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.console import Console, environment, finish
from tests.deltas import build_pages, insert
from tests.support import PROJECT

_CREATE_AND_DIE = """
import os, signal, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
django.setup()
from django.core.management import call_command
from backups_app.core import create as engine
from backups_app.core import pages
from backups_app.destinations import LocalDestination
from backups_app.services import publish

where = sys.argv[1]
def die(*_arguments, **_options):
    os.kill(os.getpid(), signal.SIGKILL)

def after(module, name):
    real = getattr(module, name)
    def then_die(*arguments, **options):
        real(*arguments, **options)
        die()
    setattr(module, name, then_die)

if where == "scanned":
    after(engine, "scan_pages")
elif where == "written":
    after(engine, "write_delta")
elif where == "stored":
    after(LocalDestination, "store")
elif where == "proven":
    after(publish, "prove_stored")
elif where == "not recorded":
    publish.record_outcome = die
elif where == "recorded":
    publish.advance_head = die
elif where == "digests written":
    engine.keep_digests = die
call_command("backup", "create", "default")
"""


@pytest.fixture
def saving(console: Console) -> Console:
    """A console that saves space both ways, with a site of many pages."""
    build_pages(console.site, rows=150)
    return Console(console.home, {**console.extra, "BACKUPS_REUSE_UNCHANGED": "yes", "BACKUPS_DELTA_CHAIN": "10"})


def grow(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        insert(connection, 3)


def stored(console: Console) -> set[str]:
    root = console.home / "archives"
    return {str(path.relative_to(root)) for path in root.rglob("*.zst")}


@pytest.mark.crash
@pytest.mark.parametrize(
    "where", ["scanned", "written", "stored", "proven", "not recorded", "recorded", "digests written"]
)
def test_a_kill_while_a_delta_is_made_leaves_a_true_catalogue_and_no_stray_archive(
    saving: Console, tmp_path: Path, where: str
):
    first = saving.ok("create", "default", "--json").backup()["id"]
    grow(saving.site)
    killed = subprocess.run(
        [sys.executable, "-c", _CREATE_AND_DIE, where],
        env={**environment(saving.home, **saving.extra), "PYTHONPATH": str(PROJECT)},
        cwd=saving.home.parent,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    grow(saving.site)
    last = saving.ok("create", "default", "--json").backup()
    rows = saving.query("SELECT id, archive_name, state, builds_on FROM backups_app_backup ORDER BY created_at")
    is_whole = where in ("recorded", "digests written")
    assert [state for _, _, state, _ in rows] == ["verified", "verified" if is_whole else "failed", "verified"]
    assert stored(saving) == {name for _, name, state, _ in rows if state == "verified"}
    # After a death between the record and the page digests they are of an older archive: a full one follows.
    assert last["builds_on"] == (None if is_whole else first)
    saving.ok("verify", "--all", "--level", "full")
    saving.ok("restore", last["id"], "--to", tmp_path / "new.db", "--reason", "a test")
    with closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        assert connection.execute("SELECT count(*) FROM note").fetchone() == (156,)
    assert not [path for path in (saving.home / "scratch").iterdir() if path.is_dir()]


def test_the_command_line_says_what_an_archive_is_shared_with_or_built_on(saving: Console):
    first = saving.ok("create", "default", "--json").backup()
    second = saving.ok("create", "default", "--json").backup()
    grow(saving.site)
    third = saving.ok("create", "default", "--json").backup()
    assert (first["shares_with"], first["builds_on"]) == (None, None)
    assert (second["shares_with"], second["archive_sha256"]) == (first["id"], first["archive_sha256"])
    assert third["builds_on"] == first["id"]
    assert f"shared with backup {first['id']}" in saving.ok("show", second["id"]).stdout
    assert f"backup {first['id']}: the archive holds the pages" in saving.ok("show", third["id"]).stdout
    assert len(stored(saving)) == 2
    found = saving.ok("rescan", "--json").document
    assert found["rescan"]["findings"] == []


@pytest.mark.crash
def test_kills_at_any_moment_leave_only_backups_that_are_whole(saving: Console):
    saving.ok("create", "default")
    for delay in (0.9, 1.1, 1.3, 1.5):
        grow(saving.site)
        process = saving.start("create", "default")
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
        finish(process)
    grow(saving.site)
    saving.ok("create", "default")
    saving.ok("verify", "--all", "--level", "full")
    verified = saving.query("SELECT archive_name FROM backups_app_backup WHERE state = 'verified'")
    assert stored(saving) == {name for (name,) in verified}
