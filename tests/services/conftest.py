"""Fixtures of the services: a second destination."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django.fixtures import Settings


@pytest.fixture
def far(home: Path, settings: Settings) -> Path:
    """A second destination."""
    folder = home.parent / "far"
    settings.STORAGES = {
        **settings.STORAGES,
        "far": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(folder)}},
    }
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["local", "far"]}
    return folder
