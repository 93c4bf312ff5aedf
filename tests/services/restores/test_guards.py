"""What speaks against a restore, and that nothing but a reason of its own goes past it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User

from backups_app.core.census import Census
from backups_app.models import AuditEvent, Backup, Database, Restore
from backups_app.services.databases import add_database
from backups_app.services.restores import approve_restore, request_restore, run_restore
from backups_app.services.restores.guards import GUARDS, Facts, GuardError, Objection, objections, refuse_objections
from tests.services.restores.conftest import ANNA, BEN
from tests.support import build, connected, rows_of

AUTH = """
    PRAGMA journal_mode=wal;
    CREATE TABLE auth_user (id INTEGER PRIMARY KEY, username TEXT, password TEXT, is_superuser INT, is_active INT);
    CREATE TABLE django_migrations (id INTEGER PRIMARY KEY, app TEXT, name TEXT, applied TEXT);
    CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT);
    INSERT INTO django_migrations (app, name) VALUES ('auth', '0001_initial');
"""


@pytest.fixture
def members(home: Path, tmp_path: Path, db_catalog: None) -> Database:
    """A database with users in it: nobody but Django has written to it yet."""
    return add_database("members", build(tmp_path / "members.db", AUTH), actor=ANNA)


def change(database: Database, *statements: str) -> None:
    """Write to a live database."""
    with connected(Path(database.path)) as connection:
        for statement in statements:
            connection.execute(statement)


ADMIN = "INSERT INTO auth_user (username, password, is_superuser, is_active) VALUES ('root', 'md5$x', 1, 1)"
DATA = "INSERT INTO product (name) VALUES ('apple')"


def codes(raised: pytest.ExceptionInfo[GuardError]) -> list[str]:
    return [each.code for each in raised.value.objections]


def test_a_backup_of_a_schema_without_data_is_refused_with_the_reason(
    members: Database, make_backup: Callable[..., Backup]
):
    """The case that locked everybody out: it passes integrity_check and holds no row of anybody."""
    backup = make_backup(members)
    assert backup.state == "verified"
    change(members, ADMIN, DATA)
    before = Path(members.path).read_bytes()
    with pytest.raises(GuardError, match="schema without data") as raised:
        request_restore(backup, members, reason="x", actor=ANNA)
    assert codes(raised) == ["empty", "lock_out"]
    assert raised.value.exit_code == 7
    assert "--override empty=REASON --override lock_out=REASON" in raised.value.hint
    assert Path(members.path).read_bytes() == before
    assert not Restore.objects.exists()
    assert AuditEvent.objects.get(action="request-restore").outcome == "refused"


@pytest.mark.parametrize(
    "who",
    [
        "('staff', 'md5$x', 0, 1)",
        "('gone', 'md5$x', 1, 0)",
        "('unusable', '!abc', 1, 1)",
        "('empty', '', 1, 1)",
    ],
)
def test_a_backup_without_an_administrator_is_refused(members: Database, make_backup: Callable[..., Backup], who: str):
    change(members, DATA, f"INSERT INTO auth_user (username, password, is_superuser, is_active) VALUES {who}")
    backup = make_backup(members)
    change(members, ADMIN)
    with pytest.raises(GuardError, match="nobody could log in") as raised:
        request_restore(backup, members, reason="x", actor=ANNA)
    assert codes(raised) == ["lock_out"]


def test_a_backup_with_users_and_no_administrator_is_refused_for_a_missing_database_too(
    members: Database, make_backup: Callable[..., Backup]
):
    change(members, DATA)
    backup = make_backup(members)
    Path(members.path).unlink()
    with pytest.raises(GuardError) as raised:
        request_restore(backup, members, reason="x", actor=ANNA)
    assert codes(raised) == ["lock_out"]


def test_an_administrator_is_enough(members: Database, make_backup: Callable[..., Backup]):
    change(members, ADMIN, DATA)
    assert request_restore(make_backup(members), members, reason="x", actor=ANNA).state == "requested"


def test_guards_are_asked_again_when_it_runs(
    members: Database, make_backup: Callable[..., Backup], outside_transactions: None
):
    """The live database had no users when the restore was asked for; then somebody came."""
    backup = make_backup(members)
    overrides = {"empty": "on purpose", "lock_out": "nobody was there"}
    restore = request_restore(backup, members, reason="x", actor=ANNA, overrides=overrides)
    kept = {"empty": "on purpose"}
    Restore.objects.filter(pk=restore.pk).update(overrides=kept)
    restore.refresh_from_db()
    from backups_app.services.restores.binding import binding_of

    Restore.objects.filter(pk=restore.pk).update(binding_sha256=binding_of(restore))
    restore.refresh_from_db()
    change(members, ADMIN)
    ended = run_restore(approve_restore(restore, actor=BEN), actor=BEN)
    assert (ended.state, ended.failure_code) == ("failed", "refused")
    assert "lock_out" in ended.outcome
    assert "empty:" not in ended.outcome
    assert rows_of(Path(members.path))["auth_user"] == 1
    assert not Backup.objects.filter(trigger="safety").exists()


def test_the_backup_of_another_database_is_refused(
    shop: Database, home: Path, tmp_path: Path, make_backup: Callable[..., Backup], shop_file: Path
):
    build(tmp_path / "other.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1)")
    other = make_backup(add_database("other", tmp_path / "other.db", actor=ANNA))
    before = shop_file.read_bytes()
    with pytest.raises(GuardError, match=r"'other'.*'shop'") as raised:
        request_restore(other, shop, reason="x", actor=ANNA)
    assert codes(raised) == ["wrong_database"]
    assert shop_file.read_bytes() == before


def test_an_override_with_a_reason_goes_past_and_is_recorded_everywhere(
    shop: Database, tmp_path: Path, make_backup: Callable[..., Backup], shop_file: Path, outside_transactions: None
):
    build(tmp_path / "other.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1), (2)")
    other = make_backup(add_database("other", tmp_path / "other.db", actor=ANNA))
    restore = request_restore(
        other, shop, reason="x", actor=ANNA, overrides={"wrong_database": "a copy of it for tests"}
    )
    assert restore.overrides == {"wrong_database": "a copy of it for tests"}
    assert "overrides wrong_database: a copy of it for tests" in AuditEvent.objects.get(action="request-restore").detail
    ended = run_restore(approve_restore(restore, actor=BEN), actor=BEN)
    assert ended.state == "succeeded"
    assert rows_of(shop_file) == {"t": 2}


def test_an_unverified_backup_is_refused(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup], restored: Callable[..., Restore]
):
    Database.objects.filter(pk=shop.pk).update(required_tables=["nothing"])
    shop.refresh_from_db()
    backup = make_backup(shop)
    assert backup.state == "failed"
    with pytest.raises(GuardError) as raised:
        request_restore(backup, shop, reason="x", actor=ANNA)
    assert codes(raised) == ["unverified"]
    assert restored(backup, overrides={"unverified": "it is all we have"}).state == "succeeded"


@pytest.mark.parametrize(("spare", "refused"), [(-1, True), (0, False)])
def test_too_little_space_is_refused(backup: Backup, monkeypatch: pytest.MonkeyPatch, spare: int, refused: bool):
    needed = request_restore(backup, backup.database, reason="x", actor=ANNA).preview["needed_bytes"]
    assert needed == int(2.1 * backup.size_bytes)
    usage = type("usage", (), {"free": needed + spare, "total": 1, "used": 1})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    if not refused:
        assert request_restore(backup, backup.database, reason="x", actor=ANNA).state == "requested"
        return
    with pytest.raises(GuardError, match=f"{needed:,} bytes") as raised:
        request_restore(backup, backup.database, reason="x", actor=ANNA)
    assert codes(raised) == ["free_space"]


def test_only_what_is_overridden_is_let_through():
    found = [Objection(code="empty", message="e"), Objection(code="migration", message="m")]
    with pytest.raises(GuardError, match="migration: m") as raised:
        refuse_objections(found, {"empty": "yes"})
    assert codes(raised) == ["migration"]
    assert "empty" not in raised.value.message
    refuse_objections(found, {"empty": "yes", "migration": "yes"})


def census(**facts: object) -> Census:
    plain = Census(
        tables={"product": 1},
        schema_sha256="",
        page_size=4096,
        page_count=1,
        encoding="UTF-8",
        user_version=0,
        application_id=0,
        auto_vacuum=0,
        superusers=1,
    )
    return replace(plain, **facts)  # type: ignore[arg-type]


def facts(**given: object) -> Facts:
    database = Database(pk=1, name="default", alias="default", path="/x")
    plain = Facts(
        backup=Backup(database=database, state="verified"),
        database=database,
        now=census(),
        after=census(),
        free_bytes=10,
        needed_bytes=10,
        unknown_migrations=(),
        missing_migrations=(),
    )
    return replace(plain, **given)  # type: ignore[arg-type]


def test_a_good_backup_meets_no_objection():
    assert objections(facts()) == []


@pytest.mark.parametrize(
    ("given", "code", "text"),
    [
        ({"unknown_migrations": ("shop.0009_new",)}, "migration", "the code does not know shop.0009_new"),
        ({"missing_migrations": ("shop.0001", "shop.0002")}, "migration", "the backup lacks shop.0001, shop.0002"),
        ({"missing_migrations": tuple("abcdefg")}, "migration", "a, b, c, d, e and 2 more"),
        ({"after": census(superusers=0)}, "lock_out", "nobody could log in"),
        ({"after": census(superusers=None)}, "lock_out", "nobody could log in"),
        ({"after": census(tables={"django_migrations": 9, "product": 0})}, "empty", "schema without data"),
        ({"free_bytes": 9}, "free_space", "10 bytes are needed on the disk, 9 are free"),
    ],
)
def test_each_guard_says_what_it_objects_to(given: dict[str, object], code: str, text: str):
    (found,) = objections(facts(**given))
    assert found.code == code
    assert text in found.message


def test_every_guard_is_listed(db_catalog: None):
    other = Database(pk=2, name="other", path="/y")
    bad = facts(
        backup=Backup(database=other, state="failed"),
        after=census(tables={}, superusers=0),
        free_bytes=0,
        missing_migrations=("a.b",),
        safety_recipients=("age1abc…",),
        can_open_safety=False,
        unsigned="its signature is missing",
    )
    assert {each.code for each in objections(bad)} == set(GUARDS)


def test_a_password_that_django_made_counts(db_catalog: None, members: Database, make_backup: Callable[..., Backup]):
    unusable, usable = make_password(None), make_password("x")
    assert User(password=usable).has_usable_password()
    change(members, DATA, ADMIN.replace("md5$x", unusable))
    with pytest.raises(GuardError):
        request_restore(make_backup(members), members, reason="x", actor=ANNA)
    change(members, ADMIN.replace("md5$x", usable))
    assert request_restore(make_backup(members), members, reason="x", actor=ANNA).state == "requested"
