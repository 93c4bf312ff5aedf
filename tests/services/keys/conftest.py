"""Keys in files, and the settings that name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from tests.keys import Key


@pytest.fixture
def key(tmp_path: Path) -> Key:
    return Key(tmp_path / "key.txt")


@pytest.fixture
def other(tmp_path: Path) -> Key:
    return Key(tmp_path / "other.txt")


@pytest.fixture
def encrypting(home: Path, settings: Settings) -> Callable[..., None]:
    """A function that sets recipients, and the identity of this host."""

    def encrypt_for(*keys: Key, identity: Path | None = None, **more: object) -> None:
        recipients = [key.recipient for key in keys]
        settings.BACKUPS = {
            **settings.BACKUPS,
            "AGE_RECIPIENTS": recipients,
            "AGE_IDENTITY_FILE": identity,
            **more,
        }

    return encrypt_for
