"""The figures that people decide by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections
from django.db.migrations.recorder import MigrationRecorder
from django.utils import timezone

from backups_app.core.census import Census
from backups_app.core.errors import BusyError
from backups_app.core.progress import Watch
from backups_app.models import Backup, Database
from backups_app.services.databases import add_database
from backups_app.services.restores import preview
from backups_app.services.restores.preview import preview_restore
from tests.core.test_compare import SESSIONS, USERS
from tests.services.restores.conftest import ANNA
from tests.services.restores.test_guards import census
from tests.support import build, connected, holding, names_in


def document(backup: Backup, database: Database | None = None) -> dict:
    return preview_restore(backup, database or backup.database, watch=Watch()).document


def test_rows_now_and_after_per_table(backup: Backup):
    assert document(backup)["tables"] == [
        {"name": "product", "now": 4, "after": 3, "added": 0, "lost": 1},
        {"name": "sale", "now": 0, "after": 4, "added": 4, "lost": 0},
    ]


def test_rows_that_are_only_in_the_wal_are_counted(backup: Backup, shop_file: Path):
    with connected(shop_file) as writer:
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("INSERT INTO product (name) VALUES ('in the wal')")
        assert document(backup)["tables"][0]["now"] == 5


def test_differences_of_the_schema(backup: Backup, shop_file: Path):
    with connected(shop_file) as connection:
        connection.execute("CREATE TABLE later (x)")
        connection.execute("DROP INDEX sale_product")
        connection.execute("ALTER TABLE product ADD COLUMN price")
    assert document(backup)["schema"] == {
        "only_now": ["table later"],
        "only_after": ["index sale_product"],
        "changed": ["table product"],
    }


def test_age_space_and_time(backup: Backup):
    Backup.objects.filter(pk=backup.pk).update(taken_at=timezone.now() - timedelta(hours=5))
    found = document(Backup.objects.get(pk=backup.pk))
    assert 18000 <= found["backup_age_seconds"] < 18060
    assert found["needed_bytes"] == int(2.1 * backup.size_bytes)
    assert found["free_bytes"] > 0
    assert found["estimated_blocked_seconds"] == 0.05
    assert (found["backup"], found["database"], found["live"], found["blockers"]) == (
        backup.pk,
        "shop",
        "readable",
        [],
    )


def test_the_larger_of_the_two_databases_needs_the_space(backup: Backup, shop_file: Path):
    with connected(shop_file) as connection:
        connection.execute("CREATE TABLE big AS SELECT randomblob(500000) AS x")
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
    assert document(backup)["needed_bytes"] == int(2.1 * 4096 * pages)


def test_a_missing_live_database_is_said_and_not_made(backup: Backup, shop_file: Path):
    shop_file.unlink()
    found = document(backup)
    assert "no database file" in found["live"]
    assert [each["now"] for each in found["tables"]] == [None, None]
    assert not shop_file.exists()


def test_a_damaged_live_database_is_said(backup: Backup, shop_file: Path):
    shop_file.write_bytes(b"garbage" * 1000)
    assert "not an SQLite database" in document(backup)["live"]


def test_a_locked_live_database_is_busy(backup: Backup, shop_file: Path, settings):
    settings.BACKUPS = {**settings.BACKUPS, "BUSY_TIMEOUT_SECONDS": 0.2}
    with connected(shop_file) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    with holding(shop_file, "BEGIN EXCLUSIVE"), pytest.raises(BusyError):
        document(backup)


def test_blockers_are_named_with_their_reason(backup: Backup):
    Backup.objects.filter(pk=backup.pk).update(state="failed", reason="it is not good", failure_code="x", verdict="")
    (blocker,) = document(Backup.objects.get(pk=backup.pk))["blockers"]
    assert blocker["code"] == "unverified"
    assert "it is not good" in blocker["message"]


def test_nothing_stays_in_scratch(backup: Backup, home: Path):
    document(backup)
    assert names_in(home / "scratch") == set()


# Users, sessions and migrations


def test_administrators_and_sessions_that_end(
    home: Path, tmp_path: Path, db_catalog: None, make_backup: Callable[..., Backup]
):
    path = build(
        tmp_path / "site.db",
        f"""
        {USERS} {SESSIONS}
        INSERT INTO auth_user (username, password, is_superuser, is_active) VALUES ('root', 'x', 1, 1);
        INSERT INTO django_session VALUES ('old', '', datetime('now', '+1 day'));
        """,
    )
    database = add_database("members", path, actor=ANNA)
    backup = make_backup(database)
    with connected(path) as connection:
        connection.execute("UPDATE auth_user SET username = 'renamed'")
        connection.execute("INSERT INTO django_session VALUES ('new', '', datetime('now', '+1 day'))")
    found = document(backup)
    assert found["superusers"] == ["root"]
    assert found["sessions_ending"] == 1


def site() -> Database:
    return Database(pk=1, name="default", alias="default", path="/x")


def applied(*, without: set[tuple[str, str]] = frozenset(), plus: set[tuple[str, str]] = frozenset()) -> Census:
    """A census with the migrations of the test's own site, changed a little."""
    recorded = set(MigrationRecorder(connections["default"]).applied_migrations())
    assert without <= recorded
    return census(migrations=tuple(sorted((recorded - without) | plus)))


def test_the_same_migrations_are_no_difference(db_catalog: None):
    assert preview._migration_differences(site(), applied()) == ((), ())


def test_a_migration_that_the_backup_lacks(db_catalog: None):
    found = preview._migration_differences(site(), applied(without={("sessions", "0001_initial")}))
    assert found == ((), ("sessions.0001_initial",))


def test_a_migration_that_the_code_does_not_know(db_catalog: None):
    found = preview._migration_differences(site(), applied(plus={("auth", "0099_future")}))
    assert found == (("auth.0099_future",), ())


def test_migrations_of_an_app_that_is_gone_do_not_matter(db_catalog: None):
    assert preview._migration_differences(site(), applied(plus={("formerly", "0001_initial")})) == ((), ())


def test_files_that_are_not_the_sites_own_have_no_code_to_differ_from(db_catalog: None):
    found = preview._migration_differences(Database(name="x", path="/x"), applied(without={("auth", "0001_initial")}))
    assert found == ((), ())


class Squashed:
    """What is on disk: a squash, two migrations it replaces, and one after them."""

    def __init__(self, *_: object, **__: object) -> None:
        plain = type("Migration", (), {"replaces": []})
        squash = type("Migration", (), {"replaces": [("shop", "0001"), ("shop", "0002")]})
        self.disk_migrations = {
            ("auth", "0001"): plain,
            ("shop", "0001"): plain,
            ("shop", "0002"): plain,
            ("shop", "0001_squashed_0002"): squash,
        }


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ({"0001_squashed_0002"}, ()),
        ({"0001", "0002"}, ()),
        ({"0001", "0002", "0001_squashed_0002"}, ()),
        ({"0001"}, ("shop.0001_squashed_0002", "shop.0002")),
        (set(), ("shop.0001", "shop.0001_squashed_0002", "shop.0002")),
    ],
)
def test_a_squashed_migration_stands_for_those_it_replaces(
    monkeypatch: pytest.MonkeyPatch, names: set[str], missing: tuple[str, ...]
):
    monkeypatch.setattr(preview, "MigrationLoader", Squashed)
    found = census(migrations=(("auth", "0001"), *(("shop", name) for name in sorted(names))))
    assert preview._migration_differences(site(), found) == ((), missing)


def test_a_wait_longer_than_usual_timeouts_is_warned_of(backup: Backup, monkeypatch: pytest.MonkeyPatch):
    assert preview_restore(backup, backup.database, watch=Watch()).document["warnings"] == []
    monkeypatch.setattr(preview, "_BLOCKED_SECONDS_PER_BYTE", 1.0)
    (warning,) = preview_restore(backup, backup.database, watch=Watch()).document["warnings"]
    assert "longer than 5 s" in warning
