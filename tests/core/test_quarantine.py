"""What arrives from outside: limited while it arrives, private, whole or not there."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from backups_app.core import quarantine
from backups_app.core.errors import BackupError, DiskFullError, InputError, RefusedError
from backups_app.core.quarantine import Receiving, quarantined_files


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_arrives_private_and_under_a_name_of_its_own(tmp_path: Path):
    folder = tmp_path / "home" / "quarantine"
    receiving = Receiving(folder, limit_bytes=10)
    receiving.write(b"01234")
    receiving.write(b"56789")
    received = receiving.finish()
    assert received.path.read_bytes() == b"0123456789"
    assert (received.size_bytes, received.sha256) == (10, hashlib.sha256(b"0123456789").hexdigest())
    assert (mode(folder), mode(received.path)) == (0o700, 0o600)
    assert received.path.name != Receiving(folder, limit_bytes=1).path.name


def test_the_limit_counts_while_it_arrives_and_nothing_is_left(tmp_path: Path):
    receiving = Receiving(tmp_path, limit_bytes=10)
    receiving.write(b"0123456789")
    with pytest.raises(RefusedError, match="more than 10 bytes"):
        receiving.write(b"x")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError):
        receiving.finish()


def test_nothing_at_all_is_no_file(tmp_path: Path):
    with pytest.raises(InputError, match="empty"):
        Receiving(tmp_path, limit_bytes=10).finish()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_noticed_before_and_while_it_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(DiskFullError):
        Receiving(tmp_path, limit_bytes=1 << 60, announced_bytes=1 << 59)
    assert list(tmp_path.iterdir()) == []
    receiving = Receiving(tmp_path, limit_bytes=10)

    def full(_descriptor: int, _piece: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(quarantine.os, "write", full)
    with pytest.raises(DiskFullError):
        receiving.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_in_words(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(BackupError):
        Receiving(tmp_path / "file" / "quarantine", limit_bytes=1)


def test_only_plain_files_that_nobody_writes_are_swept(tmp_path: Path):
    old, new, link = tmp_path / "old", tmp_path / "new", tmp_path / "link"
    old.touch()
    new.touch()
    link.symlink_to(old)
    (tmp_path / "folder").mkdir()
    os.utime(old, (1, 1))
    assert list(quarantined_files(tmp_path, idle_seconds=60)) == [old]
    assert list(quarantined_files(tmp_path / "nowhere", idle_seconds=60)) == []
