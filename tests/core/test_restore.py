"""Into a live database in place: all or nothing, under the connections of other processes."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backups_app.core import restore
from backups_app.core.census import Census, take_census
from backups_app.core.errors import (
    BusyError,
    CancelledError,
    DiskFullError,
    InputError,
    NotFoundError,
    RefusedError,
    VerificationError,
)
from backups_app.core.progress import Watch
from backups_app.core.restore import (
    RecreateError,
    RestoreCheckError,
    Restored,
    fit_to_live,
    live_facts,
    move_aside,
    noticing_commits,
    recreate,
    refuse_unfit,
    remove_draft,
    require_space,
    restore_in_place,
)
from backups_app.core.sqlite import open_snapshot
from backups_app.core.verify import Check
from tests.support import (
    build,
    build_ledger,
    build_shop,
    connected,
    content_through,
    holding,
    leave_behind,
    mounted_tmpfs,
    names_in,
    run_python,
    writing,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
OTHER = """
    CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE extra (id INTEGER PRIMARY KEY, payload BLOB);
    INSERT INTO product (name) VALUES ('quince');
    INSERT INTO extra (payload) VALUES (randomblob(3000)), (x'00ff'), (NULL);
"""


def census_of(path: Path) -> Census:
    """The census of a file that nobody writes."""
    with open_snapshot(path) as connection:
        return take_census(connection, watch=Watch())


def live_content(path: Path) -> dict[str, object]:
    """The content of a live database, through a connection of its own."""
    with connected(path) as connection:
        return content_through(connection)


def rows_through(path: Path, statement: str) -> list[tuple[object, ...]]:
    """Rows of a live database."""
    with connected(path) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def staged(scratch: Path) -> Path:
    """Other content than the live shop has, in WAL mode, nobody connected."""
    return build(scratch / "staged.sqlite3", f"PRAGMA journal_mode=wal; {OTHER}")


def put(staged: Path, live: Path, *, wait_seconds: float = 5, watch: Watch | None = None) -> Restored:
    """Look, fit and copy, as a run does."""
    facts = live_facts(live, busy_timeout_seconds=5)
    expected, _notes = fit_to_live(staged, census_of(staged), facts, watch=Watch())
    return restore_in_place(staged, live, census=expected, wait_seconds=wait_seconds, watch=watch or Watch())


# What comes out


def test_the_live_database_holds_exactly_the_staged_content(shop: Path, staged: Path):
    wanted = live_content(staged)
    done = put(staged, shop)
    assert live_content(shop) == wanted
    assert all(check.ok for check in done.checks)
    assert {check.name for check in done.checks} == {"quick_check", "census"}
    assert not done.others_wrote


def test_the_file_is_the_same_file(shop: Path, staged: Path):
    before = shop.stat()
    put(staged, shop)
    after = shop.stat()
    assert (after.st_ino, after.st_mode, after.st_uid) == (before.st_ino, before.st_mode, before.st_uid)


def test_no_sidecar_is_left_when_nobody_is_connected(shop: Path, staged: Path):
    put(staged, shop)
    assert names_in(shop.parent) == {"shop.db"}


def test_nothing_is_left_in_scratch_but_the_staged_file(shop: Path, staged: Path):
    put(staged, shop)
    assert names_in(staged.parent) == {"staged.sqlite3"}


@pytest.mark.parametrize("journal_mode", ["wal", "delete", "truncate", "persist"])
def test_the_journal_mode_of_the_live_database_stays(tmp_path: Path, staged: Path, journal_mode: str):
    live = build_shop(tmp_path / "live.db", journal_mode=journal_mode)
    kept = "wal" if journal_mode == "wal" else "delete"  # the others are settings of a connection
    wanted = live_content(staged)
    put(staged, live)
    assert live_content(live) == wanted
    assert rows_through(live, "PRAGMA journal_mode") == [(kept,)]


PAGE_SIZES = (1024, 4096, 65536)


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("live_size", PAGE_SIZES)
@pytest.mark.parametrize("backup_size", PAGE_SIZES)
def test_every_page_size_goes_into_every_other(
    tmp_path: Path, scratch: Path, live_size: int, backup_size: int, journal_mode: str
):
    live = build(tmp_path / "live.db", f"PRAGMA page_size={live_size}; PRAGMA journal_mode={journal_mode}; {OTHER}")
    staged = build(scratch / "s.db", f"PRAGMA page_size={backup_size}; PRAGMA journal_mode=wal; {OTHER}")
    with connected(staged) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('medlar')")
    wanted = live_content(staged)
    facts = live_facts(live, busy_timeout_seconds=5)
    expected, notes = fit_to_live(staged, census_of(staged), facts, watch=Watch())
    done = restore_in_place(staged, live, census=expected, wait_seconds=5, watch=Watch())
    assert live_content(live) == {**wanted, "page_size": (live_size,)}
    assert all(check.ok for check in done.checks)
    assert bool(notes) == (live_size != backup_size)
    assert rows_through(live, "PRAGMA integrity_check") == [("ok",)]
    assert names_in(scratch) == {"s.db"}


@pytest.mark.parametrize(("ours", "theirs"), [(0, 1), (1, 0), (2, 0), (0, 2), (1, 2)])
def test_auto_vacuum_is_that_of_the_backup(tmp_path: Path, scratch: Path, ours: int, theirs: int):
    live = build(tmp_path / "live.db", f"PRAGMA auto_vacuum={ours}; PRAGMA journal_mode=wal; {OTHER}")
    staged = build(scratch / "s.db", f"PRAGMA auto_vacuum={theirs}; PRAGMA journal_mode=wal; {OTHER}")
    wanted = live_content(staged)
    put(staged, live)
    assert live_content(live) == wanted
    assert rows_through(live, "PRAGMA integrity_check") == [("ok",)]


def test_an_empty_live_file_gets_the_content(tmp_path: Path, staged: Path):
    live = tmp_path / "live.db"
    live.touch()
    live.chmod(0o640)
    wanted = live_content(staged)
    put(staged, live)
    assert live_content(live) == wanted
    assert stat.S_IMODE(live.stat().st_mode) == 0o640


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_the_copy_into_an_empty_file_is_not_taken_for_a_commit_of_others(
    tmp_path: Path, scratch: Path, page_size: int, journal_mode: str
):
    """Else a row too few would be excused as written by somebody."""
    live = tmp_path / "live.db"
    live.touch()
    staged = build(scratch / "s.db", f"PRAGMA page_size={page_size}; PRAGMA journal_mode={journal_mode}; {OTHER}")
    wanted = live_content(staged)
    facts = live_facts(live, busy_timeout_seconds=5)
    expected, notes = fit_to_live(staged, census_of(staged), facts, watch=Watch())
    wrong = replace(expected, tables={"product": 999, "extra": 3})
    with pytest.raises(RestoreCheckError, match="product: 999 rows expected, 1 rows found") as raised:
        restore_in_place(staged, live, census=wrong, wait_seconds=1, watch=Watch())
    assert not raised.value.restored.others_wrote
    assert live_content(live) == wanted
    assert rows_through(live, "PRAGMA journal_mode") == [("delete",)]
    assert bool(notes) == (journal_mode == "wal")


def test_a_larger_database_shrinks_to_the_backup(tmp_path: Path, staged: Path):
    live = build_ledger(tmp_path / "live.db", filler_bytes=4 << 20)
    put(staged, live)
    assert live.stat().st_size == staged.stat().st_size


def test_a_wal_that_a_killed_process_left_does_not_undo_the_restore(shop: Path, staged: Path):
    leave_behind(shop, "PRAGMA wal_autocheckpoint=0", "UPDATE product SET name = 'old'")
    assert (shop.parent / "shop.db-wal").stat().st_size > 0
    wanted = live_content(staged)
    put(staged, shop)
    assert live_content(shop) == wanted


def test_a_database_behind_a_link_is_restored_where_it_lies(tmp_path: Path, shop: Path, staged: Path):
    link = tmp_path / "link.db"
    link.symlink_to(shop)
    wanted = live_content(staged)
    put(staged, link)
    assert link.is_symlink()
    assert live_content(shop) == wanted


def test_a_wal_that_a_reader_keeps_is_synced_behind_a_link_too(
    tmp_path: Path, shop: Path, staged: Path, monkeypatch: pytest.MonkeyPatch
):
    """The copy commits without a sync, and no checkpoint makes it durable: that is left to us."""
    link = tmp_path / "link.db"
    link.symlink_to(shop)
    synced: list[str] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        sync(descriptor)

    monkeypatch.setattr(restore.os, "fsync", noting)
    with connected(shop) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM product").fetchone()
        done = put(staged, link)
    assert "reader" in "".join(done.notes)
    assert synced == [str(shop.resolve()) + "-wal"]


# Beside others


def test_an_idle_connection_sees_the_content_with_its_next_statement(shop: Path, staged: Path):
    with connected(shop) as idle:
        assert idle.execute("SELECT count(*) FROM product").fetchone() == (3,)
        put(staged, shop)
        assert idle.execute("SELECT name FROM product").fetchall() == [("quince",)]


def test_a_reader_keeps_its_view_until_its_transaction_ends(shop: Path, staged: Path):
    with connected(shop) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM product").fetchone() == (3,)
        done = put(staged, shop)
        assert reader.execute("SELECT count(*) FROM product").fetchone() == (3,)
        reader.execute("COMMIT")
        assert reader.execute("SELECT name FROM product").fetchall() == [("quince",)]
    assert "reader" in "".join(done.notes)
    assert all(check.ok for check in done.checks)


def test_a_reader_that_stays_does_not_make_writers_wait_for_the_checkpoint(shop: Path, staged: Path):
    with connected(shop) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM product").fetchone()
        started = time.monotonic()
        put(staged, shop)
        assert time.monotonic() - started < 2.5  # five tries of a tenth of a second, each with the write lock held


def test_later_writes_and_checkpoints_of_old_connections_do_not_undo_it(shop: Path, staged: Path):
    with connected(shop) as old:
        old.execute("UPDATE product SET name = 'old'")
        put(staged, shop)
        old.execute("INSERT INTO product (name) VALUES ('later')")
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert rows_through(shop, "SELECT name FROM product ORDER BY id") == [("quince",), ("later",)]
    assert rows_through(shop, "PRAGMA integrity_check") == [("ok",)]


def test_a_writer_that_never_stops_gets_no_error_and_the_check_is_not_fooled(tmp_path: Path, scratch: Path):
    (tmp_path / "live").mkdir()
    live = build_ledger(tmp_path / "live" / "ledger.db", filler_bytes=2 << 20)
    with connected(live) as connection:
        connection.execute("UPDATE counter SET value = value")
    staged = build_ledger(scratch / "s.db", filler_bytes=2 << 20)
    with writing(live, per_second=2000) as writer:
        for _ in range(10):  # a commit that comes right after the copy must never look like a failed copy
            writer.wait_for(writer.acknowledged + 20)
            done = put(staged, live)
            assert not [check for check in done.checks if not check.ok and not check.is_advisory]
        assert writer.refusals == []
    with connected(live) as connection:
        (events,) = connection.execute("SELECT count(*) FROM events").fetchone()
        assert connection.execute("SELECT value FROM counter").fetchone() == (events,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_row_written_right_after_the_copy_is_a_finding_and_no_failure(
    shop: Path, staged: Path, monkeypatch: pytest.MonkeyPatch
):
    original = restore._copy

    def copy_and_write(*args: object, **options: object) -> tuple[float, float]:
        times = original(*args, **options)  # type: ignore[arg-type]
        with connected(shop) as other:
            other.execute("INSERT INTO product (name) VALUES ('at once')")
        return times

    monkeypatch.setattr(restore, "_copy", copy_and_write)
    done = put(staged, shop)
    (census,) = [check for check in done.checks if check.name == "census"]
    assert done.others_wrote
    assert (census.ok, census.is_advisory) == (False, True)
    assert "product: 1 rows expected, 2 rows found" in census.evidence


def test_without_another_writer_a_row_too_many_is_a_failure(shop: Path, staged: Path, monkeypatch: pytest.MonkeyPatch):
    wrong = replace(census_of(staged), tables={"product": 2, "extra": 3})
    with pytest.raises(RestoreCheckError, match="product: 2 rows expected, 1 rows found") as raised:
        restore_in_place(staged, shop, census=wrong, wait_seconds=1, watch=Watch())
    assert not raised.value.restored.others_wrote


def test_damage_is_a_failure_though_others_wrote(shop: Path, staged: Path, monkeypatch: pytest.MonkeyPatch):
    bad = [Check(name="quick_check", ok=False, evidence="row missing from index")]

    def check_and_write(*_: object) -> list[Check]:
        with connected(shop) as other:
            other.execute("INSERT INTO product (name) VALUES ('x')")
        return bad

    monkeypatch.setattr(restore, "check_live", check_and_write)
    with pytest.raises(RestoreCheckError, match="row missing"):
        put(staged, shop)


def test_a_database_that_cannot_be_read_after_the_copy_is_a_failed_check(
    shop: Path, staged: Path, monkeypatch: pytest.MonkeyPatch
):
    """Never an error that says that nothing was changed."""

    def broken(*_: object) -> list[Check]:
        raise sqlite3.DatabaseError("disk I/O error")

    monkeypatch.setattr(restore, "check_live", broken)
    with pytest.raises(RestoreCheckError, match="disk I/O error"):
        put(staged, shop)


def test_a_connection_that_fails_at_once_after_the_copy_is_a_failed_check(
    shop: Path, staged: Path, monkeypatch: pytest.MonkeyPatch
):
    def close(target: sqlite3.Connection, _live: Path) -> tuple[str, ...]:
        target.close()
        return ()

    monkeypatch.setattr(restore, "_checkpoint", close)
    with pytest.raises(RestoreCheckError, match="closed database"):
        put(staged, shop)
    assert live_content(shop) == live_content(staged)


# Locks


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_writer_is_waited_for(tmp_path: Path, staged: Path, journal_mode: str):
    live = build_shop(tmp_path / "live.db", journal_mode=journal_mode)
    wanted = live_content(staged)
    facts = live_facts(live, busy_timeout_seconds=5)
    expected, _ = fit_to_live(staged, census_of(staged), facts, watch=Watch())
    with closing(sqlite3.connect(live, isolation_level=None, check_same_thread=False)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO product (name) VALUES ('waiting')")
        timer = threading.Timer(0.7, writer.execute, ["COMMIT"])
        timer.start()
        done = restore_in_place(staged, live, census=expected, wait_seconds=10, watch=Watch())
        timer.join()
    assert live_content(live) == wanted
    assert 0.4 < done.waited_seconds < 9
    assert done.blocked_seconds < done.waited_seconds


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("filler_bytes", [0, 20 << 20])
@pytest.mark.parametrize("is_committed", [True, False])
def test_a_commit_that_the_copy_waited_for_is_told(
    tmp_path: Path, scratch: Path, journal_mode: str, filler_bytes: int, is_committed: bool
):
    """It comes after the last moment at which anybody could be asked without the lock."""
    live = build_shop(tmp_path / "live.db", journal_mode=journal_mode)
    staged = build_ledger(scratch / "s.db", filler_bytes=filler_bytes)
    expected, _ = fit_to_live(staged, census_of(staged), live_facts(live, busy_timeout_seconds=5), watch=Watch())
    with (
        closing(sqlite3.connect(live, isolation_level=None, check_same_thread=False)) as writer,
        noticing_commits(live) as have_others_written,
    ):
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO product (name) VALUES ('acknowledged')")
        timer = threading.Timer(0.7, writer.execute, ["COMMIT" if is_committed else "ROLLBACK"])
        timer.start()
        done = restore_in_place(
            staged, live, census=expected, wait_seconds=10, watch=Watch(), have_others_written=have_others_written
        )
        timer.join()
    assert done.waited_seconds > 0.4
    assert done.others_wrote_before == is_committed


def test_a_commit_right_after_the_copy_is_not_told_as_one_before_it(
    shop: Path, staged: Path, monkeypatch: pytest.MonkeyPatch
):
    original = restore._checkpoint

    def write_and_checkpoint(target: sqlite3.Connection, live: Path) -> tuple[str, ...]:
        with connected(shop) as other:
            other.execute("INSERT INTO product (name) VALUES ('at once')")
        return original(target, live)

    monkeypatch.setattr(restore, "_checkpoint", write_and_checkpoint)
    census = census_of(staged)
    with noticing_commits(shop) as have_others_written:
        done = restore_in_place(
            staged, shop, census=census, wait_seconds=1, watch=Watch(), have_others_written=have_others_written
        )
    assert (done.others_wrote, done.others_wrote_before) == (True, False)


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_lock_that_stays_is_given_up_on(tmp_path: Path, staged: Path, journal_mode: str, lock: str):
    live = build_shop(tmp_path / "live.db", journal_mode=journal_mode)
    before = live_content(live)
    census = census_of(staged)
    with holding(live, lock):
        started = time.monotonic()
        with pytest.raises(BusyError, match="locked"):
            restore_in_place(staged, live, census=census, wait_seconds=0.5, watch=Watch())
        assert 0.4 < time.monotonic() - started < 5
    assert live_content(live) == before


def test_a_reader_in_a_rollback_journal_database_is_waited_for_and_given_up_on(tmp_path: Path, staged: Path):
    live = build_shop(tmp_path / "live.db", journal_mode="delete")
    before = live_content(live)
    with holding(live, "BEGIN", "SELECT * FROM product"):
        with pytest.raises(BusyError, match="nothing was changed"):
            put(staged, live, wait_seconds=0.5)
    assert live_content(live) == before
    assert not (tmp_path / "live.db-journal").exists()


def test_a_cancel_while_waiting_ends_the_wait(shop: Path, staged: Path):
    before = live_content(shop)
    started = time.monotonic()
    watch = Watch(is_cancelled=lambda: time.monotonic() - started > 0.3)
    with holding(shop, "BEGIN IMMEDIATE"), pytest.raises(CancelledError):
        put(staged, shop, wait_seconds=30, watch=watch)
    assert time.monotonic() - started < 5
    assert live_content(shop) == before


def test_a_cancel_in_the_middle_of_the_copy_changes_nothing(shop: Path, large_database: Path):
    before = live_content(shop)
    seen: list[int] = []
    watch = Watch(on_progress=lambda _phase, done, _total: seen.append(done), is_cancelled=lambda: len(seen) == 2)
    with pytest.raises(CancelledError):
        restore_in_place(large_database, shop, census=census_of(large_database), wait_seconds=5, watch=watch)
    assert len(seen) == 2
    assert live_content(shop) == before
    assert names_in(shop.parent) == {"shop.db"}


def test_a_cancel_after_the_last_page_comes_too_late(shop: Path, staged: Path):
    wanted = live_content(staged)
    facts = live_facts(shop, busy_timeout_seconds=1)
    expected, _ = fit_to_live(staged, census_of(staged), facts, watch=Watch())
    calls: list[int] = []

    def is_cancelled() -> bool:
        calls.append(1)
        return len(calls) > 2  # one look is before the copy, which is two steps here, and one is after the first

    restore_in_place(staged, shop, census=expected, wait_seconds=1, watch=Watch(is_cancelled=is_cancelled))
    assert live_content(shop) == wanted


def test_progress_is_told_in_bytes(shop: Path, large_database: Path):
    seen: list[tuple[str, int, int]] = []
    watch = Watch(on_progress=lambda *each: seen.append(each))
    restore_in_place(large_database, shop, census=census_of(large_database), wait_seconds=5, watch=watch)
    size_bytes = large_database.stat().st_size
    assert {(phase, total) for phase, _, total in seen} == {("restore", size_bytes)}
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert 0 < seen[0][1] < size_bytes


# Refusals


def test_a_backup_without_a_page_never_wipes_the_database(shop: Path, scratch: Path):
    empty = scratch / "empty.db"
    empty.touch()
    before = live_content(shop)
    with pytest.raises(RefusedError, match="no page"):
        put(empty, shop)
    assert live_content(shop) == before


def test_a_staged_file_that_lost_its_content_is_refused_whatever_its_census_says(shop: Path, staged: Path):
    census = census_of(staged)
    staged.write_bytes(b"")
    with pytest.raises(RefusedError, match="no page"):
        fit_to_live(staged, census, live_facts(shop, busy_timeout_seconds=1), watch=Watch())


@pytest.mark.parametrize(("ours", "theirs"), [("UTF-8", "UTF-16le"), ("UTF-16le", "UTF-8"), ("UTF-16be", "UTF-16le")])
def test_another_text_encoding_is_refused_with_the_way_out(tmp_path: Path, scratch: Path, ours: str, theirs: str):
    live = build(tmp_path / "live.db", f"PRAGMA encoding='{ours}'; PRAGMA journal_mode=wal; {OTHER}")
    staged = build(scratch / "s.db", f"PRAGMA encoding='{theirs}'; PRAGMA journal_mode=wal; {OTHER}")
    before = live_content(live)
    with pytest.raises(RefusedError, match=f"{theirs}.*{ours}") as raised:
        put(staged, live)
    assert "--to" in raised.value.hint
    assert live_content(live) == before


def test_any_encoding_fits_into_a_database_without_pages(staged: Path):
    refuse_unfit(census_of(staged), encoding="UTF-16le", page_count=0)


def test_too_little_space_is_said_with_both_figures(shop: Path, staged: Path, monkeypatch: pytest.MonkeyPatch):
    facts = live_facts(shop, busy_timeout_seconds=1)
    needed = int(restore.SPACE_FACTOR * max(facts.size_bytes, staged.stat().st_size))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": needed - 1}))
    with pytest.raises(DiskFullError, match=f"{needed:,}"):
        require_space(shop, facts, census_of(staged))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("usage", (), {"free": needed}))
    require_space(shop, facts, census_of(staged))


def test_a_full_disk_leaves_the_old_content_and_lets_writers_go_on(tmp_path: Path, large_database: Path):
    with mounted_tmpfs(tmp_path / "disk", size_bytes=8 << 20) as disk:
        live = build_shop(disk / "live.db")
        before = live_content(live)
        with connected(live) as other:
            other.execute("SELECT count(*) FROM product").fetchone()
            with pytest.raises(DiskFullError):
                put(large_database, live)
            assert content_through(other) == before
        with connected(live) as other:
            other.execute("INSERT INTO product (name) VALUES ('next')")
            assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert names_in(disk) == {"live.db"}


def test_a_disk_that_is_full_at_the_checkpoint_only_is_a_note(tmp_path: Path, scratch: Path):
    """The content is committed then: to say that nothing was changed would be wrong."""
    staged = build_ledger(scratch / "s.db", filler_bytes=10 << 20)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=16 << 20) as disk:
        live = build_shop(disk / "live.db")
        done = put(staged, live)
        assert "could not be brought into the file yet" in "".join(done.notes)
        assert rows_through(live, "SELECT value FROM counter") == [(0,)]
        assert all(check.ok for check in done.checks)


# Looking at a live database


def test_facts_are_those_of_the_file(shop: Path):
    facts = live_facts(shop, busy_timeout_seconds=1)
    assert (facts.page_size, facts.encoding, facts.journal_mode) == (4096, "UTF-8", "wal")
    assert facts.size_bytes == shop.stat().st_size
    assert names_in(shop.parent) == {"shop.db"}


def test_a_missing_database_is_not_created_by_looking(tmp_path: Path):
    with pytest.raises(NotFoundError):
        live_facts(tmp_path / "no.db", busy_timeout_seconds=1)
    assert names_in(tmp_path) == set()


def test_garbage_is_not_a_database(tmp_path: Path):
    (tmp_path / "live.db").write_bytes(b"garbage " * 1000)
    with pytest.raises(InputError):
        live_facts(tmp_path / "live.db", busy_timeout_seconds=1)


def test_an_empty_file_beside_a_wal_with_content_is_damaged_and_the_wal_stays(tmp_path: Path):
    live = build_shop(tmp_path / "live.db")
    leave_behind(live, "PRAGMA wal_autocheckpoint=0", "UPDATE product SET name = 'only here'")
    wal = (tmp_path / "live.db-wal").read_bytes()
    os.truncate(live, 0)
    with pytest.raises(VerificationError, match="main file was lost"):
        live_facts(live, busy_timeout_seconds=1)
    assert (tmp_path / "live.db-wal").read_bytes() == wal
    assert wal


# Made anew


def anew(staged: Path, live: Path, **options: Census) -> restore.Recreated:
    """Recreate with the usual arguments."""
    return recreate(staged, live, census=options.get("census") or census_of(staged), token="t", now=NOW)


def test_a_missing_database_is_made_anew(tmp_path: Path, staged: Path):
    (tmp_path / "live").mkdir()
    wanted = live_content(staged)
    done = anew(staged, tmp_path / "live" / "shop.db")
    assert done.moved == []
    assert all(check.ok for check in done.checks)
    assert live_content(tmp_path / "live" / "shop.db") == wanted
    assert names_in(tmp_path / "live") == {"shop.db"}


def test_damaged_files_are_moved_aside_whole_and_owner_and_mode_stay(tmp_path: Path, staged: Path):
    folder = tmp_path / "live"
    folder.mkdir()
    live = folder / "shop.db"
    contents = {"": b"garbage", "-wal": b"old wal", "-shm": b"old shm", "-journal": b"old journal"}
    for suffix, content in contents.items():
        (folder / f"shop.db{suffix}").write_bytes(content)
    live.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(live, 12345, 23456)
    before = live.stat()
    wanted = live_content(staged)
    done = anew(staged, live)
    aside = "shop.db.damaged-20260304T050607Z"
    assert [each.name for each in done.moved] == [aside + suffix for suffix in contents]
    assert {each.name: each.read_bytes() for each in done.moved} == {
        aside + suffix: content for suffix, content in contents.items()
    }
    found = live.stat()
    assert (found.st_mode, found.st_uid, found.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert stat.S_IMODE(found.st_mode) == 0o640
    assert live_content(live) == wanted
    assert names_in(folder) == {"shop.db", *(each.name for each in done.moved)}


def test_a_left_over_wal_alone_is_moved_aside_and_not_replayed(tmp_path: Path, staged: Path):
    folder = tmp_path / "live"
    folder.mkdir()
    live = build_shop(folder / "shop.db")
    leave_behind(live, "PRAGMA wal_autocheckpoint=0", "UPDATE product SET name = 'stale'")
    live.unlink()
    wanted = live_content(staged)
    done = anew(staged, live)
    assert {each.name.rpartition("-")[2] for each in done.moved} == {"wal", "shm"}
    assert live_content(live) == wanted


def test_files_moved_aside_never_replace_earlier_ones(tmp_path: Path):
    live = tmp_path / "shop.db"
    for number in range(3):
        live.write_bytes(b"%d" % number)
        move_aside(live, now=NOW)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {
        "shop.db.damaged-20260304T050607Z": b"0",
        "shop.db.damaged-20260304T050607Z-2": b"1",
        "shop.db.damaged-20260304T050607Z-3": b"2",
    }


def test_what_a_link_points_to_is_made_anew(tmp_path: Path, staged: Path):
    real, link = tmp_path / "real", tmp_path / "link.db"
    real.mkdir()
    (real / "shop.db").write_bytes(b"garbage")
    link.symlink_to(real / "shop.db")
    wanted = live_content(staged)
    (moved,) = anew(staged, link).moved
    assert link.is_symlink()
    assert moved.parent == real
    assert live_content(real / "shop.db") == wanted


def test_a_full_disk_leaves_the_damaged_file_where_it_is(tmp_path: Path, large_database: Path):
    with mounted_tmpfs(tmp_path / "disk", size_bytes=4 << 20) as disk:
        (disk / "shop.db").write_bytes(b"garbage")
        with pytest.raises(DiskFullError):
            anew(large_database, disk / "shop.db")
        assert names_in(disk) == {"shop.db"}
        assert (disk / "shop.db").read_bytes() == b"garbage"


def test_a_new_file_that_is_wrong_is_said_with_where_the_old_ones_are(tmp_path: Path, staged: Path):
    (tmp_path / "shop.db").write_bytes(b"garbage")
    wrong = replace(census_of(staged), tables={"product": 7})
    with pytest.raises(RecreateError, match="product: 7 rows expected") as raised:
        anew(staged, tmp_path / "shop.db", census=wrong)
    (moved,) = raised.value.moved
    assert str(moved) in raised.value.hint
    assert moved.read_bytes() == b"garbage"


def test_the_draft_of_a_killed_process_can_be_found_and_removed(tmp_path: Path, staged: Path):
    folder = tmp_path / "live"
    folder.mkdir()
    (folder / "shop.db").write_bytes(b"garbage")
    program = (
        "import os, signal, sys; from pathlib import Path; from datetime import UTC, datetime\n"
        "from backups_app.core import restore\n"
        "restore.move_aside = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "restore.recreate(Path(sys.argv[1]), Path(sys.argv[2]), census=None, token='t', now=datetime.now(UTC))\n"
    )
    run_python(program, staged, folder / "shop.db", check=False)
    assert len(names_in(folder)) == 2
    remove_draft(folder / "shop.db", "other")
    assert len(names_in(folder)) == 2
    remove_draft(folder / "shop.db", "t")
    assert names_in(folder) == {"shop.db"}
    assert (folder / "shop.db").read_bytes() == b"garbage"


# Killed


_RESTORER = """
import os, signal, sys
from pathlib import Path
from backups_app.core import restore
from backups_app.core.census import take_census
from backups_app.core.progress import Watch
from backups_app.core.sqlite import open_snapshot
staged, live, steps = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
with open_snapshot(staged) as connection:
    census = take_census(connection, watch=Watch())
seen = []
def on_progress(*_):
    seen.append(1)
    if len(seen) == steps:
        os.kill(os.getpid(), signal.SIGKILL)
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if steps == 0:
    restore._checkpoint = die  # right after the commit
restore.restore_in_place(staged, live, census=census, wait_seconds=5, watch=Watch(on_progress=on_progress))
"""


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize(("steps", "is_new"), [(1, False), (2, False), (3, False), (0, True)])
def test_a_kill_leaves_the_old_or_the_new_content(
    tmp_path: Path, large_database: Path, steps: int, is_new: bool, journal_mode: str
):
    (tmp_path / "live").mkdir()
    live = build_shop(tmp_path / "live" / "shop.db", journal_mode=journal_mode)
    old = live_content(live)
    with connected(live) as other:
        other.execute("SELECT count(*) FROM product").fetchone()
        killed = run_python(_RESTORER, large_database, live, steps, check=False)
        assert killed.returncode == -9, killed.stderr
        wanted = "filler" if is_new else "sale"
        assert other.execute(f"SELECT count(*) > 0 FROM {wanted}").fetchone() == (1,)
    if not is_new:
        assert live_content(live) == old
    assert rows_through(live, "PRAGMA quick_check") == [("ok",)]
    staged = build(tmp_path / "again.db", f"PRAGMA journal_mode=wal; {OTHER}")
    put(staged, live)
    assert rows_through(live, "SELECT name FROM product") == [("quince",)]


def test_the_schema_version_tells_old_content_from_new(shop: Path, staged: Path):
    before = restore.schema_version(shop)
    with connected(shop) as other:
        other.execute("INSERT INTO product (name) VALUES ('row')")
    assert restore.schema_version(shop) == before
    put(staged, shop)
    assert restore.schema_version(shop) == before + 1
