"""A second thread for the slow half of a stream, a bounded number of pieces behind the first.

Hashing, decrypting, (de)compressing, writing and syncing all release the interpreter, so on two
cores they take the time of the slowest and not of all together. Order is kept, and memory stays
constant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Semaphore
from types import TracebackType
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Background:
    """Calls made one after the other in a thread of their own; use it in a ``with`` block.

    What a call raises is raised in the caller's thread, at a later :meth:`submit` or at the end
    of the block. After the block no call runs any more: all were made when it ended without an
    exception; otherwise those not begun were dropped.
    """

    def __init__(self, *, max_pending: int = 4) -> None:
        self._max_pending = max_pending
        self._pending: deque[Future[object]] = deque()
        self._pool = ThreadPoolExecutor(max_workers=1)

    def submit(self, function: Callable[[_T], object], argument: _T) -> None:
        """Have ``function(argument)`` called; waits while ``max_pending`` calls are not done."""
        while len(self._pending) >= self._max_pending:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(function, argument))

    def __enter__(self) -> Background:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._pending:
                self._pending.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)


class _End:
    """What follows the last piece: nothing, or what kept the next one from being made."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.is_seen = False


class _HandOver(Generic[_T]):
    """Pieces on their way from the thread that makes them to the one that reads them."""

    def __init__(self, *, max_pending: int) -> None:
        self._queue: SimpleQueue[_T | _End] = SimpleQueue()
        self._room = Semaphore(max_pending)
        self._is_over = False

    def send(self, pieces: Iterator[_T]) -> _End:
        """Make all ``pieces``, or as many as are read."""
        end = _End()
        try:
            for piece in pieces:
                self._room.acquire()
                if self._is_over:
                    break
                self._queue.put(piece)
        except BaseException as exc:  # noqa: BLE001 - raised by the reader, or by who waits for it
            end = _End(exc)
        self._queue.put(end)
        return end

    def read(self, reader: Callable[[Iterator[_T]], None]) -> None:
        """Call ``reader``; when it is over, nothing more is made."""
        try:
            reader(self._received())
        finally:
            self._is_over = True
            self._room.release()

    def _received(self) -> Iterator[_T]:
        while True:
            piece = self._queue.get()
            if isinstance(piece, _End):
                piece.is_seen = True
                if piece.error is not None:
                    raise piece.error
                return
            yield piece
            self._room.release()


def read_in_background(pieces: Iterator[_T], reader: Callable[[Iterator[_T]], None], *, max_pending: int = 4) -> None:
    """Call ``reader`` with ``pieces`` in a thread of its own, while this thread makes them.

    For the reader it is as if it had the iterator itself: what ``pieces`` raises is raised there,
    at its place in the stream. It may end early; pieces made in advance are then lost, up to
    ``max_pending`` and one. Neither thread goes on after this returned.

    Raises: what ``reader`` raises; when it ended early without an error, what ``pieces`` raised
        after that, so that no failure is lost.
    """
    between: _HandOver[_T] = _HandOver(max_pending=max_pending)
    with ThreadPoolExecutor(max_workers=1) as pool:
        reading = pool.submit(between.read, reader)
        end = between.send(pieces)
        failure = reading.exception()
    unseen = None if end.is_seen else end.error
    if failure is not None and (unseen is None or isinstance(unseen, Exception)):
        raise failure
    if unseen is not None:  # a Ctrl-C goes before what the reader says
        raise unseen
