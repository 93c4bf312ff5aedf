"""A second thread for the slow half of a stream, a bounded number of pieces behind the first.

Hashing, compressing, writing and syncing all release the interpreter, so on two cores they take
the time of the slowest and not of all together. Order is kept, and memory stays constant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

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
