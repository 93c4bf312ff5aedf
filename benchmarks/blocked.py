"""How long writers have to wait while a live database gets other content.

A writer process commits to the live copy as fast as it can, with a timeout of a minute, and notes
its longest commit. That is the figure: what a visitor of the site would feel.
"""

from __future__ import annotations

import json
import select
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backups_app.core.progress import Watch
from backups_app.core.restore import fit_to_live, live_facts, restore_in_place
from backups_app.core.snapshot import take_snapshot

_ROOT = Path(__file__).resolve().parent.parent


def restore_while_written(database: Path, folder: Path) -> float:
    """Ours: a verified copy into the live database, in place; returns the writer's longest wait."""
    live, staged = folder / "live.sqlite3", folder / "staged.sqlite3"
    shutil.copyfile(database, live)
    snapshot = take_snapshot(database, staged, watch=Watch())
    facts = live_facts(live, busy_timeout_seconds=5)
    census, _notes = fit_to_live(staged, snapshot.census, facts, watch=Watch())
    with _writer(live) as waits:
        restore_in_place(staged, live, census=census, wait_seconds=30, watch=Watch())
    staged.unlink()
    return waits[0]


@contextmanager
def _writer(live: Path) -> Iterator[list[float]]:
    """A process that writes until the block ends; its longest wait is then in the list."""
    waits: list[float] = []
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.blocked", str(live)],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != "writing\n":
            raise SystemExit("The writer of the benchmark did not start.")
        time.sleep(0.3)
        yield waits
        time.sleep(0.3)
        output, _ = process.communicate("stop\n", timeout=90)
        waits.append(float(json.loads(output)))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _write_until_told() -> None:
    longest = 0.0
    with closing(sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)) as connection:
        print("writing", flush=True)
        while not select.select([sys.stdin], [], [], 0.005)[0]:
            started = time.perf_counter()
            connection.execute("INSERT INTO event(kind, body) VALUES ('benchmark', 'a visitor')")
            longest = max(longest, time.perf_counter() - started)
    print(json.dumps(longest))


if __name__ == "__main__":
    _write_until_told()
