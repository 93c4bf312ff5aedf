"""No row says "verified" without the evidence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections
from django.db.models import ProtectedError

from backups_app.models import Backup, Copy, Database

pytestmark = pytest.mark.django_db(databases=["default", "catalog"])

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

VERIFIED: dict[str, Any] = {
    "trigger": "command",
    "state": "verified",
    "verdict": "passed",
    "taken_at": NOW,
    "finished_at": NOW,
    "verified_at": NOW,
    "size_bytes": 0,
    "archive_bytes": 1,
    "sha256": "a" * 64,
    "archive_sha256": "b" * 64,
    "content_sha256": "c" * 64,
    "manifest_sha256": "d" * 64,
    "census": {"tables": {"product": 3}},
}


@pytest.fixture
def database() -> Database:
    return Database.objects.create(name="shop", path="/shop")


def test_a_row_with_all_evidence_may_be_verified(database: Database):
    assert Backup.objects.create(database=database, **VERIFIED).tables == {"product": 3}


@pytest.mark.parametrize(
    ("field", "lacking"),
    [
        ("taken_at", None),
        ("verified_at", None),
        ("finished_at", None),
        ("size_bytes", None),
        ("size_bytes", -1),
        ("archive_bytes", None),
        ("archive_bytes", 0),
        ("sha256", ""),
        ("archive_sha256", ""),
        ("content_sha256", ""),
        ("manifest_sha256", ""),
        ("census", None),
    ],
)
def test_a_row_that_lacks_one_piece_of_evidence_may_not(database: Database, field: str, lacking: object):
    with pytest.raises(IntegrityError):
        Backup.objects.create(database=database, **{**VERIFIED, field: lacking})


def test_a_failed_row_cannot_be_turned_to_verified_by_an_update(database: Database):
    backup = Backup.objects.create(
        database=database, trigger="command", state="failed", finished_at=NOW, reason="damaged"
    )
    with pytest.raises(IntegrityError):
        Backup.objects.filter(pk=backup.pk).update(state="verified")


def test_nor_by_raw_sql(database: Database):
    Backup.objects.create(database=database, trigger="command", state="failed", finished_at=NOW, reason="damaged")
    with connections["catalog"].cursor() as cursor, pytest.raises(IntegrityError):
        cursor.execute("UPDATE backups_app_backup SET state = 'verified'")


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_a_failure_has_a_reason(database: Database, state: str):
    with pytest.raises(IntegrityError):
        Backup.objects.create(database=database, trigger="command", state=state, finished_at=NOW)


@pytest.mark.parametrize(("state", "finished_at"), [("running", NOW), ("failed", None), ("cancelled", None)])
def test_a_row_is_finished_exactly_when_it_has_ended(database: Database, state: str, finished_at: datetime | None):
    with pytest.raises(IntegrityError):
        Backup.objects.create(
            database=database, trigger="command", state=state, finished_at=finished_at, reason="a reason"
        )


@pytest.mark.parametrize("state", ["", "good", "VERIFIED"])
def test_an_unknown_state_is_refused(database: Database, state: str):
    with pytest.raises(IntegrityError):
        Backup.objects.create(database=database, trigger="command", state=state, finished_at=NOW, reason="a reason")


def test_a_new_row_is_running_and_not_held(database: Database):
    backup = Backup.objects.create(database=database, trigger="command")
    assert (backup.state, backup.is_held, backup.verdict, backup.tables) == ("running", False, "", {})


def test_ids_are_short_and_unlike():
    ids = {Backup().pk for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 12 for each in ids)


def test_a_database_with_backups_cannot_be_deleted(database: Database):
    Backup.objects.create(database=database, trigger="command")
    with pytest.raises(ProtectedError):
        database.delete()


def test_the_newest_backup_comes_first(database: Database):
    for hours in (1, 3, 2):
        Backup.objects.create(
            pk=str(hours), database=database, trigger="command", created_at=NOW + timedelta(hours=hours)
        )
    assert [backup.pk for backup in Backup.objects.all()] == ["3", "2", "1"]


@pytest.fixture
def backup(database: Database) -> Backup:
    return Backup.objects.create(database=database, trigger="command")


@pytest.mark.parametrize(
    "facts",
    [
        {"state": "verified"},
        {"state": "verified", "stored_at": NOW},
        {"state": "verified", "checked_at": NOW},
        {"state": "verified", "stored_at": NOW, "checked_at": NOW - timedelta(seconds=1)},
        {"state": "good"},
        {"destination": "taken"},
    ],
)
def test_the_catalogue_refuses_the_copy(backup: Backup, facts: dict[str, Any]):
    Copy.objects.create(backup=backup, destination="taken", name="taken")
    with pytest.raises(IntegrityError):
        Copy.objects.create(**{"backup": backup, "destination": "local", "name": "new", **facts})


def test_a_copy_checked_after_storing_may_be_verified(backup: Backup):
    Copy.objects.create(backup=backup, destination="local", name="x", state="verified", stored_at=NOW, checked_at=NOW)


def test_a_name_at_a_destination_is_never_used_twice(database: Database, backup: Backup):
    Copy.objects.create(backup=backup, destination="local", name="x")
    other = Backup.objects.create(database=database, trigger="command")
    with pytest.raises(IntegrityError):
        Copy.objects.create(backup=other, destination="local", name="x")
