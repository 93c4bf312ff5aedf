"""What gets a name was synced before it, the name is synced after it, and then it is read back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.destinations import LocalDestination
from backups_app.models import Backup, Copy, Database
from tests.foreign import flipped


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

    def link(source: Path, target: str, *, dst_dir_fd: int | None = None, follow_symlinks: bool) -> None:
        assert source.stat().st_ino in synced, f"{target} was not synced"
        named.append((Path(target).parent.stat() if dst_dir_fd is None else os.fstat(dst_dir_fd)).st_ino)
        real_link(source, target, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    backup = make_backup(shop)
    assert backup.state == Backup.State.VERIFIED, backup.reason
    assert len(synced) >= 4
    assert named == [], "a name was not synced"


@pytest.mark.parametrize("ending", [".zst", ".json"])
def test_a_store_that_changes_a_bit_is_found_out_and_nothing_is_kept(
    shop: Database, make_backup: Callable[..., Backup], home: Path, monkeypatch: pytest.MonkeyPatch, ending: str
):
    real_store = LocalDestination.store

    def store(self: LocalDestination, source: Path, name: str, **more: object) -> None:
        if name.endswith(ending):
            content = source.read_bytes()
            source.write_bytes(flipped(content, len(content) // 2))
        real_store(self, source, name)

    monkeypatch.setattr(LocalDestination, "store", store)
    backup = make_backup(shop)
    assert (backup.state, backup.failure_code) == ("failed", "verification_failed")
    assert not Backup.objects.filter(state=Backup.State.VERIFIED).exists()
    assert not Copy.objects.exists()
    assert not [each for each in (home / "archives").rglob("*") if each.is_file()]
