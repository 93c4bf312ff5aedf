"""Texts of others, shown without obeying them."""

from __future__ import annotations


def printable(text: str) -> str:
    """``text`` with control characters spelled out, so that a name cannot drive a terminal.

    So are line breaks, and what turns the direction of the text that follows.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
