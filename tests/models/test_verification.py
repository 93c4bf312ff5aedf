"""A verdict says why it did not pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError

from backups_app.models import Backup, Database, Verification

pytestmark = pytest.mark.django_db(databases=["default", "catalog"])

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def create(**facts: Any) -> Verification:
    database = Database.objects.create(name="shop", path="/shop")
    backup = Backup.objects.create(database=database, trigger="command")
    return Verification.objects.create(
        **{
            "backup": backup,
            "destination": "local",
            "level": "full",
            "verdict": "passed",
            "started_at": NOW,
            "finished_at": NOW,
            **facts,
        }
    )


@pytest.mark.parametrize(
    ("verdict", "reason"), [("passed", ""), ("failed", "why"), ("unreachable", "why"), ("key_missing", "why")]
)
def test_each_verdict_can_be_recorded(verdict: str, reason: str):
    assert create(verdict=verdict, reason=reason).pk


@pytest.mark.parametrize(
    "facts",
    [
        {"verdict": "passed", "reason": "but"},
        {"verdict": "failed"},
        {"verdict": "unreachable"},
        {"verdict": "key_missing"},
        {"verdict": "good"},
        {"verdict": ""},
        {"finished_at": NOW - timedelta(microseconds=1)},
    ],
)
def test_the_catalogue_refuses(facts: dict[str, Any]):
    with pytest.raises(IntegrityError):
        create(**facts)
