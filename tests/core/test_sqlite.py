"""Opening SQLite files: live ones without touching their locks, foreign ones without trusting them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from backups_app.core.errors import BusyError, CancelledError, InputError, NotFoundError, VerificationError
from backups_app.core.progress import Watch
from backups_app.core.sqlite import (
    database_file,
    has_innocuous_json,
    has_wal_reset_bug,
    interrupted_by,
    open_foreign,
    open_live,
    open_snapshot,
    settle_staged,
    sidecar,
)
from tests.support import build, build_shop, bytes_in, connected, holding, names_in, run_python


@pytest.mark.parametrize(
    ("version", "is_affected"),
    [
        ((3, 6, 23), False),
        ((3, 7, 0), True),
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((4, 0, 0), False),
    ],
)
def test_the_wal_reset_bug_is_known_by_version(version: tuple[int, int, int], is_affected: bool):
    assert has_wal_reset_bug(version) is is_affected


def test_a_sidecar_keeps_the_whole_name():
    assert sidecar(Path("/srv/shop.v2.db"), "-wal") == Path("/srv/shop.v2.db-wal")


def test_a_database_file_is_absolute_with_links_resolved(shop: Path, monkeypatch: pytest.MonkeyPatch):
    link = shop.with_name("link.db")
    link.symlink_to(shop)
    monkeypatch.chdir(shop.parent)
    assert database_file(Path("link.db")) == shop.resolve()


def test_a_missing_database_is_not_found_and_not_created(tmp_path: Path):
    with pytest.raises(NotFoundError, match="no database file"):
        database_file(tmp_path / "missing.db")
    assert names_in(tmp_path) == set()


def test_a_dangling_link_is_not_found_and_its_target_not_created(tmp_path: Path):
    (tmp_path / "link.db").symlink_to(tmp_path / "nowhere.db")
    with pytest.raises(NotFoundError):
        database_file(tmp_path / "link.db")
    assert names_in(tmp_path) == {"link.db"}


def test_links_in_a_circle_are_refused(tmp_path: Path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(InputError, match="cannot be used"):
        database_file(tmp_path / "a")


def test_a_folder_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder"):
        database_file(tmp_path)


def test_a_fifo_is_refused_without_waiting_for_its_other_end(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.db")
    started = time.monotonic()
    with pytest.raises(InputError, match="FIFO"):
        database_file(tmp_path / "pipe.db")
    assert time.monotonic() - started < 1


def test_a_path_with_a_nul_byte_is_refused():
    with pytest.raises(InputError, match="cannot be used"):
        database_file(Path("a\0b"))


def test_a_snapshot_is_read_without_leaving_sidecars_although_it_carries_the_wal_flag(shop: Path):
    before = bytes_in(shop.parent)
    with open_snapshot(shop) as connection:
        assert connection.execute("SELECT count(*) FROM sale").fetchone() == (4,)
        assert names_in(shop.parent) == {"shop.db"}
    assert bytes_in(shop.parent) == before


def test_a_snapshot_cannot_be_written(shop: Path):
    before = bytes_in(shop.parent)
    with open_snapshot(shop) as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM sale")
    assert bytes_in(shop.parent) == before


def test_the_schema_of_a_snapshot_is_not_trusted(shop: Path):
    # A view of a hostile file may otherwise call any function, such as one that reads files.
    with open_snapshot(shop) as connection:
        # Where JSON counts as unsafe, an untrusted schema would make every JSONField unreadable.
        assert connection.execute("PRAGMA trusted_schema").fetchone() == (0 if has_innocuous_json() else 1,)
        assert connection.execute("PRAGMA cell_size_check").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match="not authorized"):
            connection.execute("SELECT load_extension('evil')")


def test_text_that_is_not_utf8_survives_reading(tmp_path: Path):
    database = build(tmp_path / "odd.db", "CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(x'41ff42' AS TEXT))")
    with open_snapshot(database) as connection:
        text = connection.execute("SELECT a FROM t").fetchone()[0]
    assert text.encode("utf-8", "surrogateescape") == b"A\xffB"


def open_and_count(database: Path, staging: Path, **changed: float) -> int:
    limits = {"busy_timeout_seconds": 5.0, **changed}
    with open_live(database, staging=staging, watch=Watch(), **limits) as live:
        return live.connection.execute("SELECT count(*) FROM sale").fetchone()[0]


def test_a_live_database_keeps_its_view_while_others_commit(shop: Path, scratch: Path):
    with (
        connected(shop) as other,
        open_live(shop, staging=scratch, busy_timeout_seconds=5, watch=Watch()) as live,
    ):
        # Nothing but the opening has fixed the view: no table was read before this commit.
        other.execute("DELETE FROM sale")
        assert live.connection.execute("SELECT count(*) FROM sale").fetchone() == (4,)
        assert live.access == "read-write"
        assert other.execute("SELECT count(*) FROM sale").fetchone() == (0,)


def test_a_live_database_cannot_be_written_through_the_engine(shop: Path, scratch: Path):
    with (
        open_live(shop, staging=scratch, busy_timeout_seconds=5, watch=Watch()) as live,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        live.connection.execute("DELETE FROM sale")


@pytest.mark.parametrize(
    ("journal_mode", "statements"),
    [
        ("delete", ["BEGIN EXCLUSIVE"]),
        ("delete", ["PRAGMA locking_mode=EXCLUSIVE", "DELETE FROM sale"]),
        ("wal", ["PRAGMA locking_mode=EXCLUSIVE", "DELETE FROM sale"]),
    ],
    ids=["transaction", "rollback journal locking mode", "wal locking mode"],
)
def test_an_exclusive_lock_ends_in_busy_within_the_time_given(
    tmp_path: Path, scratch: Path, journal_mode: str, statements: list[str]
):
    database = build_shop(tmp_path / "shop.db", journal_mode=journal_mode)
    with holding(database, *statements):
        started = time.monotonic()
        with pytest.raises(BusyError, match="stayed locked"):
            open_and_count(database, scratch, busy_timeout_seconds=0.5)
        assert 0.4 < time.monotonic() - started < 3
    assert names_in(scratch) == set()


def test_a_lock_that_is_released_in_time_is_waited_for(tmp_path: Path, scratch: Path):
    database = build_shop(tmp_path / "shop.db", journal_mode="delete")
    with holding(database, "BEGIN EXCLUSIVE") as holder:
        asked = 0

        def release_at_third_look() -> bool:
            nonlocal asked
            asked += 1
            if asked == 3:
                holder.kill()
                holder.wait()
            return False

        watch = Watch(is_cancelled=release_at_third_look)
        with open_live(database, staging=scratch, busy_timeout_seconds=30, watch=watch) as live:
            assert live.connection.execute("SELECT count(*) FROM sale").fetchone() == (4,)
    assert asked >= 3


def test_waiting_for_a_lock_can_be_cancelled(tmp_path: Path, scratch: Path):
    database = build_shop(tmp_path / "shop.db", journal_mode="delete")
    with holding(database, "BEGIN EXCLUSIVE"):
        started = time.monotonic()
        cancel_at = started + 0.3
        watch = Watch(is_cancelled=lambda: time.monotonic() > cancel_at)
        with (
            pytest.raises(CancelledError),
            open_live(database, staging=scratch, busy_timeout_seconds=60, watch=watch),
        ):
            pytest.fail("the database was opened in spite of the lock")
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "content",
    [b"id,name\n1,apple\n" * 300, b"short", b"SQLite format 3\0" + b"\xff" * 5000],
    ids=["table of text", "few bytes", "only the magic"],
)
def test_a_file_that_is_no_database_is_named_so(tmp_path: Path, scratch: Path, content: bytes):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "sales.csv").write_bytes(content)
    with pytest.raises(InputError, match="not an SQLite database"):
        open_and_count(tmp_path / "data" / "sales.csv", scratch)
    assert bytes_in(tmp_path / "data") == {"sales.csv": content}


def test_a_damaged_schema_with_a_name_that_is_not_utf8_is_called_damage(tmp_path: Path, scratch: Path):
    database = build(
        tmp_path / "odd.db",
        "CREATE TABLE t (a); PRAGMA writable_schema=ON;"
        "UPDATE sqlite_schema SET name = CAST(x'ff41' AS TEXT), sql = 'CREATE TABLE nonsense'",
    )
    with pytest.raises(VerificationError, match="damaged"):
        open_and_count(database, scratch)


def test_a_path_that_starts_with_two_slashes_is_a_path(shop: Path, scratch: Path):
    # In a URI the first part after two slashes would be a host.
    assert open_and_count(Path(f"/{shop}"), scratch) == 4


def test_opening_does_not_drop_the_locks_of_this_process(shop: Path, scratch: Path):
    with connected(shop) as application:
        application.execute("INSERT INTO sale (note) VALUES ('only in the wal')")
        assert open_and_count(shop, scratch) == 5
        # Were our locks gone, this process would take itself for the last one and remove the WAL.
        run_python(
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT * FROM sale'); c.close()", shop
        )
        assert sidecar(shop, "-wal").stat().st_size > 0
        application.execute("INSERT INTO sale (note) VALUES ('later')")
    with connected(shop) as fresh:
        assert fresh.execute("SELECT count(*) FROM sale").fetchone() == (6,)


def test_a_foreign_file_is_opened_with_tight_limits_and_leaves_nothing(shop: Path):
    before = bytes_in(shop.parent)
    with open_foreign(shop) as connection:
        assert connection.execute("SELECT count(*) FROM sale").fetchone() == (4,)
        with pytest.raises(sqlite3.DataError, match="too big"):
            connection.execute("SELECT zeroblob(20000000)").fetchone()
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("ATTACH ':memory:' AS other")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM sale")
    assert bytes_in(shop.parent) == before


def test_a_cancel_interrupts_statements_and_no_thread_stays(shop: Path):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    asked_at = time.monotonic() + 0.1
    watch = Watch(is_cancelled=lambda: time.monotonic() > asked_at)
    threads = threading.active_count()
    with open_foreign(shop) as connection, pytest.raises(CancelledError), interrupted_by(watch, connection):
        connection.execute(endless).fetchone()
    assert time.monotonic() - asked_at < 5
    assert threading.active_count() == threads


def test_settling_brings_the_wal_into_a_private_copy(shop: Path, scratch: Path):
    with connected(shop) as connection:
        connection.execute("INSERT INTO sale (note) VALUES ('only in the -wal')")
        for suffix in ("", "-wal"):
            shutil.copy2(f"{shop}{suffix}", f"{scratch / 'copy'}{suffix}")
    settle_staged(scratch / "copy")
    assert names_in(scratch) == {"copy"}
    with open_snapshot(scratch / "copy") as connection:
        assert connection.execute("SELECT count(*) FROM sale").fetchone() == (5,)
