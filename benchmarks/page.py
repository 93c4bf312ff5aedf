"""The generated sections of a Markdown page: each between two markers of its own, the rest is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def markers(section: str) -> tuple[str, str]:
    """The two lines around a section."""
    return f"<!-- benchmark {section}: begin (generated, do not edit) -->", f"<!-- benchmark {section}: end -->"


def check_page(page: Path, sections: Sequence[str]) -> None:
    """Return when ``page`` has a place for every section.

    Raises:
        SystemExit: there is no such page, or it lacks a marker, or has one twice.
    """
    for section in sections:
        _split(page, section)


def write_section(page: Path, section: str, lines: Sequence[str]) -> None:
    """Put ``lines`` in place of what stands in the section. Raises as :func:`check_page`."""
    before, after = _split(page, section)
    begin, end = markers(section)
    page.write_text("\n".join([before + begin, "", *lines, "", end + after]), encoding="utf-8")


def _split(page: Path, section: str) -> tuple[str, str]:
    begin, end = markers(section)
    try:
        before, rest = page.read_text(encoding="utf-8").split(begin)
        _, after = rest.split(end)
    except (OSError, ValueError) as exc:
        raise SystemExit(f"{page.name} must hold one line '{begin}' and, later, one line '{end}'.") from exc
    return before, after
