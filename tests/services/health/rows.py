"""Rows as evidence: verified backups with the facts that a test is about."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from backups_app.models import Backup, Database
from backups_app.models.backup import new_backup_id


def verified(database: Database, *, age: timedelta = timedelta(hours=1), **facts: Any) -> Backup:
    """An unsaved verified backup that keeps every constraint of the catalogue."""
    at: datetime = timezone.now() - age
    given: dict[str, Any] = {
        "pk": new_backup_id(),
        "trigger": "command",
        "state": "verified",
        "verdict": "passed",
        "created_at": at,
        "taken_at": at,
        "verified_at": at,
        "finished_at": at + timedelta(seconds=2),
        "size_bytes": 1_000_000,
        "archive_bytes": 400_000,
        "row_count": 1000,
        "census": {"tables": {"sale": 1000}},
        **dict.fromkeys(("sha256", "archive_sha256", "content_sha256", "manifest_sha256"), "0" * 64),
    }
    return Backup(database=database, **{**given, **facts})
