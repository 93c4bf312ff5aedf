"""The console as an operator meets it: ``manage.py backup`` in a process and a home of its own."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import PROJECT

_started: list[subprocess.Popen[bytes]] = []

_OURS = ("BACKUPS_", "DJANGO_", "PYTEST_", "PYTHON")


def environment(home: Path, **extra: str) -> dict[str, str]:
    """The environment of a child: ours is replaced, the rest is inherited."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    ours = {"BACKUPS_HOME": str(home), "BACKUPS_REUSE_UNCHANGED": "no", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**inherited, **ours, **extra}


@dataclass(frozen=True)
class Finished:
    """How a run ended and what it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document of stdout; anything else there fails the test."""
        found = json.loads(self.stdout)
        assert isinstance(found, dict)
        return found

    def backup(self) -> dict[str, Any]:
        """The only backup of the document."""
        (found,) = self.document["backups"]
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Console:
    """``manage.py backup`` with one BACKUPS_HOME."""

    home: Path
    extra: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: object) -> list[str]:
        """The argument list of a run."""
        return [sys.executable, str(PROJECT / "manage.py"), "backup", *map(str, arguments)]

    def run(self, *arguments: object, **options: Any) -> Finished:
        """Run to the end; no run may end in a traceback."""
        finished = subprocess.run(
            self.command(*arguments),
            env=environment(self.home, **self.extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=120,
            **{"cwd": self.home.parent, **options},
        )
        stdout, stderr = finished.stdout.decode(), finished.stderr.decode()
        assert "Traceback" not in stdout + stderr, stdout + stderr
        return Finished(finished.returncode, stdout, stderr)

    def ok(self, *arguments: object, **options: Any) -> Finished:
        """Run, and insist on success."""
        finished = self.run(*arguments, **options)
        assert finished.code == 0, finished.stderr
        return finished

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a run and return at once; it ends with the test at the latest."""
        process = subprocess.Popen(
            self.command(*arguments),
            env=environment(self.home, **self.extra),
            cwd=self.home.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        _started.append(process)
        return process

    @property
    def site(self) -> Path:
        """The database of the alias ``default``."""
        return self.home / "site.sqlite3"

    @property
    def catalog(self) -> Path:
        """The control database."""
        return self.home / "catalog.sqlite3"

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Rows of the catalogue."""
        with closing(sqlite3.connect(self.catalog, timeout=10)) as connection:
            return connection.execute(statement, parameters).fetchall()

    def change(self, statement: str, *parameters: object) -> None:
        """Change the catalogue behind the app's back."""
        with closing(sqlite3.connect(self.catalog, timeout=10, isolation_level=None)) as connection:
            connection.execute(statement, parameters)

    def archived(self) -> set[str]:
        """Names of all stored objects."""
        root = self.home / "archives"
        return {str(each.relative_to(root)) for each in root.rglob("*") if each.is_file()}

    def scratch(self) -> set[str]:
        """Names of everything in scratch."""
        root = self.home / "scratch"
        return {each.name for each in root.iterdir()} if root.is_dir() else set()

    def archive(self, backup: dict[str, Any]) -> Path:
        """The stored archive of a backup."""
        return self.home / "archives" / backup["copies"][0]["name"]


def end_started() -> None:
    """End what a failed test has started and not waited for, or the next test would be blamed for it."""
    while _started:
        with _started.pop() as process:
            process.kill()


def finish(process: subprocess.Popen[bytes]) -> Finished:
    """Wait for a started run."""
    stdout, stderr = process.communicate(timeout=120)
    return Finished(process.returncode, stdout.decode(), stderr.decode())


def wait_until(is_so: Callable[[], object], *, timeout_seconds: float = 30) -> None:
    """Wait until something holds."""
    give_up_at = time.monotonic() + timeout_seconds
    while not is_so():
        assert time.monotonic() < give_up_at, "it did not come to pass in time"
        time.sleep(0.005)
