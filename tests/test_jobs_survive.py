"""Jobs under a real ``serve``: whatever is killed, each job ends once, and nothing is left.

Each test runs with the queue in the catalogue and with a real ``redis-server``. ``WALSAFE_SOAK=1``
in the environment makes the long run 200 jobs over 10 databases; it is 30 over 5 otherwise.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.console import Console, wait_until
from tests.jobs.processes import Heard, living, needs_proc
from tests.site import Site, fill
from tests.support import build_shop, integrity_of, needs_tool, rows_of
from tests.verbs.test_serve import running, serving, some_port

pytestmark = [needs_proc, pytest.mark.slow]

IS_SOAK = bool(os.environ.get("WALSAFE_SOAK"))
SIZE_BYTES = 160 << 20
FINAL = ("succeeded", "failed", "cancelled", "interrupted")


@pytest.fixture(params=["catalogue", "redis"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What the environment says of the queue."""
    if request.param == "catalogue":
        yield {}
        return
    program, port = needs_tool("redis-server"), some_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: _answers(port), timeout_seconds=10)
            yield {"BACKUPS_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
        finally:
            server.terminate()


def _answers(port: int) -> bool:
    with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
        return True
    return False


@dataclass
class Served:
    """A home that is served, and what its catalogue says."""

    console: Console
    heard: Heard

    @property
    def home(self) -> Path:
        return self.console.home

    def ask(self, name: str = "default") -> str:
        """Ask for a backup; returns the id of the job."""
        (job,) = self.console.ok("create", name, "--enqueue", "--json").document["jobs"]
        return str(job["id"])

    def ask_for_all(self) -> set[str]:
        """Ask for a backup of each database; returns the ids of the jobs, old ones where a job waits already."""
        return {str(each["id"]) for each in self.console.ok("create", "--all", "--enqueue", "--json").document["jobs"]}

    def row(self, job: str, *names: str) -> tuple[object, ...]:
        (found,) = self.console.query(f"SELECT {', '.join(names)} FROM backups_app_job WHERE id = ?", job)
        return found

    def ended(self, job: str, *, within_seconds: float) -> str:
        """The final state of a job, which must come in time."""
        wait_until(lambda: self.row(job, "state")[0] in FINAL, timeout_seconds=within_seconds)
        return str(self.row(job, "state")[0])

    def verified(self) -> int:
        (found,) = self.console.query("SELECT count(*) FROM backups_app_backup WHERE state = 'verified'")
        return int(found[0])

    def nothing_is_left(self) -> None:
        """No scratch, and an archive and a manifest for each verified backup and nothing else."""
        wait_until(lambda: self.console.scratch() == set(), timeout_seconds=15)
        stored = self.console.query("SELECT archive_name FROM backups_app_backup WHERE state = 'verified'")
        archives = {each for each in self.console.archived() if ".sqlite3.zst" in each}
        assert archives == {name for (name,) in stored}
        assert not [each for each in self.console.archived() if "tmp" in each or each.endswith(".part")]

    def owner(self, job: str) -> int:
        """The process that runs a job."""
        return int(str(self.row(job, "owner")[0]).rpartition(":")[2])

    def is_up(self) -> bool:
        """The main process of the worker, its sentinel, two workers, monitor, pusher."""
        return len(running(self.home, "jobs.worker")) == 6


@contextmanager
def served_home(site: Site, broker: dict[str, str]) -> Iterator[Served]:
    console = Console(site.console.home, {**site.console.extra, **broker})
    with serving(console.home, "--stop-seconds=20", **console.extra) as heard:
        served = Served(console, heard)
        wait_until(served.is_up)
        yield served
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=60) == 0, heard.said
    assert "Traceback" not in heard.said


@pytest.fixture
def served(people_site: Site, broker: dict[str, str]) -> Iterator[Served]:
    """A served site whose backup takes long enough to be met in the middle."""
    fill(people_site.console, SIZE_BYTES)
    with served_home(people_site, broker) as found:
        yield found


def in_the_middle(served: Served, job: str) -> None:
    """Wait until a backup is being written."""
    wait_until(lambda: served.row(job, "state") == ("running",) and served.console.scratch() != set())
    time.sleep(0.2)
    assert served.row(job, "state") == ("running",)


def test_a_worker_killed_in_the_middle_is_noticed_and_its_backup_made_once(served: Served):
    job = served.ask()
    in_the_middle(served, job)
    killed_at = time.monotonic()
    os.kill(served.owner(job), signal.SIGKILL)
    wait_until(lambda: served.row(job, "state") == ("queued",) or served.row(job, "attempts") == (2,))
    assert time.monotonic() - killed_at < 15
    assert served.ended(job, within_seconds=30) == "succeeded"
    assert served.row(job, "attempts") == (2,)
    assert served.verified() == 1
    served.nothing_is_left()


def test_work_goes_on_whatever_is_killed(people_site: Site, broker: dict[str, str]):
    with served_home(people_site, broker) as served:
        for number, target in enumerate(["idle worker", "monitor", "pusher", "sentinel", "main process"], 1):
            leader, *others = sorted(running(served.home, "jobs.worker"))
            sentinel, idle, _busy, monitor, pusher = others
            victims = {"main process": leader, "sentinel": sentinel, "idle worker": idle, "monitor": monitor}
            os.kill(victims.get(target, pusher), signal.SIGKILL)
            asked = [served.ask()]
            assert served.ended(asked[0], within_seconds=30) == "succeeded", target
            asked.append(served.ask())
            assert served.ended(asked[1], within_seconds=30) == "succeeded", target
            assert [served.row(each, "attempts") for each in asked] == [(1,), (1,)], target
            assert served.verified() == 2 * number, target
            wait_until(served.is_up)
        served.nothing_is_left()


def test_after_the_supervisor_was_killed_nothing_runs_and_the_next_one_goes_on(
    people_site: Site, broker: dict[str, str]
):
    fill(people_site.console, SIZE_BYTES)
    console = Console(people_site.console.home, {**people_site.console.extra, **broker})
    with serving(console.home, **console.extra) as heard:
        served = Served(console, heard)
        wait_until(served.is_up)
        job = served.ask()
        in_the_middle(served, job)
        heard.send(signal.SIGKILL)
        heard.finish()
        wait_until(lambda: living("BACKUPS_HOME", console.home) == set(), timeout_seconds=3)
    with served_home(people_site, broker) as served:
        assert served.ended(job, within_seconds=30) == "succeeded"
        assert served.row(job, "attempts") == (2,)
        assert served.verified() == 1
        served.nothing_is_left()


def test_a_graceful_end_lets_the_running_backup_finish(people_site: Site, broker: dict[str, str]):
    fill(people_site.console, SIZE_BYTES)
    with served_home(people_site, broker) as served:
        job = served.ask()
        in_the_middle(served, job)
    assert served.row(job, "state", "attempts") == ("succeeded", 1)
    served.nothing_is_left()


def test_a_cancel_at_random_moments_leaves_nothing(served: Served):
    chance = random.Random(7)
    for _ in range(10):
        job = served.ask()
        wait_until(lambda job=job: served.row(job, "state") == ("running",))  # type: ignore[misc]
        time.sleep(chance.uniform(0, 0.25))
        served.console.change(  # the verb takes longer to start than some moments last
            "UPDATE backups_app_job SET cancel_requested_at = datetime('now'), cancelled_by_name = 'x' "
            "WHERE id = ? AND state = 'running'",
            job,
        )
        assert served.ended(job, within_seconds=10) == "cancelled"
        assert served.console.archived() == set()
    assert served.verified() == 0
    served.nothing_is_left()


def test_many_jobs_over_many_databases_and_a_killer(people_site: Site, broker: dict[str, str], tmp_path: Path):
    names = [f"db{number}" for number in range(9 if IS_SOAK else 4)]  # and the site's own
    for name in names:
        people_site.console.ok("add-database", name, build_shop(tmp_path / f"{name}.sqlite3"))
    chance, kills = random.Random(11), 0
    jobs: set[str] = set()
    with served_home(people_site, broker) as served:
        next_kill = time.monotonic() + 3
        while len(jobs) < (200 if IS_SOAK else 30) or kills < 4:
            jobs |= served.ask_for_all()
            next_kill, killed = _kill_when_due(served, chance, next_kill)
            kills += killed
        give_up_at = time.monotonic() + 240
        while open_jobs := [each for each in jobs if served.row(each, "state")[0] not in FINAL]:
            assert time.monotonic() < give_up_at, open_jobs
            next_kill, killed = _kill_when_due(served, chance, next_kill, while_open=len(open_jobs))
            kills += killed
            time.sleep(0.2)
        wait_until(served.is_up, timeout_seconds=60)
        served.nothing_is_left()
    states = [served.row(each, "state")[0] for each in sorted(jobs)]
    succeeded = states.count("succeeded")
    print(f"{len(jobs)} jobs, {kills} kills, {succeeded} succeeded")
    assert set(states) <= {"succeeded", "interrupted"}
    assert served.verified() == succeeded
    doubled = served.console.query(
        "SELECT job_id FROM backups_app_backup WHERE state = 'verified' GROUP BY job_id HAVING count(*) > 1"
    )
    assert doubled == []
    for name in names:
        path = tmp_path / f"{name}.sqlite3"
        assert integrity_of(path) == "ok"
        assert rows_of(path) == {"product": 3, "sale": 4}


def _kill_when_due(
    served: Served, chance: random.Random, next_kill: float, *, while_open: int = 1
) -> tuple[float, int]:
    """SIGKILL a random process of the worker every three seconds, while there is work."""
    if time.monotonic() < next_kill or not while_open:
        return next_kill, 0
    found = sorted(running(served.home, "jobs.worker"))
    killed = 0
    if found:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(found), signal.SIGKILL)
            killed = 1
    return time.monotonic() + 3, killed
