"""Archives made to harm whoever judges them: each ends with a verdict, soon, and without a trace.

That scratch is left empty and the source unchanged is asserted by ``judged`` for every one.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import socket
import sqlite3
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from backups_app.core.archive import compress
from backups_app.core.progress import Watch
from backups_app.core.triage import Judged, Limits, engine, judge_all
from tests.foreign import copy_with_wal, legacy_container
from tests.judging import judged
from tests.support import build, build_shop, connected, holding, names_in

KEY = os.urandom(32)
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of the old archives."""
    folder = tmp_path / "old"
    folder.mkdir()
    return folder


def soon(path: Path, scratch: Path, *, seconds: float = 10, **options: Any) -> Judged:
    """The judgement, which must come in time."""
    started = time.monotonic()
    found = judged(path, scratch, **options)
    assert time.monotonic() - started < seconds
    return found


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def edited(path: Path, script: str) -> Path:
    """A database after statements that only an attacker would execute."""
    with connected(path) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.executescript(script)
    return path


# Schemas


def test_endless_views_and_triggers_are_not_run(old: Path, scratch: Path):
    script = f"CREATE VIEW v AS {ENDLESS}; CREATE TRIGGER g AFTER INSERT ON product BEGIN {ENDLESS}; END;"
    path = edited(build_shop(old / "a.db"), script)
    assert soon(path, scratch).verdict == "holds data"


def test_a_view_that_grows_with_every_mention_is_not_expanded(old: Path, scratch: Path):
    views = "".join(f"CREATE VIEW v{n} AS SELECT * FROM v{n - 1} a, v{n - 1} b;" for n in range(1, 40))
    path = build(old / "a.db", f"CREATE TABLE v0 (x); {views}")
    assert soon(path, scratch).verdict == "schema only"


def test_a_view_in_the_place_of_a_table_is_refused_by_sqlite(old: Path, scratch: Path):
    for column, value in (("type", "'view'"), ("name", "'other'")):
        path = build(old / f"{column}.db", f"CREATE TABLE t (x); CREATE VIEW v AS {ENDLESS}")
        edited(path, f"UPDATE sqlite_schema SET {column} = 'table' WHERE name = 'v'; SELECT {value}")
        assert soon(path, scratch).verdict == "corrupt"


def test_an_expression_that_takes_for_ever_ends_at_the_limit(old: Path, scratch: Path):
    slow = "x" + " + 0 * length(hex(zeroblob(900000 + x)))" * 20
    rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000) SELECT i FROM n"
    path = build(old / "a.db", f"CREATE TABLE t (x); INSERT INTO t {rows}")
    # An index over x holds what this expression gives; making it would itself take too long.
    edited(
        path, f"CREATE INDEX i ON t (x); UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t ({slow})' WHERE name='i'"
    )
    found = soon(path, scratch, limits=Limits(seconds=1), seconds=5)
    assert (found.verdict, found.is_judged, found.is_useless) == ("not a database", False, False)
    assert "took longer than 1 s" in found.reason


def test_an_expression_that_fills_the_memory_is_refused(old: Path, scratch: Path):
    path = build(old / "a.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1); CREATE INDEX i ON t (x)")
    sql = "CREATE INDEX i ON t (hex(zeroblob(400000000 + x)))"
    edited(path, f"UPDATE sqlite_schema SET sql = '{sql}' WHERE name='i'")
    found = soon(path, scratch)
    assert (found.verdict, found.is_judged) == ("not a database", False)


def test_generated_columns_tell_no_time_and_do_not_spoil_the_verdict(old: Path, scratch: Path):
    script = "CREATE TABLE t (x, created_at TEXT AS ('2026-01-01'), made_at TEXT AS ('2026-01-01') STORED)"
    found = soon(build(old / "a.db", f"{script}; INSERT INTO t VALUES (1), (2)"), scratch)
    assert (found.verdict, found.newest_row_at) == ("holds data", None)


def test_a_virtual_table_of_an_unknown_module_is_not_read(old: Path, scratch: Path):
    path = build_shop(old / "a.db")
    edited(path, "INSERT INTO sqlite_schema VALUES ('table','v','v',0,'CREATE VIRTUAL TABLE v USING evil(x)')")
    assert soon(path, scratch).verdict == "holds data"
    with connected(path) as connection:
        connection.execute("DELETE FROM sale")
        connection.execute("DELETE FROM product")
    assert soon(path, scratch).verdict == "schema only"


def test_functions_and_collations_of_the_application_do_not_spoil_the_verdict(old: Path, scratch: Path):
    path = build(old / "a.db", "CREATE TABLE t (x, created_at); INSERT INTO t VALUES (1, '2026-01-01')")
    edited(path, "UPDATE sqlite_schema SET sql = 'CREATE TABLE t (x CHECK (mine(x)), created_at COLLATE theirs)'")
    found = soon(path, scratch)
    assert (found.verdict, found.newest_row_at) == ("holds data", "2026-01-01T00:00:00.000000Z")


@pytest.mark.parametrize("name", ['a"; DROP TABLE x; --', "a'b", "[x]", "näme", "", "sqlite", "a\nb"])
def test_names_are_only_names(old: Path, scratch: Path, name: str):
    quoted = '"' + name.replace('"', '""') + '"'
    path = build(old / "a.db", f"CREATE TABLE {quoted} (created_at); INSERT INTO {quoted} VALUES ('2026-01-01')")
    assert soon(path, scratch).newest_row_at == "2026-01-01T00:00:00.000000Z"


def test_a_table_whose_name_is_not_utf8_is_never_called_empty(old: Path, scratch: Path):
    path = build(old / "a.db", "CREATE TABLE odd_name (x); INSERT INTO odd_name VALUES (1)")
    path.write_bytes(path.read_bytes().replace(b"odd_name", b"odd\xff\xfe\xfdme"))
    found = soon(path, scratch)
    assert not found.is_useless
    assert found.verdict in ("not a database", "corrupt")


def many_tables(path: Path, count: int, *, page_bytes: int = 512) -> Path:
    """A database of so many tables, built without asking SQLite to create each one."""
    with connected(path) as connection:
        connection.executescript(f"PRAGMA page_size={page_bytes}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
        connection.execute("CREATE TABLE first (x)")
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO sqlite_schema VALUES ('table', ?, ?, ?, ?)",
            ((f"t{n}", f"t{n}", 1_000_000 + n, f"CREATE TABLE t{n} (x)") for n in range(count)),
        )
        connection.execute("COMMIT")
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(
            "UPDATE sqlite_schema SET rootpage = rootpage - 1000000 + ? WHERE name <> 'first'", (pages + 1,)
        )
        assert connection.execute("PRAGMA page_count").fetchone()[0] == pages
    empty_leaf = struct.pack(">BHHHB", 0x0D, 0, 0, page_bytes, 0).ljust(page_bytes, b"\0")
    with path.open("r+b") as file:
        file.seek(28)
        file.write(struct.pack(">I", pages + count))
        file.seek(0, os.SEEK_END)
        file.write(empty_leaf * count)
    return path


def test_sixty_five_thousand_tables_are_counted(old: Path, scratch: Path):
    found = soon(many_tables(old / "a.db", 66_000), scratch, seconds=60)
    assert (found.verdict, found.tables, found.rows) == ("schema only", 66_001, 0)


def test_a_schema_beyond_the_limit_is_not_loaded(old: Path, scratch: Path):
    path = many_tables(old / "a.db", 3000)
    for limits in (Limits(schema_objects=2000), Limits(schema_bytes=10_000)):
        found = soon(path, scratch, limits=limits)
        assert (found.verdict, found.is_judged) == ("not a database", False)
        assert "schema has more than" in found.reason


def knotted(path: Path, *, of_schema: bool) -> Path:
    """A tree whose interior pages all refer to the same children: 100 to the power of its depth."""
    page_bytes = 4096
    with connected(path) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (1)")
    content = bytearray(path.read_bytes())
    depth, root = 12, 1 if of_schema else 2
    target = content[(root - 1) * page_bytes : root * page_bytes]
    pages = [bytes(page_bytes)] * depth
    for level in range(depth):
        child = level + 4
        cells = b"".join(struct.pack(">IB", child, n + 1) for n in range(100))
        start = page_bytes - len(cells)
        header = struct.pack(">BHHHBI", 0x05, 0, 100, start, 0, child)
        pointers = b"".join(struct.pack(">H", start + 5 * n) for n in range(100))
        pages[level] = (header + pointers).ljust(start, b"\0") + cells
    row = bytes([3, 1, 2, 1, 7])  # payload of 3 bytes, rowid 1, a record of one integer
    leaf = struct.pack(">BHHHBH", 0x0D, 0, 1, page_bytes - 5, 0, page_bytes - 5).ljust(page_bytes - 5, b"\0") + row
    if of_schema:
        body = pages[0]
        cells = body[-500:]
        pointers = b"".join(struct.pack(">H", page_bytes - 500 + 5 * n) for n in range(100))
        content[100:page_bytes] = (body[:12] + pointers).ljust(page_bytes - 600, b"\0") + cells
    else:
        content[page_bytes : 2 * page_bytes] = pages[0]
    content += bytes(target) + b"".join(pages[1:]) + leaf
    content[28:32] = struct.pack(">I", len(content) // page_bytes)
    return put(path, bytes(content))


@pytest.mark.parametrize("of_schema", [True, False])
def test_a_tree_that_refers_to_its_pages_again_and_again_has_an_end(old: Path, scratch: Path, of_schema: bool):
    found = soon(knotted(old / "a.db", of_schema=of_schema), scratch, limits=Limits(seconds=2))
    # SQLite's own check names the knot in a table, but may walk all rows before it ends.
    assert found.verdict == "corrupt" or (not of_schema and "took longer than 2 s" in found.reason)
    assert not found.is_useless


def test_counting_an_endless_tree_is_interrupted(old: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    # As if the structure check had not seen it: counting is one instruction for SQLite.
    from backups_app.core.triage import database
    from backups_app.core.verify import Check

    ok = Check(name="quick_check", ok=True, evidence="ok")
    monkeypatch.setattr(database, "check_structure", lambda connection, *, is_thorough: ok)
    found = soon(knotted(old / "a.db", of_schema=False), scratch, limits=Limits(seconds=1), seconds=5)
    assert (found.verdict, found.is_judged) == ("not a database", False)
    assert "took longer than 1 s" in found.reason


# Bombs


def zstd(pieces: Iterator[bytes], size_bytes: int) -> bytes:
    return b"".join(compress(pieces, level=1, workers=0, size_bytes=size_bytes))


def zeros(count: int, *, start: bytes = b"") -> Iterator[bytes]:
    yield start
    piece = bytes(1 << 20)
    for _ in range(count):
        yield piece


def zip_of(target: Path, start: bytes, mebibytes: int) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("bomb", "w") as member:
        for piece in zeros(mebibytes, start=start):
            member.write(piece)
    return target


def gzip_of(target: Path, start: bytes, mebibytes: int) -> Path:
    with gzip.open(target, "wb", compresslevel=1) as file:
        for piece in zeros(mebibytes, start=start):
            file.write(piece)
    return target


def zstd_of(target: Path, start: bytes, mebibytes: int) -> Path:
    return put(target, zstd(zeros(mebibytes, start=start), len(start) + (mebibytes << 20)))


BOMBS = [gzip_of, zstd_of, zip_of]
SMALL = Limits(unchecked_bytes=16 << 20, ratio=10)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_of_nothing_known_is_not_unpacked_beyond_its_beginning(old: Path, scratch: Path, bomb: Any):
    found = soon(bomb(old / "a", b"", 300), scratch, seconds=2)
    assert all(each.verdict == "not a database" for each in found.with_members())


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_that_begins_as_a_database_ends_at_the_limit(
    old: Path, scratch: Path, bomb: Any, monkeypatch: pytest.MonkeyPatch
):
    largest = 0
    spool = engine.spool

    def measured(pieces: Iterator[bytes], target: Path) -> Path:
        return spool(watched(pieces, target), target)

    def watched(pieces: Iterator[bytes], target: Path) -> Iterator[bytes]:
        nonlocal largest
        for piece in pieces:
            yield piece
            largest = max(largest, target.stat().st_size)

    monkeypatch.setattr(engine, "spool", measured)
    found = soon(bomb(old / "a", b"SQLite format 3\0", 300), scratch, limits=SMALL, seconds=5)
    inner = list(found.with_members())[-1]
    assert (inner.verdict, inner.is_judged, found.is_useless) == ("not a database", False, False)
    assert "unpacks to more than" in inner.reason
    assert 0 < largest < 40 << 20


def test_the_limit_is_for_all_members_together(old: Path, scratch: Path):
    with zipfile.ZipFile(old / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(40):
            archive.writestr(f"{number}", b"SQLite format 3\0" + bytes(1 << 20))
    found = soon(old / "a.zip", scratch, limits=SMALL)
    assert "unpacks to more than" in found.members[-1].reason
    assert not found.is_judged


def test_no_more_scratch_is_taken_than_its_share(old: Path, scratch: Path):
    found = soon(build_shop(old / "a.db"), scratch, limits=Limits(scratch_share=0))
    assert (found.verdict, found.is_judged) == ("not a database", False)
    assert "the free scratch space" in found.reason


@pytest.mark.parametrize("wrap", [gzip.compress, lambda each: zstd(iter([each]), len(each))])
def test_thousands_of_empty_frames_end_at_the_time_limit(old: Path, scratch: Path, wrap: Any):
    found = soon(put(old / "a", wrap(b"") * 400_000), scratch, limits=Limits(seconds=1), seconds=8)
    assert found.verdict in ("not a database", "empty")


def test_layers_within_layers_have_an_end(old: Path, scratch: Path):
    content = b"PGDMP"
    for _ in range(30):
        content = gzip.compress(content)
    found = soon(put(old / "a", content), scratch)
    assert (found.verdict, found.is_judged) == ("not a database", False)
    assert "more than 6 layers" in found.reason


# Files


def test_a_link_is_not_followed(old: Path, scratch: Path, tmp_path: Path):
    build_shop(tmp_path / "real.db")
    (old / "a.db").symlink_to(tmp_path / "real.db")
    (old / "b.db").symlink_to(old / "nowhere")
    for name in ("a.db", "b.db"):
        found = soon(old / name, scratch)
        assert (found.verdict, found.format, found.is_judged) == ("not a database", "symbolic link", False)


def test_what_is_no_plain_file_is_never_opened(old: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    os.mkfifo(old / "fifo")
    (old / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(old / "socket"))
    with suppress(PermissionError):  # root alone may make a device
        os.mknod(old / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    opens(monkeypatch, old, lambda *given: pytest.fail(f"opened {given}"))
    for name in ("fifo", "socket", "device", "folder", "missing", "x" * 300, "null\0byte"):
        found = soon(old / name, scratch)
        assert (found.verdict, found.is_judged, found.is_useless) == ("not a database", False, False)


def opens(monkeypatch: pytest.MonkeyPatch, folder: Path, instead: Callable[..., int]) -> None:
    """Replace the opening of files in one folder."""
    really_open = os.open

    def replaced(path: Any, *given: Any, **named: Any) -> int:
        is_there = isinstance(path, Path) and path.parent == folder
        return instead(path, *given) if is_there else really_open(path, *given, **named)

    monkeypatch.setattr(os, "open", replaced)


def test_a_fifo_that_takes_the_name_in_between_does_not_block(
    old: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
):
    path = build_shop(old / "a.db")
    really_open = os.open

    def swapped(name: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return really_open(name, flags)

    opens(monkeypatch, old, swapped)
    started = time.monotonic()
    found = next(judge_all([path], scratch=scratch, watch=Watch()))
    assert "replaced while it was opened" in found.reason
    assert time.monotonic() - started < 2


def test_a_file_that_cannot_be_read_says_so(old: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    path = build_shop(old / "a.db")

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    opens(monkeypatch, old, denied)
    found = soon(path, scratch)
    assert (found.verdict, found.is_judged) == ("not a database", False)
    assert found.reason == "It could not be read: Permission denied."


def test_a_file_that_changes_meanwhile_is_not_judged(old: Path, scratch: Path):
    path = build_shop(old / "a.db")

    def write(*_: object) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    found = next(judge_all([path], scratch=scratch, watch=Watch(on_progress=write)))
    assert (found.verdict, found.is_judged, found.sha256) == ("not a database", False, None)
    assert "changed while it was read" in found.reason


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def test_an_excluded_database_keeps_the_locks_of_this_process(old: Path, scratch: Path):
    path = build(old / "live.db", "CREATE TABLE t (x)")
    other = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('INSERT INTO t VALUES (1)')"
    with connected(path) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        found = soon(path, scratch, exclude=frozenset({identity(path)}))
        assert (found.format, found.is_judged) == ("live database", False)
        blocked = subprocess.run([sys.executable, "-c", other, path], capture_output=True, text=True, check=False)
        assert "database is locked" in blocked.stderr


def test_the_shm_of_a_live_database_is_never_opened(old: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    path = build_shop(old / "live.db")
    with holding(path, "PRAGMA journal_mode=WAL", "BEGIN", "SELECT * FROM sale"):
        (old / "live.db-shm").touch()
        opens(monkeypatch, old, lambda *given: pytest.fail(f"opened {given}"))
        found = next(judge_all([old / "live.db-shm"], scratch=scratch, watch=Watch()))
    assert (found.verdict, found.is_useless) == ("not a database", False)


# What lies beside a database


def test_a_sidecar_that_is_a_link_is_not_followed(tmp_path: Path, old: Path, scratch: Path):
    path = copy_with_wal(tmp_path, old / "a.db")
    shutil.move(old / "a.db-wal", tmp_path / "elsewhere")
    (old / "a.db-wal").symlink_to(tmp_path / "elsewhere")
    found = soon(path, scratch)
    assert (found.verdict, found.is_judged, found.is_useless) == ("not a database", False, False)
    assert "What lies beside it is not read" in found.reason


def test_a_journal_that_names_another_file_does_not_get_it_deleted(tmp_path: Path, old: Path, scratch: Path):
    victim = put(tmp_path / "victim", b"precious")
    path = build_shop(old / "a.db", journal_mode="persist")
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA cache_size=1")
        connection.execute("BEGIN")
        connection.execute("INSERT INTO sale (note) VALUES (hex(randomblob(99999)))")
        connection.execute("UPDATE sale SET note = hex(randomblob(99999))")
        shutil.copy2(path, old / "b.db")
        journal = Path(f"{path}-journal").read_bytes()
        connection.execute("ROLLBACK")
    connection.close()
    name = os.fsencode(victim)
    super_journal = struct.pack(">I", (1 << 30) // 4096 + 1) + name + struct.pack(">II", len(name), sum(name))
    put(old / "b.db-journal", journal + super_journal + bytes.fromhex("d9d505f920a163d7"))
    found = soon(old / "b.db", scratch)
    assert victim.read_bytes() == b"precious"
    assert not found.is_useless
    assert "was not replayed" in found.reason or found.verdict == "corrupt"


def test_a_wal_of_noise_changes_nothing(old: Path, scratch: Path):
    path = build_shop(old / "a.db")
    put(old / "a.db-wal", os.urandom(9000))
    found = soon(path, scratch)
    assert (found.verdict, found.rows) == ("holds data", 7)


def checksummed(content: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    """The checksum of a -wal (file format, section 4.2), little-endian."""
    first, second = sums
    words = struct.unpack(f"<{len(content) // 4}I", content)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second


def test_a_wal_that_asks_for_terabytes_is_refused(old: Path, scratch: Path):
    path = build_shop(old / "a.db")
    page, number = bytes(4096), 1 << 31
    header = struct.pack(">IIIIII", 0x377F0682, 3007000, 4096, 0, 1, 2)
    sums = checksummed(header, (0, 0))
    frame = struct.pack(">II", number, number)
    stored = header + struct.pack(">II", *sums) + frame + struct.pack(">II", 1, 2)
    put(old / "a.db-wal", stored + struct.pack(">II", *checksummed(frame + page, sums)) + page)
    found = soon(path, scratch)
    assert (found.verdict, found.is_judged, found.is_useless) == ("not a database", False, False)


def test_a_wal_beyond_the_limit_is_not_copied(tmp_path: Path, old: Path, scratch: Path):
    found = soon(copy_with_wal(tmp_path, old / "a.db"), scratch, limits=Limits(sidecar_bytes=100))
    assert (found.is_judged, found.is_useless) == (False, False)


# ZIPs


def write_zip(path: Path, members: dict[str, bytes], *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_names_that_climb_out_of_the_folder_are_only_shown(tmp_path: Path, old: Path, scratch: Path):
    names = ["../../climbed.db", f"{tmp_path}/absolute.db", "..\\back.db", "/etc/x.db", "a\x1b[2Jb.db", "c:\\d.db"]
    database = build_shop(tmp_path / "real.db").read_bytes()
    found = soon(write_zip(old / "a.zip", dict.fromkeys(names, database)), scratch)
    assert [each.verdict for each in found.members] == ["holds data"] * len(names)
    assert found.members[0].path.endswith("a.zip!../../climbed.db")
    assert "\x1b" not in found.members[4].path
    assert names_in(tmp_path) == {"old", "scratch", "real.db"}


def test_links_in_a_zip_are_not_followed(old: Path, scratch: Path):
    with zipfile.ZipFile(old / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("link.db")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert soon(old / "a.zip", scratch).members[0].format == "symbolic link"


def patched(path: Path, signature: bytes, offset: int, value: bytes) -> Path:
    """The ZIP with a field changed in every header of one kind."""
    content, at = bytearray(path.read_bytes()), -1
    while (at := content.find(signature, at + 1)) >= 0:
        content[at + offset : at + offset + len(value)] = value
    return put(path, bytes(content))


CENTRAL, LOCAL = b"PK\x01\x02", b"PK\x03\x04"


def test_a_member_with_a_password_is_key_missing(old: Path, scratch: Path):
    path = write_zip(old / "a.zip", {"a.db": b"secret"})
    patched(patched(path, CENTRAL, 8, b"\x01\0"), LOCAL, 6, b"\x01\0")
    found = soon(path, scratch)
    assert [each.verdict for each in found.with_members()] == ["key missing", "key missing"]
    assert "ZIP password" in found.members[0].reason


@pytest.mark.parametrize("size", [0, 1, 100, 0x7FFFFFFF])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_member_that_lies_about_its_size_is_corrupt_or_unknown(
    tmp_path: Path, old: Path, scratch: Path, size: int, method: int
):
    database = build_shop(tmp_path / "real.db").read_bytes()
    path = write_zip(old / "a.zip", {"a.db": database}, method=method)
    found = soon(patched(path, CENTRAL, 24, struct.pack("<I", size)), scratch)
    assert not found.is_useless
    assert found.members[0].verdict == "corrupt"


def test_other_compression_methods_are_not_read(old: Path, scratch: Path):
    found = soon(write_zip(old / "a.zip", {"a.db": b"x" * 999}, method=zipfile.ZIP_LZMA), scratch)
    assert (found.members[0].is_judged, found.is_judged) == (False, False)


def test_members_that_overlap_are_bounded_like_others(old: Path, scratch: Path):
    content = b"SQLite format 3\0" + bytes(4 << 20)
    one = write_zip(old / "one.zip", {"a": content}, method=zipfile.ZIP_DEFLATED).read_bytes()
    start = one.index(CENTRAL)
    entry = one[start : one.index(b"PK\x05\x06")]
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 500, 500, len(entry) * 500, start, 0)
    path = put(old / "a.zip", one[:start] + entry * 500 + end)
    found = soon(path, scratch, limits=SMALL)
    assert not found.is_useless
    assert len(found.members) == 500


def test_a_zip_within_itself_has_an_end(old: Path, scratch: Path):
    content = b"PGDMP"
    for _ in range(20):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("inner.zip", content)
        content = target.getvalue()
    rows = list(soon(put(old / "a.zip", content), scratch).with_members())
    assert len(rows) == 7
    assert "more than 6 layers" in rows[-1].reason
    assert not rows[0].is_judged


def test_a_huge_directory_is_not_loaded(old: Path, scratch: Path):
    path = write_zip(old / "a.zip", {f"{number}": b"" for number in range(200)})
    found = soon(path, scratch, limits=Limits(zip_directory_bytes=1000))
    assert (found.verdict, found.is_judged, found.is_useless) == ("not a database", False, False)
    found = soon(path, scratch, limits=Limits(members=50))
    assert (len(found.members), found.is_useless) == (50, False)
    assert "150 more were not judged" in found.reason


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_two(tmp_path: Path, old: Path, scratch: Path):
    with zipfile.ZipFile(old / "a.zip", "w") as archive:
        archive.writestr("a.db", b"")
        archive.writestr("a.db", build_shop(tmp_path / "real.db").read_bytes())
    found = soon(old / "a.zip", scratch)
    assert [(each.member, each.verdict) for each in found.members] == [("a.db", "empty"), ("a.db#2", "holds data")]


def test_a_zip_in_a_container_is_judged_from_scratch(tmp_path: Path, old: Path, scratch: Path):
    content = write_zip(tmp_path / "x.zip", {"a.db": build_shop(tmp_path / "real.db").read_bytes()}).read_bytes()
    found = soon(put(old / "a.enc", legacy_container(gzip.compress(content), KEY)), scratch, keys=[KEY])
    assert (found.format, found.members[0].verdict) == ("legacy enc+gzip+zip", "holds data")
