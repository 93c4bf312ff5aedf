"""The pages of the documentation, taken apart: blocks of code with their directives, links, headings.

A directive is a comment in the page, which a reader never sees, on a line of its own before the block:

    <!-- run: NAME -->      <!-- run: NAME VALUE -->

``setup NAME`` prepares the page's sandbox, ``elsewhere REASON`` marks a block that needs another machine, root or
a registry, ``file PATH`` puts the text of a block into a file (after what is there). See docs/testing.md.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import PROJECT

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
SHELL = ("sh", "bash", "console")

_DIRECTIVE = re.compile(r"^\s*<!-- run: (\w+)(?: ([^\n]*?))? -->\s*$")
_FENCE = re.compile(r"^( *)```([\w-]*)\s*$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    directives: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


@dataclass(frozen=True)
class Parsed:
    """A page: its blocks in order, and how its sandbox is prepared."""

    page: Path
    setup: list[str]
    blocks: list[Block]

    @property
    def shell(self) -> list[Block]:
        """The blocks that a reader types."""
        return [each for each in self.blocks if each.language in SHELL]


def parse(page: Path) -> Parsed:
    """Take a page apart. A block that does not end, or a directive without a block, is an error."""
    setup: list[str] = []
    blocks: list[Block] = []
    pending: dict[str, str] = {}
    lines = iter(enumerate(page.read_text("utf-8").split("\n"), start=1))
    for number, line in lines:
        if directive := _DIRECTIVE.match(line):
            name, value = directive[1], directive[2] or ""
            if name == "setup":
                setup += value.split()
            else:
                pending[name] = value
        elif fence := _FENCE.match(line):
            text = "\n".join(_until_fence(lines, page, number))
            blocks.append(
                Block(page=page, line=number, language=fence[2], text=textwrap.dedent(text), directives=pending)
            )
            pending = {}
        elif line.strip():
            assert not pending, f"{page.name}:{number}: a directive stands before no block"
    assert not pending, f"{page.name}: a directive stands before no block"
    return Parsed(page, setup, blocks)


def _until_fence(lines: Iterator[tuple[int, str]], page: Path, start: int) -> Iterator[str]:
    for _, line in lines:
        if _FENCE.match(line):
            return
        yield line
    raise AssertionError(f"{page.name}:{start}: this block does not end")


# Text between the blocks


def prose(page: Path) -> str:
    """A page without its blocks and comments."""
    kept, is_code = [], False
    for line in page.read_text("utf-8").split("\n"):
        if _FENCE.match(line):
            is_code = not is_code
        elif not is_code:
            kept.append(line)
    return re.sub(r"<!--.*?-->", "", "\n".join(kept), flags=re.DOTALL)


def links(page: Path) -> list[str]:
    """Where the links and pictures of a page lead."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as repositories show them."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        base = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        anchor, count = base, 0
        while anchor in found:
            count += 1
            anchor = f"{base}-{count}"
        found.add(anchor)
    return found
