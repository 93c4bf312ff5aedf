"""A real ``qcluster``: SIGKILL of any of its processes leaves no orphan, and work goes on."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.console import Console, environment, wait_until
from tests.jobs.processes import Heard, end, environment_of, listening, living, needs_proc, parent_of
from tests.site import run_django
from tests.support import PROJECT, needs_tool

pytestmark = needs_proc

_KEEPER = """
import json, sys
from pathlib import Path
from backups_app.jobs.supervisor import Beat, ChildSpec, Supervisor
told = Path(sys.argv[1])
def beat(now):
    return Beat(is_stalled=told.exists(), reason="nobody works", busy_generations=frozenset())
worker = ChildSpec(name="worker", argv=[sys.executable, "-m", "backups_app.jobs.worker"], stop_seconds=20)
Supervisor([worker], beat=beat, watched="worker", beat_seconds=0.5, settling_seconds=2,
    on_event=lambda event: print(event.text, flush=True)).run()
"""


@contextmanager
def cluster(console: Console) -> Iterator[Heard]:
    """A supervised cluster that has come up."""
    home = console.home
    extra = {**console.extra, "DJANGO_SETTINGS_MODULE": "project.settings", "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", _KEEPER, str(home / "stalled")]
    try:
        with listening(command, environment(home, **extra), cwd=home.parent) as heard:
            wait_until(lambda: is_up(home))
            yield heard
            heard.send(signal.SIGKILL)
            heard.finish()
            wait_until(lambda: living("BACKUPS_HOME", home) == set(), timeout_seconds=3)
    finally:
        end(living("BACKUPS_HOME", home))


def workers(home: Path) -> set[int]:
    """All processes of all clusters."""
    return {pid for pid in living("BACKUPS_HOME", home) if environment_of(pid).get("BACKUPS_GENERATION")}


def leader(home: Path) -> int:
    """The main process of the cluster."""
    found = workers(home)
    (one,) = [each for each in found if parent_of(each) not in found]
    return one


def sentinel(home: Path) -> int:
    (one,) = [each for each in workers(home) if parent_of(each) == leader(home)]
    return one


def is_up(home: Path) -> bool:
    """One main process, a sentinel, two workers, monitor, pusher."""
    found = workers(home)
    return len(found) == 6 and len({environment_of(each).get("BACKUPS_GENERATION") for each in found}) == 1


def below_sentinel(home: Path) -> list[int]:
    """In the order in which they were started: two workers, the monitor, the pusher."""
    return sorted(each for each in workers(home) if parent_of(each) == sentinel(home))


def touch(console: Console, name: str) -> None:
    """Have the worker touch a file; returns when it has."""
    mark = console.home / name
    program = """
from pathlib import Path
from django_q.tasks import async_task
async_task("pathlib.Path.touch", Path({!r}))
"""
    run_django(console, program.format(str(mark)))
    wait_until(mark.exists, timeout_seconds=20)


@pytest.mark.parametrize("victim", [leader, sentinel])
def test_what_lies_below_a_killed_process_goes_with_it_and_a_new_cluster_works(
    console: Console, victim: Callable[[Path], int]
):
    with cluster(console):
        before = workers(console.home)
        os.kill(victim(console.home), signal.SIGKILL)
        wait_until(lambda: not before & workers(console.home), timeout_seconds=3)
        wait_until(lambda: is_up(console.home))
        touch(console, "done")


@pytest.mark.parametrize("index", [2, 3], ids=["monitor", "pusher"])
def test_the_sentinel_replaces_its_helpers_and_they_are_bound_too(console: Console, index: int):
    with cluster(console):
        killed = below_sentinel(console.home)[index]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: is_up(console.home) and killed not in workers(console.home))
        touch(console, "done")


def test_an_idle_worker_that_was_killed_stalls_the_cluster_and_a_new_generation_cures_it(console: Console):
    with cluster(console) as heard:
        before = workers(console.home)
        for each in below_sentinel(console.home)[:2]:  # one of them holds the lock of the queue
            os.kill(each, signal.SIGKILL)
        (console.home / "stalled").touch()
        heard.wait_for("The worker has stalled: nobody works")
        (console.home / "stalled").unlink()
        wait_until(lambda: is_up(console.home) and not before & workers(console.home), timeout_seconds=20)
        touch(console, "done")


def test_sigterm_to_the_supervisor_ends_the_cluster(console: Console):
    with cluster(console) as heard:
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=30) == 0
        assert workers(console.home) == set()
    assert "killed before" not in heard.said


def test_what_a_job_starts_goes_when_the_worker_goes(console: Console):
    with cluster(console):
        program = "from django_q.tasks import async_task; async_task('os.system', 'sleep 600')"
        run_django(console, program)
        wait_until(lambda: len(workers(console.home)) >= 7)
        before = workers(console.home)
        os.kill(leader(console.home), signal.SIGKILL)
        wait_until(lambda: not before & workers(console.home), timeout_seconds=5)


def test_the_queue_may_be_redis(console: Console, tmp_path: Path):
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = [needs_tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with listening(server, environment(tmp_path / "redis"), cwd=tmp_path) as redis:
        redis.wait_for("Ready to accept connections")
        console = Console(console.home, {"BACKUPS_REDIS_URL": f"redis://127.0.0.1:{port}/0"})
        with cluster(console):
            touch(console, "done")
            before = workers(console.home)
            os.kill(sentinel(console.home), signal.SIGKILL)
            wait_until(lambda: is_up(console.home) and not before & workers(console.home))
            touch(console, "again")
        assert console.query("SELECT count(*) FROM django_q_ormq") == [(0,)]
