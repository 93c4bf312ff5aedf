"""The examples for DRILL_CHECKS, on databases as Django makes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backups_app.drills.examples import migrations_are_recorded, people_were_here_lately, somebody_can_administer
from tests.support import build, connected

_SITE = """
    CREATE TABLE auth_user (id INTEGER PRIMARY KEY, is_superuser BOOL, is_active BOOL, password TEXT, last_login TEXT);
    CREATE TABLE django_migrations (id INTEGER PRIMARY KEY, app TEXT, name TEXT);
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return build(tmp_path / "site.sqlite3", _SITE)


def test_somebody_must_be_able_to_sign_in(site: Path):
    with connected(site) as connection:
        connection.execute(
            "INSERT INTO auth_user VALUES (1, 1, 0, 'x', NULL), (2, 1, 1, '!x', NULL), (3, 0, 1, 'x', NULL)"
        )
        assert somebody_can_administer(connection) == "no active superuser with a password"
        connection.execute("UPDATE auth_user SET is_active = 1")
        assert somebody_can_administer(connection) is None


def test_migrations_must_be_there(site: Path):
    with connected(site) as connection:
        assert migrations_are_recorded(connection) == "django_migrations is empty"
        connection.execute("INSERT INTO django_migrations VALUES (1, 'auth', '0001_initial')")
        assert migrations_are_recorded(connection) is None


def test_people_must_have_been_here(site: Path):
    now = datetime.now(UTC).replace(tzinfo=None)
    with connected(site) as connection:
        assert people_were_here_lately(connection) == "nobody has ever signed in"
        connection.execute("INSERT INTO auth_user VALUES (1, 1, 1, 'x', ?)", (str(now - timedelta(days=100)),))
        assert str(people_were_here_lately(connection)).startswith("nobody has signed in since")
        connection.execute("UPDATE auth_user SET last_login = ?", (str(now),))
        assert people_were_here_lately(connection) is None
