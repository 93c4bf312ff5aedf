"""What is printed: one document, or text for people, in any encoding."""

from __future__ import annotations

import io
import json
from datetime import timedelta

import pytest

from backups_app.core.errors import BackupError, RefusedError
from backups_app.verbs.output import Output, human_age, human_size


def output(*, is_json: bool = False, encoding: str = "utf-8") -> tuple[Output, io.TextIOWrapper, io.TextIOWrapper]:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True) for _ in range(2))
    return Output(is_json=is_json, stdout=out, stderr=err), out, err


def text(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode(stream.encoding)  # type: ignore[attr-defined,no-any-return]


def test_with_json_people_get_nothing_on_stdout():
    printer, out, _ = output(is_json=True)
    printer.line("hello")
    printer.table(("a",), [("b",)])
    assert text(out) == ""
    printer.document({"backups": []})
    assert json.loads(text(out)) == {"backups": []}


def test_without_json_there_is_no_document():
    printer, out, _ = output()
    printer.document({"backups": []})
    assert text(out) == ""


def test_an_error_is_on_stderr_and_in_the_document():
    printer, out, err = output(is_json=True)
    assert printer.error(RefusedError("No.", "Ask."), about="shop") == 7
    printer.document({"backups": []})
    assert text(err) == "Error: shop: No.\nHint: Ask.\n"
    assert json.loads(text(out)) == {
        "backups": [],
        "errors": [{"about": "shop", "code": "refused", "message": "No.", "hint": "Ask."}],
    }


def test_the_document_is_ascii_whatever_is_in_it():
    printer, out, _ = output(is_json=True, encoding="ascii")
    printer.document({"name": "ü🦄\u202e\ud800"})
    assert json.loads(text(out)) == {"name": "ü🦄\u202e\ud800"}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_of_a_terminal_breaks_the_output(encoding: str):
    printer, out, err = output(encoding=encoding)
    printer.table(("name", "rows#"), [("ü 🦄 –", "–")])
    printer.line("ü 🦄 –")
    printer.error(BackupError("ü 🦄 –"))
    assert ("🦄" in text(out)) == (encoding == "utf-8")
    assert ("\\U0001f984" in text(out)) == (encoding != "utf-8")
    assert text(err).startswith("Error: ")


def test_control_characters_are_spelled_out():
    printer, out, err = output()
    printer.line("a\x1b[2Jb\x07")
    printer.table(("x",), [("c\x1b]0;title\x07\nd",)])
    printer.error(BackupError("e\rf"))
    assert not set(text(out) + text(err)) & set("\x1b\x07\r")
    assert "\\x1b" in text(out)


def test_markup_in_a_cell_is_text():
    printer, out, _ = output()
    printer.table(("x",), [("[red]x[/red]",)])
    assert "[red]x[/red]" in text(out)


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2 * 10**12, "2.0 TB")],
)
def test_sizes_for_people(size_bytes: int | None, expected: str):
    assert human_size(size_bytes) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (5399, "90 min"),
        (5400, "1.5 h"),
        (172_800, "2 d"),
        (86_400 * 12, "12 d"),
    ],
)
def test_ages_for_people(seconds: int, expected: str):
    assert human_age(timedelta(seconds=seconds)) == expected
