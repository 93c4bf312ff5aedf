"""Databases that are large and therefore made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import Stored, build_ledger, build_shop, store


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A small WAL database in a folder of its own, with nobody connected."""
    folder = tmp_path / "live"
    folder.mkdir()
    return build_shop(folder / "shop.db")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """An empty private folder."""
    folder = tmp_path / "scratch"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def stored(shop: Path, tmp_path: Path) -> Stored:
    """The small database as an archive with its manifest."""
    return store(shop, tmp_path / "store")


@pytest.fixture(scope="session")
def large_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of about 50 MB with nobody connected. Tests must not write to it."""
    return build_ledger(tmp_path_factory.mktemp("large") / "large.db", filler_bytes=48 << 20)
