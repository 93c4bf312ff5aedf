"""Private scratch, sweeping after the dead, and publishing that never overwrites."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from backups_app.core import files
from backups_app.core.errors import BackupError, DiskFullError, RefusedError
from backups_app.core.files import (
    create_private_file,
    create_private_folder,
    file_lock,
    is_scratch_in_use,
    publish_new_file,
    refuse_existing,
    require_free_space,
    scratch_folder,
    sweep_scratch,
)
from tests.support import PROJECT, names_in

HOLDS_SCRATCH = """
import sys, time
from pathlib import Path
from backups_app.core.files import scratch_folder
with scratch_folder(Path(sys.argv[1]), sys.argv[2]) as folder:
    (folder / "snapshot.sqlite3").write_bytes(b"rows")
    print("ready", flush=True)
    time.sleep(600)
"""


def start_scratch_holder(root: Path, token: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS_SCRATCH, str(root), token], cwd=PROJECT, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_private_folders_and_files_are_private_whatever_the_umask(tmp_path: Path):
    folder = create_private_folder(tmp_path / "scratch")
    os.close(create_private_file(folder / "snapshot"))
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "snapshot") == 0o600


def test_an_existing_folder_keeps_its_mode(tmp_path: Path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o750)
    create_private_folder(tmp_path / "shared")
    assert mode_of(tmp_path / "shared") == 0o750


def test_a_private_file_is_never_one_that_was_there(tmp_path: Path):
    (tmp_path / "taken").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("taken", "link"):
        with pytest.raises(FileExistsError):
            create_private_file(tmp_path / name)
    assert (tmp_path / "taken").read_bytes() == b"precious"
    assert names_in(tmp_path) == {"taken", "link"}


def test_a_lock_is_held_by_one_and_free_afterwards(tmp_path: Path):
    lock = tmp_path / "locks" / "shop.lock"
    with file_lock(lock) as is_first:
        assert is_first
        with file_lock(lock, blocking=False) as is_second:
            assert not is_second
    with file_lock(lock, blocking=False) as is_third:
        assert is_third


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "shop.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"), file_lock(tmp_path / "shop.lock"):
        pass
    assert names_in(tmp_path) == {"shop.lock"}


def test_scratch_is_private_and_gone_after_success(tmp_path: Path):
    root = tmp_path / "scratch"
    with scratch_folder(root, "job-1") as folder:
        assert mode_of(root) == mode_of(folder) == 0o700
        (folder / "deep").mkdir()
        (folder / "deep" / "plaintext").write_bytes(b"rows")
        assert is_scratch_in_use(root, "job-1")
    assert names_in(root) == set()
    assert not is_scratch_in_use(root, "job-1")


def test_scratch_is_gone_after_a_failure(tmp_path: Path):
    def fail() -> None:
        with scratch_folder(tmp_path, "job-1") as folder:
            (folder / "plaintext").write_bytes(b"rows")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names_in(tmp_path) == set()


def test_sweeping_removes_what_the_dead_left_and_spares_the_living(tmp_path: Path):
    dead = start_scratch_holder(tmp_path, "dead")
    living = start_scratch_holder(tmp_path, "living")
    try:
        end(dead)
        assert (tmp_path / "dead" / "snapshot.sqlite3").exists()
        assert not is_scratch_in_use(tmp_path, "dead")
        assert is_scratch_in_use(tmp_path, "living")
        assert sweep_scratch(tmp_path) == ["dead"]
        assert names_in(tmp_path) == {"living", "living.lock"}
        assert (tmp_path / "living" / "snapshot.sqlite3").read_bytes() == b"rows"
        assert sweep_scratch(tmp_path) == []
    finally:
        end(living)
    assert sweep_scratch(tmp_path) == ["living"]
    assert names_in(tmp_path) == set()


def test_sweeping_a_missing_root_creates_nothing(tmp_path: Path):
    assert sweep_scratch(tmp_path / "nowhere") == []
    assert names_in(tmp_path) == set()


def test_sweeping_leaves_folders_without_a_lock_alone(tmp_path: Path):
    (tmp_path / "somebody-elses").mkdir()
    (tmp_path / "somebody-elses" / "file").write_bytes(b"keep")
    assert sweep_scratch(tmp_path) == []
    assert (tmp_path / "somebody-elses" / "file").read_bytes() == b"keep"


def test_asking_whether_an_unknown_scratch_is_in_use_creates_nothing(tmp_path: Path):
    assert not is_scratch_in_use(tmp_path, "unknown")
    assert names_in(tmp_path) == set()


def test_missing_free_space_is_refused_with_both_figures(tmp_path: Path):
    require_free_space(tmp_path, 1, purpose="a copy")
    with pytest.raises(DiskFullError, match=r"a copy: 1,000,000,000,000,000 bytes are needed, [\d,]+ are free"):
        require_free_space(tmp_path, 10**15, purpose="a copy")


@pytest.mark.parametrize("name", ["new.db", "new.db-wal", "new.db-shm", "new.db-journal"])
def test_a_target_or_sidecar_that_exists_is_refused_untouched(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(RefusedError):
        refuse_existing(tmp_path / "new.db")
    assert (tmp_path / name).read_bytes() == b"precious"
    assert names_in(tmp_path) == {name}


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_the_name_of_a_sidecar_of_another_database_is_refused(tmp_path: Path, suffix: str):
    (tmp_path / "live.db").write_bytes(b"precious")
    with pytest.raises(RefusedError, match="SQLite keeps beside"):
        refuse_existing(tmp_path / f"live.db{suffix}")
    assert names_in(tmp_path) == {"live.db"}
    refuse_existing(tmp_path / f"nobody.db{suffix}")
    refuse_existing(tmp_path / suffix)


def test_a_dangling_link_counts_as_existing(tmp_path: Path):
    (tmp_path / "new.db").symlink_to(tmp_path / "nowhere")
    with pytest.raises(RefusedError):
        refuse_existing(tmp_path / "new.db")


def test_a_free_name_is_not_refused(tmp_path: Path):
    (tmp_path / "new.db-other").write_bytes(b"")
    refuse_existing(tmp_path / "new.db")


def forbid_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "no hard links here")

    monkeypatch.setattr(files.os, "link", refuse)


@pytest.mark.parametrize("has_links", [True, False], ids=["with hard links", "without hard links"])
def test_publishing_gives_the_file_its_name_and_removes_the_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool
):
    if not has_links:
        forbid_hard_links(monkeypatch)
    (tmp_path / ".partial").write_bytes(b"whole")
    publish_new_file(tmp_path / ".partial", tmp_path / "new.db")
    assert (tmp_path / "new.db").read_bytes() == b"whole"
    assert names_in(tmp_path) == {"new.db"}


@pytest.mark.parametrize("has_links", [True, False], ids=["with hard links", "without hard links"])
def test_publishing_never_replaces_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool):
    if not has_links:
        forbid_hard_links(monkeypatch)
    (tmp_path / ".partial").write_bytes(b"whole")
    (tmp_path / "new.db").write_bytes(b"precious")
    with pytest.raises(RefusedError):
        publish_new_file(tmp_path / ".partial", tmp_path / "new.db")
    assert (tmp_path / "new.db").read_bytes() == b"precious"
    assert (tmp_path / ".partial").read_bytes() == b"whole"


def test_a_failed_rename_does_not_leave_an_empty_file_under_the_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    forbid_hard_links(monkeypatch)
    with pytest.raises(BackupError):
        publish_new_file(tmp_path / "never-written", tmp_path / "new.db")
    assert names_in(tmp_path) == set()
