"""Text from outside, on its way to PostgreSQL."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups_app.inert_text import inert

ANY_TEXT = st.text(alphabet=st.characters(), max_size=20)  # half characters and NUL among them


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("Ελλάδα 🎉", "Ελλάδα 🎉"),
        ("a\0b", "a␀b"),
        ("caf\udce9", "caf\\udce9"),
        ("\ud83d alone", "\\ud83d alone"),
    ],
)
def test_only_what_cannot_be_stored_gets_a_stand_in(given_text: str, expected: str):
    assert inert(given_text) == expected


@pytest.mark.parametrize("value", [None, 7, 1.5, True, b"\0\xff", ["a", {"b": ("c", 1)}]])
def test_whatever_is_fit_already_stays_as_it_is(value: Any):
    assert inert(value) == value
    assert type(inert(value)) is type(value)


@given(st.recursive(ANY_TEXT | st.none() | st.integers(), lambda x: st.lists(x) | st.dictionaries(ANY_TEXT, x)))
def test_nothing_is_left_anywhere_that_postgresql_refuses(value: Any):
    found = inert(value)
    text = repr(found)
    assert "\\x00" not in text
    for each in texts_in(found):
        assert "\0" not in each
        each.encode()
    assert inert(found) == found


def texts_in(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.items() for each in item for text in texts_in(each)]
    if isinstance(value, list):
        return [text for each in value for text in texts_in(each)]
    return []
