"""A claim in a process of its own: signs of life, a cancel within a second, and no word from who lost it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.console import Console, environment, wait_until
from tests.site import django_program
from tests.support import PROJECT

_WORK = """
import sys, time
from backups_app.core.errors import CancelledError
from backups_app.jobs.claim import insert_claimed, job_lock
from backups_app.models import Database, Job
from backups_app.services.jobs.ending import Ending, finish
from backups_app.services.databases import get_database, sync_databases
sync_databases()
database = get_database("default")
with job_lock(database) as is_ours:
    assert is_ours
    claim = insert_claimed(Job(kind="create", database=database, trigger="command"))
    watch = claim.watch()
    with claim.alive():
        print(claim.job.pk, flush=True)
        try:
            for done in range(10_000):
                watch.report("copy" if done < 20 else "compress", done, 10_000)
                time.sleep(0.02)
        except CancelledError:
            print("stopped", time.time(), flush=True)
            print(finish(claim, Ending.of(CancelledError("x", "y"))), flush=True)
"""


@pytest.fixture
def working(console: Console, site: Path):
    """A process that has claimed a job and works on it."""
    process = subprocess.Popen(
        django_program(console, _WORK),
        cwd=PROJECT,
        env=environment(console.home, **console.extra),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def row(console: Console, job: str, *names: str) -> tuple[object, ...]:
    (found,) = console.query(f"SELECT {', '.join(names)} FROM backups_app_job WHERE id = ?", job)
    return found


def test_signs_of_life_and_progress_are_written(console: Console, working):
    _process, job = working
    (first,) = row(console, job, "heartbeat_at")
    wait_until(lambda: row(console, job, "phase") == ("compress",), timeout_seconds=10)
    assert row(console, job, "heartbeat_at") != (first,)
    phase, done, total, log = row(console, job, "phase", "done_bytes", "total_bytes", "log")
    assert (phase, total) == ("compress", 10_000)
    assert isinstance(done, int)
    assert 0 < done < 10_000
    assert [line.split(" ", 2)[2] for line in str(log).splitlines()] == ["copy", "compress"]


def test_a_cancel_is_honoured_within_a_second(console: Console, working):
    process, job = working
    console.ok("cancel", job)
    (asked_at,) = console.query("SELECT (julianday(cancel_requested_at) - 2440587.5) * 86400 FROM backups_app_job")[0]
    word, stopped_at = process.stdout.readline().split()
    assert word == "stopped"
    assert float(stopped_at) - asked_at < 1
    assert process.stdout.readline() == "True\n"
    assert row(console, job, "state") == ("cancelled",)


def test_who_lost_the_claim_stops_and_writes_nothing(console: Console, working):
    process, job = working
    console.change("UPDATE backups_app_job SET token = 2, phase = 'of the new owner', log = ''")
    assert process.stdout.readline().startswith("stopped")
    assert process.stdout.readline() == "False\n"
    assert row(console, job, "state", "phase", "log", "token") == ("running", "of the new owner", "", 2)


def test_a_catalogue_that_is_locked_for_a_while_does_not_stop_the_work(console: Console, working):
    process, job = working
    from tests.support import holding

    with holding(console.catalog, "BEGIN EXCLUSIVE"):
        assert process.poll() is None
    wait_until(lambda: row(console, job, "phase") == ("compress",), timeout_seconds=15)
    assert process.poll() is None
