"""What a census counts, and how it tells a copy from a complete copy."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from backups_app.core.census import Census, quoted, take_census
from backups_app.core.errors import CancelledError, VerificationError, from_sqlite
from backups_app.core.progress import Watch
from backups_app.core.sqlite import open_snapshot
from tests.support import build, build_shop, connected


def census_of(path: Path) -> Census:
    with open_snapshot(path) as connection:
        return take_census(connection, watch=Watch())


def census_after(tmp_path: Path, script: str) -> Census:
    return census_of(build(tmp_path / "made.db", script))


def test_rows_are_counted_per_table_without_sqlites_own(tmp_path: Path):
    census = census_after(
        tmp_path,
        "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT); INSERT INTO a DEFAULT VALUES;"
        "CREATE TABLE b (x); INSERT INTO b VALUES (1), (2); CREATE TABLE empty (x); ANALYZE;"
        "CREATE VIEW v AS SELECT * FROM b; CREATE INDEX i ON b (x);",
    )
    assert census.tables == {"a": 1, "b": 2, "empty": 0}
    assert census.rows == 3
    assert census.uncounted == ()


@pytest.mark.parametrize(
    "name", ['with "quotes"', "with 'quotes'", "semi;colon", "näme ☕", "", "select", "a.b", "x]y"]
)
def test_table_names_are_only_names(tmp_path: Path, name: str):
    census = census_after(tmp_path, f"CREATE TABLE {quoted(name)} (x); INSERT INTO {quoted(name)} VALUES (1), (2)")
    assert census.tables == {name: 2}


def test_physical_facts_are_read(tmp_path: Path):
    census = census_after(
        tmp_path,
        "PRAGMA page_size=8192; PRAGMA encoding='UTF-16le'; PRAGMA auto_vacuum=INCREMENTAL;"
        "PRAGMA user_version=42; PRAGMA application_id=-7; CREATE TABLE t (x);",
    )
    assert (census.page_size, census.encoding, census.auto_vacuum) == (8192, "UTF-16le", 2)
    assert (census.user_version, census.application_id) == (42, -7)
    assert census.size_bytes == (tmp_path / "made.db").stat().st_size


def test_an_empty_file_has_no_page_and_no_table(tmp_path: Path):
    (tmp_path / "empty.db").touch()
    with connected(tmp_path / "empty.db") as connection:
        census = take_census(connection, watch=Watch())
    assert (census.tables, census.page_count, census.size_bytes, census.superusers) == ({}, 0, 0, None)


def test_the_schema_digest_sees_every_object_and_not_the_data(tmp_path: Path):
    plain = census_of(build_shop(tmp_path / "a.db"))
    with connected(build_shop(tmp_path / "b.db", journal_mode="delete")) as connection:
        connection.execute("DELETE FROM sale")
    assert census_of(tmp_path / "b.db").schema_sha256 == plain.schema_sha256
    for number, statement in enumerate(
        [
            "CREATE VIEW v AS SELECT 1",
            "CREATE INDEX i ON sale (note)",
            "CREATE TRIGGER g AFTER DELETE ON sale BEGIN SELECT 1; END",
            "ALTER TABLE sale ADD COLUMN extra",
            "DROP INDEX sale_product",
        ]
    ):
        changed = build_shop(tmp_path / f"{number}.db", journal_mode="delete")
        with connected(changed) as connection:
            connection.execute(statement)
        assert census_of(changed).schema_sha256 != plain.schema_sha256, statement


def test_the_schema_digest_does_not_depend_on_the_order_of_creation(tmp_path: Path):
    one = build(tmp_path / "one.db", "CREATE TABLE a (x); CREATE TABLE b (x);")
    two = build(tmp_path / "two.db", "CREATE TABLE b (x); CREATE TABLE a (x);")
    assert census_of(one).schema_sha256 == census_of(two).schema_sha256


def test_stored_virtual_tables_are_counted(tmp_path: Path):
    census = census_after(
        tmp_path,
        "CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES ('one'), ('two');"
        "CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES (1, 0, 1);",
    )
    assert (census.tables["words"], census.tables["boxes"]) == (2, 1)
    assert census.tables["words_content"] == 2
    assert census.uncounted == ()


def test_a_virtual_table_whose_content_is_missing_is_uncounted_but_its_stored_rows_are_not(tmp_path: Path):
    census = census_after(
        tmp_path,
        "CREATE TABLE post (id INTEGER PRIMARY KEY, body);"
        "CREATE VIRTUAL TABLE words USING fts5(body, content='post', content_rowid='id');"
        "INSERT INTO words (rowid, body) VALUES (1, 'one'); DROP TABLE post;",
    )
    assert census.uncounted == ("words",)
    assert census.tables["words_docsize"] == 1


def test_a_virtual_table_of_an_unknown_module_is_uncounted(tmp_path: Path):
    census = census_after(
        tmp_path,
        "CREATE TABLE t (x); INSERT INTO t VALUES (1); PRAGMA writable_schema=ON;"
        "INSERT INTO sqlite_schema VALUES ('table', 'v', 'v', 0, 'CREATE VIRTUAL TABLE v USING spellfix1(x)');",
    )
    assert census.uncounted == ("v",)
    assert census.tables == {"t": 1}


def test_broken_views_and_foreign_functions_do_not_stop_the_count(tmp_path: Path):
    database = tmp_path / "made.db"
    with connected(database) as connection:
        connection.create_function("regexp", 2, lambda pattern, text: pattern in text, deterministic=True)
        connection.executescript(
            """
            CREATE TABLE t (a TEXT CHECK (a REGEXP 'x'), b AS (regexp('x', a)));
            CREATE INDEX partial ON t (a) WHERE a REGEXP 'x';
            CREATE INDEX expression ON t (regexp('x', a));
            CREATE VIEW broken AS SELECT * FROM nowhere;
            CREATE VIEW foreign_function AS SELECT only_here(a) FROM t;
            INSERT INTO t (a) VALUES ('x'), ('xx');
            """
        )
    assert census_of(database).tables == {"t": 2}


@pytest.fixture
def collated(tmp_path: Path) -> Path:
    """Tables whose keys and indexes sort as only their application can, one in each encoding of a name."""
    database = tmp_path / "made.db"
    with connected(database) as connection:
        for name in ("greek", "Ä b"):
            connection.create_collation(name, lambda one, other: (one > other) - (one < other))
        connection.executescript(
            """
            PRAGMA encoding='UTF-16le';
            CREATE TABLE n (id INTEGER PRIMARY KEY, s TEXT COLLATE greek, filler TEXT);
            CREATE INDEX n_s ON n (s);
            CREATE TABLE m (s TEXT COLLATE GREEK, t TEXT COLLATE "Ä b", PRIMARY KEY (s, t)) WITHOUT ROWID;
            CREATE TABLE auth_user (username TEXT COLLATE greek UNIQUE, is_superuser, is_active, password);
            INSERT INTO n (s, filler) VALUES ('a', 'x'), ('b', 'y'), ('b', 'z');
            INSERT INTO m VALUES ('a', 'b'), ('c', 'd');
            INSERT INTO auth_user VALUES ('zoe', 1, 1, 'x'), ('ann', 1, 1, 'x'), ('bob', 0, 1, 'x');
            """
        )
    return database


def test_collations_of_the_application_do_not_stop_the_count(collated: Path):
    census = census_of(collated)
    assert census.tables == {"n": 3, "m": 2, "auth_user": 3}
    assert (census.uncounted, census.unreadable, census.superusers) == ((), (), 2)


def test_nothing_is_sorted_or_checked_by_a_collation_that_was_lent_for_counting(collated: Path):
    with open_snapshot(collated) as connection:
        assert take_census(connection, watch=Watch()).tables["m"] == 2
        for statement in ("SELECT s FROM n ORDER BY s", "SELECT count(*) FROM m", "PRAGMA integrity_check"):
            with pytest.raises(sqlite3.OperationalError, match="no such collation sequence"):
                connection.execute(statement).fetchall()


def test_a_collation_that_only_the_application_has_is_named_with_a_hint(collated: Path):
    with open_snapshot(collated) as connection, pytest.raises(sqlite3.OperationalError) as raised:
        connection.execute("SELECT s FROM n ORDER BY s")
    error = from_sqlite(raised.value, doing="reading made.db")
    assert "no such collation sequence: greek" in error.message
    assert "Only the application" in error.hint


def test_a_table_whose_name_is_not_utf8_is_uncounted(tmp_path: Path):
    sql = b"CREATE TABLE \xff41 (a)".hex()
    census = census_after(
        tmp_path,
        "CREATE TABLE t (a); PRAGMA writable_schema=ON; UPDATE sqlite_schema SET "
        f"name = CAST(x'ff3431' AS TEXT), tbl_name = CAST(x'ff3431' AS TEXT), sql = CAST(x'{sql}' AS TEXT)",
    )
    assert census.tables == {}
    assert census.uncounted == ("\udcff41",)


@pytest.mark.parametrize("column", ["type", "name", "sql"])
def test_a_hostile_schema_that_holds_blobs_is_read_like_text(tmp_path: Path, column: str):
    honest = census_of(build(tmp_path / "honest.db", "CREATE TABLE t (a); INSERT INTO t VALUES (1)"))
    census = census_after(
        tmp_path,
        "CREATE TABLE t (a); INSERT INTO t VALUES (1); PRAGMA writable_schema=ON;"
        f"UPDATE sqlite_schema SET {column} = CAST({column} AS BLOB)",
    )
    assert census.tables == {"t": 1}
    assert census.schema_sha256 == honest.schema_sha256


def test_applied_django_migrations_are_listed_sorted_and_once(tmp_path: Path):
    census = census_after(
        tmp_path,
        "CREATE TABLE django_migrations (id INTEGER PRIMARY KEY, app, name, applied);"
        "INSERT INTO django_migrations (app, name) VALUES ('shop', '0002_b'), ('shop', '0001_a'), "
        "('auth', '0001_initial'), ('shop', '0001_a');",
    )
    assert census.migrations == (("auth", "0001_initial"), ("shop", "0001_a"), ("shop", "0002_b"))


def test_a_table_that_only_has_the_name_of_the_migrations_is_no_obstacle(tmp_path: Path):
    assert census_after(tmp_path, "CREATE TABLE django_migrations (something)").migrations == ()


PEOPLE = (
    "CREATE TABLE {table} (id INTEGER PRIMARY KEY, is_superuser bool, is_active bool, password TEXT);"
    "INSERT INTO {table} (is_superuser, is_active, password) VALUES {rows};"
)


def test_only_active_superusers_who_can_log_in_are_counted(tmp_path: Path):
    rows = "(1, 1, 'pbkdf2'), (1, 1, 'argon2'), (0, 1, 'x'), (1, 0, 'x'), (1, 1, '!unusable'), (1, 1, '')"
    assert census_after(tmp_path, PEOPLE.format(table="auth_user", rows=rows)).superusers == 2


def test_a_custom_user_model_is_found_by_its_shape(tmp_path: Path):
    assert census_after(tmp_path, PEOPLE.format(table="people_person", rows="(1, 1, 'x')")).superusers == 1


def test_no_superuser_is_zero_and_no_user_table_is_none(tmp_path: Path):
    assert census_of(build_shop(tmp_path / "shop.db")).superusers is None
    assert census_after(tmp_path, PEOPLE.format(table="auth_user", rows="(0, 1, 'x')")).superusers == 0


def test_a_census_survives_json(tmp_path: Path):
    census = replace(
        census_of(build_shop(tmp_path / "shop.db")), migrations=(("a", "b"),), uncounted=("v",), superusers=3
    )
    assert Census.from_dict(json.loads(json.dumps(census.as_dict()))) == census


@pytest.mark.parametrize("fact", list(Census.__dataclass_fields__))
def test_a_census_with_a_missing_fact_is_not_trusted(tmp_path: Path, fact: str):
    facts = census_of(build_shop(tmp_path / "shop.db")).as_dict()
    del facts[fact]
    with pytest.raises(VerificationError, match="not readable"):
        Census.from_dict(facts)


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("tables", []),
        ("tables", {"a": None}),
        ("tables", {"a": "many"}),
        ("page_size", None),
        ("migrations", [["only one"]]),
        ("migrations", 5),
        ("superusers", "x"),
        ("uncounted", None),
    ],
)
def test_a_census_with_a_fact_of_another_type_is_not_trusted(tmp_path: Path, fact: str, value: object):
    facts = census_of(build_shop(tmp_path / "shop.db")).as_dict()
    with pytest.raises(VerificationError):
        Census.from_dict({**facts, fact: value})


def test_differences_name_lost_rows_lost_tables_and_other_facts(tmp_path: Path):
    census = census_of(build_shop(tmp_path / "shop.db"))
    other = replace(census, tables={"sale": 3, "extra": 1}, user_version=9)
    assert census.differences(other) == [
        "table extra: no table expected, 1 rows found",
        "table product: 3 rows expected, no table found",
        "table sale: 4 rows expected, 3 rows found",
        "user version: 0 expected, 9 found",
    ]
    assert census.differences(census) == []


def test_required_tables_are_empty_when_missing_or_without_rows(tmp_path: Path):
    census = census_after(tmp_path, "CREATE TABLE full (x); INSERT INTO full VALUES (1); CREATE TABLE hollow (x);")
    assert census.empty_tables(("full", "hollow", "missing")) == ["hollow", "missing"]
    assert census.empty_tables(("full",)) == []


def test_counting_can_be_cancelled(tmp_path: Path):
    many = "(1, 1, 'x')" + ", (1, 1, 'x')" * 20_000
    database = build(tmp_path / "people.db", PEOPLE.format(table="auth_user", rows=many))
    with open_snapshot(database) as connection, pytest.raises(CancelledError):
        take_census(connection, watch=Watch(is_cancelled=lambda: True))
