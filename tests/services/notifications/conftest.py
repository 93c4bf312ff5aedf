"""Jobs that have ended, and settings that name receivers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from backups_app.models import Database, Job
from tests.support import NOW

MakeJob = Callable[..., Job]
Tell = Callable[..., None]


@pytest.fixture
def make_job(shop: Database) -> MakeJob:
    """A function that makes a job that ended at a moment; a failure has a code, an outcome and a hint."""

    def make(state: str = "succeeded", *, at: datetime = NOW, kind: str = "create", **facts: Any) -> Job:
        given: dict[str, Any] = {"database": shop, "trigger": "schedule", "host": "one", **facts}
        if state in ("failed", "interrupted", "cancelled"):
            given = {"failure_code": "disk_full", "outcome": "The disk is full.", "hint": "Free some space.", **given}
        started_at = at - timedelta(minutes=2)
        return Job.objects.create(
            kind=kind, state=state, created_at=started_at, started_at=started_at, finished_at=at, **given
        )

    return make


@pytest.fixture
def tell(settings: Settings, home: object) -> Tell:
    """A function that names receivers in the settings; nobody else is told."""
    settings.ADMINS = []

    def tell(**names: Any) -> None:
        settings.BACKUPS = {**settings.BACKUPS, **names}

    return tell
