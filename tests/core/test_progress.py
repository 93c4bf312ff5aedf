"""A watch tells about progress and stops work, also inside one long SQLite statement."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest

from backups_app.core.errors import CancelledError, DeadlineError
from backups_app.core.progress import Watch

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_watch_without_limits_lets_everything_pass():
    watch = Watch()
    watch.check()
    watch.report("copy", 1, 2)


def test_progress_is_reported_before_the_check():
    seen: list[tuple[str, int, int]] = []
    watch = Watch(on_progress=lambda *report: seen.append(report), is_cancelled=lambda: True)
    with pytest.raises(CancelledError):
        watch.report("copy", 5, 10)
    assert seen == [("copy", 5, 10)]


def test_the_deadline_counts_from_the_creation_of_the_watch():
    watch = Watch(deadline_seconds=0.05)
    watch.check()
    time.sleep(0.06)
    with pytest.raises(DeadlineError, match=r"limit of 0\.05 s"):
        watch.check()


def test_a_cancel_interrupts_an_endless_statement():
    asked_at = time.monotonic() + 0.1
    watch = Watch(is_cancelled=lambda: time.monotonic() > asked_at)
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(CancelledError), watch.over(connection):
        connection.execute(ENDLESS).fetchone()
    assert time.monotonic() - asked_at < 5


def test_a_deadline_interrupts_an_endless_statement():
    watch = Watch(deadline_seconds=0.1)
    started = time.monotonic()
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(DeadlineError), watch.over(connection):
        connection.execute(ENDLESS).fetchone()
    assert time.monotonic() - started < 5


def test_other_sqlite_errors_pass_through():
    with (
        closing(sqlite3.connect(":memory:")) as connection,
        pytest.raises(sqlite3.OperationalError, match="no such table"),
        Watch(deadline_seconds=60).over(connection),
    ):
        connection.execute("SELECT * FROM missing")


def test_nothing_watches_the_connection_after_the_block():
    is_cancelled = False
    watch = Watch(is_cancelled=lambda: is_cancelled)
    with closing(sqlite3.connect(":memory:")) as connection:
        with watch.over(connection):
            connection.execute("SELECT 1")
        is_cancelled = True
        limited = ENDLESS.replace("FROM n)", "FROM n WHERE i < 100000)")
        assert connection.execute(limited).fetchone() == (100_000,)
