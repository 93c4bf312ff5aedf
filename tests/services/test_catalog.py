"""The catalogue: made when missing, refused when it does not fit."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from django.db import OperationalError

from backups_app.core.sqlite import has_wal_reset_bug
from backups_app.services.catalog import catalog_error, is_ready, missing_migrations
from tests.console import Console, environment, finish
from tests.support import PROJECT, build, holding, names_in


@pytest.fixture
def new_console(tmp_path: Path) -> Console:
    """A home that does not exist yet."""
    return Console(tmp_path / "home", {"BACKUPS_ROOTS": str(tmp_path)})


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


@pytest.mark.usefixtures("db_catalog")
def test_a_migrated_catalogue_lacks_nothing_and_is_ready():
    assert missing_migrations() == []
    assert is_ready()


def test_a_missing_catalogue_is_made_with_our_tables_and_no_others(new_console: Console):
    new_console.ok("list")
    found = tables(new_console.catalog)
    assert {"backups_app_backup", "backups_app_auditevent", "django_q_task", "django_migrations"} <= found
    assert not any(name.startswith(("auth_", "django_session", "django_admin", "django_content")) for name in found)


def test_the_site_database_is_never_made(new_console: Console):
    for verb in (["databases"], ["create", "--all"], ["status"]):
        new_console.run(*verb)
    assert not new_console.site.exists()
    assert not any(name.startswith("site") for name in names_in(new_console.home))


def test_everything_made_is_private(new_console: Console):
    new_console.ok("list")
    assert new_console.home.stat().st_mode & 0o777 == 0o700
    assert (new_console.home / "state").stat().st_mode & 0o777 == 0o700
    assert (new_console.home / "state" / "secret_key").stat().st_mode & 0o777 == 0o600


def test_the_journal_of_the_catalogue_fits_the_sqlite_version(console: Console):
    ((mode,),) = console.query("PRAGMA journal_mode")
    assert mode == ("delete" if has_wal_reset_bug() else "wal")


def test_eight_first_runs_at_once_make_one_catalogue_and_one_key(new_console: Console):
    processes = [new_console.start("databases", "--json") for _ in range(8)]
    finished = [finish(process) for process in processes]
    assert [(each.code, each.stderr) for each in finished] == [(0, "")] * 8
    identities = {each.document["databases"][0]["identity"] for each in finished}
    assert len(identities) == 1
    assert new_console.query("SELECT count(*) FROM backups_app_database") == [(1,)]
    applied = new_console.query("SELECT app, name FROM django_migrations")
    assert len(applied) == len(set(applied))
    assert names_in(new_console.home / "state") == {"catalog.lock", "secret_key"}


def test_a_making_that_was_killed_is_finished(new_console: Console):
    new_console.ok("list")
    back = [sys.executable, str(PROJECT / "manage.py"), "migrate", "backups_app", "0001", "--database", "catalog"]
    subprocess.run(back, env=environment(new_console.home), check=True, capture_output=True)
    new_console.change("DELETE FROM backups_app_database")
    new_console.ok("databases")
    assert new_console.query("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'") == [(2,)]


def test_an_empty_file_becomes_the_catalogue(new_console: Console):
    new_console.home.mkdir()
    new_console.catalog.touch()
    new_console.ok("list")
    assert "backups_app_backup" in tables(new_console.catalog)


def manage(console: Console, *arguments: str) -> None:
    command = console.command()
    subprocess.run(
        [*command[:2], *arguments], env=environment(console.home), cwd=PROJECT, check=True, capture_output=True
    )


def test_a_catalogue_that_is_behind_is_refused_with_the_cure(console: Console, site: Path):
    backup = console.ok("create", "--all", "--json").backup()
    manage(console, "migrate", "--database", "catalog", "backups_app", "0001")
    before = console.query("SELECT * FROM django_migrations")
    for verb in (["list"], ["create", "--all"]):
        finished = console.run(*verb)
        assert finished.code == 1
        assert finished.stdout == ""
        assert "backups_app.0002_audit_events_are_append_only" in finished.stderr
        assert "migrate --database catalog" in finished.stderr
    assert console.query("SELECT * FROM django_migrations") == before, "nothing is migrated behind one's back"
    manage(console, "migrate", "--database", "catalog")
    assert console.ok("list", "--json").backup()["id"] == backup["id"]


def test_a_catalogue_of_a_newer_version_is_refused(console: Console):
    console.ok("databases")
    console.change(
        "INSERT INTO django_migrations (app, name, applied) VALUES ('backups_app', '0999_later', '2030-01-01')"
    )
    finished = console.run("list")
    assert finished.code == 1
    assert "newer version" in finished.stderr
    assert "backups_app.0999_later" in finished.stderr


@pytest.mark.parametrize(
    "content", [b"This is a letter, not a database. " * 200, b"SQLite format 3\x00" + b"\xff" * 9000]
)
def test_a_damaged_catalogue_is_refused_and_kept(console: Console, content: bytes):
    console.catalog.write_bytes(content)
    finished = console.run("create", "--all", "--json")
    assert finished.code == 1
    assert "catalogue cannot be used" in finished.stderr
    assert finished.document["errors"]
    assert console.catalog.read_bytes() == content


def test_a_folder_in_place_of_the_catalogue_is_refused(console: Console):
    console.catalog.unlink()
    console.catalog.mkdir()
    finished = console.run("list")
    assert finished.code == 1
    assert "catalogue cannot be used" in finished.stderr


def test_a_damaged_catalogue_that_was_moved_away_is_made_anew(console: Console, site: Path):
    backup = console.ok("create", "--all", "--json").backup()
    archive = console.archive(backup).read_bytes()
    console.catalog.rename(console.home / "catalog.damaged")
    assert console.ok("list", "--json").document == {"backups": []}
    assert console.archive(backup).read_bytes() == archive


def test_a_lock_on_the_catalogue_is_told_from_other_errors_of_it(tmp_path: Path):
    path = build(tmp_path / "any.db", "CREATE TABLE t (a)")
    with holding(path, "BEGIN EXCLUSIVE"), closing(sqlite3.connect(path, timeout=0)) as connection:
        with pytest.raises(sqlite3.OperationalError) as met:
            connection.execute("SELECT * FROM t")
    locked = OperationalError("database is locked")
    locked.__cause__ = met.value
    assert catalog_error(locked).exit_code == 4
    assert catalog_error(OperationalError("disk I/O error")).exit_code == 1
    read_only = catalog_error(OperationalError("attempt to write a readonly database"))
    assert (read_only.exit_code, "owns BACKUPS_HOME" in read_only.hint) == (1, True)
