"""The payload of an age file: chunks of 64 KiB, each sealed with its number and whether it is the last.

A sealed chunk therefore opens only at its own place: chunks cannot be swapped, dropped or
repeated, and a payload that was cut off has no last chunk. Whether a chunk is the last is known
only when the stream ends or goes on, so one is always held back.

Sixteen chunks are handled at a time, in two buffers that are used again and again: one call into
the cipher per chunk and no new memory for it is what makes this fast.
"""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from .errors import PayloadError

CHUNK_BYTES = 64 << 10
"""Plain bytes in each chunk but the last, which holds 1 to this many, or 0 in an empty payload."""

_TAG_BYTES = 16
_SEALED_BYTES = CHUNK_BYTES + _TAG_BYTES
_BATCH_CHUNKS = 16


def seal(pieces: Iterator[bytes], *, key: bytes) -> Iterator[bytes]:
    """The chunks of a payload. ``key`` must be used for nothing else.

    The last chunk is made only after ``pieces`` came to its regular end: when it raises, or when
    nobody reads on, what was written stays without an end and no reader accepts it.
    """
    cipher = ChaCha20Poly1305(key)
    sealed = memoryview(bytearray(_BATCH_CHUNKS * _SEALED_BYTES))
    counter = 0
    for batch, is_last in _batches(pieces, size_bytes=_BATCH_CHUNKS * CHUNK_BYTES):
        done = 0
        for start in range(0, max(len(batch), 1), CHUNK_BYTES):  # an empty payload is one empty chunk
            chunk = batch[start : start + CHUNK_BYTES]
            is_final = is_last and start + CHUNK_BYTES >= len(batch)
            end = done + len(chunk) + _TAG_BYTES
            cipher.encrypt_into(_nonce(counter, is_final=is_final), chunk, None, sealed[done:end])
            done, counter = end, counter + 1
        yield bytes(sealed[:done])


def unseal(pieces: Iterator[bytes], *, key: bytes) -> Iterator[bytes]:
    """The plain bytes of a payload, each of them authenticated before it is released.

    What was released before an error is a true beginning of the payload, but only a regular end
    proves that it is all of it.

    Raises:
        PayloadError: a chunk is not genuine, not in its place, missing, or one too many.
    """
    cipher = ChaCha20Poly1305(key)
    plain = memoryview(bytearray(_BATCH_CHUNKS * CHUNK_BYTES))
    counter = 0
    for batch, is_last in _batches(pieces, size_bytes=_BATCH_CHUNKS * _SEALED_BYTES):
        done, damage = 0, "" if batch else "it ends before it begins"
        for start in range(0, len(batch), _SEALED_BYTES):
            chunk = batch[start : start + _SEALED_BYTES]
            is_end = is_last and start + _SEALED_BYTES >= len(batch)
            opened, damage = _open_chunk(cipher, chunk, plain[done:], counter=counter, is_end=is_end)
            done, counter = done + opened, counter + 1
            if damage:
                break
        # A chunk that failed left its bytes in the buffer behind ``done``; they stay there.
        if done:
            yield bytes(plain[:done])
        if damage:
            raise PayloadError(damage)


def _open_chunk(
    cipher: ChaCha20Poly1305, chunk: memoryview, target: memoryview, *, counter: int, is_end: bool
) -> tuple[int, str]:
    """Open one chunk into ``target``; how many bytes of it are genuine, and what is wrong then."""
    size = len(chunk) - _TAG_BYTES
    if size < 0:
        return 0, "it ends in the middle of a chunk"
    if size == 0 and counter > 0:
        return 0, "its last chunk is empty"

    def opens(*, is_final: bool) -> bool:
        try:
            cipher.decrypt_into(_nonce(counter, is_final=is_final), chunk, None, target[:size])
        except InvalidTag:
            return False
        return True

    if opens(is_final=is_end):
        return size, ""
    # A whole genuine chunk that has the end in the wrong place: say so, for it points at a
    # truncated or extended file. It is released as the public test vectors demand.
    if size == CHUNK_BYTES and opens(is_final=not is_end):
        return size, "it ends too early" if is_end else "it goes on after its end"
    return 0, f"chunk {counter:,} is not genuine"


def _nonce(counter: int, *, is_final: bool) -> bytes:
    return counter.to_bytes(11, "big") + (b"\x01" if is_final else b"\x00")


def _batches(pieces: Iterator[bytes], *, size_bytes: int) -> Iterator[tuple[memoryview, bool]]:
    """All bytes of ``pieces`` in batches of one size, and whether a batch is the last.

    The last batch is never empty unless it is the only one. A batch is good until the next.
    """
    batch = memoryview(bytearray(size_bytes))
    filled = 0
    for piece in pieces:
        pending = memoryview(piece)
        while pending:
            if filled == size_bytes:
                yield batch, False
                filled = 0
            taken = pending[: size_bytes - filled]
            batch[filled : filled + len(taken)] = taken
            filled += len(taken)
            pending = pending[len(taken) :]
    yield batch[:filled], True
