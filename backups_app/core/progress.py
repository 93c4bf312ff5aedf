"""How long work reports where it is and learns that it must stop.

A :class:`Watch` travels through the engine. It is told about progress and asked, many times a
second, whether to go on. It never blocks and holds no thread.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .errors import CancelledError, DeadlineError

ProgressCallback = Callable[[str, int, int], None]
"""Called as ``(phase, done_bytes, total_bytes)``; ``total_bytes`` is 0 when unknown."""

# Virtual machine instructions between two looks at the watch: about a millisecond of SQLite work.
_INSTRUCTIONS_PER_LOOK = 20_000


class Watch:
    """Progress, cancellation and a deadline for one piece of work.

    ``is_cancelled`` is asked often and must be cheap; ``deadline_seconds`` counts from creation.
    """

    def __init__(
        self,
        *,
        on_progress: ProgressCallback | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        deadline_seconds: float | None = None,
    ) -> None:
        self._on_progress = on_progress
        self._is_cancelled = is_cancelled
        self._limit_seconds = deadline_seconds
        self._started = time.monotonic()

    def check(self) -> None:
        """Return while the work may go on.

        Raises:
            CancelledError: somebody asked it to stop.
            DeadlineError: it ran longer than its limit.
        """
        if self._is_cancelled is not None and self._is_cancelled():
            raise CancelledError("The work was cancelled.", "Nothing was published; start it again when you like.")
        if self._limit_seconds is not None and time.monotonic() - self._started > self._limit_seconds:
            raise DeadlineError(
                f"The work took longer than its limit of {self._limit_seconds:g} s.",
                "Raise BACKUPS['DEADLINE_SECONDS'], or look for what slows the disk.",
            )

    def report(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        """Tell the listener where the work is, then :meth:`check`."""
        if self._on_progress is not None:
            self._on_progress(phase, done_bytes, total_bytes)
        self.check()

    @contextmanager
    def over(self, connection: sqlite3.Connection) -> Iterator[None]:
        """Let a cancel or the deadline interrupt statements that run on ``connection``.

        Raises what :meth:`check` raises in place of SQLite's ``interrupted``.
        """

        stopped: list[BaseException] = []

        def must_stop() -> int:
            try:
                self.check()
            except BaseException as exc:  # noqa: BLE001 - sqlite3 would swallow it, a Ctrl-C too
                stopped.append(exc)
            return len(stopped)

        connection.set_progress_handler(must_stop, _INSTRUCTIONS_PER_LOOK)
        try:
            yield
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                if stopped:
                    raise stopped[0] from exc
                self.check()  # it may be another thread that interrupted, for the same reason
            raise
        finally:
            connection.set_progress_handler(None, 0)
