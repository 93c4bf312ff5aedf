"""Children are kept running, ended in time, and never left behind: real processes, real signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.console import environment, wait_until
from tests.jobs.processes import Heard, end, environment_of, listening, living, needs_proc, parent_of, zombies_of
from tests.support import PROJECT

pytestmark = needs_proc

_KEEPER = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
from backups_app.jobs.supervisor import Beat, ChildSpec, Supervisor
children, options, here = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
friend = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("friend", friend.pid, flush=True)

def beat(now):
    told = json.loads((here / "beat").read_text())
    if told.get("hangs"):
        time.sleep(600)
    if told.get("fails"):
        raise OSError("the catalogue is locked")
    busy = told.get("busy")
    return Beat(is_stalled=told.get("stalled", False), reason="nobody works",
        busy_generations=None if busy is None else frozenset(busy))

supervisor = Supervisor(
    [
        ChildSpec(name=name, argv=[sys.executable, "-c", program, str(here)], env={"CHILD": name},
            stop_signal=signal.Signals[number], stop_seconds=seconds)
        for name, program, number, seconds in children
    ],
    beat=beat if (here / "beat").exists() else None,
    on_event=lambda event: print(event.happening.name, event.child, event.text, flush=True),
    **options,
)
was_asked = supervisor.run()
print("friend lives" if friend.poll() is None else "friend is dead", flush=True)
friend.kill()
friend.wait()
sys.exit(0 if was_asked else 1)
"""

SLEEPER = "import time; time.sleep(600)"
STUBBORN = """
import signal, time
for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(each, signal.SIG_IGN)
print("stubborn", flush=True)
time.sleep(600)
"""
POLITE = """
import os, signal, sys, time
def bye(*_):
    time.sleep(0.3)
    print("bye", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
print("polite", flush=True)
while True:
    time.sleep(1)
"""
PARENT = """
import os, time
from backups_app.jobs.bound import bind_forks
bind_forks()
if os.fork() == 0:
    os.fork()
print("parent", flush=True)
time.sleep(600)
"""

Keep = Callable[..., AbstractContextManager[Heard]]


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Keep]:
    """A function that starts a supervisor in a process of its own."""

    @contextmanager
    def keep(*programs: str, stop_signal: str = "SIGTERM", stop_seconds: float = 20, **options: Any) -> Iterator[Heard]:
        children = [(f"child {index}", program, stop_signal, stop_seconds) for index, program in enumerate(programs)]
        command = [sys.executable, "-c", _KEEPER, json.dumps(children), json.dumps(options), str(tmp_path)]
        with listening(command, environment(tmp_path, PYTHONPATH=str(PROJECT)), cwd=tmp_path) as heard:
            yield heard

    yield keep
    left = living("BACKUPS_HOME", tmp_path)
    end(left)
    assert left == set()


def tell(here: Path, **beat: Any) -> None:
    """What the beat says from now on."""
    (here / "draft").write_text(json.dumps(beat))
    (here / "draft").replace(here / "beat")


def lives(name: str, here: Path) -> set[int]:
    """The processes of a child and below it that live."""
    return living("CHILD", name) & living("BACKUPS_HOME", here)


def leaders(name: str, here: Path) -> set[int]:
    """The leaders of the sessions of a child, each a generation."""
    found = lives(name, here)
    return {each for each in found if parent_of(each) not in found}


def only(found: set[int]) -> int:
    (one,) = found
    return one


def generation_of(pid: int) -> str:
    return environment_of(pid)["BACKUPS_GENERATION"]


# Starting again


def test_a_killed_child_is_started_again_at_once_with_another_generation(keep: Keep, tmp_path: Path):
    with keep(PARENT) as heard:
        heard.wait_for("parent", times=3)
        first = lives("child 0", tmp_path)
        generation = generation_of(only(leaders("child 0", tmp_path)))
        assert len(first) == 3
        os.kill(only(leaders("child 0", tmp_path)), signal.SIGKILL)
        heard.wait_for("parent", times=6, timeout_seconds=10)
        second = lives("child 0", tmp_path)
        assert not first & second, "the whole group of the first one is gone"
        assert {generation_of(each) for each in second} != {generation}
        assert "ended (killed by SIGKILL); it is started again at once." in heard.said
        assert zombies_of(heard.process.pid) == set()
        heard.send(signal.SIGTERM)
        assert heard.finish() == 0


def test_what_a_child_leaves_in_its_group_is_killed_before_it_is_started_again(keep: Keep, tmp_path: Path):
    program = (
        "import os, sys, time\nif os.fork() == 0:\n    time.sleep(600)\nprint('here', flush=True)\ntime.sleep(0.5)"
    )
    with keep(program, give_up_after=99) as heard:
        heard.wait_for("here", times=3)
        wait_until(lambda: len(lives("child 0", tmp_path)) <= 2)
        heard.send(signal.SIGTERM)
        heard.finish()


def test_the_pauses_grow(keep: Keep):
    with keep("import sys; sys.exit(7)", give_up_after=99) as heard:
        heard.wait_for("again in 4 s", timeout_seconds=30)
        pauses = re.findall(r"ended \(exit code 7\); it is started again (at once|in \d s)", heard.said)
        assert pauses == ["at once", "in 1 s", "in 2 s", "in 4 s"]
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=5) == 0, "a pause is no reason to wait"


def test_after_a_healthy_life_the_pauses_begin_anew(keep: Keep):
    with keep("import time; time.sleep(0.6)", healthy_seconds=0.5) as heard:
        heard.wait_for("again at once", times=6, timeout_seconds=20)
        assert "again in" not in heard.said
        assert "GAVE_UP" not in heard.said
        heard.send(signal.SIGTERM)
        heard.finish()


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 15)", "sys.exit(0)"])
def test_a_child_that_is_killed_early_again_and_again_is_not_given_up(keep: Keep, ending: str):
    with keep(f"import os, sys; {ending}", give_up_after=2) as heard:
        heard.wait_for("started again in 4 s", times=2, timeout_seconds=30)
        assert "GAVE_UP" not in heard.said
        heard.send(signal.SIGTERM)
        assert heard.finish() == 0


def test_a_child_that_never_comes_up_is_given_up_and_the_others_are_ended(keep: Keep):
    with keep("import sys; sys.exit(7)", POLITE, give_up_after=3) as heard:
        assert heard.finish(timeout_seconds=20) == 1
    assert "GAVE_UP child 0 The child 0 ended (exit code 7), 3 times in a row." in heard.said
    assert "bye" in heard.said


def test_a_program_that_is_not_there_is_given_up(keep: Keep):
    with keep("import os; os.execv('/nowhere', ['nowhere'])", give_up_after=2) as heard:
        assert heard.finish(timeout_seconds=20) == 1


# Ending


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_heard_from_the_moment_it_is_told_to_be(number: signal.Signals):
    program = (
        "import os, sys; from backups_app.jobs.supervisor import ChildSpec, Supervisor\n"
        "child = ChildSpec(name='child', argv=[sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "told = lambda: os.kill(os.getpid(), int(sys.argv[1]))\n"
        "said = []\n"
        "hear = lambda event: said.append(event.happening.name)\n"
        "supervisor = Supervisor([child], on_attending=told, on_event=hear)\n"
        "print(supervisor.run(), said)"
    )
    command = [sys.executable, "-c", program, str(int(number))]
    finished = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)
    assert finished.stderr == ""
    assert finished.stdout == "True []\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything_in_good_order(keep: Keep, number: signal.Signals):
    with keep(POLITE, POLITE) as heard:
        heard.wait_for("polite", times=2)
        heard.send(number)
        assert heard.finish(timeout_seconds=10) == 0
    assert heard.said.count("bye") == 2
    assert heard.said.count("STOPPING") == 2
    assert "KILLED" not in heard.said


def test_the_stop_signal_of_a_child_is_the_one_it_gets(keep: Keep):
    with keep(POLITE.replace("SIGTERM", "SIGINT"), stop_signal="SIGINT") as heard:
        heard.wait_for("polite")
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=10) == 0
    assert "bye" in heard.said


def test_ctrl_c_in_a_terminal_reaches_the_supervisor_only(keep: Keep):
    with keep(STUBBORN.replace("SIG_IGN", "SIG_DFL"), stop_signal="SIGCONT", stop_seconds=2) as heard:
        heard.wait_for("stubborn")
        os.killpg(heard.process.pid, signal.SIGINT)
        assert heard.finish(timeout_seconds=10) == 0
    assert "KILLED" in heard.said, "it got no SIGINT, which would have ended it"


def test_who_does_not_end_in_time_is_killed(keep: Keep):
    with keep(STUBBORN, stop_seconds=1) as heard:
        heard.wait_for("stubborn")
        began = time.monotonic()
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=10) == 0
    assert 1 <= time.monotonic() - began < 4
    assert "KILLED child 0" in heard.said


def test_a_second_ctrl_c_ends_at_once(keep: Keep):
    with keep(STUBBORN, stop_seconds=600) as heard:
        heard.wait_for("stubborn")
        heard.send(signal.SIGINT)
        heard.wait_for("STOPPING")
        heard.send(signal.SIGINT)  # the same key, passed on by a wrapper
        heard.send(signal.SIGTERM)
        time.sleep(1)
        assert heard.process.poll() is None
        heard.send(signal.SIGINT)
        assert heard.finish(timeout_seconds=5) == 0


def test_sigkill_of_the_supervisor_leaves_nothing(keep: Keep, tmp_path: Path):
    with keep(PARENT, STUBBORN, SLEEPER) as heard:
        heard.wait_for("parent", times=3)
        heard.wait_for("stubborn")
        friend = int(re.findall(r"friend (\d+)", heard.said)[0])
        heard.send(signal.SIGKILL)
        heard.finish()
        wait_until(lambda: living("BACKUPS_HOME", tmp_path) <= {friend}, timeout_seconds=3)
        end({friend})


def test_what_has_left_its_group_is_ended_too(keep: Keep, tmp_path: Path):
    away = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    print('away', flush=True)\ntime.sleep(600)"
    with keep(away) as heard:
        heard.wait_for("away")
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=10) == 0
    wait_until(lambda: lives("child 0", tmp_path) == set(), timeout_seconds=2)


def test_what_the_owner_started_itself_is_left_alone(keep: Keep):
    with keep(SLEEPER) as heard:
        heard.wait_for("STARTED")
        heard.send(signal.SIGTERM)
        assert heard.finish() == 0
    assert "friend lives" in heard.said


def test_orphans_are_adopted_and_reaped(keep: Keep):
    orphan = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        time.sleep(0.3)
    os._exit(0)
os.wait()
print("done", flush=True)
time.sleep(600)
"""
    with keep(orphan) as heard:
        heard.wait_for("done")
        wait_until(lambda: zombies_of(heard.process.pid), timeout_seconds=5)
        wait_until(lambda: not zombies_of(heard.process.pid), timeout_seconds=20)
        heard.send(signal.SIGTERM)
        assert heard.finish() == 0


# Stalls


@contextmanager
def watched(keep: Keep, tmp_path: Path, *, settling_seconds: float = 0.5, **beat: Any) -> Iterator[Heard]:
    """A watched child that has come up."""
    tell(tmp_path, **beat)
    options = {"watched": "child 0", "beat_seconds": 0.2, "settling_seconds": settling_seconds}
    with keep(STUBBORN, stop_seconds=1, **options) as heard:
        heard.wait_for("stubborn")
        yield heard


def test_a_stalled_child_is_replaced_and_killed_when_it_is_idle(keep: Keep, tmp_path: Path):
    with watched(keep, tmp_path, busy=[]) as heard:
        old = only(leaders("child 0", tmp_path))
        tell(tmp_path, stalled=True, busy=[])
        heard.wait_for("STALLED child 0 The child 0 has stalled: nobody works")
        tell(tmp_path, busy=[])
        heard.wait_for("stubborn", times=2)
        wait_until(lambda: leaders("child 0", tmp_path) - {old} and old not in leaders("child 0", tmp_path))
        heard.send(signal.SIGTERM)
        heard.finish()
    assert heard.said.count("STALLED") == 1


def test_a_stalled_child_that_is_busy_lives_beside_the_new_one_until_it_is_idle(keep: Keep, tmp_path: Path):
    with watched(keep, tmp_path, busy=[]) as heard:
        old = only(leaders("child 0", tmp_path))
        busy = [generation_of(old)]
        tell(tmp_path, stalled=True, busy=busy)
        heard.wait_for("STALLED")
        tell(tmp_path, busy=busy)
        heard.wait_for("stubborn", times=2)
        time.sleep(1.5)  # longer than its stop_seconds
        both = leaders("child 0", tmp_path)
        assert old in both
        assert len(both) == 2
        tell(tmp_path, busy=[])
        wait_until(lambda: leaders("child 0", tmp_path) == both - {old}, timeout_seconds=5)
        heard.send(signal.SIGTERM)
        heard.finish()


def test_a_young_child_is_not_called_stalled_and_each_time_it_may_grow_older(keep: Keep, tmp_path: Path):
    with watched(keep, tmp_path, stalled=True, busy=[], settling_seconds=1) as heard:
        heard.wait_for("STALLED", times=2, timeout_seconds=20)
        began = time.monotonic()
        heard.wait_for("STALLED", times=3, timeout_seconds=20)
        assert time.monotonic() - began > 3, "the third one settles for four seconds"
        heard.send(signal.SIGTERM)
        heard.finish()


@pytest.mark.parametrize("fault", ["hangs", "fails"])
def test_a_beat_that_hangs_or_fails_keeps_nobody_from_restarting_and_ending(keep: Keep, tmp_path: Path, fault: str):
    with watched(keep, tmp_path, **{fault: True}) as heard:
        time.sleep(0.5)
        os.kill(only(leaders("child 0", tmp_path)), signal.SIGKILL)
        heard.wait_for("stubborn", times=2, timeout_seconds=10)
        heard.send(signal.SIGTERM)
        assert heard.finish(timeout_seconds=10) == 0
    assert ("the catalogue is locked" in heard.said) == (fault == "fails")
