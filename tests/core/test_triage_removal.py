"""Deleting a useless file: exactly the one that was judged, or none; and reading legacy keys."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from backups_app.core.errors import BackupError, CancelledError, InputError, NotFoundError, RefusedError
from backups_app.core.progress import Watch
from backups_app.core.triage import Judged, TriageOptions, judge, read_legacy_keys, remove_unchanged
from tests.foreign import SITE, good_copy, naive_copy
from tests.support import NOW, holding, names_in


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A naive copy: a schema and no data."""
    folder = tmp_path / "old"
    folder.mkdir()
    return naive_copy(tmp_path, folder / "bare.db", checkpointed=SITE)


def looked_at(path: Path, scratch: Path) -> Judged:
    return judge(path, scratch=scratch, watch=Watch(), options=TriageOptions(now=lambda: NOW))


def test_a_useless_file_is_deleted_and_nothing_else(bare: Path, scratch: Path):
    (bare.parent / "other.db").write_bytes(b"")
    remove_unchanged(looked_at(bare, scratch), watch=Watch())
    assert names_in(bare.parent) == {"other.db"}


def swap_content(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def swap_file(path: Path) -> None:
    content = path.read_bytes()
    path.rename(path.with_name("kept"))
    path.write_bytes(content)


def swap_for_a_link(path: Path) -> None:
    path.rename(path.with_name("kept"))
    path.symlink_to("kept")


def swap_for_a_fifo(path: Path) -> None:
    path.rename(path.with_name("kept"))
    os.mkfifo(path)


def append(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"x")


def put_a_wal_beside(path: Path) -> None:
    path.with_name(path.name + "-wal").write_bytes(b"rows")


@pytest.mark.parametrize(
    "change", [swap_content, swap_file, swap_for_a_link, swap_for_a_fifo, append, put_a_wal_beside]
)
def test_a_file_that_changed_since_is_kept(bare: Path, scratch: Path, change: Callable[[Path], None]):
    judged = looked_at(bare, scratch)
    change(bare)
    before = names_in(bare.parent)
    with pytest.raises(RefusedError, match="It was not deleted"):
        remove_unchanged(judged, watch=Watch())
    assert names_in(bare.parent) == before


def test_a_packed_file_with_a_log_beside_it_is_kept(bare: Path, scratch: Path):
    packed = bare.with_name("other.db.gz")
    packed.write_bytes(gzip.compress(bare.read_bytes()))
    judged = looked_at(packed, scratch)
    assert judged.is_useless
    packed.with_name("other.db-wal").write_bytes(b"rows")
    with pytest.raises(RefusedError, match="a -wal with content lies beside it"):
        remove_unchanged(judged, watch=Watch())
    assert names_in(bare.parent) == {bare.name, "other.db.gz", "other.db-wal"}


def test_a_file_that_is_gone_is_a_refusal(bare: Path, scratch: Path):
    judged = looked_at(bare, scratch)
    bare.unlink()
    with pytest.raises(RefusedError, match="not there any more"):
        remove_unchanged(judged, watch=Watch())


def test_a_database_that_a_process_has_open_is_kept(bare: Path, scratch: Path):
    judged = looked_at(bare, scratch)
    with holding(bare, "SELECT count(*) FROM shop_sale"):
        for suffix in ("-wal", "-journal"):
            with suppress(FileNotFoundError):
                assert bare.with_name(bare.name + suffix).stat().st_size == 0
        with pytest.raises(RefusedError, match="has it open"):
            remove_unchanged(judged, watch=Watch())
    assert bare.exists()


def test_what_holds_data_is_never_deleted(tmp_path: Path, scratch: Path):
    good = good_copy(tmp_path, tmp_path / "good.db")
    judged = looked_at(good, scratch)
    for claimed in (
        judged,
        replace(judged, member="a", is_useless=True),
        replace(judged, sha256=None, is_useless=True),
    ):
        with pytest.raises(RefusedError):
            remove_unchanged(claimed, watch=Watch())
    assert good.exists()


def test_a_cancel_keeps_the_file(bare: Path, scratch: Path):
    judged = looked_at(bare, scratch)
    with pytest.raises(CancelledError):
        remove_unchanged(judged, watch=Watch(is_cancelled=lambda: True))
    assert bare.exists()


def test_a_folder_that_may_not_be_changed_is_said_in_words(bare: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch):
    judged = looked_at(bare, scratch)

    def refuse(*_arguments: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(BackupError, match="Permission"):
        remove_unchanged(judged, watch=Watch())
    assert bare.exists()


@pytest.mark.parametrize("name", ["__init__.py", ".gitkeep", "lock", "notes.txt"])
def test_an_empty_file_of_another_kind_is_not_useless(tmp_path: Path, scratch: Path, name: str):
    (tmp_path / name).touch()
    assert not looked_at(tmp_path / name, scratch).is_useless


@pytest.mark.parametrize("name", ["a.db", "a.db.enc", "a.SQLITE3", "a.dump", "a.db.bak.20260101"])
def test_an_empty_archive_is_useless(tmp_path: Path, scratch: Path, name: str):
    (tmp_path / name).touch()
    judged = looked_at(tmp_path / name, scratch)
    assert judged.is_useless
    remove_unchanged(judged, watch=Watch())
    assert not (tmp_path / name).exists()


# Keys


def test_keys_are_read_from_a_file_and_from_a_folder(tmp_path: Path):
    keys = {name: os.urandom(32) for name in ("master.key", "master.key.bak.1", "master.key.bak.2")}
    for name, key in keys.items():
        (tmp_path / name).write_bytes(key)
    (tmp_path / "readme").write_text("not a key")
    assert read_legacy_keys(tmp_path / "master.key.bak.1") == [keys["master.key.bak.1"]]
    assert read_legacy_keys(tmp_path) == list(keys.values())
    (tmp_path / "linked").symlink_to("master.key")
    assert read_legacy_keys(tmp_path / "linked") == [keys["master.key"]]


def test_what_is_no_key_is_refused_and_no_key_is_made(tmp_path: Path):
    with pytest.raises(NotFoundError):
        read_legacy_keys(tmp_path / "master.key")
    with pytest.raises(InputError, match="holds no master"):
        read_legacy_keys(tmp_path)
    (tmp_path / "master.key").write_bytes(b"k" * 31)
    os.mkfifo(tmp_path / "fifo")
    for name in ("master.key", "fifo", ""):
        with pytest.raises(InputError, match="exactly 32 bytes") as found:
            read_legacy_keys(tmp_path / name)
        assert "kkk" not in found.value.message
    assert names_in(tmp_path) == {"master.key", "fifo"}
