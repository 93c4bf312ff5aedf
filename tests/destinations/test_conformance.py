"""What every destination must do, whatever it is made of."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from backups_app.core.errors import CancelledError, InputError, RefusedError, UnreachableError
from backups_app.core.progress import Watch
from backups_app.destinations import Destination

NAME = "shop/2026/shop-1.sqlite3.zst"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"content")
    return path


def read(destination: Destination, name: str = NAME) -> bytes:
    with destination.open(name) as stream:
        pieces = []
        while piece := stream.read(1 << 16):
            pieces.append(piece)
        return b"".join(pieces)


def names(destination: Destination) -> dict[str, int]:
    return {each.name: each.size_bytes for each in destination.list()}


def test_what_was_stored_is_read_back_and_the_source_stays(destination: Destination, source: Path):
    destination.store(source, NAME)
    assert read(destination) == b"content"
    assert destination.size(NAME) == 7
    assert source.read_bytes() == b"content"


@pytest.mark.parametrize("size", [0, 1, 8 << 20, (8 << 20) + 1, 20 << 20])
def test_any_size_comes_back_whole(destination: Destination, tmp_path: Path, size: int):
    source = tmp_path / "large"
    content = hashlib.shake_128(b"x").digest(size)
    source.write_bytes(content)
    destination.store(source, NAME)
    assert destination.size(NAME) == size
    assert hashlib.sha256(read(destination)).digest() == hashlib.sha256(content).digest()


def test_an_object_is_never_overwritten(destination: Destination, source: Path, tmp_path: Path):
    destination.store(source, NAME)
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    with pytest.raises(RefusedError, match="exists already"):
        destination.store(other, NAME)
    assert read(destination) == b"content"
    assert len(names(destination)) == 1, "nothing under another name"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", ".", "..", ".hidden", "a/.hidden", "a/.."])
def test_a_name_that_leads_elsewhere_is_refused_by_every_verb(destination: Destination, source: Path, name: str):
    with pytest.raises(InputError):
        destination.store(source, name)
    with pytest.raises(InputError):
        read(destination, name)
    with pytest.raises(InputError):
        destination.size(name)
    with pytest.raises(InputError):
        destination.remove(name)


def test_a_missing_object_is_unreachable(destination: Destination, source: Path):
    destination.store(source, "shop/2026/other.json")
    with pytest.raises(UnreachableError, match="is not at the destination"):
        read(destination)
    with pytest.raises(UnreachableError):
        destination.size(NAME)


def test_removing_works_and_may_be_repeated(destination: Destination, source: Path):
    destination.store(source, NAME)
    destination.remove(NAME)
    destination.remove(NAME)
    with pytest.raises(UnreachableError):
        read(destination)
    assert names(destination) == {}


def test_a_name_is_free_again_after_removing(destination: Destination, source: Path):
    destination.store(source, NAME)
    destination.remove(NAME)
    destination.store(source, NAME)
    assert read(destination) == b"content"


def test_a_listing_names_every_object_with_its_size(destination: Destination, source: Path):
    wanted = {f"{folder}/2026/{folder}-{number}.json": 7 for folder in ("shop", "shop_archive") for number in range(3)}
    for name in wanted:
        destination.store(source, name)
    assert names(destination) == wanted


def test_a_cancel_in_the_middle_of_storing_leaves_nothing_that_cannot_be_removed(
    destination: Destination, tmp_path: Path
):
    large = tmp_path / "large"
    large.write_bytes(bytes(9 << 20))
    watch = Watch(is_cancelled=lambda: True)
    if not destination.is_remote:
        destination.store(large, NAME, watch=watch)  # a link takes no time to cancel
        return
    with pytest.raises(CancelledError):
        destination.store(large, NAME, watch=watch)
    assert names(destination).get(NAME, 0) < 9 << 20
    destination.remove(NAME)
    assert names(destination) == {}


def test_only_folders_of_this_host_are_not_remote(destination: Destination):
    assert destination.is_remote == (destination.name in ("memory", "s3"))


def test_sweeping_leaves_stored_objects_alone(destination: Destination, source: Path):
    destination.store(source, NAME)
    destination.sweep()
    assert read(destination) == b"content"
