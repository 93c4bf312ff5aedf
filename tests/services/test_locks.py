"""Backups share the lock of a database, a restore has it alone, and the dead hold nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backups_app.core.errors import BusyError
from backups_app.models import Database
from backups_app.services.locks import database_lock, is_swapping, swapping
from tests.support import PROJECT, names_in

ONE, TWO = Database(name="one", alias="default", identity="1" * 32), Database(name="two", identity="2" * 32)


def test_backups_share_it(home: Path):
    with database_lock(ONE, alone=False), database_lock(ONE, alone=False):
        pass


@pytest.mark.parametrize(
    ("held_alone", "wanted_alone", "what"),
    [(True, True, "A backup or a restore"), (True, False, "A restore"), (False, True, "A backup or a restore")],
)
def test_a_restore_has_it_alone(home: Path, held_alone: bool, wanted_alone: bool, what: str):
    with database_lock(ONE, alone=held_alone):
        with pytest.raises(BusyError, match=f"{what} of one is running"):
            with database_lock(ONE, alone=wanted_alone):
                pass
    with database_lock(ONE, alone=wanted_alone):
        pass


def test_databases_do_not_get_in_each_others_way(home: Path):
    with database_lock(ONE, alone=True), database_lock(TWO, alone=True):
        pass


def test_the_lock_of_a_killed_process_is_free(home: Path):
    path = home / "state" / "locks" / f"{ONE.identity}.lock"
    program = (
        "import sys; from pathlib import Path; from backups_app.core.files import file_lock\n"
        "with file_lock(Path(sys.argv[1])): print('ready', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        with pytest.raises(BusyError), database_lock(ONE, alone=False):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with database_lock(ONE, alone=True):
        pass


def test_a_swap_is_seen_while_it_lasts(home: Path):
    assert not is_swapping("default")
    with swapping(ONE):
        assert is_swapping("default")
        assert not is_swapping("other")
    assert not is_swapping("default")


def test_a_swap_of_a_file_without_visitors_is_not_announced(home: Path):
    with swapping(TWO):
        assert not is_swapping("default")
        assert not home.exists()


def test_looking_creates_nothing(home: Path):
    is_swapping("default")
    assert not home.exists()


def test_lock_files_are_private(home: Path):
    with database_lock(ONE, alone=True), swapping(ONE):
        folder = home / "state" / "locks"
        assert names_in(folder) == {f"{ONE.identity}.lock", "default.swap"}
        assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o600}
        assert folder.stat().st_mode & 0o777 == 0o700
