"""When the parent dies, so does what is bound to it: by the kernel, or by a watching process."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.console import environment, wait_until
from tests.jobs.processes import end, listening, living, needs_proc
from tests.support import PROJECT, run_python

pytestmark = needs_proc

_PARENT = """
import os, subprocess, sys
from backups_app.jobs import bound
lifeline, ours = os.pipe()
program = "import os, time; os.fork(); print('up', flush=True); time.sleep(600)"
command = bound.bound_command([sys.executable, "-c", program], lifeline=lifeline)
if "elsewhere" in sys.argv:  # a system whose kernel offers nothing
    shim = "import sys; from backups_app.jobs import bound; bound._prctl = None; bound.main(sys.argv[1:])"
    command = [sys.executable, "-c", shim, *command[4:]]
child = subprocess.Popen(command, pass_fds=(lifeline,), start_new_session=True)
sys.stdin.read() if "ends" not in sys.argv else None
child.wait()
print("over", flush=True)
"""


@pytest.mark.parametrize("where", ["linux", "elsewhere"])
def test_sigkill_of_the_parent_takes_it_along(tmp_path: Path, where: str):
    command = [sys.executable, "-c", _PARENT, where]
    with listening(command, environment(tmp_path, PYTHONPATH=str(PROJECT)), cwd=tmp_path) as heard:
        heard.wait_for("up", times=2)
        found = living("BACKUPS_HOME", tmp_path)
        heard.send(signal.SIGKILL)
        heard.finish()
        if where == "linux":  # its own children are not bound here
            wait_until(lambda: len(living("BACKUPS_HOME", tmp_path)) == len(found) - 2, timeout_seconds=3)
            end(living("BACKUPS_HOME", tmp_path))
        wait_until(lambda: living("BACKUPS_HOME", tmp_path) == set(), timeout_seconds=5)


def test_the_watching_process_ends_with_the_program(tmp_path: Path):
    command = [sys.executable, "-c", _PARENT.replace("os.fork(); ", "").replace("600", "0.2"), "elsewhere"]
    with listening(command, environment(tmp_path, PYTHONPATH=str(PROJECT)), cwd=tmp_path) as heard:
        heard.wait_for("over")
        heard.finish()
        wait_until(lambda: living("BACKUPS_HOME", tmp_path) == set(), timeout_seconds=5)


def test_who_comes_too_late_ends_at_once():
    program = "from backups_app.jobs import bound; bound.bind_to_parent(1 << 22); print('lives')"
    finished = run_python(program, check=False)
    assert finished.returncode == -signal.SIGKILL
    assert finished.stdout == ""


def test_a_fork_of_another_thread_is_left_alone():
    program = """
import os, threading, time
from backups_app.jobs import bound
bound.bind_forks()
child = []
thread = threading.Thread(target=lambda: child.append(os.fork() or os.execv("/bin/sleep", ["sleep", "0.5"])))
thread.start()
thread.join()
print(os.waitpid(child[0], 0)[1])
"""
    assert run_python(program).stdout == "0\n"
