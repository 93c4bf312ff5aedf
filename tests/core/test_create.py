"""From a live database to a proven archive: the checks, the memory, and every way to stop."""

from __future__ import annotations

import io
import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backups_app.core.create import CreatedArchive, CreateOptions, create_archive, prove_stored
from backups_app.core.errors import BackupError, CancelledError, DeadlineError, UnreachableError, VerificationError
from backups_app.core.files import sweep_scratch
from backups_app.core.progress import Watch
from backups_app.core.verify import failures, reason_of
from tests.support import (
    PROJECT,
    build,
    build_ledger,
    bytes_in,
    compressed,
    connected,
    holding,
    mounted_tmpfs,
    names_in,
    opener,
    rows_of,
    run_python,
    store,
    writing,
)


def create(source: Path, folder: Path, *, watch: Watch | None = None, **options: object) -> CreatedArchive:
    return create_archive(source, folder, options=CreateOptions(**options), watch=watch or Watch())


def names_of(created: CreatedArchive) -> list[str]:
    return [check.name for check in created.checks]


def test_a_created_archive_is_proven_and_alone_in_its_folder(shop: Path, scratch: Path):
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    created = create_archive(shop, scratch, options=CreateOptions(), watch=Watch(), now=lambda: moment)
    assert names_of(created) == ["integrity_check", "foreign_key_check", "census"]
    assert failures(created.checks) == []
    assert created.snapshot.taken_at == moment
    assert names_in(scratch) == {"archive.sqlite3.zst"}
    assert created.archive.content_bytes == created.snapshot.size_bytes == shop.stat().st_size


def test_a_created_archive_reads_back_as_the_snapshot(shop: Path, scratch: Path):
    created = create(shop, scratch)
    stored = created.archive.path.read_bytes()
    checks = prove_stored(opener(lambda: io.BytesIO(stored)), created.archive, watch=Watch())
    assert [(check.name, check.ok) for check in checks] == [("stored bytes", True), ("content digest", True)]


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "empty", "other archive"])
def test_a_stored_copy_that_differs_is_not_proven(shop: Path, scratch: Path, tmp_path: Path, damage: str):
    created = create(shop, scratch)
    stored = bytearray(created.archive.path.read_bytes())
    if damage == "flipped":
        stored[len(stored) // 2] ^= 1
    elif damage == "cut":
        del stored[-1:]
    elif damage == "longer":
        stored += b"\0"
    elif damage == "empty":
        stored.clear()
    else:
        other = build(tmp_path / "other.db", "CREATE TABLE other (x)")
        stored = bytearray(compressed(other, tmp_path / "other.zst").path.read_bytes())
    checks = prove_stored(opener(lambda: io.BytesIO(bytes(stored))), created.archive, watch=Watch())
    assert failures(checks)
    assert not checks[0].ok


def test_a_store_that_does_not_answer_is_not_called_corrupt(shop: Path, scratch: Path):
    created = create(shop, scratch)

    def refuse() -> io.BytesIO:
        raise UnreachableError("The store does not answer.")

    with pytest.raises(UnreachableError):
        prove_stored(opener(refuse), created.archive, watch=Watch())


def test_the_structure_is_checked_quickly_above_the_limit(shop: Path, scratch: Path):
    created = create(shop, scratch, integrity_check_max_bytes=shop.stat().st_size - 1)
    assert names_of(created) == ["quick_check", "census"]
    assert failures(created.checks) == []


def test_the_structure_is_checked_thoroughly_up_to_the_limit(shop: Path, scratch: Path):
    created = create(shop, scratch, integrity_check_max_bytes=shop.stat().st_size)
    assert names_of(created) == ["integrity_check", "foreign_key_check", "census"]


def test_required_tables_that_hold_rows_are_said(shop: Path, scratch: Path):
    created = create(shop, scratch, required_tables=("sale", "product"))
    assert created.checks[-1].evidence == "all 2 hold rows"
    assert failures(created.checks) == []


def test_an_empty_or_missing_required_table_spoils_the_proof_but_the_copy_is_kept(shop: Path, scratch: Path):
    with connected(shop) as connection:
        connection.execute("DELETE FROM sale")
    created = create(shop, scratch, required_tables=("product", "sale", "missing"))
    assert [check.name for check in failures(created.checks)] == ["required tables"]
    assert reason_of(created.checks) == "required tables: no rows in sale, missing"
    assert names_in(scratch) == {"archive.sqlite3.zst"}


def test_an_empty_database_is_created_but_never_satisfies_required_tables(tmp_path: Path, scratch: Path):
    (tmp_path / "empty.db").touch()
    created = create(tmp_path / "empty.db", scratch, required_tables=("sale",))
    assert [check.name for check in failures(created.checks)] == ["required tables"]
    assert created.archive.content_bytes == 0


def test_broken_foreign_keys_of_the_source_are_shown_and_do_not_spoil_the_proof(tmp_path: Path, scratch: Path):
    source = build(
        tmp_path / "made.db",
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); CREATE TABLE child (p REFERENCES parent);"
        "INSERT INTO child VALUES (8), (9);",
    )
    created = create(source, scratch)
    found = next(check for check in created.checks if check.name == "foreign_key_check")
    assert (found.ok, found.is_advisory) == (False, True)
    assert found.evidence == "2 rows of child refer to missing rows of parent"
    assert failures(created.checks) == []


def test_functions_that_only_the_application_has_do_not_spoil_the_proof(tmp_path: Path, scratch: Path):
    source = tmp_path / "made.db"
    with connected(source) as connection:
        connection.create_function("regexp", 2, lambda pattern, text: pattern in text, deterministic=True)
        connection.executescript(
            """
            CREATE TABLE plain (a); INSERT INTO plain VALUES (1);
            CREATE TABLE t (a TEXT CHECK (a REGEXP 'x'), b AS (regexp('x', a)));
            CREATE INDEX partial ON t (a) WHERE a REGEXP 'x';
            CREATE INDEX expression ON t (regexp('x', a));
            INSERT INTO t (a) VALUES ('x'), ('xx');
            """
        )
    created = create(source, scratch)
    assert failures(created.checks) == []
    assert "not possible here for t" in created.checks[0].evidence
    assert created.snapshot.census.tables == {"plain": 1, "t": 2}


@pytest.mark.parametrize("is_thorough", [True, False], ids=["integrity_check", "quick_check"])
@pytest.mark.parametrize("damage", ["zeros", "noise"])
def test_no_damaged_page_of_the_source_passes(tmp_path: Path, damage: str, is_thorough: bool):
    source = build(
        tmp_path / "made.db",
        "PRAGMA page_size=1024; CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT); CREATE INDEX i ON t (a);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300) "
        "INSERT INTO t (a) SELECT hex(randomblob(20)) FROM n;",
    )
    whole = source.read_bytes()
    pages = len(whole) // 1024
    assert pages > 25
    for page in range(1, pages):  # the first one is the header: then it is no database at all
        damaged = bytearray(whole)
        damaged[page * 1024 : (page + 1) * 1024] = bytes(1024) if damage == "zeros" else random.randbytes(1024)
        source.write_bytes(damaged)
        folder = tmp_path / f"scratch-{page}"
        folder.mkdir()
        try:
            created = create(source, folder, integrity_check_max_bytes=1 << 30 if is_thorough else 0)
        except VerificationError:
            assert names_in(folder) == set()
        else:
            assert failures(created.checks), f"page {page + 1} of {pages} is damaged and nothing was found"


def test_a_database_beside_a_writer_is_proven_against_its_own_instant(tmp_path: Path, scratch: Path):
    (tmp_path / "live").mkdir()
    source = build_ledger(tmp_path / "live" / "ledger.db", filler_bytes=4 << 20)
    with writing(source) as writer:
        writer.wait_for(5)
        created = create(source, scratch, required_tables=("events",))
        assert writer.refusals == []
    assert failures(created.checks) == []


# Memory

MEASURE = """
import json, sys
from pathlib import Path
from backups_app.core import __main__
from backups_app.core.create import CreateOptions, create_archive, prove_stored
from backups_app.core.beside import open_archive_file
from backups_app.core.extract import extract_file
from backups_app.core.progress import Watch
from backups_app.core.verify import failures

def memory_kib(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name + ":"))

source, folder = Path(sys.argv[1]), Path(sys.argv[2])
idle = memory_kib("VmRSS")
created = create_archive(source, folder, options=CreateOptions(), watch=Watch())
assert not failures(created.checks)
assert not failures(prove_stored(lambda: open_archive_file(created.archive.path), created.archive, watch=Watch()))
inspection = extract_file(created.archive.path, folder / "out.db", watch=Watch())
assert inspection.sha256 == created.archive.sha256
print(json.dumps([idle, memory_kib("VmHWM")]))
"""


def test_memory_does_not_grow_with_the_database(tmp_path: Path, scratch: Path):
    source = build_ledger(tmp_path / "large.db", filler_bytes=150 << 20)
    assert source.stat().st_size > 150 << 20
    idle_kib, peak_kib = json.loads(run_python(MEASURE, source, scratch).stdout)
    assert peak_kib - idle_kib <= 96 << 10


# Stopping


def phases_of(source: Path, folder: Path) -> list[tuple[str, int, int]]:
    reports: list[tuple[str, int, int]] = []
    create(source, folder, watch=Watch(on_progress=lambda *report: reports.append(report)))
    return reports


def test_progress_goes_from_copy_to_compress(large_database: Path, scratch: Path):
    reports = phases_of(large_database, scratch)
    copies = [each for each in reports if each[0] == "copy"]
    compressions = [each for each in reports if each[0] == "compress"]
    assert reports == copies + compressions
    assert copies[-1][1:] == compressions[-1][1:] == (large_database.stat().st_size,) * 2


@pytest.mark.parametrize("fraction", [0, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1])
def test_a_cancel_at_any_moment_leaves_nothing(large_database: Path, scratch: Path, fraction: float):
    size = large_database.stat().st_size
    at = fraction * 2 * size
    done = {"copy": 0, "compress": 0}

    def is_cancelled() -> bool:
        return sum(done.values()) >= at

    watch = Watch(on_progress=lambda phase, done_bytes, _: done.update({phase: done_bytes}), is_cancelled=is_cancelled)
    with pytest.raises(CancelledError):
        create(large_database, scratch, watch=watch)
    assert names_in(scratch) == set()
    assert names_in(large_database.parent) == {"large.db"}


def test_a_cancel_that_only_the_check_hears_leaves_no_archive(shop: Path, scratch: Path):
    # The archive may be complete by then; it is not proven, so it must not stay.
    with connected(shop) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000) "
            "INSERT INTO sale (note) SELECT i FROM n"
        )
    watch = Watch(is_cancelled=lambda: threading.current_thread() is not threading.main_thread())
    with pytest.raises(CancelledError):
        create(shop, scratch, watch=watch)
    assert names_in(scratch) == set()


@pytest.mark.parametrize("seconds", [0, 0.02, 0.1, 0.2])
def test_a_deadline_leaves_nothing(large_database: Path, scratch: Path, seconds: float):
    watch = Watch(deadline_seconds=seconds, on_progress=lambda *_: time.sleep(0.05))
    with pytest.raises(DeadlineError) as caught:
        create(large_database, scratch, watch=watch)
    assert caught.value.exit_code == 4
    assert names_in(scratch) == set()
    assert names_in(large_database.parent) == {"large.db"}


def test_a_locked_database_leaves_nothing(tmp_path: Path, scratch: Path):
    source = build_ledger(tmp_path / "ledger.db", journal_mode="delete")
    with holding(source, "BEGIN EXCLUSIVE"), pytest.raises(BackupError, match="locked"):
        create(source, scratch, busy_timeout_seconds=0.2)
    assert names_in(scratch) == set()


def test_a_disk_that_has_room_for_the_copy_only_leaves_nothing(tmp_path: Path):
    # 3 MiB that do not compress: the snapshot fits, the archive beside it does not.
    (tmp_path / "live").mkdir()
    source = tmp_path / "live" / "made.db"
    build(source, "CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(3000000));")
    before = bytes_in(source.parent)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=5 << 20) as disk:
        with pytest.raises(BackupError, match="disk is full"):
            create(source, disk)
        assert names_in(disk) == set()
    assert bytes_in(source.parent) == before


# Killed

CREATE = """
import os, signal, sys
from pathlib import Path
from backups_app.core.create import CreateOptions, create_archive
from backups_app.core.files import scratch_folder
from backups_app.core.progress import Watch
source, root, die_at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
reports = 0
def on_progress(*_):
    global reports
    reports += 1
    if reports == die_at:
        os.kill(os.getpid(), signal.SIGKILL)
with scratch_folder(root, "job") as folder:
    print("started", flush=True)
    create_archive(source, folder, options=CreateOptions(), watch=Watch(on_progress=on_progress))
"""


def assert_whole_or_unreadable(left: Path, source: Path) -> None:
    with closing(sqlite3.connect(left)) as connection:
        try:
            # Not as immutable: a journal beside it would be rolled back, to an empty database.
            tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        except sqlite3.DatabaseError:
            return
    assert tables > 0, "a part of a copy looks like an empty database"
    assert rows_of(left) == rows_of(source), "a part of a copy looks like a whole database"


def assert_swept_after_death(root: Path, source: Path) -> None:
    """What a killed process left is no valid empty database, and the sweep removes it."""
    left = root / "job" / "snapshot.sqlite3"
    if left.exists() and left.stat().st_size > 0:
        assert_whole_or_unreadable(left, source)
    if (root / "job.lock").exists():
        assert sweep_scratch(root) == ["job"]
    assert names_in(root) == set()
    assert names_in(source.parent) <= {"large.db", "large.db-wal", "large.db-shm"}
    with closing(sqlite3.connect(source)) as connection:
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    assert names_in(source.parent) == {"large.db"}


@pytest.mark.parametrize("die_at", [1, 2, 3, 4, 5, 20, 45])
def test_a_process_killed_at_a_step_leaves_nothing_that_looks_like_a_database(
    large_database: Path, scratch: Path, die_at: int
):
    finished = subprocess.run(
        [sys.executable, "-c", CREATE, str(large_database), str(scratch), str(die_at)], cwd=PROJECT, check=False
    )
    assert finished.returncode == -signal.SIGKILL
    assert names_in(scratch) == {"job", "job.lock"}
    assert_swept_after_death(scratch, large_database)


@pytest.mark.parametrize("number", range(6))
def test_a_process_killed_at_a_random_moment_leaves_nothing_that_looks_like_a_database(
    large_database: Path, scratch: Path, number: int
):
    process = subprocess.Popen(
        [sys.executable, "-c", CREATE, str(large_database), str(scratch), "0"], cwd=PROJECT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    time.sleep(random.uniform(number * 0.08, (number + 1) * 0.08))
    process.kill()
    process.wait()
    process.stdout.close()
    assert_swept_after_death(scratch, large_database)


def test_what_was_created_before_a_kill_is_not_swept(large_database: Path, tmp_path: Path, scratch: Path):
    stored = store(large_database, tmp_path / "store")
    subprocess.run([sys.executable, "-c", CREATE, str(large_database), str(scratch), "2"], cwd=PROJECT, check=False)
    assert_swept_after_death(scratch, large_database)
    assert names_in(stored.archive.parent) == {stored.archive.name, stored.manifest_path.name}
