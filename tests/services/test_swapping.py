"""Visitors are told while the content of their database is exchanged."""

from __future__ import annotations

from pathlib import Path

from backups_app.models import Database
from backups_app.services.swapping import is_swapping, swapping
from tests.support import names_in

ONE, TWO = Database(name="one", alias="default", identity="1" * 32), Database(name="two", identity="2" * 32)


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
    with swapping(ONE):
        folder = home / "state" / "locks"
        assert names_in(folder) == {"default.swap"}
        assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o600}
        assert folder.stat().st_mode & 0o777 == 0o700
