"""The old encrypted container: what it holds, which key opens it, and what is damaged."""

from __future__ import annotations

import io
import os
import stat
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups_app.core import legacy
from backups_app.core.errors import BackupError, CancelledError, InputError, KeyMissingError, VerificationError
from backups_app.core.legacy import Container, decrypt_container, looks_like_container, read_container
from backups_app.core.progress import Watch
from tests.foreign import flipped, legacy_container
from tests.support import names_in, run_python

CURRENT, ROTATED, LOST = os.urandom(32), os.urandom(32), os.urandom(32)
CONTENT = b"SQLite format 3\x00" + os.urandom(5000)


def decrypt(container: bytes, folder: Path, *keys: bytes, watch: Watch | None = None) -> Container:
    return decrypt_container(
        io.BytesIO(container), folder / "out", size_bytes=len(container), keys=keys, watch=watch or Watch()
    )


def refused(container: bytes, folder: Path, *keys: bytes) -> BackupError:
    """The error, after which nothing may be left in the folder."""
    with pytest.raises(BackupError) as caught:
        decrypt(container, folder, *keys)
    assert names_in(folder) == set()
    return caught.value


def test_the_key_opens_it_into_a_private_file(scratch: Path):
    container = decrypt(legacy_container(CONTENT, CURRENT), scratch, CURRENT)
    assert (scratch / "out").read_bytes() == CONTENT
    assert stat.S_IMODE((scratch / "out").stat().st_mode) == 0o600
    assert container.metadata["original_size"] == container.content_bytes == len(CONTENT)


@pytest.mark.parametrize("content", [CONTENT, b"PGDMP and more", b"neither of them", b""])
def test_a_rotated_key_among_others_opens_it(scratch: Path, content: bytes):
    decrypt(legacy_container(content, ROTATED), scratch, LOST, CURRENT, ROTATED)
    assert (scratch / "out").read_bytes() == content


def test_content_larger_than_a_piece_is_streamed(scratch: Path):
    content = os.urandom(legacy.CHUNK_BYTES * 2 + 17)
    decrypt(legacy_container(content, CURRENT), scratch, CURRENT)
    assert (scratch / "out").read_bytes() == content


def test_without_any_key_it_says_that_a_key_is_missing(scratch: Path):
    assert "no key was given" in str(refused(legacy_container(CONTENT, LOST), scratch))


def test_keys_that_do_not_open_it_are_not_called_proof_of_damage(scratch: Path):
    error = refused(legacy_container(CONTENT, LOST), scratch, CURRENT, ROTATED)
    assert isinstance(error, KeyMissingError)
    assert "No given key opens it (2 tried), or it is damaged" in error.message


def test_damage_is_told_from_a_missing_key_when_the_beginning_opens(scratch: Path):
    error = refused(flipped(legacy_container(CONTENT, CURRENT), -100), scratch, ROTATED, CURRENT)
    assert isinstance(error, VerificationError)
    assert "the key fits, but the authentication tag does not match" in error.message


def test_metadata_is_authenticated(scratch: Path):
    container = legacy_container(CONTENT, CURRENT).replace(b'"version": 1', b'"version": 2')
    assert isinstance(refused(container, scratch, CURRENT), VerificationError)


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 40, 70, 100, 2000, -17, -1])
def test_a_truncated_container_is_damaged_whatever_the_keys(scratch: Path, length: int):
    container = legacy_container(CONTENT, CURRENT)[:length]
    for keys in ((), (CURRENT,), (LOST,)):
        assert isinstance(refused(container, scratch, *keys), VerificationError)


def test_trailing_bytes_are_damage(scratch: Path):
    assert "must have" in str(refused(legacy_container(CONTENT, CURRENT) + b"x", scratch, CURRENT))


@pytest.mark.parametrize("metadata", [b"not json", b"[1]", b"", b"{", b"[" * 60_000, b'{"a":\xff}'])
def test_metadata_that_is_no_json_object_is_damage(scratch: Path, metadata: bytes):
    assert "JSON object" in str(refused(legacy_container(CONTENT, CURRENT, metadata=metadata), scratch, CURRENT))


def test_metadata_that_tells_another_size_is_damage(scratch: Path):
    container = legacy_container(CONTENT, CURRENT, metadata={"original_size": 12})
    assert "tells of 12 bytes" in str(refused(container, scratch, CURRENT))


def test_metadata_need_not_tell_the_size(scratch: Path):
    decrypt(legacy_container(CONTENT, CURRENT, metadata={}), scratch, CURRENT)


def test_a_package_too_short_for_its_parts_is_damage(scratch: Path):
    assert "too short" in str(refused(struct.pack(">IH", 43, 2) + b"{}" + bytes(43), scratch, CURRENT))


@pytest.mark.parametrize("key", [b"", b"short", bytes(33), b"0" * 64])
def test_a_malformed_key_is_refused_without_being_shown(scratch: Path, key: bytes):
    error = refused(legacy_container(CONTENT, CURRENT), scratch, CURRENT, key)
    assert isinstance(error, InputError)
    assert "Key 2 of 2" in error.message


def test_the_structure_is_read_without_a_key():
    stored = legacy_container(CONTENT, LOST)
    container = read_container(io.BytesIO(stored), size_bytes=len(stored))
    assert container.metadata["algorithm"] == "AES-256-GCM"
    assert container.content_bytes == len(CONTENT)


def test_a_cancel_leaves_nothing(scratch: Path):
    with pytest.raises(CancelledError):
        decrypt(legacy_container(CONTENT, CURRENT), scratch, CURRENT, watch=Watch(is_cancelled=lambda: True))
    assert names_in(scratch) == set()


def test_an_existing_target_is_not_touched(scratch: Path):
    (scratch / "out").write_bytes(b"mine")
    with pytest.raises(BackupError):
        decrypt(legacy_container(CONTENT, CURRENT), scratch, CURRENT)
    assert (scratch / "out").read_bytes() == b"mine"


def test_it_is_recognised_by_its_beginning():
    container = legacy_container(CONTENT, CURRENT)
    assert looks_like_container(container[:4096])
    assert looks_like_container(container[:30])  # cut in the metadata
    for text in (b"", b"{}", b'logs: {"level": 1}', b'# a: {"x": 1}', b"SQLite format 3\x00"):
        assert not looks_like_container(text, size_bytes=len(text))


def test_memory_stays_constant(tmp_path: Path):
    program = """
import sys
from pathlib import Path
from backups_app.core.legacy import decrypt_container
from backups_app.core.progress import Watch
path = Path(sys.argv[1])
def peak():  # getrusage would tell the parent's, inherited over exec
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) >> 10
before = peak()
with open(path, "rb", buffering=0) as stored:
    decrypt_container(stored, path.with_name("out"), size_bytes=path.stat().st_size, keys=[bytes(32)], watch=Watch())
print(peak() - before)
"""
    (tmp_path / "large.enc").write_bytes(legacy_container(bytes(64 << 20), bytes(32)))
    assert int(run_python(program, tmp_path / "large.enc").stdout) < 24


WHOLE = legacy_container(CONTENT[:200], CURRENT)


@settings(deadline=None, max_examples=200)
@given(
    st.binary(max_size=300)
    | st.builds(lambda at: WHOLE[:at], st.integers(0, len(WHOLE)))
    | st.builds(lambda at, put: WHOLE[:at] + put + WHOLE[at + len(put) :], st.integers(0, len(WHOLE)), st.binary())
)
def test_any_bytes_give_the_content_or_a_named_error_and_nothing_else(stored: bytes):
    with tempfile.TemporaryDirectory() as folder:
        try:
            decrypt(stored, Path(folder), CURRENT)
        except (VerificationError, KeyMissingError):
            assert names_in(Path(folder)) == set()
        else:
            assert (Path(folder) / "out").read_bytes() == CONTENT[:200]
    looks_like_container(stored, size_bytes=len(stored))
