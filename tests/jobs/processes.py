"""Which processes live, told by a variable in their environment; and a program that is listened to."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.console import wait_until

needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux' /proc")


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty when it has ended, reaped or not."""
    try:
        content = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return {}
    return dict(each.partition("=")[::2] for each in content.decode(errors="replace").split("\0") if "=" in each)


def living(variable: str, value: object) -> set[int]:
    """The living processes that have this in their environment."""
    mark = f"{variable}={value}\0".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                content = (folder / "environ").read_bytes()
            except OSError:
                continue
            if content.startswith(mark) or b"\0" + mark in content:
                found.add(int(folder.name))
    return found


def _stat(pid: int) -> list[str]:
    """State, parent, group, session, … of proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def parent_of(pid: int) -> int:
    """Its parent; 0 when it is gone."""
    try:
        return int(_stat(pid)[1])
    except OSError:
        return 0


def zombies_of(pid: int) -> set[int]:
    """Its children that have ended and are not reaped."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                state, parent = _stat(int(folder.name))[:2]
            except OSError:
                continue
            if state == "Z" and int(parent) == pid:
                found.add(int(folder.name))
    return found


def end(pids: set[int]) -> None:
    """Kill what a failed test has left."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@dataclass
class Heard:
    """A running program, and what it has said so far."""

    process: subprocess.Popen[bytes]
    lines: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """Everything it said."""
        return "".join(self.lines)

    def wait_for(self, text: str, *, times: int = 1, timeout_seconds: float = 60) -> None:
        """Wait until it has said something so many times."""
        wait_until(
            lambda: self.said.count(text) >= times or self.process.poll() is not None, timeout_seconds=timeout_seconds
        )
        assert self.said.count(text) >= times, self.said

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def finish(self, *, timeout_seconds: float = 60) -> int:
        """Wait for its end; returns how it ended."""
        return self.process.wait(timeout=timeout_seconds)


@contextmanager
def listening(command: list[str], environment: Mapping[str, str], *, cwd: Path) -> Iterator[Heard]:
    """Run a program in a session of its own; it is dead when the block ends."""
    process = subprocess.Popen(
        command,
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_hang_up_ends,  # noqa: PLW1509 - this process starts it from one thread
    )
    heard = Heard(process)

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            heard.lines.append(line.decode())

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield heard
    finally:
        process.kill()
        process.wait()
        listener.join(timeout=20)
        is_held = listener.is_alive()
        if is_held:  # else the closing would wait for ever
            os.killpg(process.pid, signal.SIGKILL)
            listener.join()
        assert process.stdout is not None
        process.stdout.close()
        assert not is_held, "something that it started still holds its output"


def _hang_up_ends() -> None:
    """Undo what `nohup` before the test run has passed on."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
