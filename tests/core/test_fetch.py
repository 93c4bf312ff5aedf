"""Fetching stored bytes: whole and proven, or not there."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from backups_app.core.errors import CancelledError, VerificationError
from backups_app.core.fetch import fetch_stored
from backups_app.core.progress import Watch
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
