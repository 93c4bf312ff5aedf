"""Fetching stored bytes: whole and proven, or not there."""

from __future__ import annotations

import hashlib
import io
from functools import partial
from pathlib import Path

import pytest

from backups_app.core.errors import BackupError, CancelledError, DiskFullError, UnreachableError, VerificationError
from backups_app.core.fetch import fetch_stored, gives_back
from backups_app.core.progress import Watch
from backups_app.destinations import LocalDestination
from tests.faults import Fault, failing
from tests.support import names_in, opener

CONTENT = b"stored bytes" * 100_000


def fetch(target: Path, *, sha256: str | None, watch: Watch | None = None) -> None:
    opened = opener(lambda: io.BytesIO(CONTENT))
    fetch_stored(opened, target, size_bytes=len(CONTENT), sha256=sha256, watch=watch or Watch())


@pytest.mark.parametrize("sha256", [hashlib.sha256(CONTENT).hexdigest(), None])
def test_the_bytes_arrive_in_a_private_file(tmp_path: Path, sha256: str | None):
    fetch(tmp_path / "new", sha256=sha256)
    assert (tmp_path / "new").read_bytes() == CONTENT
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_other_bytes_are_not_kept(tmp_path: Path):
    with pytest.raises(VerificationError):
        fetch(tmp_path / "new", sha256="0" * 64)
    assert names_in(tmp_path) == set()


def test_a_cancelled_fetch_leaves_nothing(tmp_path: Path):
    with pytest.raises(CancelledError):
        fetch(tmp_path / "new", sha256=None, watch=Watch(is_cancelled=lambda: True))
    assert names_in(tmp_path) == set()


def test_nothing_is_overwritten(tmp_path: Path):
    (tmp_path / "new").write_bytes(b"mine")
    with pytest.raises(Exception, match="exist"):
        fetch(tmp_path / "new", sha256=None)
    assert (tmp_path / "new").read_bytes() == b"mine"


# The disk here is not the store


@pytest.fixture
def store(tmp_path: Path) -> LocalDestination:
    """A folder that holds the content as ``object``."""
    (tmp_path / "draft").write_bytes(CONTENT)
    destination = LocalDestination(tmp_path / "store")
    destination.store(tmp_path / "draft", "object")
    return destination


@pytest.mark.parametrize("call", ["open", "write", "sync"])
def test_a_full_disk_here_is_no_verdict_on_the_store(tmp_path: Path, store: LocalDestination, call: str):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    fetched = partial(fetch_stored, partial(store.open, "object"), size_bytes=len(CONTENT), sha256=None, watch=Watch())
    with failing(Fault(scratch, call, "no space", 0)) as counted:
        fetched(scratch / "counted")
    assert counted.count > 0
    for at in range(1, counted.count + 1):
        with failing(Fault(scratch, call, "no space", at)), pytest.raises(DiskFullError, match="fetching new"):
            fetched(scratch / "new")
        assert names_in(scratch) == {"counted"}


def test_a_disk_here_that_cannot_be_read_is_no_verdict_on_the_store(tmp_path: Path, store: LocalDestination):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "mine").write_bytes(CONTENT)
    opened = partial(store.open, "object")
    assert gives_back(opened, scratch / "mine", watch=Watch())
    for call in ("open", "read"):
        fault = Fault(scratch, call, "i/o error", 1)
        with failing(fault), pytest.raises(BackupError, match="reading mine") as raised:
            gives_back(opened, scratch / "mine", watch=Watch())
        assert fault.fired
        assert not isinstance(raised.value, UnreachableError)
    with failing(Fault(tmp_path / "store", "open", "i/o error", 1)), pytest.raises(UnreachableError):
        gives_back(opened, scratch / "mine", watch=Watch())


@pytest.mark.parametrize(("content", "is_same"), [(CONTENT, True), (CONTENT[:-1], False), (CONTENT + b"x", False)])
def test_what_the_store_gives_back_is_compared_to_the_last_byte(
    tmp_path: Path, store: LocalDestination, content: bytes, is_same: bool
):
    (tmp_path / "mine").write_bytes(content)
    assert gives_back(partial(store.open, "object"), tmp_path / "mine", watch=Watch()) is is_same
