"""A writer beside the work: what a visitor of the site would feel while a backup or a restore runs.

A process of its own commits one row at set times to a live copy of the database, as Django does by
default (WAL, every commit synced). The latency of a commit counts from the time it was *due*: a
writer that is kept waiting also makes everybody behind it wait.
"""

from __future__ import annotations

import json
import select
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backups_app.core.progress import Watch
from backups_app.core.restore import fit_to_live, live_facts, restore_in_place
from backups_app.core.snapshot import take_snapshot

from .contender import ROOT, BesideWriter, ContenderError, aside, run_tool

COMMITS_PER_SECOND = 100
_LIVE_NAME = "live.sqlite3"
_STAGED_NAME = "staged.sqlite3"
_QUIET_SECONDS = 2.0
"""How long the writer is alone where nobody makes a backup."""

_WAIT_SECONDS = 60
"""How long a commit may wait for a lock."""


def prepare_live(database: Path, folder: Path) -> None:
    """A live copy of the database."""
    shutil.copyfile(database, aside(folder) / _LIVE_NAME)


def prepare_live_and_staged(database: Path, folder: Path) -> None:
    """A live copy, and the database that is to become its content."""
    prepare_live(database, folder)
    shutil.copyfile(database, aside(folder) / _STAGED_NAME)


def nobody(_database: Path, _folder: Path) -> None:
    """No backup at all: what the disk alone makes of the writer."""
    time.sleep(_QUIET_SECONDS)


def beside_writer(create: Callable[[Path, Path], object]) -> Callable[[Path, Path], BesideWriter]:
    """A run of ``create`` on a live database; the commits that waited or were made meanwhile count."""

    def run(_database: Path, folder: Path) -> BesideWriter:
        live = aside(folder) / _LIVE_NAME
        with _writer(live) as commits:
            started = time.monotonic()
            create(live, folder)
            ended = time.monotonic()
        return BesideWriter(
            seconds=ended - started,
            latencies=[latency for due, latency in commits if started <= due + latency and due <= ended],
        )

    return run


def restore_in_place_beside_writer(_database: Path, folder: Path) -> float:
    """Ours: a verified copy into the live database, in place; returns the longest wait of a commit."""
    live, staged = aside(folder) / _LIVE_NAME, aside(folder) / _STAGED_NAME
    staged.unlink()
    snapshot = take_snapshot(live, staged, watch=Watch())
    facts = live_facts(live, busy_timeout_seconds=5)
    census, _notes = fit_to_live(staged, snapshot.census, facts, watch=Watch())
    with _writer(live) as commits:
        restore_in_place(staged, live, census=census, wait_seconds=30, watch=Watch())
    return _longest(commits)


def shell_restore_beside_writer(_database: Path, folder: Path) -> float:
    """The ``.restore`` command of the stock shell, in place, nothing checked; the longest wait of a commit."""
    live = aside(folder) / _LIVE_NAME
    with _writer(live) as commits:
        # Its own patience is a few seconds; a site with writers has to give it more.
        run_tool(
            "sqlite3",
            live,
            f".timeout {_WAIT_SECONDS * 1000}",
            f".restore {_STAGED_NAME}",
            folder=live.parent,
            seconds=90,
        )
    return _longest(commits)


def _longest(commits: list[tuple[float, float]]) -> float:
    if not commits:
        raise ContenderError("the writer committed nothing")
    return max(latency for _due, latency in commits)


@contextmanager
def _writer(live: Path) -> Iterator[list[tuple[float, float]]]:
    """A process that writes until the block ends; its commits, as (due, latency), are then in the list."""
    commits: list[tuple[float, float]] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.writer", str(live)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != "writing\n":
            raise ContenderError("the writer did not start")
        time.sleep(0.3)
        yield commits
        time.sleep(0.3)
        output, _ = process.communicate("stop\n", timeout=_WAIT_SECONDS + 30)
        commits += [(due, latency) for due, latency in json.loads(output)]
    except (subprocess.TimeoutExpired, ValueError) as exc:
        raise ContenderError("the writer failed") from exc
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _write_until_told() -> None:
    commits: list[tuple[float, float]] = []
    with closing(sqlite3.connect(sys.argv[1], timeout=_WAIT_SECONDS, isolation_level=None)) as connection:
        print("writing", flush=True)
        due = time.monotonic()
        while not select.select([sys.stdin], [], [], max(0.0, due - time.monotonic()))[0]:
            connection.execute("INSERT INTO event(kind, body) VALUES ('benchmark', 'a visitor')")
            commits.append((due, time.monotonic() - due))
            due += 1 / COMMITS_PER_SECOND
    print(json.dumps(commits))


if __name__ == "__main__":
    _write_until_told()
