"""Proven bytes on their way out: they arrive whole only when they are those that were proven."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import BinaryIO

from .errors import BackupError, VerificationError, translated

BLOCK_BYTES = 1 << 18


class ProvenStream:
    """Reads a stored object piece by piece, with its digest taken on the way; holds two pieces at most.

    The last piece is handed out only after all of them gave the digest: whoever receives fewer
    bytes than were announced knows that the object cannot be trusted.
    """

    def __init__(
        self,
        stream: BinaryIO,
        *,
        size_bytes: int,
        sha256: str,
        on_failure: Callable[[BackupError], None] | None = None,
    ) -> None:
        self._stream = stream
        self._left, self._sha256 = size_bytes, sha256
        self._digest = hashlib.sha256()
        self._on_failure = on_failure
        self._held: bytes | None = None

    def read(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
            VerificationError: the bytes are not those that were proven. BackupError: they cannot be
                read. The rest is not handed out.
        """
        try:
            piece = self._next() if self._held is None else self._held
            self._held = self._next() if piece else b""
            if not self._held:
                self._prove()
        except BackupError as exc:
            if self._on_failure is not None:
                self._on_failure(exc)
            raise
        return piece

    def _next(self) -> bytes:
        with translated("reading the stored object"):
            piece = self._stream.read(BLOCK_BYTES)
        self._left -= len(piece)
        self._digest.update(piece)
        if self._left < 0:
            self._refuse()
        return piece

    def _prove(self) -> None:
        if self._left or self._digest.hexdigest() != self._sha256:
            self._refuse()

    def _refuse(self) -> None:
        raise VerificationError(
            "The stored bytes are not those that were proven; the rest of them was not sent.",
            "Verify this backup, and use another copy.",
        )
