"""The site's own questions to a restored database: its code, our limits.

A check is a callable that is given a read-only ``sqlite3`` connection. It returns None or True when
all is well, or a text that says what is not; or it raises.
"""

from __future__ import annotations

import importlib
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .progress import Watch
from .sqlite import open_snapshot
from .verify import SITE_CHECK, Check

_POLL_SECONDS = 0.05
_MOST_CHARACTERS = 500
_INSTRUCTIONS_PER_LOOK = 20_000


def run_site_check(name: str, path: Path, *, limit_seconds: float, watch: Watch) -> Check:
    """Run the callable with the dotted ``name`` on the database file ``path``, which nobody writes.

    Whatever it does becomes a check; it is given up after ``limit_seconds``. Its SQL is interrupted
    then. Python code that does not end is left behind in a thread that ends with the process.

    Raises:
        CancelledError, DeadlineError: from ``watch``.
    """
    outcome: list[Check] = []
    is_over = threading.Event()

    def work() -> None:
        try:
            outcome.append(_ask(name, path, is_over=is_over))
        except BaseException as exc:  # noqa: BLE001 - it is the site's code, and a thread has nobody to tell
            outcome.append(_failed(name, f"{type(exc).__name__}: {exc}"))

    thread = threading.Thread(target=work, name=f"site-check-{name}", daemon=True)
    started = time.monotonic()
    thread.start()
    try:
        while thread.is_alive() and time.monotonic() - started < limit_seconds:
            watch.check()
            thread.join(_POLL_SECONDS)
    finally:
        is_over.set()
    if not outcome:
        return _failed(name, f"it took longer than {limit_seconds:g} s")
    return outcome[0]


def _ask(name: str, path: Path, *, is_over: threading.Event) -> Check:
    check = find_site_check(name)
    with open_snapshot(path) as connection:
        connection.set_progress_handler(is_over.is_set, _INSTRUCTIONS_PER_LOOK)
        found = check(connection)
    if found is None or found is True:
        return Check(name=f"{SITE_CHECK}{name}", ok=True, evidence="it found nothing wrong")
    return _failed(name, str(found) if isinstance(found, str) and found else f"it returned {found!r}")


def find_site_check(name: str) -> Callable[[sqlite3.Connection], Any]:
    """The callable with a dotted name.

    Raises:
        ImportError: there is none.
    """
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute, None)
    if found is None or not callable(found):
        raise ImportError(f"{module} has no callable {attribute!r}")
    return found  # type: ignore[no-any-return]


def _failed(name: str, evidence: str) -> Check:
    return Check(name=f"{SITE_CHECK}{name}", ok=False, evidence=evidence[:_MOST_CHARACTERS])
