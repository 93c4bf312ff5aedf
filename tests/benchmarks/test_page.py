"""Generated sections replace each other and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import ENGINE, MODULES, PAGE
from benchmarks.page import check_page, markers, write_section


def page_with(path: Path, *sections: str) -> Path:
    lines = ["# Title", "", "Before."]
    for section in sections:
        lines += ["", *markers(section), "", f"Behind {section}."]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_section_is_replaced_and_the_rest_is_kept(tmp_path: Path):
    page = page_with(tmp_path / "page.md", "one", "two")
    before = page.read_text(encoding="utf-8")
    write_section(page, "one", ["a line", "| ÷ |"])
    write_section(page, "two", ["other"])
    begin, end = markers("one")
    text = page.read_text(encoding="utf-8")
    assert f"{begin}\n\na line\n| ÷ |\n\n{end}\n\nBehind one." in text
    write_section(page, "one", ["new"])
    text = page.read_text(encoding="utf-8")
    assert "a line" not in text
    assert "other" in text
    for line in before.splitlines():
        assert line in text.splitlines()


def test_writing_twice_is_the_same_as_once(tmp_path: Path):
    page = page_with(tmp_path / "page.md", "one")
    write_section(page, "one", ["a line"])
    once = page.read_bytes()
    write_section(page, "one", ["a line"])
    assert page.read_bytes() == once


@pytest.mark.parametrize(
    "text",
    [
        "no marker at all",
        markers("one")[0],
        markers("one")[1],
        "\n".join(reversed(markers("one"))),
        "\n".join(markers("one") * 2),
    ],
    ids=["none", "no end", "no begin", "turned round", "twice"],
)
def test_a_page_without_a_proper_place_is_refused_and_not_touched(tmp_path: Path, text: str):
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=r"page\.md must hold one line"):
        check_page(page, ["one"])
    with pytest.raises(SystemExit):
        write_section(page, "one", ["a line"])
    assert page.read_text(encoding="utf-8") == text


def test_a_page_that_is_not_there_is_refused_and_not_made(tmp_path: Path):
    with pytest.raises(SystemExit):
        check_page(tmp_path / "none.md", ["one"])
    assert not list(tmp_path.iterdir())


def test_our_page_has_a_place_for_every_section():
    check_page(PAGE, [ENGINE, *MODULES])
