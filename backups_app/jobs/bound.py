"""Bind a process to the life of its parent: when the parent dies, however it dies, so does it.

Run as a script it binds itself and then *becomes* a program::

    python -I -S bound.py PARENT LIFELINE PROGRAM [ARGUMENT…]

PARENT is the process id that must be the parent; LIFELINE a descriptor of a pipe whose other end
only the parent holds. A script, because code between ``fork`` and ``exec`` (``preexec_fn``) can
deadlock in a parent with threads. Nothing of the app is imported here.

Linux: ``PR_SET_PDEATHSIG`` of prctl(2): the kernel sends SIGKILL when the *thread* that started the
process ends. It survives ``exec`` and is not inherited by ``fork``, hence :func:`bind_forks`.
Elsewhere: a small process in the group of the program watches the lifeline, and kills the group
when it closes. There :func:`bind_forks` does nothing: the group is killed as a whole.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_WATCH_SECONDS = 1.0


def _load_prctl() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):  # a Python without ctypes, a libc without prctl
        return None
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    return prctl


_prctl = _load_prctl()  # loaded once: a process that was just forked must not have to


def bound_command(command: list[str], *, lifeline: int) -> list[str]:
    """The command that runs ``command`` bound to this process; ``lifeline`` must be passed on to it.

    On Linux the thread that starts it must live as long as the process shall.
    """
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), str(lifeline), *command]


def bind_to_parent(parent: int) -> bool:
    """Have the kernel kill this process when its parent ends; False where it cannot.

    If the parent has ended already, this process is killed here and now.
    """
    if _prctl is None or _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        return False
    if os.getppid() != parent:  # it died before the kernel was told
        os.kill(os.getpid(), signal.SIGKILL)
    return True


def bind_forks() -> None:
    """Bind every process that this one forks from its main thread to the process that forked it, and so on down.

    Forks from other threads are left alone: the kernel would kill them when that thread ends.
    """
    forking: list[int] = []

    def before() -> None:
        forking[:] = [os.getpid()] if threading.current_thread() is threading.main_thread() else []

    def after_in_child() -> None:
        if forking:
            bind_to_parent(forking[0])

    os.register_at_fork(before=before, after_in_child=after_in_child)


def adopt_orphans(yes: bool) -> bool:
    """Make this process the new parent of descendants that lose theirs (Linux); False where it cannot."""
    return _prctl is not None and _prctl(_PR_SET_CHILD_SUBREAPER, int(yes), 0, 0, 0) == 0


def _watch(lifeline: int, program: int) -> None:
    """Kill the group when the lifeline closes; return when the program has ended."""
    while os.getppid() == program:
        if select.select([lifeline], [], [], _WATCH_SECONDS)[0]:
            os.killpg(0, signal.SIGKILL)


def main(arguments: list[str]) -> None:
    """Bind this process, then become the program."""
    parent, lifeline, command = int(arguments[0]), int(arguments[1]), arguments[2:]
    if not bind_to_parent(parent):
        program = os.getpid()
        if os.fork() == 0:
            _watch(lifeline, program)
            os._exit(0)
    os.close(lifeline)
    os.execv(command[0], command)  # noqa: S606 - what this script is for  # nosec B606


if __name__ == "__main__":
    main(sys.argv[1:])
