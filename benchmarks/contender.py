"""What a contender is, and how all of them call programs and make their results durable."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backups_app.core.files import sync_folder

ROOT = Path(__file__).resolve().parent.parent
"""The folder of the project, from which its modules can be run."""

ASIDE = "aside"
"""Folder inside that of a run for what is no part of the result: caches, live databases."""

COPY_NAME = "copy.sqlite3"
"""How a copy of the database is called in the folder of a run."""

Kind = Literal["backup", "restore", "verify", "latency", "wait"]
"""Of a contender: ``latency`` is a backup beside a writer, ``wait`` a restore beside one."""


@dataclass(frozen=True, kw_only=True)
class BesideWriter:
    """A backup beside a writer: how long it took, and the latency of each commit meanwhile, in seconds."""

    seconds: float
    latencies: list[float]


Counted = float | BesideWriter | None
"""What a run wants counted in place of the whole call."""


class ContenderError(Exception):
    """It could not do the work; the text, one line, stands in its row of the table."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do the work, and what it needs to be driven."""

    name: str
    kind: Kind
    run: Callable[[Path, Path], Counted]
    """Called as ``run(source, folder)``: ``source`` is a database nobody else uses, or a store;
    its result is alone in ``folder``, durable, when it returns."""
    prepare: Callable[[Path, Path], None] | None = None
    """Called just before with the same arguments, and not measured."""
    store: str | None = None
    """Which store it reads: see :data:`~.contenders.STORES`; without one it reads the database."""
    is_ours: bool = False
    tools: tuple[str, ...] = ()
    """Programs that must be installed."""
    needs_dbbackup: bool = False
    """It runs in the environment of :mod:`~.dbbackup`."""


def missing_tools(tools: tuple[str, ...]) -> list[str]:
    """Those of the programs that are not on this machine."""
    return [tool for tool in tools if shutil.which(tool) is None]


def run_tool(
    *arguments: str | Path, folder: Path | None = None, environment: dict[str, str] | None = None, seconds: float = 1800
) -> str:
    """Run a program to its end and return what it printed.

    Raises:
        ContenderError: it failed, or took longer than ``seconds`` and was killed.
    """
    name = Path(arguments[0]).name
    try:
        done = subprocess.run(
            [str(each) for each in arguments],
            check=False,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as exc:
        raise ContenderError(f"did not end within {seconds:g} s") from exc
    except OSError as exc:
        raise ContenderError(f"{name} cannot be run: {exc.strerror}") from exc
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines() or ["without a word"]
        raise ContenderError(f"{name} failed with exit code {done.returncode}: {words[-1][:200]}")
    return done.stdout


def run_bash(script: str, *arguments: str | Path) -> None:
    """Run a shell script, which fails when any part of a pipe fails. Raises as :func:`run_tool`."""
    run_tool("bash", "-c", f"set -o pipefail; {script}", "bash", *arguments)


def make_durable(path: Path) -> None:
    """Sync a file and its folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


def aside(folder: Path) -> Path:
    """The folder for what is no part of the result, made when it is not there."""
    path = folder / ASIDE
    path.mkdir(exist_ok=True)
    return path
