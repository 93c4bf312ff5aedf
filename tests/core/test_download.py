"""What goes out arrives whole only when it is what was proven."""

from __future__ import annotations

import hashlib
import io
import tracemalloc

import pytest

from backups_app.core.download import BLOCK_BYTES, ProvenStream
from backups_app.core.errors import BackupError, VerificationError


def stream_of(content: bytes, *, size_bytes: int | None = None, sha256: str = "") -> tuple[ProvenStream, list[str]]:
    said: list[str] = []
    return (
        ProvenStream(
            io.BytesIO(content),
            size_bytes=len(content) if size_bytes is None else size_bytes,
            sha256=sha256 or hashlib.sha256(content).hexdigest(),
            on_failure=lambda exc: said.append(exc.message),
        ),
        said,
    )


def drained(stream: ProvenStream) -> bytes:
    pieces = []
    while piece := stream.read():
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_proven_bytes_arrive_whole(size: int):
    content = bytes(i % 251 for i in range(size))
    stream, said = stream_of(content)
    assert drained(stream) == content
    assert stream.read() == b""
    assert said == []


@pytest.mark.parametrize("size", [1, BLOCK_BYTES, 3 * BLOCK_BYTES + 5])
def test_altered_bytes_never_arrive_whole(size: int):
    stream, said = stream_of(b"x" * size, sha256=hashlib.sha256(b"y" * size).hexdigest())
    arrived: list[bytes] = []
    with pytest.raises(VerificationError, match="not those that were proven"):
        arrived.extend(iter(stream.read, b""))
    assert len(b"".join(arrived)) < size
    assert len(said) == 1


@pytest.mark.parametrize("size_bytes", [9, 11])
def test_another_size_than_announced_is_refused(size_bytes: int):
    stream, said = stream_of(b"0123456789", size_bytes=size_bytes)
    with pytest.raises(VerificationError):
        drained(stream)
    assert said


def test_a_reading_error_is_told_and_ends_it():
    class Broken(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise OSError(5, "Input/output error")

    said: list[str] = []
    stream = ProvenStream(Broken(), size_bytes=1, sha256="", on_failure=lambda exc: said.append(exc.message))
    with pytest.raises(BackupError, match="reading the stored object"):
        stream.read()
    assert said


def test_memory_does_not_grow_with_the_size():
    class Zeros(io.RawIOBase):
        left = 256 << 20

        def read(self, size: int = -1) -> bytes:
            piece = bytes(min(size, self.left))
            self.left -= len(piece)
            return piece

    digest = hashlib.sha256()
    for _ in range(256):
        digest.update(bytes(1 << 20))
    stream = ProvenStream(Zeros(), size_bytes=256 << 20, sha256=digest.hexdigest())  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        while stream.read():
            pass
        assert tracemalloc.get_traced_memory()[1] < 4 * BLOCK_BYTES
    finally:
        tracemalloc.stop()
