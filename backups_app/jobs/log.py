"""The log that is kept with a job: short, bounded, and without secrets."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from django.utils import timezone

from ..redaction import redacted

_MAX_LINES = 400
_MAX_LINE_CHARACTERS = 500


class JobLog:
    """Lines with the time (UTC) before them; the oldest fall out when there are many."""

    def __init__(self, text: str = "") -> None:
        self._lines: deque[str] = deque(text.splitlines(), maxlen=_MAX_LINES)
        self._lock = threading.Lock()

    def add(self, message: str) -> None:
        """Append a message; line breaks and control characters are spelled out."""
        shown = redacted(message).encode("utf-8", "backslashreplace").decode()
        shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in shown)
        with self._lock:
            self._lines.append(f"{timezone.now():%Y-%m-%d %H:%M:%SZ} {shown[:_MAX_LINE_CHARACTERS]}")

    def text(self) -> str:
        """All lines."""
        with self._lock:
            return "\n".join(self._lines)

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Append what this thread logs about backups until the block ends."""
        handler = _ThreadHandler(self)
        source = logging.getLogger("backups_app")
        source.addHandler(handler)
        try:
            yield
        finally:
            source.removeHandler(handler)


class _ThreadHandler(logging.Handler):
    """Takes the messages of one thread, without tracebacks: they may show what is in memory."""

    def __init__(self, log: JobLog) -> None:
        super().__init__(logging.INFO)
        self._log = log
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Append one record."""
        if record.thread == self._thread:
            self._log.add(f"{record.levelname.lower()}: {record.getMessage()}")
