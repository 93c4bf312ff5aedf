"""Reading a page as a browser does: elements, links, visible text."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


@dataclass
class Element:
    """One element with its attributes and all text inside it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""

    @property
    def classes(self) -> set[str]:
        """The names in its ``class``."""
        return set(self.attributes.get("class", "").split())


@dataclass
class Page(HTMLParser):
    """A parsed page."""

    source: str
    elements: list[Element] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin an element."""
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element without content."""
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        """End an element, and those that were left open in it."""
        if any(each.tag == tag for each in self._open):
            while self._open.pop().tag != tag:
                pass

    def handle_data(self, data: str) -> None:
        """Text belongs to every element around it."""
        for each in self._open:
            each.text += data

    def all(self, tag: str, class_name: str = "") -> list[Element]:
        """All elements of one kind."""
        return [each for each in self.elements if each.tag == tag and (not class_name or class_name in each.classes)]

    @property
    def text(self) -> str:
        """The words of the page, with plain blanks between them."""
        return " ".join(self.all("body")[0].text.split())

    @property
    def links(self) -> set[str]:
        """Where its links lead."""
        return {each.attributes["href"] for each in self.all("a") if "href" in each.attributes}

    @property
    def buttons(self) -> set[str]:
        """What its buttons and object tools say."""
        inputs = {each.attributes.get("value", "") for each in self.all("input") if each.attributes["type"] == "submit"}
        options = {each.text.strip() for each in self.all("option")}
        return inputs | options | {each.text.strip() for each in self.all("a")}

    @property
    def hidden(self) -> dict[str, str]:
        """The hidden fields of its forms, the last of each name."""
        return {
            each.attributes["name"]: each.attributes.get("value", "")
            for each in self.all("input")
            if each.attributes.get("type") == "hidden" and "name" in each.attributes
        }

    @property
    def messages(self) -> list[tuple[str, str]]:
        """The messages: kind and text."""
        kinds = {"success", "error", "warning", "info"}
        return [(kind, each.text.strip()) for each in self.all("li") for kind in each.classes & kinds]

    @property
    def badges(self) -> list[str]:
        """The words of its badges, symbol first."""
        return [" ".join(each.text.split()) for each in self.all("span", "walsafe-badge")]

    @property
    def errors(self) -> str:
        """What its form complains about."""
        return " ".join(each.text for each in self.all("ul", "errorlist"))

    def cells(self) -> list[str]:
        """The texts of all table cells, in order."""
        return [" ".join(each.text.split()) for each in self.elements if each.tag in ("td", "th")]

    @property
    def stylesheets(self) -> set[str]:
        """The style sheets that it loads."""
        return {each.attributes["href"] for each in self.all("link") if each.attributes.get("rel") == "stylesheet"}

    @property
    def inline_code(self) -> list[Element]:
        """Everything that a strict content security policy would block."""
        return [
            each
            for each in self.elements
            if "style" in each.attributes
            or each.tag == "style"
            or (each.tag == "script" and "src" not in each.attributes)
            or any(name.startswith("on") for name in each.attributes)
        ]


def page_of(response: Any) -> Page:
    """The page of a response."""
    return Page(response.content.decode())
