"""What a killed maker of a new file leaves is removed by the next one, and nothing else is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backups_app.core.errors import NotFoundError
from backups_app.core.partial import partial_beside
from tests.support import PROJECT, names_in

_MAKER = """
import sys, time
from pathlib import Path
from backups_app.core.partial import partial_beside
with partial_beside(Path(sys.argv[1])) as temporary:
    temporary.mkdir(mode=0o700) if sys.argv[2] == "folder" else temporary.touch(mode=0o600)
    if temporary.is_dir():
        (temporary / "media").mkdir()
        (temporary / "media" / "photo").write_bytes(b"half")
    print("made", flush=True)
    time.sleep(60)
"""

_LOCKER = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(60)
"""


def start_making(target: Path, kind: str = "file") -> subprocess.Popen[str]:
    """Another process that has made the beginning of a new file or folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", _MAKER, str(target), kind], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "made\n"
    return process


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_maker_left_is_gone_after_the_next_one(tmp_path: Path, kind: str):
    stop(start_making(tmp_path / "new.db", kind))
    assert len(names_in(tmp_path)) == 1
    with partial_beside(tmp_path / "other.db") as temporary:
        assert names_in(tmp_path) == set()
        temporary.write_bytes(b"a database")
    assert names_in(tmp_path) == set()


def test_what_another_maker_still_writes_is_spared(tmp_path: Path):
    stop(start_making(tmp_path / "dead.db"))
    dead = names_in(tmp_path)
    living = start_making(tmp_path / "new.db")  # sweeps what is dead
    try:
        beside = names_in(tmp_path)
        assert len(beside) == 1
        assert not beside & dead
        with partial_beside(tmp_path / "new.db"):
            assert names_in(tmp_path) == beside
        assert names_in(tmp_path) == beside
    finally:
        stop(living)


def test_what_is_not_ours_is_never_swept(tmp_path: Path):
    target = tmp_path / "folder"
    target.mkdir()
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    (target / ".0123456789abcdef.partial").write_bytes(b"of another program")
    (target / ".walsafe-0123456789abcde.partial").write_bytes(b"a name that is too short")
    (target / ".walsafe-0123456789abcdef.partial.db").write_bytes(b"a longer name")
    (target / ".walsafe-1111111111111111.partial").write_bytes(b"for others to read")
    (target / ".walsafe-1111111111111111.partial").chmod(0o644)
    (target / ".walsafe-2222222222222222.partial").symlink_to(precious)
    os.mkfifo(target / ".walsafe-3333333333333333.partial", 0o600)
    before = names_in(target)
    with partial_beside(target / "new.db"):
        pass
    assert names_in(target) == before
    assert precious.read_bytes() == b"precious"


def test_a_folder_that_somebody_else_keeps_locked_is_written_to_and_not_swept(tmp_path: Path):
    stop(start_making(tmp_path / "dead.db"))
    left = names_in(tmp_path)
    locking = subprocess.Popen([sys.executable, "-c", _LOCKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert locking.stdout is not None
    assert locking.stdout.readline() == "locked\n"
    try:
        began_at = time.monotonic()
        with partial_beside(tmp_path / "new.db") as temporary:
            temporary.write_bytes(b"a database")
        assert time.monotonic() - began_at < 30
        assert names_in(tmp_path) == left
    finally:
        stop(locking)


def test_a_missing_folder_is_not_found(tmp_path: Path):
    with pytest.raises(NotFoundError), partial_beside(tmp_path / "none" / "new.db"):
        pass
    assert names_in(tmp_path) == set()
