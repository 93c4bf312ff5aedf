"""Whatever comes from outside fits its column, or is refused: PostgreSQL takes no text that is longer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import connections
from hypothesis import given
from hypothesis import strategies as st

from backups_app.core.errors import InputError, VerificationError
from backups_app.core.manifest import Manifest, canonical
from backups_app.inert_text import fitting
from backups_app.models import AuditEvent, Backup, Database, Finding
from backups_app.services import audit
from backups_app.services.audit import Actor
from backups_app.services.databases import add_database, imported_database, sync_databases
from backups_app.services.health.facts import Problem
from backups_app.services.hold import hold_backup
from backups_app.services.names import stored_names
from backups_app.services.people import is_same_person
from backups_app.services.rescan import rescan
from tests.conftest import ACTOR
from tests.lengths import too_long_texts
from tests.support import build_shop

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
def test_a_person_with_a_long_name_is_the_same_person_when_read_back(shop: Database, text: str):
    person = Actor(id=text, name=text)
    audit.record("test", actor=person, database_name=text, subject=text, detail=text)
    event = AuditEvent.objects.latest("pk")
    assert is_same_person(person, Actor(id=event.actor_id, name=event.actor_name))
    assert Actor(id=event.actor_id, name=event.actor_name) == person
    assert not is_same_person(person, Actor(id=f"{text}2", name=f"{text}2"))
    assert too_long_texts() == []


@pytest.mark.parametrize("text", [LONG, ODD])
def test_a_long_name_of_a_person_fits_wherever_it_is_noted(
    shop: Database, make_backup: Callable[..., Backup], text: str
):
    person = Actor(id=text, name=text)
    backup = make_backup(shop)
    hold_backup(backup, actor=person)
    backup.refresh_from_db()
    assert backup.held_by_name == person.name
    assert backup.held_by_name[:3] == text[:3]
    assert too_long_texts() == []


@pytest.mark.usefixtures("shop")
def test_the_name_of_a_database_is_refused_when_it_does_not_fit(tmp_path: Path):
    other = build_shop(tmp_path / "other.sqlite3")
    for name in (LONG, ODD):
        with pytest.raises(InputError):
            add_database(name, other, actor=ACTOR)
    assert imported_database(LONG).name == LONG[:150]
    assert Database.objects.count() == 2


@pytest.mark.usefixtures("home", "db_catalog")
def test_an_alias_that_does_not_fit_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    facts = {**connections.settings["default"], "NAME": str(tmp_path / "x.sqlite3")}
    monkeypatch.setitem(connections.settings, "y" * 101, facts)
    assert [each.alias for each in sync_databases() if "its alias" in each.reason] == ["y" * 101]
    assert not Database.objects.filter(alias__startswith="yy").exists()


def test_the_key_of_a_problem_fits_and_stays_the_same():
    def problem(subject: str) -> Problem:
        return Problem(code="disk_low", database=LONG, message="m", hint="h", subject=subject, host=ODD)

    assert problem(ODD).key == problem(ODD).key
    assert problem(LONG + "a").key != problem(LONG + "b").key
    for each in problem(LONG).key:
        assert len(each) <= 200
        each.encode()


@pytest.mark.parametrize(
    ("part", "field"), [(None, "id"), (None, "identity"), ("archive", "name")], ids=["id", "identity", "archive"]
)
@pytest.mark.parametrize("text", [LONG, "a\udce9", "a\0b"], ids=["long", "odd", "NUL"])
def test_a_manifest_whose_names_do_not_fit_is_found_and_registers_nothing(
    shop: Database, make_backup: Callable[..., Backup], home: Path, part: str | None, field: str, text: str
):
    backup = make_backup(shop)
    path = home / "archives" / stored_names(backup.archive_name)[1]
    document = json.loads(path.read_bytes())
    (document if part is None else document[part])[field] = text
    content = canonical(document)
    with pytest.raises(VerificationError, match="plain characters"):
        Manifest.from_bytes(content)
    path.write_bytes(content)
    rescan(actor=ACTOR)
    assert Finding.objects.exists()
    assert Backup.objects.count() == 1
    assert too_long_texts() == []


def test_the_check_of_lengths_would_notice_one(shop: Database):
    if connections["catalog"].vendor != "sqlite":
        pytest.skip("PostgreSQL refuses it by itself")
    Database.objects.filter(pk=shop.pk).update(name=LONG)
    (found,) = too_long_texts()
    assert found.startswith("backups_app_database.name (200): 'xxx")
    Database.objects.filter(pk=shop.pk).update(name="shop")
