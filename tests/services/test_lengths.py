"""Whatever comes from outside fits its column, or is refused: PostgreSQL takes no text that is longer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups_app.inert_text import fitting
from backups_app.models import AuditEvent, Database
from backups_app.services import audit
from backups_app.services.audit import Actor
from backups_app.services.people import is_same_person
from tests.lengths import too_long_texts

LONG = "x" * 5_000
ODD = "caf\udce9" * 199
"""Shorter than the column until its bytes that are no UTF-8 are spelled out."""


@given(st.text(alphabet=st.characters(), max_size=40), st.integers(10, 30))
def test_a_text_that_was_made_to_fit_fits_and_stays(text: str, limit: int):
    found = fitting(text, limit)
    assert len(found) <= limit
    assert fitting(found, limit) == found
    found.encode()


def test_two_long_texts_stay_two():
    assert fitting(LONG + "a", 64) != fitting(LONG + "b", 64)
    assert fitting("short", 64) == "short"
    assert fitting(LONG, 200).startswith("x" * 191)


@pytest.mark.parametrize("text", [LONG, ODD])
def test_a_person_with_a_long_name_is_the_same_person_when_read_back(shop: Database, make_backup: object, text: str):
    person = Actor(id=text, name=text)
    audit.record("test", actor=person, database_name=text, subject=text, detail=text)
    event = AuditEvent.objects.latest("pk")
    assert is_same_person(person, Actor(id=event.actor_id, name=event.actor_name))
    assert Actor(id=event.actor_id, name=event.actor_name) == person
    assert not is_same_person(person, Actor(id=f"{text}2", name=f"{text}2"))
    assert too_long_texts() == []
