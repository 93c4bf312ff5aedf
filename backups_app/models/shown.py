"""How rows are called: in one line that cannot turn round the text beside it."""

from __future__ import annotations


def shown(text: str) -> str:
    """``text`` with line breaks, control characters and what turns the direction of text spelled out.

    Pages of the stock admin put what a row is called into the middle of titles and paths of links.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
