"""The n-th write, sync, rename, read, … fails: what must hold holds after every one of them.

Each test is a process with a home of its own, see ``operations.py``. With ``WALSAFE_SOAK=1`` in the
environment every n is tried, else a sample of at most :data:`MOST` per effect.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console import environment
from tests.faults import EFFECTS
from tests.support import PROJECT

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux' /proc"),
]

MOST = 4
OPERATIONS = ("create", "share", "verify", "extract", "restore", "undo", "recreate", "prune", "rescan")
NEVER_CALLED = {("verify", "rename"), ("prune", "sqlite"), ("rescan", "sqlite")}
"""A verification gives nothing a name; retention and a rescan open no database under care."""
CASES = [(operation, call) for operation in OPERATIONS for call in EFFECTS if (operation, call) not in NEVER_CALLED]


def run_operations(fresh_catalog: Path, folder: Path, *arguments: object, timeout_seconds: float) -> dict[str, int]:
    """Try an operation in a process of its own; what did not hold fails the test."""
    home = folder / "home"
    shutil.copytree(fresh_catalog, home)
    finished = subprocess.run(
        [sys.executable, "-m", "tests.operations", *map(str, arguments)],
        cwd=PROJECT,
        env=environment(home, BACKUPS_ROOTS=str(folder)),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_seconds,
    )
    assert finished.returncode == 0, finished.stderr[-6000:]
    found = json.loads(finished.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("operation", "call"), CASES)
def test_whatever_fails_nothing_is_lost_or_claimed_or_left(
    fresh_catalog: Path, tmp_path: Path, operation: str, call: str
):
    effects = [f"--effect={each}" for each in EFFECTS[call]]
    arguments = ("faults", operation, tmp_path, f"--call={call}", f"--most={MOST}", *effects)
    found = run_operations(fresh_catalog, tmp_path, *arguments, timeout_seconds=3600)
    print(found)
    assert found["calls"] > 0
    assert found["struck"] > 0
