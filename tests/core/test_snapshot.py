"""A snapshot holds exactly what was committed when it was pinned, whatever else goes on."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backups_app.core import snapshot as snapshots
from backups_app.core.errors import (
    BackupError,
    BusyError,
    CancelledError,
    DeadlineError,
    DiskFullError,
    InputError,
    NotFoundError,
    VerificationError,
)
from backups_app.core.progress import Watch
from backups_app.core.snapshot import Snapshot, take_snapshot
from backups_app.core.sqlite import sidecar
from backups_app.core.verify import check_database, failures, reason_of
from tests.support import (
    PROJECT,
    Writer,
    build,
    build_ledger,
    build_shop,
    bytes_in,
    connected,
    content_of,
    holding,
    integrity_of,
    leave_behind,
    mounted_tmpfs,
    names_in,
    rows_of,
    run_python,
    writing,
)


def snap(source: Path, scratch: Path, *, watch: Watch | None = None, **limits: float) -> Snapshot:
    return take_snapshot(source, scratch / "snapshot.sqlite3", watch=watch or Watch(), **limits)


def one(path: Path, statement: str) -> object:
    with connected(path) as connection:
        return connection.execute(statement).fetchone()[0]


def counter_in(snapshot: Snapshot) -> int:
    connection = sqlite3.connect(f"{snapshot.path.as_uri()}?immutable=1", uri=True)
    try:
        return connection.execute("SELECT value FROM counter").fetchone()[0]
    finally:
        connection.close()


def assert_true_copy(snapshot: Snapshot) -> None:
    """The copy is sound and holds what was counted in the source."""
    assert integrity_of(snapshot.path) == "ok"
    assert rows_of(snapshot.path) == snapshot.census.tables
    assert snapshot.size_bytes == snapshot.path.stat().st_size == snapshot.census.size_bytes
    assert stat.S_IMODE(snapshot.path.stat().st_mode) == 0o600
    assert names_in(snapshot.path.parent) == {snapshot.path.name}


# The bug that this project exists for


def test_rows_that_are_only_in_the_wal_are_in_the_copy(shop: Path, scratch: Path):
    with connected(shop) as application:
        application.execute("PRAGMA wal_autocheckpoint=0")
        application.executemany("INSERT INTO sale (note) VALUES (?)", [("fresh",)] * 3000)
        # What the old backup button did, by another process as ours holds locks:
        shutil_copy = "import shutil, sys; shutil.copy2(sys.argv[1], sys.argv[2])"
        run_python(shutil_copy, shop, scratch / "file-copy.db")
        assert rows_of(scratch / "file-copy.db").get("sale", 0) == 4
        (scratch / "file-copy.db").unlink()

        snapshot = snap(shop, scratch)

        assert snapshot.wal_bytes > 0
        assert application.execute("SELECT count(*) FROM sale").fetchone() == (3004,)
    assert snapshot.census.tables == {"product": 3, "sale": 3004}
    assert (snapshot.method, snapshot.journal_mode, snapshot.access) == ("backup api", "wal", "read-write")
    assert snapshot.notes == ()
    assert_true_copy(snapshot)


def test_rows_that_another_process_has_only_in_the_wal_are_in_the_copy(shop: Path, scratch: Path):
    with holding(shop, "PRAGMA wal_autocheckpoint=0", "INSERT INTO sale (note) VALUES ('fresh')"):
        assert sidecar(shop, "-wal").stat().st_size > 0
        snapshot = snap(shop, scratch)
    assert snapshot.census.tables["sale"] == 5
    assert_true_copy(snapshot)


def test_rows_that_are_not_committed_are_not_in_the_copy(shop: Path, scratch: Path):
    with holding(shop, "BEGIN IMMEDIATE", "DELETE FROM sale"):
        snapshot = snap(shop, scratch)
    assert snapshot.census.tables["sale"] == 4
    assert_true_copy(snapshot)


# Beside writers


def watch_that_waits_for(writer: Writer, *, commits: int) -> Watch:
    """At the first step of the copy, let the writer commit: the copy cannot end before."""
    waited: list[int] = []

    def wait(phase: str, _done: int, _total: int) -> None:
        if phase == "copy" and not waited:
            waited.append(writer.wait_for(writer.acknowledged + commits))

    return Watch(on_progress=wait, deadline_seconds=60)


def test_a_copy_beside_a_writer_is_one_instant_and_the_writer_is_never_refused(tmp_path: Path, scratch: Path):
    (tmp_path / "live").mkdir()
    source = build_ledger(tmp_path / "live" / "ledger.db", filler_bytes=40 << 20)
    with writing(source) as writer:
        before = writer.wait_for(5)
        snapshot = snap(source, scratch, watch=watch_that_waits_for(writer, commits=20))
        after = writer.acknowledged
        writer.wait_for(after + 5)
        assert writer.refusals == []
    assert snapshot.census.page_count > 2 * 4000, "the copy must take several steps to prove anything"
    assert counter_in(snapshot) == snapshot.census.tables["events"]
    assert before <= snapshot.census.tables["events"] <= after - 20
    assert_true_copy(snapshot)


def test_what_is_committed_during_the_copy_is_not_in_it(tmp_path: Path, scratch: Path):
    (tmp_path / "live").mkdir()
    source = build_ledger(tmp_path / "live" / "ledger.db", filler_bytes=40 << 20)
    committed: list[int] = []

    def commit(phase: str, _done: int, _total: int) -> None:
        if phase == "copy" and not committed:
            with connected(source) as connection:
                connection.execute("UPDATE counter SET value = value + 1")
                committed.append(connection.execute("INSERT INTO events (what) VALUES ('late')").rowcount)

    snapshot = snap(source, scratch, watch=Watch(on_progress=commit))
    assert committed == [1]
    assert counter_in(snapshot) == snapshot.census.tables["events"] == rows_of(source)["events"] - 1
    assert_true_copy(snapshot)


def test_ten_copies_beside_a_fast_writer_all_hold_the_invariant(tmp_path: Path, scratch: Path):
    (tmp_path / "live").mkdir()
    source = build_ledger(tmp_path / "live" / "ledger.db")
    with writing(source, per_second=2000) as writer:
        for number in range(10):
            acknowledged = writer.acknowledged
            snapshot = take_snapshot(source, scratch / f"{number}", watch=Watch())
            assert counter_in(snapshot) == snapshot.census.tables["events"] == rows_of(snapshot.path)["events"]
            assert snapshot.census.tables["events"] >= acknowledged
        assert writer.refusals == []


def test_a_rollback_journal_source_is_copied_beside_a_writer_and_said_to_block_it(tmp_path: Path, scratch: Path):
    (tmp_path / "live").mkdir()
    source = build_ledger(tmp_path / "live" / "ledger.db", journal_mode="delete", filler_bytes=2 << 20)
    with writing(source, per_second=50) as writer:
        snapshot = snap(source, scratch, busy_timeout_seconds=20)
        writer.wait_for(writer.acknowledged + 3)
        assert writer.refusals == []
    assert snapshot.journal_mode == "delete"
    assert any("rollback journal" in note for note in snapshot.notes)
    assert counter_in(snapshot) == snapshot.census.tables["events"]
    assert_true_copy(snapshot)


def test_the_pin_ends_with_the_copy(shop: Path, scratch: Path):
    snap(shop, scratch)
    with connected(shop) as connection:
        connection.execute("INSERT INTO sale (note) VALUES ('later')")
        # busy = 0: no reader holds the WAL back any more.
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)


def test_the_instant_of_the_copy_is_the_pin(shop: Path, scratch: Path):
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    snapshot = take_snapshot(shop, scratch / "snapshot", watch=Watch(), now=lambda: moment)
    assert snapshot.taken_at == moment
    assert snapshot.pinned_seconds >= 0


def test_what_was_acknowledged_before_the_instant_of_the_copy_is_in_it(shop: Path, scratch: Path):
    def commit_and_look_at_the_clock() -> datetime:
        with connected(shop) as connection:
            connection.execute("INSERT INTO product (name) VALUES ('just in time')")
        return datetime(2026, 1, 2, tzinfo=UTC)

    before = rows_of(shop)["product"]
    take_snapshot(shop, scratch / "snapshot", watch=Watch(), now=commit_and_look_at_the_clock)
    assert rows_of(scratch / "snapshot")["product"] == before + 1


def test_the_live_file_is_never_opened_but_by_sqlite(shop: Path, scratch: Path):
    # Closing any other descriptor on it would drop the locks of this process.
    program = """
import sys
from pathlib import Path
from backups_app.core.create import CreateOptions, create_archive
from backups_app.core.progress import Watch
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
create_archive(Path(sys.argv[1]), Path(sys.argv[2]), options=CreateOptions(), watch=Watch())
assert any("snapshot" in each for each in opened), "the hook must see files"
print([each for each in opened if "shop.db" in each])
"""
    assert run_python(program, shop, scratch).stdout.strip() == "[]"


# What must not be left beside the source


@pytest.mark.parametrize("journal_mode", ["wal", "delete", "truncate", "persist"])
def test_a_copy_of_a_quiet_database_leaves_its_folder_as_it_was(tmp_path: Path, scratch: Path, journal_mode: str):
    (tmp_path / "live").mkdir()
    source = build_shop(tmp_path / "live" / "shop.db", journal_mode=journal_mode)
    before = bytes_in(source.parent)
    assert_true_copy(snap(source, scratch))
    assert bytes_in(source.parent) == before


def test_sidecars_that_others_use_stay(shop: Path, scratch: Path):
    with holding(shop, "INSERT INTO sale (note) VALUES ('fresh')"):
        names = names_in(shop.parent)
        snap(shop, scratch)
        assert names_in(shop.parent) == names == {"shop.db", "shop.db-wal", "shop.db-shm"}


def test_the_wal_of_a_killed_writer_is_recovered(tmp_path: Path, scratch: Path):
    (tmp_path / "live").mkdir()
    source = build_ledger(tmp_path / "live" / "ledger.db")
    with writing(source) as writer:
        writer.wait_for(20)
        writer.kill()
        acknowledged = writer.acknowledged
    assert sidecar(source, "-wal").stat().st_size > 0
    snapshot = snap(source, scratch)
    assert counter_in(snapshot) == snapshot.census.tables["events"]
    assert snapshot.census.tables["events"] in {acknowledged, acknowledged + 1}
    assert_true_copy(snapshot)


HALF_DONE = (
    "PRAGMA cache_size=5",
    "BEGIN IMMEDIATE",
    "UPDATE filler SET payload = zeroblob(3000)",
    "INSERT INTO events (what) VALUES ('half')",
    "PRAGMA cache_spill=ON",
    "DELETE FROM counter",
)


def build_hot_journal(path: Path) -> Path:
    """A rollback-journal database whose writer died in the middle: half of it is overwritten."""
    build_ledger(path, journal_mode="delete", filler_bytes=1 << 20)
    leave_behind(path, "PRAGMA synchronous=OFF", *HALF_DONE)
    assert sidecar(path, "-journal").stat().st_size > 0
    return path


def test_a_hot_journal_is_rolled_back_before_the_copy(tmp_path: Path, scratch: Path):
    (tmp_path / "live").mkdir()
    source = build_hot_journal(tmp_path / "live" / "ledger.db")
    snapshot = snap(source, scratch)
    assert (snapshot.census.tables["events"], snapshot.census.tables["counter"]) == (0, 1)
    assert one(snapshot.path, "SELECT count(*) FROM filler WHERE payload = zeroblob(3000)") == 0
    assert integrity_of(snapshot.path) == "ok"


# Every kind of database


KINDS = {
    "without rowid": "CREATE TABLE t (a TEXT PRIMARY KEY, b) WITHOUT ROWID; INSERT INTO t VALUES ('x', 1), ('y', 2);",
    "strict": "CREATE TABLE t (a INTEGER, b TEXT, c ANY) STRICT; INSERT INTO t VALUES (1, 'b', x'00');",
    "fts5": "CREATE VIRTUAL TABLE t USING fts5(a); INSERT INTO t VALUES ('one two'), ('three');",
    "fts5 with missing content": (
        "CREATE TABLE post (id INTEGER PRIMARY KEY, body);"
        "CREATE VIRTUAL TABLE t USING fts5(body, content='post', content_rowid='id');"
        "INSERT INTO t (rowid, body) VALUES (1, 'one'); DROP TABLE post;"
    ),
    "contentless fts5": "CREATE VIRTUAL TABLE t USING fts5(a, content=''); INSERT INTO t (rowid, a) VALUES (1, 'one');",
    "rtree": "CREATE VIRTUAL TABLE t USING rtree(id, x0, x1); INSERT INTO t VALUES (1, 0, 1), (2, 5, 6);",
    "views": (
        "CREATE TABLE t (a); INSERT INTO t VALUES (1); CREATE VIEW good AS SELECT * FROM t;"
        "CREATE VIEW broken AS SELECT * FROM nowhere; CREATE VIEW foreign_function AS SELECT only_here(a) FROM t;"
    ),
    "triggers": (
        "CREATE TABLE t (a); CREATE TABLE log (a);"
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a); END;"
        "CREATE TRIGGER broken AFTER DELETE ON t BEGIN INSERT INTO nowhere VALUES (1); END;"
        "INSERT INTO t VALUES (1), (2);"
    ),
    "generated columns": (
        "CREATE TABLE t (a INTEGER, b AS (a * 2), c AS (a * 3) STORED); CREATE INDEX i ON t (b);"
        "INSERT INTO t (a) VALUES (1), (2);"
    ),
    "partial and expression indexes": (
        "CREATE TABLE t (a TEXT, b); CREATE INDEX p ON t (a) WHERE b > 1; CREATE INDEX e ON t (lower(a));"
        "INSERT INTO t VALUES ('X', 1), ('Y', 2);"
    ),
    "checks and generated columns that call the JSON functions": (
        "CREATE TABLE t (a TEXT CHECK (json_valid(a)), b AS (json_extract(a, '$.x')));"
        "CREATE INDEX i ON t (json_extract(a, '$.x')); INSERT INTO t (a) VALUES ('{\"x\": 1}'), ('[]');"
    ),
    "auto_vacuum full": (
        "PRAGMA auto_vacuum=FULL; CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(9000)); DELETE FROM t;"
    ),
    "auto_vacuum incremental": (
        "PRAGMA auto_vacuum=INCREMENTAL; CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(99999)); DELETE FROM t;"
    ),
    "free pages": "CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(99999)); DELETE FROM t;",
    "UTF-16 little endian": "PRAGMA encoding='UTF-16le'; CREATE TABLE t (ä); INSERT INTO t VALUES ('ö☕'), ('日本');",
    "UTF-16 big endian": "PRAGMA encoding='UTF-16be'; CREATE TABLE t (ä); INSERT INTO t VALUES ('ö☕'), ('日本');",
    "version and application id": "PRAGMA user_version=77; PRAGMA application_id=-123456; CREATE TABLE t (a);",
    "blobs and broken text": (
        "CREATE TABLE t (a); INSERT INTO t VALUES (x'0001ff'), (CAST(x'41ff42' AS TEXT)), (CAST(x'410042' AS TEXT)),"
        "(zeroblob(70000)), (1e308), (-9223372036854775808), (NULL), ('');"
    ),
    "autoincrement and statistics": (
        "CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, a); CREATE INDEX i ON t (a);"
        "INSERT INTO t (a) VALUES (1), (2); DELETE FROM t WHERE a = 2; ANALYZE;"
    ),
    "odd names": 'CREATE TABLE "a""b\'c;d%" ("x y"); INSERT INTO "a""b\'c;d%" VALUES (1); CREATE TABLE "☕" (x);',
    "deferred foreign keys that are broken": (
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE t (p REFERENCES parent); INSERT INTO t VALUES (9);"
    ),
}


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_database_is_copied_exactly(tmp_path: Path, scratch: Path, kind: str, journal_mode: str):
    (tmp_path / "live").mkdir()
    source = build(tmp_path / "live" / "made.db", f"{KINDS[kind]}; PRAGMA journal_mode={journal_mode};")
    before = bytes_in(source.parent)
    snapshot = snap(source, scratch)
    assert integrity_of(snapshot.path) == "ok"
    assert sum(snapshot.census.tables.values()) > 0 or "DELETE" in KINDS[kind] or "user_version" in KINDS[kind]
    # Byte for byte, but for the change counter and the version fields of the header.
    original, copy = source.read_bytes(), snapshot.path.read_bytes()
    assert copy[100:] == original[100:]
    assert (copy[16:18], copy[20:24], copy[44:92]) == (original[16:18], original[20:24], original[44:92])
    assert bytes_in(source.parent) == before


@pytest.mark.parametrize("page_size", [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536])
def test_every_page_size_is_kept(tmp_path: Path, scratch: Path, page_size: int):
    source = build(tmp_path / "made.db", f"PRAGMA page_size={page_size}; PRAGMA journal_mode=wal; {SHOP_WITH_BLOB}")
    snapshot = snap(source, scratch)
    assert snapshot.census.page_size == page_size
    assert content_of(snapshot.path) == content_of(source)
    assert_true_copy(snapshot)


SHOP_WITH_BLOB = "CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(200000)), ('text');"


def test_functions_that_only_the_application_has_do_not_stop_the_copy(tmp_path: Path, scratch: Path):
    source = tmp_path / "made.db"
    with connected(source) as connection:
        connection.create_function("regexp", 2, lambda pattern, text: pattern in text, deterministic=True)
        connection.executescript(
            """
            CREATE TABLE t (a TEXT CHECK (a REGEXP 'x'), b AS (regexp('x', a)));
            CREATE INDEX partial ON t (a) WHERE a REGEXP 'x';
            CREATE INDEX expression ON t (regexp('x', a));
            INSERT INTO t (a) VALUES ('x'), ('xx');
            """
        )
    snapshot = snap(source, scratch)
    assert snapshot.census.tables == {"t": 2}
    assert snapshot.path.read_bytes()[100:] == source.read_bytes()[100:]


def test_an_empty_file_is_copied_as_an_empty_file(tmp_path: Path, scratch: Path):
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "empty.db").touch()
    snapshot = snap(tmp_path / "live" / "empty.db", scratch)
    assert (snapshot.size_bytes, snapshot.census.page_count, snapshot.census.tables) == (0, 0, {})
    assert bytes_in(scratch) == {"snapshot.sqlite3": b""}
    assert bytes_in(tmp_path / "live") == {"empty.db": b""}


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_database_of_only_a_header_is_copied(tmp_path: Path, scratch: Path, journal_mode: str):
    source = build(tmp_path / "bare.db", f"PRAGMA journal_mode={journal_mode}; PRAGMA user_version=5;")
    snapshot = snap(source, scratch)
    assert (snapshot.census.page_count, snapshot.census.tables, snapshot.census.user_version) == (1, {}, 5)
    assert_true_copy(snapshot)


ODD_NAMES = [
    b"with space.db",
    b'it\'s "quoted".db',
    b"what?.db",
    b"number#1.db",
    b"50%25.db",
    b"a&b=c;d.db",
    "käse-☕.db".encode(),
    b"latin-\xe9.db",
    b"-dash.db",
    b"file:memory.db",
    b":memory:",
    b"new\nline.db",
    b"back\\slash.db",
]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
def test_every_file_name_is_only_a_name(tmp_path: Path, scratch: Path, name: bytes):
    (tmp_path / "live").mkdir()
    source = tmp_path / "live" / os.fsdecode(name)
    build_shop(tmp_path / "plain.db").rename(source)
    snapshot = snap(source, scratch)
    assert snapshot.census.tables == {"product": 3, "sale": 4}
    assert names_in(source.parent) == {source.name}
    assert_true_copy(snapshot)


# What is no database, or not whole


def make_folder(path: Path) -> None:
    path.mkdir()


def make_text(path: Path) -> None:
    path.write_bytes(b"dear diary\n" * 1000)


def make_dangling_link(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (make_folder, InputError),
        (make_text, InputError),
        (os.mkfifo, InputError),
        (make_dangling_link, NotFoundError),
        (lambda _: None, NotFoundError),
    ],
    ids=["folder", "text", "fifo", "dangling link", "missing"],
)
def test_what_is_no_database_is_refused_at_once_and_nothing_is_created(
    tmp_path: Path, scratch: Path, make: Callable[[Path], object], kind: type[BackupError]
):
    (tmp_path / "live").mkdir()
    source = tmp_path / "live" / "shop.db"
    make(source)
    before = names_in(source.parent)
    started = time.monotonic()
    with pytest.raises(kind):
        snap(source, scratch)
    assert time.monotonic() - started < 2
    assert names_in(source.parent) == before
    assert names_in(scratch) == set()


def test_a_database_cut_in_the_middle_is_not_a_good_copy(tmp_path: Path, scratch: Path):
    source = build_ledger(tmp_path / "ledger.db", journal_mode="delete", filler_bytes=1 << 20)
    os.truncate(source, source.stat().st_size // 2)
    with pytest.raises(VerificationError, match="damaged"):
        snap(source, scratch)
    assert names_in(scratch) == set()


def test_a_damaged_table_is_copied_with_the_others_and_named(tmp_path: Path, scratch: Path):
    source = build_ledger(tmp_path / "ledger.db", journal_mode="delete", filler_bytes=1 << 20)
    root = one(source, "SELECT rootpage FROM sqlite_schema WHERE name = 'filler'")
    with open(source, "r+b") as file:
        file.seek((int(str(root)) - 1) * 4096)
        file.write(bytes(4096))
    snapshot = snap(source, scratch)
    assert snapshot.census.unreadable == ("filler",)
    assert set(snapshot.census.tables) == {"counter", "events"}
    checks = check_database(snapshot.path, expected=snapshot.census, is_thorough=False, watch=Watch())
    assert {check.name for check in failures(checks)} == {"quick_check", "census"}
    assert "filler: its pages are damaged" in reason_of(checks)


def test_an_exclusive_lock_ends_in_busy_in_bounded_time_and_nothing_is_left(tmp_path: Path, scratch: Path):
    source = build_shop(tmp_path / "shop.db", journal_mode="delete")
    with holding(source, "BEGIN EXCLUSIVE"):
        started = time.monotonic()
        with pytest.raises(BusyError):
            snap(source, scratch, busy_timeout_seconds=0.3)
        assert time.monotonic() - started < 3
    assert names_in(scratch) == set()
    assert rows_of(source) == {"product": 3, "sale": 4}


def test_an_existing_destination_is_not_overwritten(shop: Path, scratch: Path):
    (scratch / "snapshot.sqlite3").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        snap(shop, scratch)
    assert bytes_in(scratch) == {"snapshot.sqlite3": b"precious"}


# Stopping


@pytest.mark.parametrize("at_report", [1, 2, 3, 4])
def test_a_cancel_at_any_step_leaves_nothing(large_database: Path, scratch: Path, at_report: int):
    reports: list[int] = []
    watch = Watch(
        on_progress=lambda _phase, done, _total: reports.append(done), is_cancelled=lambda: len(reports) >= at_report
    )
    with pytest.raises(CancelledError):
        snap(large_database, scratch, watch=watch)
    assert len(reports) == at_report
    assert names_in(scratch) == set()
    assert names_in(large_database.parent) == {"large.db"}


def test_a_cancel_before_the_start_leaves_nothing(shop: Path, scratch: Path):
    with pytest.raises(CancelledError):
        snap(shop, scratch, watch=Watch(is_cancelled=lambda: True))
    assert names_in(scratch) == set()
    assert names_in(shop.parent) == {"shop.db"}


def test_a_deadline_in_the_middle_leaves_nothing(large_database: Path, scratch: Path):
    watch = Watch(deadline_seconds=0.2, on_progress=lambda *_: time.sleep(0.15))
    with pytest.raises(DeadlineError):
        snap(large_database, scratch, watch=watch)
    assert names_in(scratch) == set()
    assert names_in(large_database.parent) == {"large.db"}


def test_progress_rises_to_the_size_of_the_database(large_database: Path, scratch: Path):
    reports: list[tuple[str, int, int]] = []
    snapshot = snap(large_database, scratch, watch=Watch(on_progress=lambda *report: reports.append(report)))
    done = [each[1] for each in reports]
    assert {each[0] for each in reports} == {"copy"}
    assert {each[2] for each in reports} == {snapshot.size_bytes}
    assert done == sorted(done)
    assert len(done) >= 3
    assert done[-1] == snapshot.size_bytes


# The second method


def fail_backup_api(monkeypatch: pytest.MonkeyPatch, code: int = sqlite3.SQLITE_ERROR) -> None:
    def fail(_source: object, destination: Path, *_: object, **__: object) -> None:
        destination.write_bytes(b"half a copy" * 1000)
        exc = sqlite3.OperationalError("the backup API does not work here")
        exc.sqlite_errorcode = code
        raise exc

    monkeypatch.setattr(snapshots, "copy_with_backup_api", fail)


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_when_the_backup_api_fails_vacuum_makes_a_copy_that_equals_its_census(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, journal_mode: str
):
    fail_backup_api(monkeypatch)
    (tmp_path / "live").mkdir()
    source = build_ledger(tmp_path / "live" / "ledger.db", journal_mode=journal_mode, filler_bytes=8 << 20)
    with writing(source) as writer:
        before = writer.wait_for(10)
        snapshot = snap(source, scratch)
        after = writer.acknowledged
        writer.wait_for(after + 5)
        assert writer.refusals == []
    assert snapshot.method == "vacuum into"
    assert any("VACUUM INTO" in note for note in snapshot.notes)
    assert counter_in(snapshot) == snapshot.census.tables["events"]
    assert before <= snapshot.census.tables["events"] <= after + 1
    assert_true_copy(snapshot)


def test_the_copy_of_vacuum_has_the_same_content(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    fail_backup_api(monkeypatch)
    script = "PRAGMA page_size=8192; PRAGMA user_version=9; PRAGMA application_id=3; PRAGMA auto_vacuum=FULL;"
    source = build(tmp_path / "made.db", f"{script} PRAGMA journal_mode=wal; {SHOP_WITH_BLOB}")
    snapshot = snap(source, scratch)
    assert content_of(snapshot.path) == content_of(source)
    assert_true_copy(snapshot)


def test_vacuum_copes_with_names_that_are_not_utf8(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    fail_backup_api(monkeypatch)
    sql = b"CREATE VIEW v AS SELECT '\xff'".hex()
    source = build(
        tmp_path / "made.db",
        "CREATE TABLE t (a); CREATE VIEW v AS SELECT 1; PRAGMA writable_schema=ON;"
        f"UPDATE sqlite_schema SET sql = CAST(x'{sql}' AS TEXT) WHERE name = 'v'; INSERT INTO t VALUES (1);",
    )
    snapshot = snap(source, scratch)
    assert (snapshot.method, snapshot.census.tables) == ("vacuum into", {"t": 1})
    assert content_of(snapshot.path)["schema"] == content_of(source)["schema"]


def test_when_both_methods_fail_both_reasons_are_told_and_nothing_is_left(
    tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    fail_backup_api(monkeypatch)
    source = build_shop(tmp_path / "shop.db")
    with holding(source, "BEGIN IMMEDIATE"), pytest.raises(BusyError) as caught:
        snap(source, scratch, busy_timeout_seconds=0.3)
    assert "the backup API does not work here" in caught.value.message
    assert "locked" in caught.value.message
    assert names_in(scratch) == set()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, DiskFullError),
        (sqlite3.SQLITE_CORRUPT, VerificationError),
        (sqlite3.SQLITE_BUSY, BusyError),
    ],
)
def test_a_reason_that_a_second_method_would_meet_again_is_told_at_once(
    shop: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[BackupError]
):
    fail_backup_api(monkeypatch, code)
    monkeypatch.setattr(snapshots, "copy_with_vacuum", lambda *_, **__: pytest.fail("it was tried"))
    with pytest.raises(kind):
        snap(shop, scratch)
    assert names_in(scratch) == set()


def test_a_cancel_stops_vacuum_too(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    fail_backup_api(monkeypatch)
    source = build(
        tmp_path / "many.db",
        "CREATE TABLE t (a); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200000) "
        "INSERT INTO t SELECT i FROM n",
    )
    asked = 0

    def is_cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    with pytest.raises(CancelledError):
        snap(source, scratch, watch=Watch(is_cancelled=is_cancelled))
    assert names_in(scratch) == set()


# A full disk


def test_too_little_free_space_is_refused_before_the_first_page(
    shop: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    usage = shutil.disk_usage(scratch)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(snapshots, "copy_with_backup_api", lambda *_, **__: pytest.fail("a page was copied"))
    with pytest.raises(DiskFullError, match="1,000 are free"):
        snap(shop, scratch)
    assert names_in(scratch) == set()


def test_a_full_disk_in_the_middle_of_the_copy_is_said_and_nothing_is_left(
    large_database: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    # SQLite's own limit gives the same result code as the disk, on every machine.
    unlimited = snapshots.open_scratch_for_copy

    def limited(path: Path) -> sqlite3.Connection:
        connection = unlimited(path)
        connection.execute("PRAGMA max_page_count=5000")
        return connection

    monkeypatch.setattr(snapshots, "open_scratch_for_copy", limited)
    with pytest.raises(DiskFullError, match="disk is full"):
        snap(large_database, scratch)
    assert names_in(scratch) == set()
    assert names_in(large_database.parent) == {"large.db"}


def test_a_really_full_disk_leaves_nothing_and_the_live_database_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshots, "require_free_space", lambda *_, **__: None)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=8 << 20) as disk:
        source = build_ledger(disk / "ledger.db", journal_mode="delete", filler_bytes=5 << 20)
        before = bytes_in(disk)
        (disk / "scratch").mkdir()
        with pytest.raises(DiskFullError, match="disk is full"):
            snap(source, disk / "scratch")
        assert names_in(disk / "scratch") == set()
        (disk / "scratch").rmdir()
        assert bytes_in(disk) == before
        with connected(source) as connection:
            connection.execute("INSERT INTO events (what) VALUES ('life goes on')")


@pytest.mark.parametrize("limit_bytes", [0, 4096, 1 << 20, 17 << 20])
def test_a_limit_on_file_sizes_is_a_readable_failure_and_nothing_is_left(
    tmp_path: Path, scratch: Path, limit_bytes: int
):
    (tmp_path / "live").mkdir()
    source = build_ledger(tmp_path / "live" / "ledger.db", journal_mode="delete", filler_bytes=20 << 20)
    before = bytes_in(source.parent)
    program = """
import resource, sys
from pathlib import Path
from backups_app.core.errors import BackupError
from backups_app.core.progress import Watch
from backups_app.core.snapshot import take_snapshot
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    take_snapshot(Path(sys.argv[1]), Path(sys.argv[2]) / "snapshot.sqlite3", watch=Watch())
except BackupError as exc:
    print(exc.message)
"""
    assert "ledger.db" in run_python(program, source, scratch, limit_bytes).stdout
    assert names_in(scratch) == set()
    assert bytes_in(source.parent) == before


# Read-only media

READ_ONLY = """
import json, sys
from pathlib import Path
from backups_app.core.errors import BackupError
from backups_app.core.progress import Watch
from backups_app.core.snapshot import take_snapshot
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
try:
    open(source.parent / "probe", "x")
except OSError:
    pass
else:
    sys.exit("the media can be written")
snapshot = take_snapshot(source, folder / "snapshot.sqlite3", watch=Watch())
print(json.dumps({"access": snapshot.access, "tables": snapshot.census.tables, "notes": snapshot.notes}))
"""


@contextmanager
def mounted_read_only(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    with mounted_tmpfs(folder.with_name("mounted"), size_bytes=32 << 20) as disk:
        for each in folder.iterdir():
            shutil.copy2(each, disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        yield disk, []


@contextmanager
def without_write_permission(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Files that their owner may only read; root must give up its right to ignore that."""
    for each in folder.iterdir():
        each.chmod(0o444)
    folder.chmod(0o555)
    ignores_modes = os.access(folder, os.W_OK)
    as_anybody = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if ignores_modes else []
    try:
        yield folder, as_anybody
    finally:
        folder.chmod(0o755)


MEDIA = {"mounted read-only": mounted_read_only, "no write permission": without_write_permission}


def make_clean_wal(path: Path) -> None:
    build_ledger(path, filler_bytes=100_000)
    with connected(path) as connection:
        connection.execute("INSERT INTO events (what) VALUES ('one')")
        connection.execute("UPDATE counter SET value = 1")


def make_clean_delete(path: Path) -> None:
    make_clean_wal(path)
    with connected(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")


def make_wal_left(path: Path) -> None:
    build_ledger(path, filler_bytes=100_000)
    leave_behind(
        path, "PRAGMA wal_autocheckpoint=0", "INSERT INTO events (what) VALUES ('one')", "UPDATE counter SET value = 1"
    )
    assert sidecar(path, "-wal").stat().st_size > 0


def make_wal_left_without_index(path: Path) -> None:
    make_wal_left(path)
    sidecar(path, "-shm").unlink()


def make_hot_journal(path: Path) -> None:
    make_clean_delete(path)
    leave_behind(path, "PRAGMA synchronous=OFF", *HALF_DONE)
    assert sidecar(path, "-journal").stat().st_size > 0


@pytest.mark.parametrize("media", MEDIA)
@pytest.mark.parametrize(
    ("make", "access"),
    [
        (make_clean_wal, {"immutable"}),
        (make_clean_delete, {"read-write", "immutable"}),
        (make_wal_left, {"staged copy", "read-write"}),
        (make_wal_left_without_index, {"staged copy"}),
        (make_hot_journal, {"staged copy"}),
    ],
    ids=["clean wal", "clean rollback journal", "wal left", "wal left without its index", "hot journal left"],
)
def test_read_only_media_are_read_completely_and_left_as_they_are(
    tmp_path: Path, scratch: Path, media: str, make: Callable[[Path], None], access: set[str]
):
    (tmp_path / "live").mkdir()
    make(tmp_path / "live" / "ledger.db")
    with MEDIA[media](tmp_path / "live") as (folder, launcher):
        before = bytes_in(folder)
        finished = subprocess.run(
            [*launcher, sys.executable, "-c", READ_ONLY, str(folder / "ledger.db"), str(scratch)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert finished.returncode == 0, finished.stderr
        assert bytes_in(folder) == before
    found = json.loads(finished.stdout)
    assert (found["tables"]["events"], found["tables"]["counter"]) == (1, 1)
    assert found["access"] in access
    assert any("read-only" in note for note in found["notes"]) == (found["access"] != "read-write")
    # Nothing of the staged copy is left beside the snapshot, which alone is the result.
    assert names_in(scratch) == {"snapshot.sqlite3"}
    assert integrity_of(scratch / "snapshot.sqlite3") == "ok"
    assert rows_of(scratch / "snapshot.sqlite3") == found["tables"]
    assert one(scratch / "snapshot.sqlite3", "SELECT value FROM counter") == 1


def test_a_full_disk_while_staging_is_said_and_nothing_is_left(tmp_path: Path):
    (tmp_path / "live").mkdir()
    make_wal_left_without_index(tmp_path / "live" / "ledger.db")
    with (
        mounted_read_only(tmp_path / "live") as (folder, _),
        mounted_tmpfs(tmp_path / "scratch", size_bytes=64 << 10) as full,
    ):
        with pytest.raises(DiskFullError, match="disk is full"):
            snap(folder / "ledger.db", full)
        assert names_in(full) == set()
