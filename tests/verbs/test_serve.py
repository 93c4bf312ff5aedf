"""``serve``: one real command with everything below it, and nothing left of it afterwards."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backups_app.core.sqlite import has_wal_reset_bug
from tests.console import Console, environment, wait_until
from tests.jobs.processes import Heard, end, listening, living, needs_proc, parent_of
from tests.site import run_django
from tests.support import PROJECT, needs_tool

pytestmark = needs_proc


def some_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(home: Path, *arguments: str, ready: str = "Stop with Ctrl-C", **extra: str) -> Iterator[Heard]:
    """A serve, once it has said that it is ready; nothing may be left of it afterwards."""
    port = [] if any(each.startswith("--port") for each in arguments) else [f"--port={some_port()}"]
    command = Console(home).command("serve", *port, *arguments)
    try:
        with listening(command, environment(home, **extra), cwd=home.parent) as heard:
            heard.wait_for(ready)
            yield heard
    finally:
        try:
            wait_until(lambda: living("BACKUPS_HOME", home) == set(), timeout_seconds=5)
        finally:
            end(living("BACKUPS_HOME", home))


def address_of(heard: Heard) -> str:
    found = re.search(r"The admin is at (\S+)", heard.said)
    assert found is not None
    return found[1]


def status_of(address: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with closing(opener.open(address, timeout=30)) as response:
        return int(response.status)


def commands(home: Path) -> dict[int, str]:
    """The processes of a home and what they run."""
    found = {}
    for pid in living("BACKUPS_HOME", home):
        try:
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def running(home: Path, text: str) -> set[int]:
    return {pid for pid, command in commands(home).items() if text in command}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Heard, Console]]:
    """A serve in a home that did not exist."""
    home = tmp_path_factory.mktemp("served") / "home"
    with serving(home) as heard:
        wait_until(lambda: len(running(home, "jobs.worker")) == 6)
        yield heard, Console(home)
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=30) == 0
    assert "Traceback" not in heard.said
    assert heard.said.rstrip().endswith("Stopped.")
    stopped = Console(home).query("SELECT stopped_at = seen_at FROM backups_app_host")
    assert stopped == [(1,)]


def test_both_databases_are_migrated_and_the_admin_answers(served: tuple[Heard, Console]):
    heard, console = served
    assert status_of(address_of(heard)) == 200
    applied = {row[0] for row in console.query("SELECT app FROM django_migrations")}
    assert {"backups_app", "django_q"} <= applied
    assert run_django(console, "from django.contrib.auth.models import User; print(User.objects.count())") == "0\n"


def test_the_worker_runs(served: tuple[Heard, Console]):
    _, console = served
    program = (
        'from django_q.tasks import async_task; async_task("pathlib.Path.touch", __import__("pathlib").Path({0!r}))'
    )
    mark = console.home / "touched"
    run_django(console, program.format(str(mark)))
    wait_until(mark.exists)


def test_the_host_is_known(served: tuple[Heard, Console]):
    heard, console = served
    wait_until(lambda: console.query("SELECT 1 FROM backups_app_host"))
    rows = console.query("SELECT name, supervisor_pid, stopped_at, worker_restarts FROM backups_app_host")
    assert rows == [(socket.gethostname(), heard.process.pid, None, 0)]
    seen = console.query("SELECT seen_at FROM backups_app_host")
    wait_until(lambda: console.query("SELECT seen_at FROM backups_app_host") != seen)


def test_the_warnings_of_the_checks_are_said(served: tuple[Heard, Console]):
    heard, _ = served
    assert ("(backups.W002)" in heard.said) == has_wal_reset_bug()


def test_a_second_one_in_the_same_home_is_refused(served: tuple[Heard, Console]):
    heard, console = served
    before = commands(console.home)
    second = console.run("serve", "--port", some_port(), "--json")
    assert second.code == 4
    assert second.document["errors"][0]["code"] == "busy"
    assert "runs in" in second.stderr
    assert commands(console.home) == before
    assert status_of(address_of(heard)) == 200


# Ending


def test_ctrl_c_ends_everything_and_running_work_may_finish(tmp_path: Path):
    home = tmp_path / "home"
    with serving(home) as heard:
        program = """
from pathlib import Path
from django_q.tasks import async_task
async_task("subprocess.run", ["sh", "-c", "touch begun; sleep 2; touch ended"], cwd=Path({0!r}))
"""
        run_django(Console(home), program.format(str(tmp_path)))
        wait_until((tmp_path / "begun").exists)
        os.killpg(heard.process.pid, signal.SIGINT)
        assert heard.finish(timeout_seconds=30) == 0
    assert (tmp_path / "ended").exists()
    assert "The worker has 60 s to end." in heard.said


def test_work_that_does_not_end_in_time_is_killed(tmp_path: Path):
    home = tmp_path / "home"
    with serving(home, "--stop-seconds=1", "--no-web", ready="The worker runs.") as heard:
        run_django(
            Console(home), 'from django_q.tasks import async_task; async_task("subprocess.run", ["sleep", "600"])'
        )
        wait_until(lambda: running(home, "sleep 600"))
        assert not running(home, "jobs.web")
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=15) == 0
    assert "The worker was killed before it had ended." in heard.said


def test_sigkill_leaves_no_process_and_the_next_one_starts_at_once(tmp_path: Path):
    home, port = tmp_path / "home", f"--port={some_port()}"
    with serving(home, port) as heard:
        wait_until(lambda: len(running(home, "jobs.worker")) == 6)
        heard.send(signal.SIGKILL)
        heard.finish()
        command = Console(home).command("serve", port)
        with listening(command, environment(home), cwd=tmp_path) as second:
            second.wait_for("Stop with Ctrl-C")
            second.send(signal.SIGTERM)
            assert second.finish(timeout_seconds=30) == 0


def test_a_web_server_or_a_worker_that_was_killed_is_back_soon(tmp_path: Path):
    home = tmp_path / "home"
    with serving(home) as heard:
        for what in ("jobs.web", "jobs.worker"):
            before = running(home, what)
            os.kill(min(before), signal.SIGKILL)
            wait_until(
                lambda what=what, before=before: running(home, what) - before and not running(home, what) & before
            )
        assert "The web server ended (killed by SIGKILL); it is started again at once." in heard.said
        wait_until(
            lambda: Console(home).query("SELECT worker_problem FROM backups_app_host WHERE worker_restarts = 1"),
            timeout_seconds=10,
        )
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=30) == 0


@pytest.mark.parametrize("delay_seconds", [0.2, 0.5, 0.8])
def test_ctrl_c_while_the_children_start_is_no_traceback(tmp_path: Path, delay_seconds: float):
    home = tmp_path / "home"
    with listening(Console(home).command("serve", f"--port={some_port()}"), environment(home), cwd=tmp_path) as heard:
        wait_until(lambda: running(home, "jobs.web"))
        time.sleep(delay_seconds)
        heard.send(signal.SIGINT)
        assert heard.finish(timeout_seconds=30) == 0
    assert "Traceback" not in heard.said
    assert living("BACKUPS_HOME", home) == set()


def test_ctrl_c_as_soon_as_it_is_offered_ends_in_good_order(tmp_path: Path):
    home = tmp_path / "home"
    with serving(home, "--no-web") as heard:
        heard.send(signal.SIGINT)
        assert heard.finish(timeout_seconds=30) == 0
    assert heard.said.rstrip().endswith("Stopped.")


def test_it_may_be_process_1_of_a_container(tmp_path: Path):
    unshare = needs_tool("unshare")
    inside = [unshare, "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("a process name space of its own is not permitted here")
    home = tmp_path / "home"
    command = [*inside, *Console(home).command("serve", f"--port={some_port()}")]
    with listening(command, environment(home), cwd=tmp_path) as heard:
        heard.wait_for("Stop with Ctrl-C")
        (first,) = [each for each in living("BACKUPS_HOME", home) if parent_of(each) == heard.process.pid]
        wait_until(lambda: len(running(home, "jobs.worker")) == 6)
        os.kill(first, signal.SIGTERM)
        assert heard.finish(timeout_seconds=30) == 0
    assert heard.said.rstrip().endswith("Stopped.")
    assert living("BACKUPS_HOME", home) == set()


# Refusals


def test_a_taken_port_is_said(tmp_path: Path):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        finished = Console(tmp_path / "home").run("serve", "--port", port)
    assert finished.code == 4
    assert f"Something else listens on 127.0.0.1:{port} already." in finished.stderr


@pytest.mark.parametrize("host", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_said(tmp_path: Path, host: str):
    finished = Console(tmp_path / "home").run("serve", "--host", host, "--port", some_port())
    assert finished.code == 1
    assert "--host" in finished.stderr


@pytest.mark.parametrize("arguments", [["--no-web", "--no-worker"], ["--threads", "0"], ["--port", "0"]])
def test_a_wrong_use_is_exit_code_2_and_writes_nothing(tmp_path: Path, arguments: list[str]):
    finished = Console(tmp_path / "home").run("serve", *arguments)
    assert finished.code == 2
    assert not (tmp_path / "home" / "catalog.sqlite3").exists()


def test_settings_with_errors_are_refused_before_anything_is_made(tmp_path: Path):
    (tmp_path / "wrong.py").write_text(
        "from project.settings import *\nBACKUPS = {**BACKUPS, 'ZSTD_LEVEL': 99}\nQ_CLUSTER = {'orm': 'default'}\n"
    )
    extra = {"DJANGO_SETTINGS_MODULE": "wrong", "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    finished = Console(tmp_path / "home", extra).run("serve", "--port", some_port())
    assert finished.code == 1
    assert "BACKUPS['ZSTD_LEVEL'] is 99" in finished.stderr
    assert "(backups.E005)" in finished.stderr
    assert "(backups.E030)" in finished.stderr
    assert not (tmp_path / "home" / "catalog.sqlite3").exists()


def test_an_application_that_cannot_be_loaded_is_given_up(tmp_path: Path):
    (tmp_path / "wrong.py").write_text(
        "from project.settings import *\nWSGI_APPLICATION = 'project.nowhere.application'\n"
    )
    command = Console(tmp_path / "home").command("serve", f"--port={some_port()}", "--no-worker")
    extra = {"DJANGO_SETTINGS_MODULE": "wrong", "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    with listening(command, environment(tmp_path / "home", **extra), cwd=tmp_path) as heard:
        assert heard.finish() == 1
    assert "5 times in a row" in heard.said
    assert living("BACKUPS_HOME", tmp_path / "home") == set()


def test_a_signal_before_it_has_started_ends_it_in_words(tmp_path: Path):
    home = tmp_path / "home"
    (home / "state" / "locks").mkdir(parents=True)
    holder = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""
    lock = str(home / "state" / "locks" / "migrate.lock")
    with listening([sys.executable, "-c", holder, lock], environment(tmp_path / "other"), cwd=tmp_path) as held:
        held.wait_for("held")
        with listening(Console(home).command("serve"), environment(home), cwd=tmp_path) as heard:
            heard.wait_for("Another process migrates; waiting for it.")
            heard.send(signal.SIGTERM)
            assert heard.finish(timeout_seconds=10) == 130
    assert "Traceback" not in heard.said
    assert not (home / "catalog.sqlite3").exists()
