"""Folders of files, and their archives."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.media.packed import Packed, pack

NOT_TEXT = os.fsdecode(b"caf\xe9-\xff.txt")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder with some of everything that a site's media may hold."""
    folder = tmp_path / "site" / "media"
    folder.mkdir(parents=True)
    (folder / "photo.jpg").write_bytes(os.urandom(200_000))
    (folder / "empty").write_bytes(b"")
    (folder / "block").write_bytes(b"x" * 512)
    (folder / "nothing in it").mkdir()
    below = folder / "2026" / "03"
    below.mkdir(parents=True)
    (below / "line\nbreak.txt").write_text("a name with a line break")
    (below / NOT_TEXT).write_text("a name that is no text")
    (below / "\u202eשלום.txt").write_text("a name from right to left")
    (below / ("very long " * 24 + ".txt")).write_text("a name of 244 bytes")
    (below / "latest").symlink_to("../../photo.jpg")
    (folder / "photo.jpg").chmod(0o640)
    os.utime(folder / "photo.jpg", ns=(1, 1_234_567_890_123_456_789))
    os.utime(folder / "empty", ns=(1, -1_500_000_000))
    return folder


@pytest.fixture
def packed(media: Path, tmp_path: Path) -> Packed:
    """Its archive."""
    return pack([media], tmp_path / "store")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Packed]:
    """A function that packs folders."""

    def make(*folders: Path, name: str = "store", **options: Any) -> Packed:
        return pack(list(folders), tmp_path / name, **options)

    return make
