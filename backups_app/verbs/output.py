"""What the command prints: one JSON document, or text for people; problems go to stderr."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..core.errors import BackupError, from_os
from ..core.terminal import discard, printable

_PLAIN_WIDTH = 200


class Output:
    """Where one run of a verb prints to."""

    def __init__(self, *, is_json: bool, stdout: TextIO, stderr: TextIO) -> None:
        self.is_json = is_json
        self._stdout = stdout
        self._stderr = stderr
        self._errors: list[dict[str, str]] = []

    def error(self, exc: BackupError, *, about: str = "") -> int:
        """Report a failure on stderr, keep it for the JSON document, and return its exit code."""
        self.problem(f"{about}: {exc.message}" if about else exc.message, exc.hint)
        self._errors.append({"about": about, "code": exc.code, "message": exc.message, "hint": exc.hint})
        return exc.exit_code

    def problem(self, message: str, hint: str = "") -> None:
        """Say on stderr what is wrong and what to do."""
        self.note(f"Error: {message}")
        if hint:
            self.note(f"Hint: {hint}")

    def note(self, text: str) -> None:
        """Say something on stderr; where nothing can be written there, the work goes on."""
        try:
            self._write(self._stderr, text)
        except OSError:
            discard(self._stderr)

    def line(self, text: str = "") -> None:
        """Print a line for people; nothing with ``--json``."""
        if not self.is_json:
            with _printing():
                self._write(self._stdout, text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
        """Print a table for people; nothing with ``--json`` or without rows. Columns named with ``#`` align right."""
        if self.is_json or not rows:
            return
        table = Table(box=box.SIMPLE_HEAD, title=title or None, title_justify="left")
        for column in columns:
            table.add_column(column.removesuffix("#"), justify="right" if column.endswith("#") else "left")
        for row in rows:
            table.add_row(*(Text(_encodable(str(cell), self._stdout)) for cell in row))
        is_terminal = self._stdout.isatty()
        console = Console(file=self._stdout, width=None if is_terminal else _PLAIN_WIDTH, highlight=False)
        with _printing():
            console.print(table)

    def document(self, document: dict[str, Any]) -> None:
        """Print the one JSON document; nothing without ``--json``. Failures so far are added."""
        if not self.is_json:
            return
        if self._errors:
            document = {**document, "errors": self._errors}
        with _printing():
            self._stdout.write(json.dumps(document, indent=2, ensure_ascii=True) + "\n")

    def flush(self) -> None:
        """Hand on what was printed.

        Raises:
            BrokenPipeError: the reader of stdout has left. BackupError: it cannot be written.
        """
        with _printing():
            self._stdout.flush()

    @staticmethod
    def _write(stream: TextIO, text: str) -> None:
        stream.write("\n".join(_encodable(each, stream) for each in text.split("\n")) + "\n")


@contextmanager
def _printing() -> Iterator[None]:
    """Tell what is wrong with stdout, but for a reader who has seen enough."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise from_os(exc, doing="printing the result") from exc


def _encodable(text: str, stream: TextIO) -> str:
    """``text`` with control characters spelled out, and so is what the encoding of ``stream`` lacks."""
    encoding = stream.encoding or "utf-8"
    return printable(text).encode(encoding, "backslashreplace").decode(encoding)


def human_size(size_bytes: int | None) -> str:
    """A size for people: ``1.4 MB``; a dash when unknown."""
    if size_bytes is None:
        return "–"
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def human_age(age: timedelta) -> str:
    """An age for people: ``3 min``, ``5.2 h``, ``12 d``."""
    seconds = age.total_seconds()
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} d"
