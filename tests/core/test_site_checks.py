"""The site's own checks: whatever they do becomes a check, in time."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from backups_app.core.errors import CancelledError
from backups_app.core.progress import Watch
from backups_app.core.site_checks import find_site_check, run_site_check
from tests.support import build_shop, bytes_in

HERE = "tests.core.test_site_checks"


def fine(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT count(*) FROM product").fetchone() == (3,)


def wordy(_connection: sqlite3.Connection) -> str:
    return "x" * 10_000


def silent(_connection: sqlite3.Connection) -> str:
    return ""


def slow(_connection: sqlite3.Connection) -> None:
    time.sleep(1)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return build_shop(tmp_path / "shop.sqlite3")


def test_a_satisfied_check_leaves_the_file_as_it_was(shop: Path):
    before = bytes_in(shop.parent)
    check = run_site_check(f"{HERE}.fine", shop, limit_seconds=5, watch=Watch())
    assert (check.name, check.ok) == (f"site check {HERE}.fine", True)
    assert bytes_in(shop.parent) == before


@pytest.mark.parametrize(("name", "length"), [("wordy", 500), ("silent", len("it returned ''"))])
def test_any_other_answer_is_an_objection_of_bounded_length(shop: Path, name: str, length: int):
    check = run_site_check(f"{HERE}.{name}", shop, limit_seconds=5, watch=Watch())
    assert (check.ok, len(check.evidence)) == (False, length)


def test_time_is_limited_and_a_cancel_is_heard(shop: Path):
    started = time.monotonic()
    check = run_site_check(f"{HERE}.slow", shop, limit_seconds=0.1, watch=Watch())
    assert not check.ok
    assert time.monotonic() - started < 0.9
    with pytest.raises(CancelledError):
        run_site_check(f"{HERE}.slow", shop, limit_seconds=5, watch=Watch(is_cancelled=lambda: True))


@pytest.mark.parametrize("name", ["nothing", "no.such.module", f"{HERE}.HERE", f"{HERE}.missing"])
def test_what_is_no_callable_is_not_found(name: str):
    with pytest.raises((ImportError, ValueError)):
        find_site_check(name)
