"""Lines and counted bytes from a chain of byte iterators."""

from __future__ import annotations

from collections.abc import Iterator


class ByteSource:
    """Reads the front of a stream piece by piece and hands on the rest.

    What the iterator raises passes through.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._buffer = bytearray()

    def _fill(self) -> bool:
        """Take one more piece; whether there was one."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        self._buffer += piece
        return True

    def line(self, *, limit_bytes: int) -> bytes:
        """The next line with its LF; without LF when the stream ends or the limit comes first."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched, limit_bytes)) < 0:
            searched = len(self._buffer)
            if searched >= limit_bytes or not self._fill():
                return self.take(min(searched, limit_bytes))
        return self.take(end + 1)

    def peek(self, size_bytes: int) -> bytes:
        """The next bytes, which stay in place; fewer only where the stream ends."""
        while len(self._buffer) < size_bytes and self._fill():
            pass
        return bytes(self._buffer[:size_bytes])

    def take(self, size_bytes: int) -> bytes:
        """The next bytes; fewer only where the stream ends."""
        taken = self.peek(size_bytes)
        del self._buffer[:size_bytes]
        return taken

    def rest(self) -> Iterator[bytes]:
        """Everything not taken yet; nothing else may be read meanwhile."""
        buffered, self._buffer = bytes(self._buffer), bytearray()
        if buffered:
            yield buffered
        yield from self._pieces
