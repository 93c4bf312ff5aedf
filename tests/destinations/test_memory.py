"""A bucket takes and gives any size in constant memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PROJECT

_MOST_BYTES = 64 << 20


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_creating_and_restoring_250_mb_takes_constant_memory(tmp_path: Path):
    command = [sys.executable, "-m", "tests.destinations.memory", "250", "--folder", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["archive"] > 250_000_000
    for work in ("create", "extract", "restore"):
        assert found[work] < _MOST_BYTES, found
