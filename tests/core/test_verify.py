"""Judging a copy: what each level finds, and what is never called corrupt."""

from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backups_app.core.errors import (
    CancelledError,
    DeadlineError,
    DiskFullError,
    KeyMissingError,
    UnreachableError,
    VerificationError,
)
from backups_app.core.manifest import Manifest
from backups_app.core.progress import Watch
from backups_app.core.verify import (
    Check,
    check_database,
    failures,
    reason_of,
    unpack,
    verdict_for,
    verify_full,
    verify_quick,
)
from tests.support import (
    Stored,
    build,
    build_shop,
    bytes_in,
    compressed,
    connected,
    integrity_of,
    names_in,
    opener,
    store,
)


def check(path: Path, *, is_thorough: bool = True, **options: object) -> list[Check]:
    return check_database(path, **{"expected": None, "is_thorough": is_thorough, "watch": Watch(), **options})


def full(
    stored: Stored, scratch: Path, *, manifest: Manifest | None = None, tables: tuple[str, ...] = ()
) -> list[Check]:
    return verify_full(stored.open, manifest or stored.manifest, required_tables=tables, scratch=scratch, watch=Watch())


def quick(stored: Stored, *, manifest: Manifest | None = None) -> list[Check]:
    return verify_quick(stored.open, manifest or stored.manifest, watch=Watch())


def failed_names(checks: list[Check]) -> list[str]:
    return [each.name for each in failures(checks)]


def with_changed_content(stored: Stored, changed: Path) -> Stored:
    """The archive replaced by another whole one whose stored digest the manifest knows.

    As if the bytes had changed in memory before they were compressed.
    """
    written = compressed(changed, stored.archive)
    manifest = replace(stored.manifest, archive_bytes=written.archive_bytes, archive_sha256=written.archive_sha256)
    return replace(stored, manifest=manifest)


# Good copies


def test_a_good_copy_passes_both_levels_and_leaves_no_plaintext(stored: Stored, scratch: Path):
    assert [each.name for each in quick(stored)] == ["stored bytes"]
    checks = full(stored, scratch, tables=("sale", "product"))
    assert [each.name for each in checks] == [
        "stored bytes",
        "content digest",
        "integrity_check",
        "foreign_key_check",
        "census",
        "required tables",
    ]
    assert all(each.ok for each in checks + quick(stored))
    assert reason_of(checks) == ""
    assert names_in(scratch) == set()


def test_a_copy_of_an_empty_database_passes(tmp_path: Path, scratch: Path):
    (tmp_path / "empty.db").touch()
    stored = store(tmp_path / "empty.db", tmp_path / "store")
    assert failures(full(stored, scratch)) == []
    assert failed_names(full(stored, scratch, tables=("sale",))) == ["required tables"]
    assert names_in(scratch) == set()


def test_a_check_is_json(stored: Stored):
    assert quick(stored)[0].as_dict() == {
        "name": "stored bytes",
        "ok": True,
        "evidence": quick(stored)[0].evidence,
        "advisory": False,
    }


# Bad copies


@pytest.mark.parametrize("at", [0, 4, 5, 10, 100, -5, -1])
def test_a_flipped_bit_in_the_stored_file_fails_both_levels(stored: Stored, scratch: Path, at: int):
    damaged = bytearray(stored.archive.read_bytes())
    damaged[at] ^= 4
    stored.archive.write_bytes(damaged)
    assert failed_names(quick(stored)) == ["stored bytes"]
    assert "stored bytes" in failed_names(full(stored, scratch))
    assert names_in(scratch) == set()


def test_a_cut_or_longer_file_is_told_with_both_sizes(stored: Stored, scratch: Path):
    whole = stored.archive.read_bytes()
    for content in (whole[:-1], whole + b"\0", b""):
        stored.archive.write_bytes(content)
        assert f"{len(content):,} bytes are stored, {len(whole):,} were written" in reason_of(quick(stored))
        assert "stored bytes" in failed_names(full(stored, scratch))
    assert names_in(scratch) == set()


def test_a_flipped_bit_inside_a_row_is_found_by_the_digest_alone(stored: Stored, scratch: Path, tmp_path: Path):
    changed = tmp_path / "changed.db"
    assert failures(unpack(stored.open, stored.manifest, changed, watch=Watch())) == []
    content = bytearray(changed.read_bytes())
    at = content.index(b"second")
    content[at] ^= 1
    changed.write_bytes(content)
    assert integrity_of(changed) == "ok", "SQLite itself sees nothing"
    assert failures(check(changed, expected=stored.manifest.census)) == [], "neither does a count"
    rotten = with_changed_content(stored, changed)
    assert failures(quick(rotten)) == [], "the stored bytes are those that were written"
    assert failed_names(full(rotten, scratch)) == ["content digest"]
    assert names_in(scratch) == set()


def test_a_schema_without_rows_is_found_by_the_census(stored: Stored, scratch: Path, tmp_path: Path):
    # What 349 backups of the original report were: sound, and empty.
    hollow = build_shop(tmp_path / "hollow.db", journal_mode="delete")
    with connected(hollow) as connection:
        connection.executescript("DELETE FROM sale; DELETE FROM product;")
    assert integrity_of(hollow) == "ok"
    checks = check(hollow, expected=stored.manifest.census, required_tables=("sale",))
    assert failed_names(checks) == ["census", "required tables"]
    assert "table sale: 4 rows expected, 0 rows found" in reason_of(checks)


def test_a_manifest_with_another_digest_census_or_size_fails(stored: Stored, scratch: Path):
    manifest = stored.manifest
    assert failed_names(full(stored, scratch, manifest=replace(manifest, sha256="0" * 64))) == ["content digest"]
    assert failed_names(quick(stored, manifest=replace(manifest, archive_sha256="0" * 64))) == ["stored bytes"]
    smaller = replace(manifest, size_bytes=manifest.size_bytes - 1)
    assert failed_names(full(stored, scratch, manifest=smaller)) == ["decompression"]
    larger = replace(manifest, size_bytes=manifest.size_bytes + 1)
    assert failed_names(full(stored, scratch, manifest=larger)) == ["content digest"]
    richer = replace(manifest, census=replace(manifest.census, tables={**manifest.census.tables, "sale": 5}))
    assert failed_names(full(stored, scratch, manifest=richer)) == ["census"]
    assert names_in(scratch) == set()


def test_required_tables_without_rows_fail(stored: Stored, scratch: Path):
    assert failed_names(full(stored, scratch, tables=("sale", "missing"))) == ["required tables"]


# Stores and disks


def test_a_missing_archive_is_not_called_corrupt(stored: Stored, scratch: Path):
    def refuse() -> io.BytesIO:
        raise UnreachableError("The store does not answer.")

    for level in (
        lambda: verify_quick(opener(refuse), stored.manifest, watch=Watch()),
        lambda: verify_full(opener(refuse), stored.manifest, required_tables=(), scratch=scratch, watch=Watch()),
    ):
        with pytest.raises(UnreachableError):
            level()
    assert names_in(scratch) == set()


def test_a_store_that_breaks_off_in_the_middle_is_not_called_corrupt(stored: Stored, scratch: Path):
    class Breaking(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            if self.tell():
                raise UnreachableError("The store does not answer any more.")
            return super().read(50)

    content = stored.archive.read_bytes()
    with pytest.raises(UnreachableError):
        verify_full(
            opener(lambda: Breaking(content)), stored.manifest, required_tables=(), scratch=scratch, watch=Watch()
        )
    assert names_in(scratch) == set()


def test_no_room_to_unpack_is_no_verdict_and_leaves_nothing(stored: Stored, scratch: Path):
    with pytest.raises(DiskFullError):
        full(stored, scratch, manifest=replace(stored.manifest, size_bytes=1 << 60))
    assert names_in(scratch) == set()


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (UnreachableError("x"), "unreachable"),
        (KeyMissingError("x"), "key_missing"),
        (VerificationError("x"), "failed"),
    ],
)
def test_an_error_stands_for_one_verdict(error: VerificationError | KeyMissingError, verdict: str):
    assert verdict_for(error) == verdict


@pytest.mark.parametrize("phase", ["unpack", "check"])
def test_a_cancel_leaves_no_plaintext(large_database: Path, tmp_path: Path, scratch: Path, phase: str):
    stored = store(large_database, tmp_path / "store")
    archive_bytes = stored.manifest.archive_bytes
    done = 0

    def on_progress(_phase: str, done_bytes: int, _total: int) -> None:
        nonlocal done
        done = done_bytes

    limit = archive_bytes // 2 if phase == "unpack" else archive_bytes
    looks_after = 0

    def is_cancelled() -> bool:
        nonlocal looks_after
        looks_after += done >= limit
        return looks_after > 2  # for the whole archive: two looks later, inside the check

    watch = Watch(on_progress=on_progress, is_cancelled=is_cancelled)
    with pytest.raises(CancelledError):
        verify_full(stored.open, stored.manifest, required_tables=(), scratch=scratch, watch=watch)
    assert names_in(scratch) == set()


def test_a_deadline_leaves_no_plaintext(stored: Stored, scratch: Path):
    with pytest.raises(DeadlineError):
        verify_full(stored.open, stored.manifest, required_tables=(), scratch=scratch, watch=Watch(deadline_seconds=0))
    assert names_in(scratch) == set()


# Files that nobody knows


@pytest.mark.parametrize("is_thorough", [True, False])
@pytest.mark.parametrize(
    "content",
    [b"text " * 2000, b"xy", b"SQLite format 3\0", b"SQLite format 3\0" + b"\xff" * 4080, bytes(8192)],
    ids=["text", "two bytes", "magic", "magic and noise", "zeros"],
)
def test_what_is_no_database_fails_and_is_left_as_it_is(tmp_path: Path, content: bytes, is_thorough: bool):
    (tmp_path / "file").write_bytes(content)
    assert failures(check(tmp_path / "file", is_thorough=is_thorough))
    assert bytes_in(tmp_path) == {"file": content}


def test_a_file_without_a_page_is_an_empty_database_unless_more_was_expected(tmp_path: Path, stored: Stored):
    (tmp_path / "empty").touch()
    assert failures(check(tmp_path / "empty")) == []
    assert failed_names(check(tmp_path / "empty", expected=stored.manifest.census)) == ["census"]


def test_a_database_cut_short_fails(tmp_path: Path):
    whole = build_shop(tmp_path / "shop.db").read_bytes()
    for length in range(4096, len(whole), 4096):
        (tmp_path / "cut").write_bytes(whole[:length])
        assert failures(check(tmp_path / "cut"))
        assert failures(check(tmp_path / "cut", is_thorough=False))


HOSTILE = {
    "a name that is not UTF-8": "UPDATE sqlite_schema SET name = CAST(x'ff41' AS TEXT), sql = 'CREATE TABLE nonsense'",
    "a blob as a name": "UPDATE sqlite_schema SET name = x'ff00'",
    "a blob that is the name": "UPDATE sqlite_schema SET name = CAST(name AS BLOB)",
    "a blob as the sql": "UPDATE sqlite_schema SET sql = CAST(sql AS BLOB)",
    "a blob as the type": "UPDATE sqlite_schema SET type = CAST(type AS BLOB)",
    "no name": "UPDATE sqlite_schema SET name = NULL",
    "a number as a name": "UPDATE sqlite_schema SET name = 5",
    "a number as the sql": "UPDATE sqlite_schema SET sql = 5",
    "no sql": "UPDATE sqlite_schema SET sql = NULL",
    "a page that is not there": "UPDATE sqlite_schema SET rootpage = 999999",
    "the schema's own page": "UPDATE sqlite_schema SET rootpage = 1",
    "a view that is a table": "UPDATE sqlite_schema SET sql = 'CREATE VIEW t AS SELECT 1'",
    "a view that is endless": (
        "INSERT INTO sqlite_schema VALUES ('view', 'v', 'v', 0, 'CREATE VIEW v AS SELECT * FROM v')"
    ),
    "an unknown module": (
        "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING evil(x)')"
    ),
    "a module that is not UTF-8": (
        "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, "
        "'CREATE VIRTUAL TABLE v USING ' || CAST(x'ff41' AS TEXT) || '(x)')"
    ),
    "a virtual table without its tables": (
        "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING fts5(x)')"
    ),
}


@pytest.mark.parametrize("is_thorough", [True, False])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_schema_gives_checks_and_never_an_exception(tmp_path: Path, kind: str, is_thorough: bool):
    database = build(
        tmp_path / "hostile.db",
        f"CREATE TABLE t (a); INSERT INTO t VALUES (1); PRAGMA writable_schema=ON; {HOSTILE[kind]};",
    )
    before = bytes_in(tmp_path)
    assert check(database, is_thorough=is_thorough)
    assert bytes_in(tmp_path) == before


def test_a_view_that_counts_for_ever_cannot_hold_the_check_up(tmp_path: Path):
    # A full-text table whose content is an endless view: counting it would never end.
    database = build(
        tmp_path / "hostile.db",
        "CREATE VIEW endless AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
        "SELECT id, 'x' AS body FROM n;"
        "CREATE VIRTUAL TABLE t USING fts5(body, content='endless', content_rowid='id');",
    )
    with pytest.raises(DeadlineError):
        check(database, watch=Watch(deadline_seconds=0.3))


def test_findings_of_a_damaged_index_are_listed_and_limited(tmp_path: Path):
    database = build(
        tmp_path / "made.db",
        "CREATE TABLE t (a); CREATE INDEX i ON t (a);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100) INSERT INTO t SELECT i FROM n;"
        "CREATE TABLE other (a); CREATE INDEX empty ON other (a); PRAGMA writable_schema=ON;"
        "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'empty') "
        "WHERE name = 'i';",
    )
    structure = check(database)[0]
    assert (structure.name, structure.ok) == ("integrity_check", False)
    assert structure.evidence.count("missing from index") <= 10
    assert "\n" not in structure.evidence


def test_quick_check_does_not_find_what_integrity_check_finds(tmp_path: Path):
    # The reason for two levels: an index that lacks an entry.
    database = build(
        tmp_path / "made.db",
        "CREATE TABLE t (a); CREATE TABLE u (a); CREATE INDEX i ON t (a); INSERT INTO t VALUES (1), (2);"
        "CREATE INDEX j ON u (a); INSERT INTO u VALUES (1), (9); PRAGMA writable_schema=ON;",
    )
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        pages = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema").fetchall())
    content = bytearray(database.read_bytes())
    first, second = (pages["i"] - 1) * 4096, (pages["j"] - 1) * 4096
    content[first : first + 4096] = content[second : second + 4096]
    database.write_bytes(content)
    assert failed_names(check(database, is_thorough=True)) == ["integrity_check"]
    assert failed_names(check(database, is_thorough=False)) == []


def test_check_constraints_say_nothing_about_the_copy(tmp_path: Path):
    # They may call functions that only the application has, and old rows may break newer ones.
    database = tmp_path / "made.db"
    with connected(database) as connection:
        connection.create_function("regexp", 2, lambda pattern, text: pattern in text, deterministic=True)
        connection.executescript(
            """
            CREATE TABLE called (a TEXT CHECK (a REGEXP 'x')); INSERT INTO called VALUES ('x');
            CREATE TABLE broken (a INTEGER CHECK (a > 0)); PRAGMA ignore_check_constraints=ON;
            INSERT INTO broken VALUES (-1);
            """
        )
    for is_thorough in (True, False):
        checks = check(database, is_thorough=is_thorough)
        assert (checks[0].ok, checks[0].evidence) == (True, "ok")
