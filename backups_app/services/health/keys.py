"""Keys of the archives: proven, held by more than one, and opening everything that is stored?"""

from __future__ import annotations

from collections.abc import Iterator

from .facts import Look, Problem


def find_key_problems(look: Look) -> Iterator[Problem]:
    """Can somebody open the archives?"""
    return _told(look, is_warning=False)


def warn_of_keys(look: Look) -> Iterator[Problem]:
    """What should be changed about keys in good time."""
    return _told(look, is_warning=True)


def _told(look: Look, *, is_warning: bool) -> Iterator[Problem]:
    for each in look.keys:
        if each.is_warning == is_warning:
            yield Problem(code=each.code, database="", message=each.message, hint=each.hint)
