"""What triage says of archives that somebody else made."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sqlite3
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups_app.core.archive import compress
from backups_app.core.create import CreateOptions, create_archive
from backups_app.core.errors import (
    CancelledError,
    DeadlineError,
    InputError,
    KeyMissingError,
    NotFoundError,
    VerificationError,
)
from backups_app.core.progress import Watch
from backups_app.core.triage import VERDICTS, Limits, Totals, TriageOptions, judge_all, judged_payload
from tests.foreign import (
    ALL_ROWS,
    DATA,
    DATA_ROWS,
    MIGRATED,
    NEWEST,
    SITE,
    copy_with_wal,
    flipped,
    good_copy,
    legacy_container,
    naive_copy,
)
from tests.judging import judged
from tests.support import NOW, build, build_shop, names_in, rows_of, run_python

CURRENT, ROTATED, LOST = os.urandom(32), os.urandom(32), os.urandom(32)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of the old archives."""
    folder = tmp_path / "old"
    folder.mkdir()
    return folder


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    """The bytes of a copy that holds data."""
    return good_copy(tmp_path, tmp_path / "good").read_bytes()


@pytest.fixture
def bare(tmp_path: Path) -> bytes:
    """The bytes of a naive copy: a schema and no data."""
    return naive_copy(tmp_path, tmp_path / "bare", checkpointed=SITE).read_bytes()


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def zstd(content: bytes) -> bytes:
    return b"".join(compress(iter([content]), level=1, workers=0, size_bytes=len(content)))


def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


AGE = b"age-encryption.org/v1\n"


def aged(content: bytes) -> bytes:
    """Not age, but what triage sees of it: its first line, and content that a function opens."""
    return AGE + bytes(each ^ 0x55 for each in content)


def open_aged(pieces: Iterator[bytes]) -> Iterator[bytes]:
    first = next(pieces).removeprefix(AGE)
    for piece in (first, *pieces):
        yield bytes(each ^ 0x55 for each in piece)


# SQLite


def test_a_naive_copy_of_a_connected_site_is_schema_only(tmp_path: Path, old: Path, scratch: Path):
    found = judged(naive_copy(tmp_path, old / "backup_1.db", checkpointed=SITE), scratch)
    assert (found.verdict, found.format, found.tables, found.rows) == ("schema only", "sqlite", 5, 0)
    assert found.reason == "5 tables and no row of data."
    assert found.is_useless
    assert found.newest_row_at is None


def test_what_migrating_writes_is_no_data(tmp_path: Path, old: Path, scratch: Path):
    found = judged(naive_copy(tmp_path, old / "a.db", checkpointed=SITE + MIGRATED, in_wal=DATA), scratch)
    assert (found.verdict, found.rows, found.is_useless) == ("schema only", ALL_ROWS - DATA_ROWS, True)
    assert "The only rows are bookkeeping: django_migrations 1, django_content_type 1" in found.reason


def test_one_row_of_data_is_data(tmp_path: Path, old: Path, scratch: Path):
    one = "INSERT INTO auth_user (username) VALUES ('admin')"
    found = judged(naive_copy(tmp_path, old / "a.db", checkpointed=f"{SITE};{MIGRATED};{one}"), scratch)
    assert (found.verdict, found.is_useless) == ("holds data", False)


def test_a_naive_copy_of_a_young_site_is_empty(tmp_path: Path, old: Path, scratch: Path):
    found = judged(naive_copy(tmp_path, old / "a.db", checkpointed="", in_wal=SITE + MIGRATED + DATA), scratch)
    assert (found.verdict, found.tables, found.rows, found.is_useless) == ("empty", 0, 0, True)
    assert found.size_bytes == 4096


def test_a_good_copy_holds_data_and_tells_its_newest_row(tmp_path: Path, old: Path, scratch: Path):
    path = good_copy(tmp_path, old / "a.sqlite3")
    found = judged(path, scratch)
    assert (found.verdict, found.tables, found.rows, found.newest_row_at) == ("holds data", 5, ALL_ROWS, NEWEST)
    assert found.reason == "3 rows of data in 2 of 5 tables."
    assert not found.is_useless
    assert found.sha256 is not None
    assert len(found.sha256) == 64
    assert found.size_bytes == path.stat().st_size


def test_a_wal_beside_an_archive_is_part_of_it(tmp_path: Path, old: Path, scratch: Path):
    path = copy_with_wal(tmp_path, old / "a.db")
    found = judged(path, scratch)
    assert (found.verdict, found.rows) == ("holds data", ALL_ROWS)
    assert "Judged with the -wal beside it" in found.reason
    beside = judged(old / "a.db-wal", scratch)
    assert (beside.verdict, beside.format, beside.is_useless) == ("not a database", "sqlite wal", False)
    assert "together with a.db" in beside.reason


def test_a_wal_without_its_main_file_is_never_lost(tmp_path: Path, old: Path, scratch: Path):
    path = copy_with_wal(tmp_path, old / "a.db")
    path.write_bytes(b"")
    found = judged(path, scratch)
    assert (found.verdict, found.is_useless) == ("corrupt", False)
    assert "the main file was lost" in found.reason
    path.unlink()
    assert not judged(old / "a.db-wal", scratch).is_useless


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_an_empty_sidecar_is_never_called_useless(old: Path, scratch: Path, suffix: str):
    assert not judged(put(old / f"a.db{suffix}", b""), scratch).is_useless


def test_a_killed_writers_journal_is_rolled_back_on_the_copy(tmp_path: Path, old: Path, scratch: Path):
    live = build_shop(tmp_path / "live.db", journal_mode="delete")
    with sqlite3.connect(live, isolation_level=None) as connection:
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN")
        connection.execute("DELETE FROM sale")
        connection.execute("CREATE TABLE filler AS SELECT hex(randomblob(99999)) FROM sale, product")
        connection.execute("INSERT INTO filler VALUES (hex(randomblob(999999)))")
        shutil.copy2(live, old / "a.db")
        shutil.copy2(f"{live}-journal", old / "a.db-journal")
        connection.execute("ROLLBACK")
    connection.close()
    assert judged(old / "a.db", scratch).rows == 7


def test_damage_is_corrupt_and_never_useless(old: Path, scratch: Path, good: bytes):
    damaged = good[:4096] + os.urandom(3000) + good[7096:]
    for number, content in enumerate([good[:5000], good[:60], good[:16], good[:9], damaged]):
        found = judged(put(old / f"{number}.db", content), scratch)
        assert (found.verdict, found.is_useless, found.is_judged) == ("corrupt", False, True), number


def test_what_can_still_be_counted_in_a_damaged_file_is_told(old: Path, scratch: Path):
    path = build(old / "a.db", "CREATE TABLE a (x UNIQUE); CREATE TABLE b (x); INSERT INTO a VALUES (1), (2)")
    path.write_bytes(path.read_bytes()[: 4096 * 2] + bytes(4096) + path.read_bytes()[4096 * 3 :])
    found = judged(path, scratch)
    assert found.verdict == "corrupt"
    assert "2 rows can still be counted" in found.reason


def test_a_schema_of_a_newer_sqlite_is_told_as_one(old: Path, scratch: Path):
    path = build(old / "a.db", "CREATE TABLE t (x)")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = 'CREATE TABLE t (x) FUTURE'")
    connection.close()
    found = judged(path, scratch)
    assert found.verdict == "corrupt"
    assert "Or it needs a newer SQLite than" in found.reason


def test_zero_bytes_are_empty(old: Path, scratch: Path):
    found = judged(put(old / "a.db", b""), scratch)
    assert (found.verdict, found.reason, found.is_useless, found.size_bytes) == ("empty", "It has no bytes.", True, 0)
    assert judged(put(old / "a.db.gz", gzip.compress(b"")), scratch).verdict == "empty"


def test_a_full_text_index_without_a_row_is_schema_only(old: Path, scratch: Path):
    schema = "CREATE TABLE t (x); CREATE VIRTUAL TABLE f USING fts5(x); CREATE VIRTUAL TABLE r USING rtree(i, a, b);"
    assert judged(build(old / "a.db", schema), scratch).verdict == "schema only"
    assert judged(build(old / "b.db", f"{schema} INSERT INTO f VALUES ('word')"), scratch).verdict == "holds data"
    assert judged(build(old / "c.db", f"{schema} INSERT INTO r VALUES (1, 2, 3)"), scratch).verdict == "holds data"


def test_a_changed_site_name_is_data(old: Path, scratch: Path):
    schema = "CREATE TABLE django_site (id INTEGER PRIMARY KEY, domain TEXT);"
    one = "INSERT INTO django_site (domain) VALUES ('example.com');"
    assert judged(build(old / "a.db", schema + one), scratch).verdict == "schema only"
    assert judged(build(old / "b.db", schema + one + one), scratch).verdict == "holds data"


def test_a_view_alone_is_no_table(old: Path, scratch: Path):
    assert judged(build(old / "a.db", "CREATE VIEW v AS SELECT 1"), scratch).verdict == "empty"


@pytest.mark.parametrize(
    ("declared", "value", "expected"),
    [
        ("created_at TEXT", "'2026-03-01T10:00:00+02:00'", "2026-03-01T08:00:00.000000Z"),
        ("day DATE", "'2026-03-01'", "2026-03-01T00:00:00.000000Z"),
        ("changed INTEGER, stamp_time INTEGER", "1, 1700000000", "2023-11-14T22:13:20.000000Z"),
        ("created_at INTEGER", "1700000000123", "2023-11-14T22:13:20.123000Z"),
        ("created_at REAL", "1700000000.5", "2023-11-14T22:13:20.500000Z"),
        ("created_at TEXT COLLATE NOCASE", "'2026-03-01 00:00:00'", "2026-03-01T00:00:00.000000Z"),
        ("created_at TEXT", "'9999-12-31'", None),
        ("created_at TEXT", "'2026-03-09'", None),
        ("created_at TEXT", "'1970-01-01'", None),
        ("created_at TEXT", "'2026-13-41'", None),
        ("created_at TEXT", "'soon'", None),
        ("created_at BLOB", "x'323032362d30312d3031'", None),
        ("amount INTEGER", "1700000000", None),
        ("x, created_at AS ('2026-01-01')", "1", None),
    ],
)
def test_only_plausible_times_are_told(old: Path, scratch: Path, declared: str, value: str, expected: str | None):
    path = build(old / "a.db", f"CREATE TABLE t ({declared}); INSERT INTO t VALUES ({value})")
    assert judged(path, scratch).newest_row_at == expected


@pytest.mark.parametrize("limits", [Limits(time_columns=0), Limits(extra_seconds=0)])
def test_the_newest_row_is_a_hint_that_may_be_missing(tmp_path: Path, old: Path, scratch: Path, limits: Limits):
    path = build(old / "a.db", "CREATE TABLE t (created_at); INSERT INTO t VALUES ('2026-01-01')")
    with sqlite3.connect(path) as connection:
        connection.executemany("INSERT INTO t VALUES (?)", ((f"x{n}",) for n in range(50_000)))
    connection.close()
    found = judged(path, scratch, limits=limits)
    assert (found.verdict, found.newest_row_at) == ("holds data", None)


def test_an_implausible_time_does_not_hide_a_plausible_one(old: Path, scratch: Path):
    values = "('2026-02-01'), ('9999-12-31'), (x'ff'), (1e300), (1600000000), (NULL)"
    path = build(old / "a.db", f"CREATE TABLE t (created_at DATETIME); INSERT INTO t VALUES {values}")
    assert judged(path, scratch).newest_row_at == "2026-02-01T00:00:00.000000Z"


# Layers


def test_compressed_and_encrypted_files_are_judged_by_what_is_inside(old: Path, scratch: Path, good: bytes):
    layers: dict[str, Callable[[bytes], bytes]] = {
        "gzip": gzip.compress,
        "zstd": zstd,
        "age": aged,
        "legacy enc": lambda content: legacy_container(content, CURRENT),
    }
    for outer, wrap in layers.items():
        found = judged(put(old / "misleading.txt", wrap(good)), scratch, keys=[CURRENT], open_age=open_aged)
        assert (found.verdict, found.format, found.newest_row_at) == ("holds data", f"{outer}+sqlite", NEWEST)
        for inner, wrap_inner in layers.items():
            path = put(old / "nested", wrap(wrap_inner(good)))
            found = judged(path, scratch, keys=[LOST, CURRENT], open_age=open_aged)
            assert (found.verdict, found.format) == ("holds data", f"{outer}+{inner}+sqlite"), found.reason


def test_a_schema_without_data_is_found_through_every_layer(old: Path, scratch: Path, bare: bytes):
    stored = aged(zstd(legacy_container(gzip.compress(bare), CURRENT)))
    found = judged(put(old / "a.age", stored), scratch, keys=[CURRENT], open_age=open_aged)
    assert (found.verdict, found.format) == ("schema only", "age+zstd+legacy enc+gzip+sqlite")
    assert found.is_useless


def test_current_rotated_and_lost_keys(old: Path, scratch: Path, good: bytes):
    keys = [CURRENT, ROTATED]
    for key in keys:
        found = judged(put(old / "a.enc", legacy_container(good, key)), scratch, keys=keys)
        assert (found.verdict, found.rows) == ("holds data", ALL_ROWS)
    found = judged(put(old / "a.enc", legacy_container(good, LOST)), scratch, keys=keys)
    assert (found.verdict, found.is_useless) == ("key missing", False)
    assert "or it is damaged" in found.reason
    assert judged(old / "a.enc", scratch).verdict == "key missing"


def test_a_damaged_container_is_corrupt_without_any_key(old: Path, scratch: Path, good: bytes):
    container = legacy_container(good, CURRENT)
    for number, content in enumerate([container[:-5], container[:50], container + b"x"]):
        found = judged(put(old / f"{number}", content), scratch)
        assert (found.verdict, found.format) == ("corrupt", "legacy enc")
    found = judged(put(old / "flipped", flipped(container, -500)), scratch, keys=[ROTATED, CURRENT])
    assert found.verdict == "corrupt"


def test_a_malformed_key_is_the_callers_mistake(old: Path, scratch: Path):
    with pytest.raises(InputError):
        judged(put(old / "a", b""), scratch, keys=[b"short"])


def test_age_without_an_identity_or_with_another_one_is_key_missing(old: Path, scratch: Path, good: bytes):
    def wrong(pieces: Iterator[bytes]) -> Iterator[bytes]:
        raise KeyMissingError("No identity opens it.")
        yield next(pieces)

    path = put(old / "a.age", aged(good))
    assert judged(path, scratch).verdict == "key missing"
    assert judged(path, scratch, open_age=wrong).verdict == "key missing"


def test_damaged_age_is_corrupt(old: Path, scratch: Path, good: bytes):
    def damaged(pieces: Iterator[bytes]) -> Iterator[bytes]:
        yield from open_aged(pieces)
        raise VerificationError("The last chunk is missing.")

    found = judged(put(old / "a.age", aged(good)), scratch, open_age=damaged)
    assert (found.verdict, found.reason) == ("corrupt", "The last chunk is missing.")


def test_truncated_and_damaged_compression_is_corrupt(old: Path, scratch: Path, good: bytes):
    good = good + os.urandom(20_000)  # SQLite does not look behind its last page
    for wrap in (gzip.compress, zstd):
        stored = wrap(good)
        assert judged(put(old / "whole", stored), scratch).verdict == "holds data"
        for content in (stored[:-1], stored[: len(stored) // 2], flipped(stored, -200), stored + b"garbage"):
            found = judged(put(old / "a", content), scratch)
            assert (found.verdict, found.is_useless) == ("corrupt", False), (wrap, found)


def test_gzip_of_several_members_with_padding_is_whole(old: Path, scratch: Path, good: bytes):
    stored = gzip.compress(good[:9000]) + gzip.compress(good[9000:]) + bytes(512)
    assert judged(put(old / "a", stored), scratch).verdict == "holds data"
    large = good + bytes(5 << 20)
    assert judged(put(old / "b", gzip.compress(large)), scratch).verdict == "holds data"
    assert judged(put(old / "c", zstd(large)), scratch).verdict == "holds data"


def test_an_archive_of_ours_is_judged_like_any_other(tmp_path: Path, old: Path, scratch: Path):
    live = build_shop(tmp_path / "live.db")
    made = create_archive(live, old, options=CreateOptions(), watch=Watch())
    found = judged(made.archive.path, scratch)
    assert (found.verdict, found.format, found.rows, found.sha256) == (
        "holds data",
        "zstd+sqlite",
        7,
        made.archive.archive_sha256,
    )


# Not a database


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"PGDMP\x01\x0e\x00" + bytes(range(256)), "postgresql dump"),
        (b"--\n-- PostgreSQL database dump\n--\nSET x;", "postgresql text dump"),
        (b"BEGIN TRANSACTION;\nCREATE TABLE t (x);\n", "sql text"),
        ("Notizen über früher\n".encode() * 999, "text"),
        (b"\x7fELF" + bytes(range(256)), "unknown"),
        (bytes(9000), "unknown"),
        (b"BZh9" + bytes(range(200)), "bzip2"),
        (b"SQLite is a database", "text"),
    ],
)
def test_other_files_are_told_apart_and_kept(old: Path, scratch: Path, content: bytes, expected: str):
    for wrap, outer in (
        (bytes, ""),
        (gzip.compress, "gzip+"),
        (lambda each: legacy_container(each, CURRENT), "legacy enc+"),
    ):
        found = judged(put(old / "a.db", wrap(content)), scratch, keys=[CURRENT])
        assert (found.verdict, found.format, found.is_useless) == ("not a database", outer + expected, False)
        if "postgresql" in expected:
            assert "PostgreSQL dump" in found.reason
            assert "keep it" in found.reason


def test_manifests_are_named(old: Path, scratch: Path):
    assert judged(put(old / "a.manifest.json", b'{"type":"x"}'), scratch).format == "manifest"


def test_an_empty_database_over_the_start_of_a_larger_one_is_not_useless(old: Path, scratch: Path, good: bytes):
    """What a copy in place leaves that was stopped before it cut the file."""
    empty = build(old / "empty.db", "CREATE TABLE t (a)").read_bytes()
    assert len(empty) < len(good)
    for name, wrap in {"a.db": bytes, "a.db.gz": gzip.compress}.items():
        found = judged(put(old / name, wrap(empty + good[len(empty) :])), scratch)
        assert (found.verdict, found.is_judged, found.is_useless) == ("schema only", True, False)
        assert found.reason.endswith(f" {len(good) - len(empty):,} bytes behind its last page were not judged.")
    part = judged(put(old / "part.db", empty + b"rows"), scratch)
    assert not part.is_useless


@pytest.mark.parametrize("name", ["a.db.gz", "a.db.GZ", "a.db.gz.enc", "a.db.zip"])
@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_packed_database_is_not_useless_while_its_log_lies_beside_it(
    old: Path, scratch: Path, bare: bytes, name: str, suffix: str
):
    packed = zipped({"a.db": bare}) if name.endswith(".zip") else gzip.compress(bare)
    path = put(old / name, legacy_container(packed, CURRENT) if name.endswith(".enc") else packed)
    log = put(old / f"a.db{suffix}", b"")
    assert judged(path, scratch, keys=[CURRENT]).is_useless
    log.write_bytes(b"rows")
    found = judged(path, scratch, keys=[CURRENT])
    assert (found.verdict, found.is_judged, found.is_useless) == ("schema only", True, False)
    assert found.reason.endswith(f" The {suffix} beside it was not replayed.")


# ZIP


def test_each_member_of_a_zip_is_judged(old: Path, scratch: Path, good: bytes, bare: bytes):
    members = {
        "good.db": good,
        "sub/bare.db.gz": gzip.compress(bare),
        "lost.enc": legacy_container(good, LOST),
        "inner.zip": zipped({"deep.db": good}),
        "notes.txt": b"notes",
    }
    found = judged(put(old / "all.zip", zipped(members)), scratch, keys=[CURRENT])
    rows = {each.path.removeprefix(str(old)): each.verdict for each in found.with_members()}
    assert rows == {
        "/all.zip": "holds data",
        "/all.zip!good.db": "holds data",
        "/all.zip!sub/bare.db.gz": "schema only",
        "/all.zip!lost.enc": "key missing",
        "/all.zip!inner.zip": "holds data",
        "/all.zip!inner.zip!deep.db": "holds data",
        "/all.zip!notes.txt": "not a database",
    }
    assert found.reason == "5 files: 2 holds data, 1 schema only, 1 key missing, 1 not a database."
    assert not found.is_useless


def test_a_zip_is_useless_only_when_everything_inside_is(old: Path, scratch: Path, bare: bytes):
    useless = judged(put(old / "a.zip", zipped({"a.db": bare, "b.db": b""})), scratch)
    assert (useless.verdict, useless.is_useless) == ("schema only", True)
    beside_text = judged(put(old / "b.zip", zipped({"a.db": bare, "readme": b"text"})), scratch)
    assert (beside_text.verdict, beside_text.is_useless) == ("schema only", False)
    unread = judged(put(old / "c.zip", zipped({"a.db": bare, "b.tar.bz2": b"BZh9"})), scratch)
    assert (unread.verdict, unread.is_judged, unread.is_useless) == ("not a database", False, False)


def test_a_wal_in_the_zip_is_part_of_the_database_beside_it(tmp_path: Path, old: Path, scratch: Path):
    path = copy_with_wal(tmp_path, tmp_path / "a.db")
    members = {"x/a.db": path.read_bytes(), "x/a.db-wal": (tmp_path / "a.db-wal").read_bytes()}
    found = judged(put(old / "a.zip", zipped(members)), scratch)
    assert (found.verdict, found.members[0].rows) == ("holds data", ALL_ROWS)


def test_a_damaged_zip_is_corrupt(old: Path, scratch: Path, good: bytes):
    stored = zipped({"a.db": good}, method=zipfile.ZIP_STORED)
    assert judged(put(old / "cut.zip", stored[:-30]), scratch).verdict == "corrupt"
    found = judged(put(old / "flipped.zip", flipped(stored, 5000)), scratch)
    assert (found.verdict, found.members[0].verdict) == ("corrupt", "corrupt")


def test_an_empty_zip_is_empty(old: Path, scratch: Path):
    assert judged(put(old / "a.zip", zipped({})), scratch).verdict == "empty"


def around(first: bytes, second: bytes) -> dict[str, bytes]:
    """ZIPs of which Python's reader sees ``second`` only."""
    end_at = len(second) - 22
    directory_at = int.from_bytes(second[end_at + 16 : end_at + 20], "little")
    moved = second[:directory_at] + first + second[directory_at:end_at]
    moved += second[end_at : end_at + 16] + (directory_at + len(first)).to_bytes(4, "little") + second[end_at + 20 :]
    endless = first[:-22]  # or the reader would find that one
    comment = second[: end_at + 20] + len(endless).to_bytes(2, "little") + endless
    return {"before": first + second, "between": moved, "in the comment": comment, "behind": second + endless}


def test_a_zip_with_bytes_that_its_directory_does_not_tell_of_is_not_useless(old: Path, scratch: Path, bare: bytes):
    first = zipped({"good.db": bare, "more.db": os.urandom(100)})
    for second, verdict in ((zipped({"a.db": bare}), "schema only"), (zipped({}), "empty")):
        for name, content in around(first, second).items():
            found = judged(put(old / f"{name}.zip", content), scratch)
            assert (found.verdict, found.is_judged, found.is_useless) == (verdict, True, False), name
            assert found.reason.endswith("It has bytes that are of no file in its directory; they were not judged.")
    inner = judged(put(old / "inner.zip", zipped({"cat.zip": first + zipped({})})), scratch)
    assert not inner.is_useless


def test_a_zip_with_folders_or_written_to_a_pipe_may_be_useless(old: Path, scratch: Path, bare: bytes):
    class Pipe(io.RawIOBase):
        content = b""

        def write(self, piece: Any) -> int:
            self.content += bytes(piece)
            return len(piece)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("x")
        archive.writestr("x/a.db", bare)
        archive.writestr("x/b.db", b"")
    assert archive.infolist()[1].flag_bits & 0x8
    found = judged(put(old / "a.zip", pipe.content), scratch)
    assert (found.verdict, found.is_useless) == ("schema only", True)
    assert "no file in its directory" not in found.reason


# Many


def test_folders_are_judged_in_order_and_one_bad_file_stops_nothing(old: Path, scratch: Path, good: bytes, bare: bytes):
    (old / "b").mkdir()
    put(old / "b" / "x.db", good)
    put(old / "a.db", bare)
    put(old / "c.db", b"")
    (old / "d.db").symlink_to(old / "a.db")
    (old / "e").symlink_to(old / "b")
    found = list(judge_all([old, old / "gone", old / "a.db"], scratch=scratch, watch=Watch()))
    assert [(Path(each.path).name, each.verdict) for each in found] == [
        ("a.db", "schema only"),
        ("c.db", "empty"),
        ("d.db", "not a database"),
        ("e", "not a database"),
        ("x.db", "holds data"),
        ("gone", "not a database"),
        ("a.db", "schema only"),
    ]
    assert "symbolic link" in found[2].reason
    assert not found[5].is_judged
    assert names_in(scratch) == set()


def test_the_scratch_folder_is_left_out(old: Path, good: bytes):
    put(old / "a.db", good)
    (old / "scratch").mkdir()
    put(old / "scratch" / "b.db", good)
    found = list(judge_all([old], scratch=old / "scratch", watch=Watch()))
    assert [each.file for each in found] == [old / "a.db"]


def test_totals_count_files_and_what_can_be_reclaimed(old: Path, scratch: Path, good: bytes, bare: bytes):
    put(old / "a.db", good)
    put(old / "b.db", bare)
    put(old / "c.zip", zipped({"x.db": bare, "y.db": good}))
    put(old / "d.zip", zipped({"x.db": bare}))
    totals = Totals()
    for each in judge_all([old], scratch=scratch, watch=Watch()):
        totals.add(each)
    assert totals.files == {**dict.fromkeys(VERDICTS, 0), "holds data": 2, "schema only": 2}
    assert totals.reclaimable_files == 2
    assert totals.reclaimable_bytes == len(bare) + (old / "d.zip").stat().st_size
    told = json.loads(json.dumps(totals.as_dict()))
    assert told["files"] == 4
    assert told["bytes"] == sum(each.stat().st_size for each in old.iterdir())


def test_a_judgement_is_json(old: Path, scratch: Path, good: bytes):
    told = json.loads(json.dumps(judged(put(old / "a.db", good), scratch).as_dict()))
    assert {"path", "verdict", "format", "tables", "rows", "bytes", "reason"} <= set(told)


MANY = """
import os, sys, time
from collections import Counter
from pathlib import Path
from backups_app.core.progress import Watch
from backups_app.core.triage import TriageOptions, judge_all
def peak():  # getrusage would tell the parent's, inherited over exec
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10
folder, scratch, key = Path(sys.argv[1]), Path(sys.argv[2]), bytes.fromhex(sys.argv[3])
options = TriageOptions(keys=[bytes(32), key])
list(judge_all([folder / "001.db"], scratch=scratch, watch=Watch(), options=options))
before, started = peak(), time.monotonic()
found = Counter(each.verdict for each in judge_all([folder], scratch=scratch, watch=Watch(), options=options))
print(dict(found), "|", peak() - before, peak(), round(time.monotonic() - started, 1))
"""


def test_four_hundred_archives_are_judged_in_one_run_with_little_memory(
    tmp_path: Path, old: Path, scratch: Path, capsys: pytest.CaptureFixture[str]
):
    filler = "CREATE TABLE filler AS SELECT randomblob(700000) AS x;"
    good = good_copy(tmp_path, tmp_path / "good").read_bytes()
    bare = naive_copy(tmp_path, tmp_path / "bare", checkpointed=f"{SITE}{filler} DELETE FROM filler;").read_bytes()
    assert len(bare) > 700_000
    kinds: list[Callable[[], bytes]] = [
        lambda: good,
        lambda: bare,
        lambda: gzip.compress(bare, 1),
        lambda: zstd(good),
        lambda: legacy_container(bare, CURRENT),
        lambda: legacy_container(good, LOST),
        lambda: zipped({"a.db": bare, "b.db": good}),
        lambda: good[:5000],
        lambda: b"",
        lambda: b"PGDMP" + os.urandom(999),
    ]
    for number in range(400):
        put(old / f"{number:03}.db", kinds[number % len(kinds)]())
    verdicts, figures = run_python(MANY, old, scratch, CURRENT.hex()).stdout.split("|")
    counted = {
        "holds data": 160,
        "schema only": 160,
        "key missing": 40,
        "corrupt": 40,
        "empty": 40,
        "not a database": 40,
    }
    assert eval(verdicts) == counted  # 400 files, and two members in each ZIP
    grown, peak, seconds = map(float, figures.split())
    assert grown < 32
    assert names_in(scratch) == set()
    with capsys.disabled():
        print(f"\n400 archives: {seconds} s, peak {peak:.0f} MiB, {grown:.0f} MiB more than for one")


def test_a_cancel_ends_the_run_and_leaves_nothing(old: Path, scratch: Path, good: bytes):
    put(old / "a.db", good)
    asked = iter([False] * 5)
    watch = Watch(is_cancelled=lambda: next(asked, True))
    with pytest.raises(CancelledError):
        list(judge_all([old], scratch=scratch, watch=watch))
    assert names_in(scratch) == set()
    with pytest.raises(DeadlineError):
        list(judge_all([old], scratch=scratch, watch=Watch(deadline_seconds=0)))


def test_progress_is_reported(old: Path, scratch: Path, good: bytes):
    seen: list[tuple[str, int, int]] = []
    judged(put(old / "a.db", good), scratch, watch=Watch(on_progress=lambda *report: seen.append(report)))
    assert ("judge", len(good), len(good)) in seen


# Import


def test_a_judged_payload_can_be_made_an_archive_of_ours(tmp_path: Path, old: Path, scratch: Path, good: bytes):
    stored = zipped({"a/b.enc": legacy_container(good, CURRENT)})
    path = put(old / "a.zip", stored)
    options = TriageOptions(keys=[CURRENT], now=lambda: NOW)
    target = tmp_path / "target"
    target.mkdir()
    with judged_payload(path, member="a/b.enc", scratch=scratch, watch=Watch(), options=options) as payload:
        assert payload.judged.verdict == "holds data"
        assert payload.database is not None
        assert rows_of(payload.database)["auth_user"] == 1
        made = create_archive(payload.database, target, options=CreateOptions(), watch=Watch())
        assert made.snapshot.census.rows == ALL_ROWS
    assert names_in(scratch) == set()


def test_a_payload_with_a_wal_is_one_whole_file(tmp_path: Path, old: Path, scratch: Path):
    path = copy_with_wal(tmp_path, old / "a.db")
    with judged_payload(path, scratch=scratch, watch=Watch()) as payload:
        assert payload.database is not None
        assert names_in(payload.database.parent) == {payload.database.name}
        assert rows_of(payload.database)["shop_sale"] == 2


def test_what_is_not_sound_has_no_payload(old: Path, scratch: Path, good: bytes):
    for content in (good[:5000], b"PGDMP", legacy_container(good, LOST)):
        with judged_payload(put(old / "a", content), scratch=scratch, watch=Watch()) as payload:
            assert payload.database is None
    with pytest.raises(NotFoundError), judged_payload(old / "a", member="no", scratch=scratch, watch=Watch()):
        pass
    assert names_in(scratch) == set()


# Anything


SEEDS = threading.local()


def seeds() -> list[bytes]:
    if not hasattr(SEEDS, "made"):
        with tempfile.TemporaryDirectory() as folder:
            database = build(Path(folder) / "a.db", f"PRAGMA page_size=512; {SITE}{MIGRATED}{DATA}").read_bytes()
        SEEDS.made = [
            database,
            gzip.compress(database),
            zstd(database),
            legacy_container(database, CURRENT),
            zipped({"a.db": database, "b.gz": gzip.compress(database)}),
            zipped({"a.db": database}, method=zipfile.ZIP_STORED),
            legacy_container(zipped({"a.zst": zstd(database)}), CURRENT),
        ]
    return SEEDS.made


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    content = bytearray(draw(st.sampled_from(seeds())))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
    return bytes(content[: draw(st.integers(0, len(content)) | st.just(len(content)))])


BEGINNINGS = [b"", b"SQLite format 3\x00", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", AGE, b"PK\x03\x04", b"PGDMP"]


@settings(deadline=None, max_examples=300)
@given(mutated() | st.builds(lambda start, rest: start + rest, st.sampled_from(BEGINNINGS), st.binary(max_size=200)))
def test_any_bytes_give_a_verdict_and_leave_nothing(content: bytes):
    with tempfile.TemporaryDirectory() as folder:
        source, scratch = Path(folder) / "source", Path(folder) / "scratch"
        source.mkdir()
        scratch.mkdir(mode=0o700)
        found = judged(put(source / "a", content), scratch, keys=[CURRENT], open_age=open_aged)
        assert all(each.verdict in VERDICTS for each in found.with_members())
        assert "could not be judged" not in found.reason
        assert (source / "a").read_bytes() == content
