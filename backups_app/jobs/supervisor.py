"""A small keeper of processes: starts them, starts them again, ends them, and leaves none behind.

It knows nothing of Django. Each child leads a session of its own, so that Ctrl-C in a terminal
reaches the supervisor only, and is bound to it (``bound.py``): SIGKILL of the supervisor takes all
along. When a child ends, what is left of its group is killed. Orphaned grandchildren come to the
supervisor (Linux), which reaps them; so it may also be process 1 of a container.

SIGTERM, SIGINT or SIGHUP: every child gets its stop signal and its time to end, then SIGKILL to its
group. A second Ctrl-C ends everything at once.

A child that ends by itself is started again: at once, then after 1, 2, 4, … 30 seconds. A life of
ten seconds counts as healthy and starts this anew. One that has never been healthy and has failed
five times gives the whole supervisor up; one that has been is tried for ever. To be killed, or to
end without an error (as ``qcluster`` does when its sentinel was killed), is not to fail: it says
nothing against the program, so the pauses stay at 4 seconds and nothing is given up.

One child may be *watched*: a function, called in a thread so that it may hang or fail without harm,
tells whether it has stalled. A stalled child is retired: a new generation starts at once, and the
old one, told to stop, is killed as soon as it is no longer busy.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from types import FrameType
from typing import Protocol

from .bound import adopt_orphans, bound_command

logger = logging.getLogger(__name__)

GENERATION_VARIABLE = "BACKUPS_GENERATION"
"""The variable in the environment of a child, and of all its descendants, that names its life."""

_LONGEST_PAUSE_SECONDS = 30.0
_LONGEST_PAUSE_WITHOUT_FAULT_SECONDS = 4.0
_NO_FAULT = (0, -signal.SIGKILL, -signal.SIGTERM)
_LONGEST_SETTLING_SECONDS = 300.0
_SAME_CTRL_C_SECONDS = 0.5  # a wrapper that passes Ctrl-C on makes two of one
_GRAVE_SECONDS = 2.0
_STRAY_SECONDS = 5.0
_LAST_ROUND_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class ChildSpec:
    """A program to keep running."""

    name: str
    argv: Sequence[str]
    """Program and arguments; the program with its full path."""
    env: Mapping[str, str] = field(default_factory=dict)
    """What its environment has beyond ours."""
    stop_signal: signal.Signals = signal.SIGTERM
    """How its leader, and nobody else in its group, is asked to end."""
    stop_seconds: float = 10.0
    """How long it may take to end before its group is killed."""


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What the watcher found."""

    is_stalled: bool = False
    """The newest generation does no work though there is some."""
    reason: str = ""
    busy_generations: AbstractSet[str] | None = None
    """Generations that have running work; None when that is not known."""


class BeatFunction(Protocol):
    """Called every few seconds, in a thread; it may hang or raise."""

    def __call__(self, now: datetime, /) -> Beat:
        """Look, and say what was found."""


class Happening(Enum):
    """What may happen to a child."""

    STARTED = auto()
    ENDED = auto()
    STALLED = auto()
    GAVE_UP = auto()
    STOPPING = auto()
    STILL_RUNNING = auto()
    KILLED = auto()


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something happened to a child."""

    happening: Happening
    child: str
    text: str
    """In words, for people."""
    at: datetime


class _Child:
    """One life of a program."""

    def __init__(self, spec: ChildSpec, *, lifeline: int) -> None:
        self.spec = spec
        self.generation = secrets.token_hex(8)
        self.started_at = time.monotonic()
        self.asked_at: float | None = None
        self._process = subprocess.Popen(
            bound_command(list(spec.argv), lifeline=lifeline),
            env={**os.environ, **spec.env, GENERATION_VARIABLE: self.generation},
            stdin=subprocess.DEVNULL,
            pass_fds=(lifeline,),
            start_new_session=True,
        )
        self.pid = self._process.pid

    def has_ended(self) -> bool:
        """Whether its leader has ended. It is not reaped by asking, so its number stays its own."""
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        return self._process.poll() is not None

    def ask(self, now: float) -> None:
        """Ask it to end, once."""
        if self.asked_at is None:
            self.asked_at = now
            with suppress(ProcessLookupError):
                os.kill(self.pid, self.spec.stop_signal)

    def kill(self) -> None:
        """Kill everything in its group."""
        with suppress(ProcessLookupError, PermissionError):  # macOS: EPERM for a group of the dead
            os.killpg(self.pid, signal.SIGKILL)

    def bury(self) -> int:
        """Kill what is left of its group and reap the leader; returns how that ended, as ``returncode``."""
        self.kill()
        return self._process.wait()

    def is_overdue(self, now: float) -> bool:
        """Whether it was asked to end and has had its time."""
        return self.asked_at is not None and now >= self.asked_at + self.spec.stop_seconds


class _Slot:
    """A program and its present life, if it has one."""

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.child: _Child | None = None
        self.start_at = 0.0
        self.endings = 0
        self.failures = 0
        self.was_healthy = False

    def plan_restart(self, now: float, *, lived_seconds: float, healthy_seconds: float, has_failed: bool) -> float:
        """Note that it ended after so long; returns the seconds until its next start."""
        self.child = None
        if lived_seconds >= healthy_seconds:
            self.endings, self.failures, self.was_healthy = 0, 0, True
        self.endings += 1
        self.failures += has_failed
        longest = _LONGEST_PAUSE_SECONDS if has_failed else _LONGEST_PAUSE_WITHOUT_FAULT_SECONDS
        pause = 0.0 if self.endings == 1 else min(2.0 ** min(self.endings - 2, 10), longest)
        self.start_at = now + pause
        return pause


class _Clock(threading.Thread):
    """Calls the watcher again and again, and keeps its newest answer with the time it was asked."""

    def __init__(self, beat: BeatFunction, *, seconds: float, wake: Callable[[], None]) -> None:
        super().__init__(name="clock", daemon=True)
        self.latest: tuple[float, Beat] | None = None
        self._beat, self._seconds, self._wake = beat, seconds, wake
        self._stopped = threading.Event()

    def run(self) -> None:
        """Beat until stopped."""
        while not self._stopped.is_set():
            asked_at = time.monotonic()
            try:
                self.latest = (asked_at, self._beat(datetime.now(UTC)))
            except Exception:
                logger.exception("Looking after the worker failed; it is tried again.")
            self._wake()
            self._stopped.wait(self._seconds)

    def stop(self) -> None:
        """End soon. A beat that hangs is not waited for."""
        self._stopped.set()


class Supervisor:
    """Keeps some programs running until it is told to end."""

    def __init__(
        self,
        children: Sequence[ChildSpec],
        *,
        beat: BeatFunction | None = None,
        watched: str = "",
        on_event: Callable[[Event], None] = lambda event: None,
        on_attending: Callable[[], None] = lambda: None,
        beat_seconds: float = 2.5,
        healthy_seconds: float = 10.0,
        settling_seconds: float = 15.0,
        give_up_after: int = 5,
    ) -> None:
        """``beat`` looks after the child named ``watched``; ``on_event`` is called in the main thread,
        and so is ``on_attending``, once, when signals are heard and nothing is started yet.

        ``settling_seconds``: how old a generation must be before it can be called stalled. Doubled
        each time in a row, up to five minutes: a watcher that is never content must not start a
        generation every few seconds.
        """
        self._slots = [_Slot(spec) for spec in children]
        self._watched = next((slot for slot in self._slots if slot.spec.name == watched), None)
        self._retired: list[_Child] = []
        self._beat, self._beat_seconds = beat, beat_seconds
        self._on_event, self._on_attending = on_event, on_attending
        self._healthy_seconds, self._settling_seconds = healthy_seconds, settling_seconds
        self._give_up_after = give_up_after

        self._clock: _Clock | None = None
        self._heard_at = 0.0
        self._stalls_in_a_row = 0
        self._asked_at: float | None = None
        self._said_at = 0.0
        self._is_hurried = False
        self._gave_up = False
        self._graves: dict[int, float] = {}
        self._stray = (0, 0.0)
        self._spared: set[int] = set()
        self._bell = self._lifeline = self._ringer = -1
        self._ringing = threading.Lock()

    # What the owner calls

    def run(self) -> bool:
        """Keep everything running until a signal says to end; True then, False when a child was given up.

        To be called in the main thread, once. Signal handlers are put back afterwards. No process that it started
        is left; processes that this one had started before are none of its business.
        """
        self._spared = _own_children()
        with ExitStack() as stack:
            self._lifeline = stack.enter_context(_lifeline())
            self._bell = stack.enter_context(self._attending_signals())
            stack.enter_context(_adopting_orphans())
            stack.callback(self._end_everything)
            self._on_attending()
            if self._beat is not None:
                self._clock = _Clock(self._beat, seconds=self._beat_seconds, wake=self._wake)
                self._clock.start()
                stack.callback(self._clock.stop)
            while self._tend(time.monotonic()):
                self._sleep(time.monotonic())
        return not self._gave_up

    # One round

    def _tend(self, now: float) -> bool:
        """Do what is due; False when all is over."""
        self._bury_the_dead(now)
        if self._asked_at is None:
            self._heed_the_clock(now)
            self._start_what_is_due(now)
        else:
            self._press(now)
        self._end_retired(now)
        self._reap_groups(now)
        self._reap_strays(now)
        return self._asked_at is None or any(True for _ in self._living())

    def _sleep(self, now: float) -> None:
        """Wait for a signal, for the clock, or until something is due."""
        pause = 0.2
        if self._asked_at is None:
            pause = max(0.0, min([1.0, *(slot.start_at - now for slot in self._slots if slot.child is None)]))
        if select.select([self._bell], [], [], pause)[0]:
            with suppress(BlockingIOError):
                os.read(self._bell, 4096)

    def _living(self) -> Iterator[_Child]:
        yield from (slot.child for slot in self._slots if slot.child is not None)
        yield from self._retired

    def _say(self, happening: Happening, child: str, text: str) -> None:
        self._on_event(Event(happening=happening, child=child, text=text, at=datetime.now(UTC)))

    # Starting

    def _start_what_is_due(self, now: float) -> None:
        for slot in self._slots:
            if slot.child is None and slot.start_at <= now:
                self._start(slot, now)

    def _start(self, slot: _Slot, now: float) -> None:
        try:
            slot.child = _Child(slot.spec, lifeline=self._lifeline)
        except OSError as exc:  # no memory, too many processes
            self._plan_restart(slot, now, how=f"could not be started ({exc.strerror})")
        else:
            self._say(Happening.STARTED, slot.spec.name, f"The {slot.spec.name} was started.")

    # Endings that nobody asked for

    def _bury_the_dead(self, now: float) -> None:
        for child in [each for each in self._living() if each.has_ended()]:
            code = child.bury()
            self._graves[child.pid] = now + _GRAVE_SECONDS
            if child in self._retired:
                self._retired.remove(child)
                continue
            slot = next(each for each in self._slots if each.child is child)
            if self._asked_at is None:
                lived_seconds, has_failed = now - child.started_at, code not in _NO_FAULT
                how = f"ended ({_how(code)})"
                self._plan_restart(slot, now, lived_seconds=lived_seconds, has_failed=has_failed, how=how)
            else:
                slot.child = None

    def _plan_restart(
        self, slot: _Slot, now: float, *, lived_seconds: float = 0.0, has_failed: bool = True, how: str
    ) -> None:
        name = slot.spec.name
        pause = slot.plan_restart(
            now, lived_seconds=lived_seconds, healthy_seconds=self._healthy_seconds, has_failed=has_failed
        )
        if not slot.was_healthy and slot.failures >= self._give_up_after:
            self._gave_up, self._asked_at = True, now
            self._say(Happening.GAVE_UP, name, f"The {name} {how}, {slot.failures} times in a row.")
            return
        when = f"in {pause:.0f} s" if pause else "at once"
        self._say(Happening.ENDED, name, f"The {name} {how}; it is started again {when}.")

    # Stalls

    def _heed_the_clock(self, now: float) -> None:
        latest = self._clock.latest if self._clock else None
        if latest is None or self._watched is None or latest[0] <= self._heard_at:
            return
        self._heard_at, beat = latest
        if not beat.is_stalled:
            self._stalls_in_a_row = 0
            return
        child = self._watched.child
        settling = min(self._settling_seconds * 2.0**self._stalls_in_a_row, _LONGEST_SETTLING_SECONDS)
        if child is None or self._heard_at < child.started_at + settling:
            return
        self._stalls_in_a_row += 1
        self._retire(self._watched, child, now, reason=beat.reason)

    def _retire(self, slot: _Slot, child: _Child, now: float, *, reason: str) -> None:
        # Asked to end, it takes no new work; killed it is not before a later beat has found it idle.
        child.ask(now)
        self._retired.append(child)
        slot.child, slot.start_at = None, now
        self._say(Happening.STALLED, slot.spec.name, f"The {slot.spec.name} has stalled: {reason or 'no reason given'}")

    def _end_retired(self, now: float) -> None:
        for child in self._retired:
            if self._is_done(child, now):
                child.kill()

    def _is_done(self, child: _Child, now: float) -> bool:
        latest = self._clock.latest if self._clock else None
        if latest is None or child.asked_at is None or latest[0] <= child.asked_at:
            return False
        busy = latest[1].busy_generations
        return child.is_overdue(now) if busy is None else child.generation not in busy

    # The end

    def _press(self, now: float) -> None:
        """Ask everybody to end; kill who has had the time, or all when it is to be at once."""
        living = list(self._living())
        for child in living:
            name = child.spec.name
            if child.asked_at is None:
                self._said_at = now
                self._say(Happening.STOPPING, name, f"The {name} has {child.spec.stop_seconds:.0f} s to end.")
            child.ask(now)
            if self._is_hurried or now >= self._deadline(child):
                self._say(Happening.KILLED, name, f"The {name} was killed before it had ended.")
                child.bury()
                self._forget(child, now)
        if living and now >= self._said_at + 10:
            self._said_at = now
            for child in self._living():
                left = self._deadline(child) - now
                self._say(
                    Happening.STILL_RUNNING,
                    child.spec.name,
                    f"The {child.spec.name} still works; it has {left:.0f} s left. Ctrl-C again ends it now.",
                )

    def _deadline(self, child: _Child) -> float:
        """When it is killed: a retired one, asked long before, has its time from when all were asked."""
        return max(child.asked_at or 0.0, self._asked_at or 0.0) + child.spec.stop_seconds

    def _forget(self, child: _Child, now: float) -> None:
        self._graves[child.pid] = now + _GRAVE_SECONDS
        if child in self._retired:
            self._retired.remove(child)
        for slot in self._slots:
            if slot.child is child:
                slot.child = None

    def _end_everything(self) -> None:
        """Kill and reap whatever is left, also what has left its group."""
        now = time.monotonic()
        for child in list(self._living()):
            child.bury()
            self._forget(child, now)
        give_up_at = now + _LAST_ROUND_SECONDS
        while time.monotonic() < give_up_at:
            self._reap_groups(time.monotonic())
            left = _own_children() - self._spared
            if not left:
                return
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.02)

    # Reaping of what came to us

    def _reap_groups(self, now: float) -> None:
        for group, until in list(self._graves.items()):
            try:
                while os.waitpid(-group, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                if now >= until:  # until then a dying parent may still leave us one
                    del self._graves[group]

    def _reap_strays(self, now: float) -> None:
        """Reap a dead orphan that is of no group of ours. One that a thread of ours waits for is gone sooner."""
        if not hasattr(os, "waitid"):
            return
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in self._spared or found.si_pid in {each.pid for each in self._living()}:
            return
        if found.si_pid != self._stray[0]:
            self._stray = (found.si_pid, now)
        elif now >= self._stray[1] + _STRAY_SECONDS:
            with suppress(ChildProcessError):
                os.waitpid(found.si_pid, os.WNOHANG)

    # Signals

    @contextmanager
    def _attending_signals(self) -> Iterator[int]:
        """Hear signals until the block ends; yields a descriptor that is readable when there was one."""
        bell, ringer = os.pipe()
        os.set_blocking(bell, False)
        os.set_blocking(ringer, False)
        self._ringer = ringer
        heard = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            heard.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in heard}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        before_fd = signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)
        try:
            yield bell
        finally:
            signal.set_wakeup_fd(before_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            with self._ringing:
                self._ringer = -1
                os.close(bell)
                os.close(ringer)

    def _wake(self) -> None:
        """End the present sleep, from any thread."""
        with self._ringing:  # a closed descriptor's number may by now be that of a database
            if self._ringer >= 0:
                with suppress(BlockingIOError):  # full: it rings already
                    os.write(self._ringer, b"!")

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at = now
        elif number == signal.SIGINT and now > self._asked_at + _SAME_CTRL_C_SECONDS:
            self._is_hurried = True


@contextmanager
def _lifeline() -> Iterator[int]:
    """A descriptor for children; it reports the end of file when this process has ended."""
    lifeline, ours = os.pipe()
    try:
        yield lifeline
    finally:
        os.close(ours)
        os.close(lifeline)


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    adopt_orphans(True)
    try:
        yield
    finally:
        adopt_orphans(False)


def _own_children() -> set[int]:
    """Processes whose parent is this one, adopted ones included; empty where the kernel does not tell."""
    found: set[int] = set()
    with suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # the thread has ended
                found.update(int(each) for each in (task / "children").read_text().split())
    return found


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
