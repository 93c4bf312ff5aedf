"""An archive back into a new file: whole and proven, or not there at all."""

from __future__ import annotations

import errno
import io
import os
import sqlite3
import stat
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups_app.core import archive as archives
from backups_app.core.errors import (
    BackupError,
    CancelledError,
    DiskFullError,
    InputError,
    NotFoundError,
    RefusedError,
    UnreachableError,
    VerificationError,
)
from backups_app.core.extract import (
    extract_archive,
    extract_file,
    inspect_file,
    manifest_beside,
    open_archive_file,
)
from backups_app.core.progress import Watch
from backups_app.core.verify import failures
from tests.support import (
    Stored,
    build,
    build_shop,
    bytes_in,
    compressed,
    connected,
    content_of,
    content_through,
    identifier,
    integrity_of,
    mounted_tmpfs,
    names_in,
    opener,
    rows_of,
    store,
)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The folder that is extracted to."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def lone(stored: Stored) -> Path:
    """The archive without its manifest."""
    stored.manifest_path.unlink()
    return stored.archive


# The promise


def names() -> st.SearchStrategy[str]:
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


VALUES = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.binary(max_size=40)
    | st.binary(min_size=5000, max_size=5001)
)

TABLES = st.lists(
    st.fixed_dictionaries(
        {
            "name": names(),
            "columns": st.lists(names(), min_size=1, max_size=4),
            "types": st.lists(
                st.sampled_from(["", "TEXT", "INTEGER", "REAL", "BLOB", "NUMERIC"]), min_size=4, max_size=4
            ),
            "suffix": st.sampled_from(["", "", " WITHOUT ROWID"]),
            "is_indexed": st.booleans(),
            "rows": st.lists(st.lists(VALUES, min_size=4, max_size=4), max_size=12),
            "deleted": st.integers(0, 3),
        }
    ),
    max_size=3,
)

PRAGMAS = st.fixed_dictionaries(
    {
        "page_size": st.sampled_from([512, 1024, 4096, 65536]),
        "encoding": st.sampled_from(["'UTF-8'", "'UTF-16le'", "'UTF-16be'"]),
        "auto_vacuum": st.sampled_from([0, 1, 2]),
        "journal_mode": st.sampled_from(["wal", "delete", "persist"]),
        "user_version": st.integers(-(2**31), 2**31 - 1),
        "application_id": st.integers(-(2**31), 2**31 - 1),
    }
)


def fill(connection: sqlite3.Connection, pragmas: dict[str, object], tables: list[dict[str, Any]]) -> None:
    for pragma, value in pragmas.items():
        connection.execute(f"PRAGMA {pragma}={value}")
    for number, table in enumerate(tables):
        # The numbers keep the names apart, also without regard to case.
        name = identifier(f"{number}{table['name']}")
        columns = [identifier(f"{at}{column}") for at, column in enumerate(table["columns"])]
        definitions = [f"{column} {kind}" for column, kind in zip(columns, table["types"], strict=False)]
        if table["suffix"]:
            definitions.insert(0, "id INTEGER PRIMARY KEY")
        connection.execute(f"CREATE TABLE {name} ({', '.join(definitions)}){table['suffix']}")
        if table["is_indexed"]:
            connection.execute(f"CREATE INDEX {identifier(f'index {number}')} ON {name} ({columns[0]})")
        for at, row in enumerate(table["rows"]):
            values: list[object] = [at] if table["suffix"] else []
            values += row[: len(columns)]
            connection.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(values))})", values)
        key = "id" if table["suffix"] else "rowid"
        connection.execute(f"DELETE FROM {name} WHERE {key} < ?", (table["deleted"],))


@settings(max_examples=100, deadline=None, database=None)
@given(pragmas=PRAGMAS, tables=TABLES)
def test_extract_of_create_is_the_database(pragmas: dict[str, object], tables: list[dict[str, Any]]):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, target = folder / "live.db", folder / "out.db"
        with closing(sqlite3.connect(source, isolation_level=None)) as application:
            fill(application, pragmas, tables)
            # The application stays connected: in WAL mode its rows are only in the -wal.
            stored = store(source, folder / "store")
            assert failures(stored.created.checks) == []
            checks = extract_archive(stored.open, stored.manifest, target, watch=Watch())
            with connected(source) as fresh:  # without tables, a connection keeps the encoding it asked for
                original = content_through(fresh)
        assert all(check.ok for check in checks)
        assert content_of(target) == original
        assert integrity_of(target) == "ok"
        assert names_in(folder) == {"live.db", "out.db", "store"} | (names_in(folder) & {"live.db-journal"})


# Success


def test_an_extracted_database_is_private_whole_and_alone(stored: Stored, shop: Path, out: Path):
    checks = extract_archive(stored.open, stored.manifest, out / "new.db", watch=Watch())
    assert [check.name for check in checks] == ["stored bytes", "content digest", "quick_check", "census"]
    assert stat.S_IMODE((out / "new.db").stat().st_mode) == 0o600
    assert content_of(out / "new.db") == content_of(shop)
    assert names_in(out) == {"new.db"}


def test_an_extracted_database_can_be_used(stored: Stored, out: Path):
    extract_archive(stored.open, stored.manifest, out / "new.db", watch=Watch())
    with connected(out / "new.db") as connection:
        connection.execute("INSERT INTO sale (note) VALUES ('fifth')")
        assert connection.execute("SELECT count(*) FROM sale").fetchone() == (5,)


def test_a_file_with_its_manifest_is_proven_and_one_without_is_not_said_to_be(stored: Stored, out: Path):
    proven = extract_file(stored.archive, out / "proven.db", watch=Watch())
    assert proven.manifest == stored.manifest
    assert {"stored bytes", "content digest", "census"} <= {check.name for check in proven.checks}
    unproven = extract_file(lone(stored), out / "unproven.db", watch=Watch())
    assert unproven.manifest is None
    assert unproven.census is not None
    assert unproven.census.tables == {"product": 3, "sale": 4}
    assert {check.name for check in unproven.checks} == {
        "decompression",
        "integrity_check",
        "foreign_key_check",
        "census",
    }
    assert (proven.sha256, proven.archive_sha256) == (unproven.sha256, unproven.archive_sha256)
    assert (out / "proven.db").read_bytes() == (out / "unproven.db").read_bytes()


def test_an_archive_of_an_empty_database_is_extracted_as_an_empty_file(tmp_path: Path, out: Path):
    (tmp_path / "empty.db").touch()
    stored = store(tmp_path / "empty.db", tmp_path / "store")
    extract_file(stored.archive, out / "new.db", watch=Watch())
    assert bytes_in(out) == {"new.db": b""}


@pytest.mark.parametrize("name", ["with space.db", "what?#%25.db", "käse ☕.db", "-dash", 'it\'s "quoted"'])
def test_a_target_may_have_any_name(stored: Stored, out: Path, name: str):
    extract_archive(stored.open, stored.manifest, out / name, watch=Watch())
    assert names_in(out) == {name}
    assert rows_of(out / name) == {"product": 3, "sale": 4}


# Refused


@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
@pytest.mark.parametrize("name", ["new.db", "new.db-wal", "new.db-shm", "new.db-journal"])
def test_a_target_or_its_sidecar_that_exists_is_refused_untouched(
    stored: Stored, out: Path, name: str, has_manifest: bool
):
    archive = stored.archive if has_manifest else lone(stored)
    (out / name).write_bytes(b"precious")
    with pytest.raises(RefusedError):
        extract_file(archive, out / "new.db", watch=Watch())
    assert bytes_in(out) == {name: b"precious"}


def test_a_target_that_appears_meanwhile_is_not_replaced(stored: Stored, out: Path):
    def appear(*_: object) -> None:
        (out / "new.db").write_bytes(b"precious")

    with pytest.raises(RefusedError):
        extract_archive(stored.open, stored.manifest, out / "new.db", watch=Watch(on_progress=appear))
    assert bytes_in(out) == {"new.db": b"precious"}


def test_a_target_in_a_missing_folder_is_not_found(stored: Stored, out: Path):
    with pytest.raises(NotFoundError, match="does not exist"):
        extract_file(stored.archive, out / "missing" / "new.db", watch=Watch())
    assert names_in(out) == set()


# Damaged archives


@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
def test_a_truncated_archive_leaves_no_file_wherever_it_is_cut(tmp_path: Path, out: Path, has_manifest: bool):
    stored = store(build(tmp_path / "tiny.db", "PRAGMA page_size=512; CREATE TABLE t (a)"), tmp_path / "store")
    archive = stored.archive if has_manifest else lone(stored)
    whole = archive.read_bytes()
    assert len(whole) < 600
    for length in range(len(whole)):
        archive.write_bytes(whole[:length])
        with pytest.raises(VerificationError, match="cannot be trusted"):
            extract_file(archive, out / "new.db", watch=Watch())
        assert names_in(out) == set()
    archive.write_bytes(whole)
    extract_file(archive, out / "new.db", watch=Watch())


def test_a_flipped_bit_leaves_no_file_or_the_same_database(tmp_path: Path, out: Path):
    stored = store(build(tmp_path / "tiny.db", "PRAGMA page_size=512; CREATE TABLE t (a)"), tmp_path / "store")
    archive = lone(stored)
    whole = archive.read_bytes()
    for at in range(0, len(whole) * 8, 5):
        flipped = bytearray(whole)
        flipped[at // 8] ^= 1 << at % 8
        archive.write_bytes(flipped)
        try:
            inspection = extract_file(archive, out / "new.db", watch=Watch())
        except VerificationError:
            assert names_in(out) == set()
        else:
            assert inspection.sha256 == stored.manifest.sha256
            (out / "new.db").unlink()


@pytest.mark.parametrize(
    "content",
    [b"", b"just a text\n" * 100, bytes(1000), b"\x28\xb5\x2f\xfd"],
    ids=["empty", "text", "zeros", "magic"],
)
@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
def test_what_is_no_archive_leaves_no_file(stored: Stored, out: Path, content: bytes, has_manifest: bool):
    archive = stored.archive if has_manifest else lone(stored)
    archive.write_bytes(content)
    with pytest.raises(VerificationError):
        extract_file(archive, out / "new.db", watch=Watch())
    assert names_in(out) == set()


def test_an_archive_of_something_else_than_a_database_leaves_no_file(tmp_path: Path, out: Path):
    (tmp_path / "text").write_bytes(b"dear diary\n" * 1000)
    compressed(tmp_path / "text", tmp_path / "text.sqlite3.zst")
    with pytest.raises(VerificationError, match="not an SQLite database"):
        extract_file(tmp_path / "text.sqlite3.zst", out / "new.db", watch=Watch())
    assert names_in(out) == set()


def test_a_whole_archive_of_a_damaged_database_leaves_no_file(tmp_path: Path, out: Path):
    damaged = build_shop(tmp_path / "shop.db", journal_mode="delete")
    content = bytearray(damaged.read_bytes())
    content[4096:8192] = bytes(4096)
    damaged.write_bytes(content)
    compressed(damaged, tmp_path / "shop.sqlite3.zst")
    with pytest.raises(VerificationError):
        extract_file(tmp_path / "shop.sqlite3.zst", out / "new.db", watch=Watch())
    assert names_in(out) == set()


def test_a_changed_row_in_a_whole_archive_leaves_no_file(stored: Stored, tmp_path: Path, out: Path):
    extract_archive(stored.open, stored.manifest, tmp_path / "changed.db", watch=Watch())
    content = (tmp_path / "changed.db").read_bytes().replace(b"second", b"secret")
    (tmp_path / "changed.db").write_bytes(content)
    assert integrity_of(tmp_path / "changed.db") == "ok"
    written = compressed(tmp_path / "changed.db", stored.archive)
    manifest = replace(stored.manifest, archive_bytes=written.archive_bytes, archive_sha256=written.archive_sha256)
    stored.manifest_path.write_bytes(manifest.to_bytes())
    with pytest.raises(VerificationError, match="content digest"):
        extract_file(stored.archive, out / "new.db", watch=Watch())
    assert names_in(out) == set()


def test_a_bomb_is_stopped_at_the_size_in_the_manifest(stored: Stored, out: Path):
    zeros = (bytes(archives.CHUNK_BYTES) for _ in range(2048))
    stored.archive.write_bytes(b"".join(archives.compress(zeros, level=1, workers=0, size_bytes=2 << 30)))
    started = time.monotonic()
    with pytest.raises(VerificationError, match="cannot be trusted"):
        extract_file(stored.archive, out / "new.db", watch=Watch())
    assert time.monotonic() - started < 5
    assert names_in(out) == set()


def test_a_manifest_that_cannot_be_trusted_is_never_ignored(stored: Stored, out: Path):
    stored.manifest_path.write_bytes(stored.manifest_path.read_bytes() + b"\n")
    with pytest.raises(VerificationError, match="manifest cannot be trusted"):
        extract_file(stored.archive, out / "new.db", watch=Watch())
    assert names_in(out) == set()


def test_the_manifest_of_another_archive_does_not_fit(stored: Stored, tmp_path: Path, out: Path):
    other = store(build(tmp_path / "other.db", "CREATE TABLE other (x)"), tmp_path / "other-store")
    stored.manifest_path.write_bytes(other.manifest_path.read_bytes())
    with pytest.raises(VerificationError):
        extract_file(stored.archive, out / "new.db", watch=Watch())
    assert names_in(out) == set()


# Failing surroundings


def test_a_store_that_does_not_answer_leaves_no_file(stored: Stored, out: Path):
    def refuse() -> io.BytesIO:
        raise UnreachableError("The store does not answer.")

    with pytest.raises(UnreachableError):
        extract_archive(opener(refuse), stored.manifest, out / "new.db", watch=Watch())
    assert names_in(out) == set()


@pytest.mark.parametrize("at_report", [1, 3, 10])
@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
def test_a_cancel_leaves_no_file(large_database: Path, tmp_path: Path, out: Path, at_report: int, has_manifest: bool):
    stored = store(large_database, tmp_path / "store")
    archive = stored.archive if has_manifest else lone(stored)
    reports: list[str] = []
    watch = Watch(on_progress=lambda phase, *_: reports.append(phase), is_cancelled=lambda: len(reports) >= at_report)
    with pytest.raises(CancelledError):
        extract_file(archive, out / "new.db", watch=watch)
    assert reports == ["unpack"] * at_report
    assert names_in(out) == set()


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archives, "write_all", refuse)


@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
def test_a_full_disk_says_nothing_about_the_archive_and_leaves_no_file(
    stored: Stored, out: Path, monkeypatch: pytest.MonkeyPatch, has_manifest: bool
):
    archive = stored.archive if has_manifest else lone(stored)
    fill_disk(monkeypatch)
    with pytest.raises(DiskFullError):
        extract_file(archive, out / "new.db", watch=Watch())
    assert names_in(out) == set()


@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
def test_a_really_full_disk_says_nothing_about_the_archive_and_leaves_no_file(tmp_path: Path, has_manifest: bool):
    source = build(tmp_path / "made.db", "CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(3000000));")
    stored = store(source, tmp_path / "store")
    archive = stored.archive if has_manifest else lone(stored)
    with mounted_tmpfs(tmp_path / "disk", size_bytes=1 << 20) as disk:
        with pytest.raises(DiskFullError):
            extract_file(archive, disk / "new.db", watch=Watch())
        assert names_in(disk) == set()


# Finding the files


def test_a_missing_archive_is_not_found_and_creates_nothing(out: Path):
    with pytest.raises(NotFoundError, match="no archive"):
        extract_file(out / "missing.sqlite3.zst", out / "new.db", watch=Watch())
    assert names_in(out) == set()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("name", ["folder.sqlite3.zst", ".", "/", "pipe.sqlite3.zst"])
def test_an_archive_that_is_no_file_is_refused_at_once(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    (tmp_path / "folder.sqlite3.zst").mkdir()
    os.mkfifo(tmp_path / "pipe.sqlite3.zst")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="not a file"):
        extract_file(Path(name), out / "new.db", watch=Watch())
    with pytest.raises(InputError, match="not a file"), open_archive_file(Path(name)):
        pass
    assert names_in(out) == set()


@pytest.mark.timeout(30)
def test_a_manifest_that_is_no_file_is_refused_at_once(stored: Stored, out: Path):
    for make in (os.mkfifo, os.mkdir):
        stored.manifest_path.unlink(missing_ok=True)
        make(stored.manifest_path)
        with pytest.raises(BackupError):
            extract_file(stored.archive, out / "new.db", watch=Watch())
        assert names_in(out) == set()
        stored.manifest_path.unlink() if make is os.mkfifo else stored.manifest_path.rmdir()


def test_a_name_that_is_too_long_is_a_readable_failure(stored: Stored, out: Path):
    with pytest.raises(BackupError):
        extract_file(out / ("x" * 300), out / "new.db", watch=Watch())
    with pytest.raises(BackupError):
        extract_file(stored.archive, out / ("x" * 300), watch=Watch())
    assert names_in(out) == set()


def test_the_manifest_beside_an_archive_has_the_same_stem(stored: Stored):
    assert manifest_beside(stored.archive) == stored.manifest
    assert manifest_beside(stored.archive.with_name("shop.sqlite3.zst.age")) == stored.manifest
    assert manifest_beside(stored.archive.with_name("other.sqlite3.zst")) is None


# Inspecting


@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
def test_inspecting_leaves_nothing_behind(stored: Stored, scratch: Path, has_manifest: bool):
    archive = stored.archive if has_manifest else lone(stored)
    before = bytes_in(archive.parent)
    inspection = inspect_file(archive, scratch=scratch, watch=Watch())
    assert failures(inspection.checks) == []
    assert (inspection.size_bytes, inspection.sha256) == (stored.manifest.size_bytes, stored.manifest.sha256)
    assert inspection.census == stored.manifest.census
    assert names_in(scratch) == set()
    assert bytes_in(archive.parent) == before


@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
def test_inspecting_a_damaged_archive_tells_what_is_wrong(stored: Stored, scratch: Path, has_manifest: bool):
    archive = stored.archive if has_manifest else lone(stored)
    archive.write_bytes(archive.read_bytes()[:-3])
    inspection = inspect_file(archive, scratch=scratch, watch=Watch())
    assert "decompression" in [check.name for check in failures(inspection.checks)]
    assert names_in(scratch) == set()


def test_inspecting_asks_for_the_required_tables_of_the_manifest(stored: Stored, scratch: Path):
    manifest = replace(stored.manifest, required_tables=("missing",))
    stored.manifest_path.write_bytes(manifest.to_bytes())
    inspection = inspect_file(stored.archive, scratch=scratch, watch=Watch())
    assert [check.name for check in failures(inspection.checks)] == ["required tables"]
