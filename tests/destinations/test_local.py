"""A destination publishes a whole object or nothing, and never overwrites."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backups_app.core.errors import BackupError, DiskFullError, InputError, RefusedError, UnreachableError
from backups_app.destinations import LocalDestination, get_destination
from tests.support import bytes_in, mounted_again, mounted_tmpfs, names_in

NAME = "shop/2026/shop-1.sqlite3.zst"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archives"


@pytest.fixture
def destination(root: Path) -> LocalDestination:
    return LocalDestination(root)


@pytest.fixture
def draft(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes a private source file."""

    def make(content: bytes = b"content") -> Path:
        path = tmp_path / f"draft-{uuid.uuid4().hex}"
        path.write_bytes(content)
        path.chmod(0o600)
        return path

    return make


def read(destination: LocalDestination, name: str = NAME) -> bytes:
    with destination.open(name) as stream:
        return stream.read()


def test_what_was_stored_is_read_back(destination: LocalDestination, root: Path, draft: Callable[..., Path]):
    source = draft(b"content")
    destination.store(source, NAME)
    assert read(destination) == b"content"
    assert bytes_in(root) == {NAME: b"content"}
    assert source.read_bytes() == b"content", "the next destination needs it too"


def test_two_folders_on_one_file_system_never_share_a_file(
    destination: LocalDestination, tmp_path: Path, root: Path, draft: Callable[..., Path]
):
    other = LocalDestination(tmp_path / "other", name="other")
    source = draft(b"archive")
    for each in (destination, other):
        each.store(source, NAME)
    source.unlink()
    (root / NAME).write_bytes(b"rotten!")
    with other.open(NAME) as stream:
        assert stream.read(100) == b"archive"


def test_folders_and_objects_are_private(destination: LocalDestination, root: Path, draft: Callable[..., Path]):
    destination.store(draft(), NAME)
    for path in [root, *root.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_an_object_is_never_overwritten(destination: LocalDestination, draft: Callable[..., Path]):
    destination.store(draft(b"first"), NAME)
    with pytest.raises(RefusedError):
        destination.store(draft(b"second"), NAME)
    assert read(destination) == b"first"


def test_a_dangling_link_is_not_overwritten_or_followed(
    destination: LocalDestination, root: Path, tmp_path: Path, draft: Callable[..., Path]
):
    (root / NAME).parent.mkdir(parents=True)
    (root / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        destination.store(draft(), NAME)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", ".", "..", ".hidden", "a/.hidden", "a/.."])
def test_a_name_that_leads_elsewhere_is_refused_by_every_verb(
    destination: LocalDestination, root: Path, draft: Callable[..., Path], name: str
):
    source = draft()
    with pytest.raises(InputError):
        destination.store(source, name)
    with pytest.raises(InputError):
        read(destination, name)
    with pytest.raises(InputError):
        destination.remove(name)
    assert not root.exists()
    assert source.exists()


def test_a_missing_object_is_unreachable(destination: LocalDestination, root: Path):
    with pytest.raises(UnreachableError, match="folder is missing too"):
        read(destination)
    (root / NAME).parent.mkdir(parents=True)
    with pytest.raises(UnreachableError, match="folder is there"):
        read(destination)


def test_a_folder_in_place_of_the_object_is_unreachable(destination: LocalDestination, root: Path):
    (root / NAME).mkdir(parents=True)
    with pytest.raises(UnreachableError):
        read(destination)


def test_a_read_error_in_the_middle_is_unreachable(destination: LocalDestination, draft: Callable[..., Path]):
    destination.store(draft(), NAME)

    def break_down() -> None:
        with destination.open(NAME):
            raise OSError(5, "Input/output error")

    with pytest.raises(UnreachableError, match="Input/output error"):
        break_down()


def test_removing_works_and_may_be_repeated(destination: LocalDestination, root: Path, draft: Callable[..., Path]):
    destination.store(draft(), NAME)
    destination.remove(NAME)
    destination.remove(NAME)
    assert bytes_in(root) == {}


def test_removing_where_nothing_was_ever_stored_creates_nothing(destination: LocalDestination, root: Path):
    destination.remove(NAME)
    assert not root.exists()


def test_a_folder_that_cannot_be_made_is_an_error_and_keeps_the_source(
    destination: LocalDestination, root: Path, draft: Callable[..., Path]
):
    root.write_text("in the way")
    source = draft()
    with pytest.raises(BackupError):
        destination.store(source, NAME)
    assert source.read_bytes() == b"content"
    assert root.read_text() == "in the way"


def test_another_file_system_gets_a_whole_private_object(tmp_path: Path, draft: Callable[..., Path]):
    with mounted_tmpfs(tmp_path / "disk", size_bytes=4 << 20) as disk:
        source = draft(b"x" * 1_500_000)
        destination = LocalDestination(disk / "archives")
        destination.store(source, NAME)
        assert read(destination) == b"x" * 1_500_000
        assert (disk / "archives" / NAME).stat().st_mode & 0o777 == 0o600
        assert names_in(disk / "archives" / ".incoming") == set()
        assert source.exists()


def test_another_mount_of_the_same_disk_gets_a_whole_private_object(tmp_path: Path, draft: Callable[..., Path]):
    (tmp_path / "volume").mkdir()
    with mounted_again(tmp_path / "volume", tmp_path / "archives") as root:
        source = draft()
        assert source.stat().st_dev == root.stat().st_dev, "only then would it be linked"
        destination = LocalDestination(root)
        destination.store(source, NAME)
        assert read(destination) == source.read_bytes() == b"content"
        assert (root / NAME).stat().st_mode & 0o777 == 0o600
        assert names_in(root / ".incoming") == set()


def test_a_full_file_system_gets_nothing(tmp_path: Path, draft: Callable[..., Path]):
    with mounted_tmpfs(tmp_path / "disk", size_bytes=1 << 20) as disk:
        source = draft(b"x" * (2 << 20))
        destination = LocalDestination(disk / "archives")
        with pytest.raises(DiskFullError):
            destination.store(source, NAME)
        assert bytes_in(disk) == {}
        assert source.stat().st_size == 2 << 20


def test_sweeping_leaves_stored_objects_alone(destination: LocalDestination, root: Path, draft: Callable[..., Path]):
    destination.store(draft(), NAME)
    destination.sweep()
    assert bytes_in(root) == {NAME: b"content"}


def test_the_built_in_destination_is_the_archives_folder(home: Path, draft: Callable[..., Path]):
    destination = get_destination("local")
    assert destination.name == "local"
    destination.store(draft(), NAME)
    assert (home / "archives" / NAME).read_bytes() == b"content"


def test_an_unknown_destination_is_refused(home: Path):
    with pytest.raises(RefusedError, match="attic"):
        get_destination("attic")


def test_a_listing_names_every_object_with_its_size(
    destination: LocalDestination, root: Path, draft: Callable[..., Path]
):
    for number in range(3):
        destination.store(draft(b"x" * number), f"shop/202{number}/shop.zst")
    (root / ".incoming").mkdir()
    (root / ".incoming" / "half").write_bytes(b"x")
    listed = {each.name: (each.size_bytes, each.is_plain) for each in destination.list()}
    assert listed == {f"shop/202{number}/shop.zst": (number, True) for number in range(3)}


def test_a_listing_leaves_out_what_is_removed_meanwhile(
    destination: LocalDestination, draft: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    for number in range(3):
        destination.store(draft(), f"shop/{number}.json")
    scandir = os.scandir

    @contextmanager
    def and_remove(folder: int) -> Iterator[list[os.DirEntry[str]]]:
        with scandir(folder) as entries:
            found = list(entries)
        if any(each.name == "1.json" for each in found):
            os.unlink("1.json", dir_fd=folder)
        yield found

    monkeypatch.setattr("backups_app.destinations.local.os.scandir", and_remove)
    assert {each.name for each in destination.list()} == {"shop/0.json", "shop/2.json"}


def test_a_listing_does_not_follow_links(destination: LocalDestination, root: Path, tmp_path: Path):
    (root / "shop").mkdir(parents=True)
    (root / "shop" / "loop").symlink_to(root)
    (root / "shop" / "file").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(root / "shop" / "pipe")
    listed = {each.name: each.is_plain for each in destination.list()}
    assert listed == {"shop/loop": False, "shop/file": False, "shop/pipe": False}


def test_a_destination_that_is_not_there_cannot_be_listed(destination: LocalDestination, root: Path):
    with pytest.raises(UnreachableError, match="cannot be listed"):
        list(destination.list())
    root.write_text("in the way")
    with pytest.raises(UnreachableError):
        list(destination.list())


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_link_or_a_pipe_is_not_opened(destination: LocalDestination, root: Path, tmp_path: Path, kind: str):
    (root / NAME).parent.mkdir(parents=True)
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(b"content")
        (root / NAME).symlink_to(tmp_path / "elsewhere")
    else:
        os.mkfifo(root / NAME)
    with pytest.raises(UnreachableError, match="it is a link" if kind == "link" else "not a plain file"):
        read(destination)


def test_the_root_itself_may_be_a_link(tmp_path: Path, draft: Callable[..., Path]):
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "archives").symlink_to(tmp_path / "big-disk")
    destination = LocalDestination(tmp_path / "archives")
    destination.store(draft(), NAME)
    assert bytes_in(tmp_path / "big-disk") == {NAME: b"content"}
    assert read(destination) == b"content"
    assert [each.name for each in destination.list()] == [NAME]
    destination.remove(NAME)
    assert bytes_in(tmp_path / "big-disk") == {}


@pytest.mark.parametrize("linked", ["shop", "shop/2026"])
def test_a_link_in_place_of_a_folder_is_followed_by_no_verb(
    destination: LocalDestination, root: Path, tmp_path: Path, draft: Callable[..., Path], linked: str
):
    elsewhere = tmp_path / "elsewhere"
    there = elsewhere / Path(NAME).relative_to(linked)
    there.parent.mkdir(parents=True)
    there.write_bytes(b"of somebody else")
    (root / linked).parent.mkdir(parents=True)
    (root / linked).symlink_to(elsewhere)
    with pytest.raises(UnreachableError, match=f"its folder {Path(linked).name} is a link"):
        read(destination)
    with pytest.raises(UnreachableError):
        destination.size(NAME)
    with pytest.raises(BackupError, match="is a link"):
        destination.remove(NAME)
    for name in (NAME, f"{Path(NAME).parent}/new.zst", f"{linked}/new.zst"):
        with pytest.raises(BackupError, match="is a link"):
            destination.store(draft(), name)
    assert [(each.name, each.is_plain) for each in destination.list()] == [(linked, False)]
    assert bytes_in(elsewhere) == {there.relative_to(elsewhere).as_posix(): b"of somebody else"}


def test_a_link_in_place_of_the_folder_for_unfinished_work_is_not_followed(root: Path, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "token").mkdir(parents=True)
    (elsewhere / "token" / "file").write_bytes(b"of somebody else")
    (elsewhere / "token.lock").touch()
    root.mkdir()
    (root / ".incoming").symlink_to(elsewhere)
    with pytest.raises(OSError, match="is a link"):
        LocalDestination(root).sweep()
    assert bytes_in(elsewhere) == {"token/file": b"of somebody else", "token.lock": b""}


def test_no_descriptor_is_left_open(destination: LocalDestination, root: Path, draft: Callable[..., Path]):
    destination.store(draft(), NAME)
    (root / "linked").symlink_to(root)
    before = names_in(Path("/proc/self/fd"))
    for _ in range(20):
        read(destination)
        list(destination.list())
        for name in ("linked/x", "shop/none/x", f"{NAME}/x", "shop"):
            with pytest.raises(UnreachableError):
                read(destination, name)
        with pytest.raises(RefusedError):
            destination.store(draft(), NAME)
    assert names_in(Path("/proc/self/fd")) == before
