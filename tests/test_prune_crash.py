"""Pruning in real processes: killed in the middle, and twice at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console import Console, environment, finish
from tests.support import PROJECT

_PRUNE_AND_DIE = """
import os, signal, sys
import django
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
django.setup()
from django.core.management import call_command
from backups_app.destinations import LocalDestination
from backups_app.services import prune, removal

where = sys.argv[1]
def die():
    os.kill(os.getpid(), signal.SIGKILL)

if where == "marked":
    prune._remove = lambda *_args, **_options: die()
elif where == "archive removed":
    real = LocalDestination.remove
    def remove(self, name):
        real(self, name)
        die()
    LocalDestination.remove = remove
elif where == "files removed":
    class Stop:
        def __getattr__(self, name):
            die()
    removal.transaction = Stop()
call_command("backup", "prune", "--yes")
"""


@pytest.fixture
def history(console: Console, site: Path) -> list[str]:
    """Ids of four backups of the site, the newest first; the policy keeps one."""
    ids = []
    for days in (3, 2, 1, 0):
        backup = console.ok("create", "default", "--json").backup()["id"]
        for column in ("created_at", "taken_at"):
            console.change(
                f"UPDATE backups_app_backup SET {column} = datetime({column}, ?) WHERE id = ?", f"-{days} days", backup
            )
        ids.insert(0, backup)
    console.change("UPDATE backups_app_database SET keep_last = 1")
    return ids


def states(console: Console, ids: list[str]) -> list[str]:
    found = dict(console.query("SELECT id, state FROM backups_app_backup"))
    return [found[each] for each in ids]


@pytest.mark.parametrize("where", ["marked", "archive removed", "files removed"])
def test_a_killed_prune_is_finished_by_whoever_comes_next(console: Console, history: list[str], where: str):
    died = subprocess.run(
        [sys.executable, "-c", _PRUNE_AND_DIE, where],
        cwd=PROJECT,
        env=environment(console.home, **console.extra),
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert states(console, history) == ["verified", "verified", "verified", "pruning"], "one at a time"
    assert console.run("restore", history[3], "--to", console.home / "x.sqlite3").code == 7
    assert console.run("status").code == 8, "a prune that was killed needs attention"
    assert states(console, history) == ["verified", "verified", "verified", "pruned"]
    assert not [name for name in console.archived() if history[3] in name]
    assert len(console.archived()) == 9
    ((state,),) = console.query("SELECT state FROM backups_app_job WHERE kind = 'prune'")
    assert state == "interrupted"
    console.ok("prune", "--yes")
    assert states(console, history) == ["verified", "pruned", "pruned", "pruned"]
    console.ok("verify", history[0])


def test_two_prunes_at_once_delete_each_backup_once(console: Console, history: list[str]):
    started = [console.start("prune", "--yes", "--json") for _ in range(2)]
    finished = [finish(each) for each in started]
    assert [each.code for each in finished] == [0, 0], [each.stderr for each in finished]
    deleted = [entry["id"] for each in finished for entry in json.loads(each.stdout)["prune"]["deleted"]]
    assert sorted(deleted) == sorted(history[1:])
    assert states(console, history) == ["verified", "pruned", "pruned", "pruned"]
    done = console.query("SELECT count(*) FROM backups_app_auditevent WHERE action = 'prune'")
    assert done == [(6,)], "each was given up once, and removed once"
    assert console.scratch() == set()
