"""What the verbs accept on the command line: values that a person may get wrong."""

from __future__ import annotations

import argparse
from pathlib import Path


def path(given: str) -> Path:
    """The absolute path that was meant, ``~`` expanded."""
    try:
        return Path(given).expanduser().absolute()
    except (OSError, RuntimeError) as exc:
        raise argparse.ArgumentTypeError(f"{given!r} cannot be used: {exc}") from exc


def count(given: str) -> int:
    """A whole number from 0."""
    if not given.isdecimal():
        raise argparse.ArgumentTypeError(f"{given!r} is not a whole number from 0")
    return int(given)


def port(given: str) -> int:
    """A number of a TCP port."""
    number = int(given) if given.isdecimal() else 0
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{given!r} is not a port; give a number from 1 to 65535")
    return number
