"""How the command line edges show progress and take Ctrl-C: on stderr, and only on a terminal."""

from __future__ import annotations

import getpass
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from .errors import KeyMissingError
from .keyring import PASSPHRASE_VARIABLE
from .progress import ProgressCallback

_LAST_STREAM = 2  # stdin, stdout, stderr


@contextmanager
def progress_bar(label: str) -> Iterator[ProgressCallback | None]:
    """A bar with phase, percent, speed and time left; ``None`` when stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def show(phase: str, done_bytes: int, total_bytes: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(f"{printable(label)}: {phase}", total=total_bytes or None)
            bar.update(tasks[phase], completed=done_bytes, total=total_bytes or None)

        yield show


@contextmanager
def cancel_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into an orderly cancel; yields the question "is it cancelled?".

    A second SIGINT ends the process the hard way.
    """
    asked = threading.Event()

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupt_on_signal() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, also as process 1 or when a shell started us with SIGINT ignored.

    Only the main thread may set handlers; in another one they stay as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def open_closed_streams() -> None:
    """Lead each standard stream that this process was started without (``>&-``) to nowhere.

    Else the next file that is opened would take its number, and get what others write there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
        pass  # it is kept: the stream is open now
    os.close(descriptor)
    nowhere = Path(os.devnull)
    sys.stdin = sys.stdin or nowhere.open()
    sys.stdout = sys.stdout or nowhere.open("w")
    sys.stderr = sys.stderr or nowhere.open("w")


def discard(stream: TextIO) -> None:
    """Lead a stream to nowhere, with what could not be written to it: its reader has left, or its disk is full.

    Else Python tries once more when it ends, and exits with 120 in place of the code of the work.
    """
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def printable(text: str) -> str:
    """``text`` with control characters spelled out, so that a name cannot drive a terminal.

    So are line breaks, and what turns the direction of the text that follows.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def ask_passphrase() -> str:
    """The passphrase of an identity file, typed on the terminal without being shown.

    Raises:
        KeyMissingError: there is no terminal to ask on, or nothing was typed.
    """
    if not sys.stdin.isatty():
        raise KeyMissingError(
            "The identity file is protected by a passphrase, and there is no terminal to ask for it.",
            f"Set {PASSPHRASE_VARIABLE}_FILE to a private file that holds it, or run this on a terminal.",
        )
    given = getpass.getpass("Passphrase of the identity file: ")
    if not given:
        raise KeyMissingError("No passphrase was given.", "Run it again and type it.")
    return given
