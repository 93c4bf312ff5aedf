"""Fixtures for tests that use the catalogue: a home of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django.fixtures import SettingsWrapper


@pytest.fixture
def home(tmp_path: Path, settings: SettingsWrapper) -> Path:
    """A fresh BACKUPS home; files below ``tmp_path`` may be put under care."""
    folder = tmp_path / "home"
    settings.BACKUPS = {"HOME": folder, "ROOTS": [tmp_path]}
    return folder
