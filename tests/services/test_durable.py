"""What gets a name was synced before it, and the name is synced after it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import Backup, Database


def test_archive_and_manifest_are_synced_before_they_get_a_name_and_their_folder_after(
    shop: Database, make_backup: Callable[..., Backup], monkeypatch: pytest.MonkeyPatch
):
    synced: list[int] = []
    named: list[int] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor: int) -> None:
        real_fsync(descriptor)
        synced.append(os.fstat(descriptor).st_ino)
        named.clear()

    def link(source: Path, target: Path) -> None:
        assert source.stat().st_ino in synced, f"{target.name} was not synced"
        named.append(Path(target).parent.stat().st_ino)
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    assert make_backup(shop).state == Backup.State.VERIFIED
    assert len(synced) >= 4
    assert named == [], "a name was not synced"
