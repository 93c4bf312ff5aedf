"""What the verbs accept on the command line: values that a person may get wrong."""

from __future__ import annotations

import argparse
from pathlib import Path

_MOST = 1_000_000_000  # beyond every use, and within what databases and clocks can count


def path(given: str) -> Path:
    """The absolute path that was meant, ``~`` expanded.

    No text is no path: a variable that a script forgot to set must not mean the present folder.
    """
    if not given:
        raise argparse.ArgumentTypeError("an empty text is not a path")
    try:
        return Path(given).expanduser().absolute()
    except (OSError, RuntimeError) as exc:
        raise argparse.ArgumentTypeError(f"{given!r} cannot be used: {exc}") from exc


def count(given: str) -> int:
    """A whole number from 0 to a thousand million."""
    if not given.isdecimal() or len(given) > len(str(_MOST)) or int(given) > _MOST:
        raise argparse.ArgumentTypeError(f"{given[:40]!r} is not a whole number from 0 to {_MOST:,}")
    return int(given)


def port(given: str) -> int:
    """A number of a TCP port."""
    number = int(given) if given.isdecimal() and len(given) <= 5 else 0
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{given!r} is not a port; give a number from 1 to 65535")
    return number
