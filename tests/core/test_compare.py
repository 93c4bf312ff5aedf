"""Two databases side by side: what a preview shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from backups_app.core.compare import Side, compare, holds_data, read_side
from backups_app.core.errors import CancelledError
from backups_app.core.progress import Watch
from backups_app.core.sqlite import open_snapshot
from tests.support import build

USERS = """
    CREATE TABLE auth_user (id INTEGER PRIMARY KEY, username TEXT, password TEXT, is_superuser INT, is_active INT);
"""
SESSIONS = "CREATE TABLE django_session (session_key TEXT PRIMARY KEY, session_data TEXT, expire_date TEXT);"


def side(path: Path, script: str) -> Side:
    """Read a database made by a script."""
    build(path, script)
    with open_snapshot(path) as connection:
        return read_side(connection, user_table="auth_user", name_column="username", watch=Watch())


@pytest.fixture
def now(tmp_path: Path) -> Side:
    return side(
        tmp_path / "now.db",
        """
        CREATE TABLE same (x); INSERT INTO same VALUES (1), (2);
        CREATE TABLE grows (x); INSERT INTO grows VALUES (1);
        CREATE TABLE shrinks (x); INSERT INTO shrinks VALUES (1), (2), (3);
        CREATE TABLE only_now (x); INSERT INTO only_now VALUES (1);
        CREATE TABLE altered (x);
        """,
    )


@pytest.fixture
def after(tmp_path: Path) -> Side:
    return side(
        tmp_path / "after.db",
        """
        CREATE TABLE same (x); INSERT INTO same VALUES (3), (4);
        CREATE TABLE grows (x); INSERT INTO grows VALUES (1), (2), (3);
        CREATE TABLE shrinks (x); INSERT INTO shrinks VALUES (1);
        CREATE TABLE only_after (x); INSERT INTO only_after VALUES (1), (2);
        CREATE TABLE altered (x, y);
        CREATE INDEX by_x ON same (x);
        """,
    )


def test_each_table_has_its_rows_now_and_after(now: Side, after: Side):
    tables = {each["name"]: each for each in compare(now, after)["tables"]}
    figures = {name: tuple(each[key] for key in ("now", "after", "added", "lost")) for name, each in tables.items()}
    assert figures == {
        "same": (2, 2, 0, 0),
        "grows": (1, 3, 2, 0),
        "shrinks": (3, 1, 0, 2),
        "only_now": (1, None, 0, 1),
        "only_after": (None, 2, 2, 0),
        "altered": (0, 0, 0, 0),
    }


def test_differences_of_the_schema_are_named(now: Side, after: Side):
    assert compare(now, after)["schema"] == {
        "only_now": ["table only_now"],
        "only_after": ["index by_x", "table only_after"],
        "changed": ["table altered"],
    }


def test_a_live_database_that_cannot_be_read_has_no_rows_now(after: Side):
    found = compare(None, after)
    assert {each["now"] for each in found["tables"]} == {None}
    assert found["schema"] == {"only_now": [], "only_after": [], "changed": []}
    assert found["sessions_ending"] == 0


def test_administrators_are_active_superusers_with_a_usable_password(tmp_path: Path):
    found = side(
        tmp_path / "u.db",
        USERS
        + """
        INSERT INTO auth_user (username, password, is_superuser, is_active) VALUES
            ('zoe', 'md5$x', 1, 1), ('anna', 'md5$x', 1, 1), ('staff', 'md5$x', 0, 1), ('gone', 'md5$x', 1, 0),
            ('unusable', '!abc', 1, 1), ('empty', '', 1, 1);
        """,
    )
    assert found.administrators == ("anna", "zoe")
    assert found.census.superusers == 2


def test_a_table_of_users_with_other_columns_has_no_administrators(tmp_path: Path):
    assert side(tmp_path / "u.db", "CREATE TABLE auth_user (id INTEGER, login TEXT)").administrators == ()


def test_sessions_that_end_are_those_that_run_and_are_not_in_the_backup(tmp_path: Path):
    now = side(
        tmp_path / "now.db",
        SESSIONS
        + """
        INSERT INTO django_session (session_key, expire_date) VALUES
            ('stays', datetime('now', '+1 day')), ('ends', datetime('now', '+1 day')),
            ('ends too', datetime('now', '+1 hour')), ('over', datetime('now', '-1 hour'));
        """,
    )
    after = side(
        tmp_path / "after.db",
        SESSIONS + "INSERT INTO django_session (session_key, expire_date) VALUES ('stays', datetime('now', '+1 day'))",
    )
    assert compare(now, after)["sessions_ending"] == 2


@pytest.mark.parametrize(
    ("table", "holds"),
    [("django_migrations", False), ("django_content_type", False), ("auth_permission", False), ("product", True)],
)
def test_rows_that_django_writes_by_itself_are_no_data(tmp_path: Path, table: str, holds: bool):
    found = side(tmp_path / "d.db", f"CREATE TABLE {table} (id, app, name); INSERT INTO {table} VALUES (1, 'a', 'b');")
    assert holds_data(found.census) is holds


def test_tables_without_rows_are_no_data(tmp_path: Path):
    assert not holds_data(side(tmp_path / "d.db", "CREATE TABLE product (x)").census)


def test_a_cancel_ends_the_reading(tmp_path: Path):
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
    build(tmp_path / "d.db", f"{SESSIONS} {many} INSERT INTO django_session SELECT i, '', '2999-01-01' FROM n")
    watch = Watch(is_cancelled=lambda: True)
    with open_snapshot(tmp_path / "d.db") as connection, pytest.raises(CancelledError):
        read_side(connection, user_table="auth_user", name_column="username", watch=watch)
