"""Objects that hold key material and do not let go of it by accident."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex


class Secret:
    """Shows its kind and nothing else, and refuses to be pickled or copied.

    Subclasses keep their material in ``__slots__``, so that ``vars()`` shows nothing either.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} (redacted)>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds key material and cannot be pickled or copied")
