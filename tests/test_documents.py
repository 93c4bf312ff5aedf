"""The JSON documents keep the contract."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from backups_app import conf
from backups_app.documents import (
    backup_document,
    database_document,
    extraction_document,
    health_document,
    skipped_document,
    verification_document,
)
from backups_app.models import Backup, Database
from backups_app.services.databases import Skipped
from backups_app.services.extract import extract_backup
from backups_app.services.health import check_health
from tests.conftest import ACTOR

BACKUP_CONTRACT = {
    "id",
    "database",
    "created_at",
    "trigger",
    "state",
    "verdict",
    "bytes",
    "archive_bytes",
    "sha256",
    "archive_sha256",
    "encrypted",
    "tables",
    "copies",
    "held",
    "note",
}
RESTORE_CONTRACT = {
    "id",
    "backup",
    "database",
    "state",
    "requested_by",
    "approved_by",
    "reason",
    "safety_backup",
    "preview",
    "report",
}
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def test_a_backup_has_the_keys_of_the_contract(shop: Database, make_backup: Callable[..., Backup]):
    backup = make_backup(shop, note="weekly")
    document = json.loads(json.dumps(backup_document(backup)))
    assert set(document) >= BACKUP_CONTRACT
    assert document["id"] == backup.pk
    assert (document["database"], document["trigger"], document["note"]) == ("shop", "command", "weekly")
    assert (document["state"], document["verdict"]) == ("verified", "passed")
    assert document["tables"] == {"product": 3, "sale": 4}
    assert document["copies"] == [{"destination": "local", "name": backup.archive_name, "state": "verified"}]
    assert (document["bytes"], document["archive_bytes"]) == (backup.size_bytes, backup.archive_bytes)
    assert (document["sha256"], document["archive_sha256"]) == (backup.sha256, backup.archive_sha256)
    assert (document["encrypted"], document["held"]) == (False, False)
    assert document["reason"] is None


def test_times_are_utc_iso_8601(shop: Database, make_backup: Callable[..., Backup]):
    document = backup_document(make_backup(shop))
    for name in ("created_at", "taken_at", "finished_at", "verified_at"):
        assert UTC_TIME.fullmatch(document[name]), name


def test_a_time_of_another_zone_is_turned_to_utc(shop: Database):
    noon_in_tokyo = datetime(2026, 3, 4, 12, 0, tzinfo=timezone(timedelta(hours=9)))
    document = backup_document(Backup(database=shop, trigger="command", created_at=noon_in_tokyo, pk="none"))
    assert document["created_at"] == "2026-03-04T03:00:00.000000Z"


def test_what_is_unknown_is_null_and_not_empty(shop: Database):
    document = backup_document(Backup.objects.create(database=shop, trigger="command"))
    for name in (
        "verdict",
        "bytes",
        "archive_bytes",
        "sha256",
        "archive_sha256",
        "taken_at",
        "finished_at",
        "reason",
        "requested_by",
    ):
        assert document[name] is None, name
    assert (document["tables"], document["copies"], document["note"]) == ({}, [], "")


def test_a_failed_backup_says_why(shop: Database, make_backup: Callable[..., Backup], shop_file: Path):
    shop_file.unlink()
    document = backup_document(make_backup(shop))
    assert (document["state"], document["verdict"], document["failure"]) == ("failed", None, "not_found")
    assert document["reason"]
    assert document["hint"]


def test_a_verification_has_its_evidence(shop: Database, make_backup: Callable[..., Backup]):
    backup = make_backup(shop)
    document = json.loads(json.dumps(verification_document(backup.verifications.get())))
    assert (document["backup"], document["database"], document["destination"]) == (backup.pk, "shop", "local")
    assert (document["level"], document["verdict"], document["reason"]) == ("creation", "passed", None)
    assert all(set(check) == {"name", "ok", "evidence", "advisory"} for check in document["checks"])
    assert UTC_TIME.fullmatch(document["finished_at"])


def test_an_extraction_has_the_shape_of_a_restore(shop: Database, make_backup: Callable[..., Backup], tmp_path: Path):
    backup = make_backup(shop)
    extraction = extract_backup(backup, tmp_path / "new.sqlite3", actor=ACTOR)
    document = json.loads(json.dumps(extraction_document(backup, extraction, requested_by="anna", reason="a look")))
    assert set(document) == RESTORE_CONTRACT
    assert (document["backup"], document["database"], document["state"]) == (backup.pk, "shop", "succeeded")
    assert (document["requested_by"], document["approved_by"], document["reason"]) == ("anna", None, "a look")
    assert document["report"]["to"] == str(tmp_path / "new.sqlite3")
    assert document["report"]["tables"] == backup.tables


def test_a_database_says_where_it_lies(shop: Database, shop_file: Path):
    assert database_document(shop) == {
        "name": "shop",
        "host": conf.host_name(),
        "alias": None,
        "path": str(shop_file),
        "identity": shop.identity,
        "required_tables": [],
        "media": [],
        "freshness_hours": None,
        "retention": dict.fromkeys(Database.KEEP_FIELDS),
    }


def test_a_skipped_alias_says_why():
    document = skipped_document(Skipped(alias="warehouse", reason="it is elsewhere"))
    assert document == {"alias": "warehouse", "reason": "it is elsewhere"}


def test_health_says_what_is_wrong_and_since_when(shop: Database, make_backup: Callable[..., Backup]):
    backup = make_backup(shop)
    assert backup.taken_at is not None
    now = backup.taken_at + timedelta(hours=30)
    document = json.loads(json.dumps(health_document(check_health(now=now))))
    assert document["ok"] is False
    assert document["checked_at"] == now.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    (database,) = document["databases"]
    assert (database["name"], database["ok"], database["last_verified_backup"]) == ("shop", False, backup.pk)
    assert (database["age_seconds"], database["limit_seconds"]) == (30 * 3600, 26 * 3600)
    (problem,) = document["problems"]
    assert set(problem) == {"code", "database", "message", "hint"}
    assert (problem["code"], problem["database"]) == ("too_old", "shop")


def test_health_without_backups_has_nulls(shop: Database):
    (database,) = health_document(check_health())["databases"]
    assert (database["last_verified_at"], database["age_seconds"], database["last_attempt"]) == (None, None, None)
