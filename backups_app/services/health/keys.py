"""Keys of the archives: proven, held by more than one, and opening everything that is stored?"""

from __future__ import annotations

from collections.abc import Iterator

from ..keys.health import check_keys
from .facts import Look, Problem


def find_key_problems(look: Look) -> Iterator[Problem]:
    """Can somebody open the archives?"""
    for is_warning, problem in _found(look):
        if not is_warning:
            yield problem


def warn_of_keys(look: Look) -> Iterator[Problem]:
    """What should be changed about keys in good time."""
    for is_warning, problem in _found(look):
        if is_warning:
            yield problem


def _found(look: Look) -> Iterator[tuple[bool, Problem]]:
    for each in check_keys(now=look.now):
        yield each.is_warning, Problem(code=each.code, database="", message=each.message, hint=each.hint)
