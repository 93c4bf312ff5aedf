"""The comparison of space, small: it restores every backup and compares it, so that it can fail."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PROJECT

needs_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("restic", "sqlite3", "zstd"))), reason="needs restic, sqlite3 and zstd"
)


@needs_tools
@pytest.mark.parametrize("less", [(), ("--without-full", "--restore-every=2")])
def test_a_few_hours_are_stored_restored_and_compared(tmp_path: Path, less: tuple[str, ...]):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.space", "--backups=3", "--megabytes=1", f"--work={tmp_path}", *less],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) MB \| ([\d.]+) × \|", done.stdout, re.MULTILINE)
    names = [name for name, _stored, _ratio in rows]
    assert names == [
        *(["ours, full archives"] if not less else []),
        "ours, DELTA_CHAIN 100",
        "sqlite3 .backup + restic backup",
    ]
    assert f"Restored and compared: {2 if less else 3} of delta" in done.stderr
    assert "The last one by stock tools" in done.stderr
    assert list(tmp_path.iterdir()) == []
