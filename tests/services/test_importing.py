"""Importing archives of others: verified like every backup, once, and never what changed meanwhile."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.core.errors import BackupError, CancelledError, RefusedError
from backups_app.core.progress import Watch
from backups_app.core.triage import Judged
from backups_app.models import AuditEvent, Backup, Database, Job
from backups_app.services.databases import change_policy
from backups_app.services.extract import extract_backup
from backups_app.services.health import check_health
from backups_app.services.importing import Import, database_name, import_archive
from backups_app.services.triage import judge_files, plan_of, triage_options
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.foreign import DATA, MIGRATED, NEWEST, SITE, good_copy, naive_copy, open_site, remove_live
from tests.support import build, build_shop, content_of, leave_behind, names_in

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of the old archives."""
    folder = tmp_path / "old"
    folder.mkdir()
    return folder


@pytest.fixture
def good(tmp_path: Path, old: Path) -> Path:
    """A copy that holds data."""
    return good_copy(tmp_path, old / "app_20260203_101112.db")


def judged(path: Path) -> Judged:
    (found, *_members) = judge_files(plan_of([path]), options=triage_options(), watch=Watch())
    return found


def imported(path: Path, **options: Any) -> Import:
    return import_archive(judged(path), options=triage_options(), actor=ACTOR, **options)


def test_an_import_is_a_verified_backup_with_evidence(good: Path, home: Path):
    before = (good.read_bytes(), good.stat())
    found = imported(good)
    backup = Backup.objects.select_related("database").get(pk=found.backup.pk)
    assert found.is_new
    assert (backup.state, backup.verdict, backup.trigger, backup.is_held) == ("verified", "passed", "import", True)
    assert backup.origin_sha256 == hashlib.sha256(before[0]).hexdigest()
    assert backup.taken_at == datetime.fromisoformat(NEWEST)
    assert str(good) in backup.note
    assert backup.origin_sha256 in backup.note
    assert backup.tables["auth_user"] == 1
    assert backup.verifications.get().level == "creation"
    assert (good.read_bytes(), good.stat()) == before
    assert names_in(home / "scratch") == set()
    database = backup.database
    assert (database.name, database.is_under_care, database.is_imported, database.path) == ("app", False, True, "")
    job = Job.objects.get()
    assert (job.kind, job.state, job.database) == ("triage", "succeeded", database)
    event = AuditEvent.objects.get(action="import")
    assert (event.outcome, event.subject, event.actor_name) == ("done", backup.pk, "anna")
    assert str(good) in event.detail


def test_an_import_can_be_verified_and_gives_back_the_original(good: Path, tmp_path: Path):
    backup = imported(good).backup
    (verification,) = verify_backup(backup, level="full", actor=ACTOR)
    assert verification.verdict == "passed"
    extract_backup(backup, tmp_path / "back.db", actor=ACTOR)
    assert content_of(tmp_path / "back.db") == content_of(good)


def test_the_same_database_is_imported_once_however_it_is_packed(good: Path, old: Path):
    first = imported(good)
    (old / "again.db.gz").write_bytes(gzip.compress(good.read_bytes()))
    (old / "copy.db").write_bytes(good.read_bytes())
    for name in ("app_20260203_101112.db", "again.db.gz", "copy.db"):
        again = imported(old / name)
        assert (again.backup.pk, again.is_new) == (first.backup.pk, False)
    assert Backup.objects.count() == 1
    assert Database.objects.filter(is_imported=True).count() == 1


def test_archives_with_different_wal_beside_equal_files_are_two(tmp_path: Path, old: Path):
    for name, rows in (("first", DATA), ("second", DATA + DATA)):
        with open_site(tmp_path / "live.db", checkpointed=SITE) as connection:
            connection.executescript(MIGRATED + rows)
            for suffix in ("", "-wal"):
                shutil.copy2(tmp_path / f"live.db{suffix}", old / f"{name}.db{suffix}")
        remove_live(tmp_path)
    assert (old / "first.db").read_bytes() == (old / "second.db").read_bytes()
    found = [imported(old / f"{name}.db") for name in ("first", "second")]
    assert [each.is_new for each in found] == [True, True]
    assert [each.backup.tables["auth_user"] for each in found] == [1, 2]


def test_an_import_into_a_database_under_care_belongs_to_it(good: Path, shop: Database):
    backup = imported(good, into=shop).backup
    assert backup.database == shop
    assert not imported(good, into=shop).is_new
    assert Backup.objects.count() == 1


def test_an_import_says_nothing_about_how_fresh_the_backups_are(good: Path, shop: Database):
    os.utime(good)
    imported(good, into=shop)
    (health,) = [each for each in check_health().databases if each.database == shop]
    assert health.last_verified is None
    assert [each.code for each in health.problems] == ["never_verified"]


def test_the_time_is_that_of_the_file_where_no_column_tells_one(old: Path):
    path = build(old / "plain.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    os.utime(path, (1_700_000_000, 1_700_000_000))
    backup = imported(path).backup
    assert backup.taken_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert "that of its file" in backup.note


def test_a_time_of_the_future_becomes_now(old: Path):
    path = build(old / "plain.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    os.utime(path, (4_000_000_000, 4_000_000_000))
    taken_at = imported(path).backup.taken_at
    assert taken_at is not None
    assert taken_at <= timezone.now()


def test_what_holds_no_data_is_refused(tmp_path: Path, old: Path):
    bare = naive_copy(tmp_path, old / "bare.db", checkpointed=SITE)
    with pytest.raises(RefusedError, match="schema only"):
        imported(bare)
    assert not Backup.objects.exists()
    assert AuditEvent.objects.get(action="import").outcome == "refused"


def test_a_file_that_changed_since_it_was_judged_is_refused(good: Path, tmp_path: Path, home: Path):
    looked_at = judged(good)
    build(good, "INSERT INTO shop_sale (amount) VALUES (9);")
    with pytest.raises(RefusedError, match="not what was judged"):
        import_archive(looked_at, options=triage_options(), actor=ACTOR)
    assert not Backup.objects.exists()
    assert names_in(home / "scratch") == set()


@pytest.mark.parametrize(
    "change", ["INSERT INTO product (name) VALUES ('fig')", "UPDATE product SET name = 'fig'"], ids=["rows", "values"]
)
def test_a_file_whose_wal_went_away_since_it_was_judged_is_refused(old: Path, home: Path, change: str):
    path, wal = build_shop(old / "app.db"), old / "app.db-wal"
    leave_behind(path, change)
    found = judged(path)
    assert (found.verdict, found.is_with_log) == ("holds data", True)
    wal.rename(old / "moved")
    with pytest.raises(RefusedError, match="not what was judged any more"):
        import_archive(found, options=triage_options(), actor=ACTOR)
    assert (Backup.objects.count(), Database.objects.count()) == (0, 0)
    assert names_in(home / "scratch") == set()
    (old / "moved").rename(wal)
    assert import_archive(found, options=triage_options(), actor=ACTOR).backup.state == "verified"


def test_a_database_without_its_required_table_is_kept_as_failed_and_may_be_tried_again(good: Path, shop: Database):
    change_policy(shop, required_tables=["product"], freshness_hours=None, actor=ACTOR)
    shop.refresh_from_db()
    with pytest.raises(BackupError, match="product"):
        imported(good, into=shop)
    assert Backup.objects.get().state == "failed"
    change_policy(shop, required_tables=[], freshness_hours=None, actor=ACTOR)
    shop.refresh_from_db()
    assert imported(good, into=shop).is_new


def test_a_cancel_publishes_nothing(good: Path, home: Path):
    looked_at = judged(good)
    with pytest.raises(CancelledError):
        import_archive(looked_at, options=triage_options(), actor=ACTOR, is_cancelled=lambda: True)
    assert not Backup.objects.filter(state="verified").exists()
    assert names_in(home / "scratch") == set()


def test_a_name_that_is_taken_gets_an_addition(old: Path, shop: Database):
    path = build(old / "shop.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    assert imported(path).backup.database.name == "shop (imported)"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shop.db", "shop"),
        ("shop.sqlite3.gz", "shop"),
        ("shop_20260220_101112.db.enc", "shop"),
        ("shop-2026-02-20T10-11-12Z.sqlite3.zst", "shop"),
        ("shop.2026-02-20.db", "shop"),
        ("shop1.db", "shop1"),
        ("20260220_101112.db", "old"),
        ("shop v1.2", "shop v1.2"),
        (".db", "db"),
    ],
)
def test_the_database_is_named_after_the_archive(tmp_path: Path, name: str, expected: str):
    path = tmp_path / "old" / name
    path.parent.mkdir()
    path.touch()
    assert database_name(judged(path)) == expected


def test_hostile_names_become_names(old: Path, make_hostile_name: Callable[[], str]):
    path = build(old / "plain.db", "CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    path = path.rename(old / make_hostile_name())
    backup = imported(path).backup
    assert backup.state == "verified"
    backup.database.name.encode()
    assert "\x1b" not in backup.note + backup.database.name


@pytest.fixture(
    params=["\x1b[2Jx.db", "\udcff\udcfe.db", "<script>alert(1)</script>.db".replace("/", "_"), "-rf", "a\nb"]
)
def make_hostile_name(request: pytest.FixtureRequest) -> Callable[[], str]:
    """A function that gives a hostile file name."""
    return lambda: str(request.param)


def test_nothing_is_imported_from_a_live_database(shop: Database, shop_file: Path, settings: Settings):
    found = judged(shop_file)
    assert (found.format, found.is_judged) == ("live database", False)
    with pytest.raises(RefusedError):
        import_archive(found, options=triage_options(), actor=ACTOR)
