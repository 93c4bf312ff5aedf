"""The record of who did what."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from backups_app.models import AuditEvent
from backups_app.services import audit
from backups_app.services.audit import Actor
from tests.conftest import ACTOR

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def lines(home: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (home / "state" / "audit.jsonl").read_text("ascii").splitlines()]


def test_an_event_is_a_row_and_a_line_that_are_equal(home: Path):
    event = audit.record(
        "verify", actor=ACTOR, outcome="failed", database_name="shop", subject="abc", detail="it is damaged"
    )
    event.refresh_from_db()
    (line,) = lines(home)
    assert datetime.fromisoformat(str(line.pop("at"))) == event.at
    assert line == {
        "id": event.pk,
        "actor_id": "7",
        "actor": "anna",
        "action": "verify",
        "outcome": "failed",
        "database": "shop",
        "subject": "abc",
        "detail": "it is damaged",
    }


def test_times_are_utc(home: Path):
    audit.record("create", actor=ACTOR)
    at = str(lines(home)[0]["at"])
    assert at.endswith("Z")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds()) < 60


def test_events_are_appended_in_order(home: Path):
    events = [audit.record("create", actor=ACTOR, subject=str(number)) for number in range(5)]
    assert [line["id"] for line in lines(home)] == [event.pk for event in events]
    assert [line["subject"] for line in lines(home)] == ["0", "1", "2", "3", "4"]


def test_a_line_break_in_a_detail_makes_no_second_line(home: Path):
    audit.record("create", actor=ACTOR, detail='one\ntwo\u2028three "quoted" 🦄')
    assert lines(home)[0]["detail"] == 'one\ntwo\u2028three "quoted" 🦄'


def test_the_file_is_private(home: Path):
    audit.record("create", actor=ACTOR)
    assert (home / "state" / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    assert (home / "state").stat().st_mode & 0o777 == 0o700


def test_a_link_in_place_of_the_file_is_not_followed(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (home / "state").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("untouched")
    (home / "state" / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level(logging.ERROR):
        event = audit.record("create", actor=ACTOR)
    assert (tmp_path / "elsewhere").read_text() == "untouched"
    assert AuditEvent.objects.filter(pk=event.pk).exists(), "the event stands without its line"
    assert "audit line" in caplog.text


def test_a_state_folder_that_cannot_be_made_does_not_lose_the_event(home: Path, caplog: pytest.LogCaptureFixture):
    home.mkdir()
    (home / "state").write_text("in the way")
    event = audit.record("create", actor=ACTOR)
    assert AuditEvent.objects.filter(pk=event.pk).exists()
    assert "audit line" in caplog.text


def test_the_system_account_is_named_as_such():
    assert Actor.system() == Actor(id="", name="system")


def test_a_person_is_kept_as_plain_text():
    user = User(pk=42, username="berta")
    assert Actor.of(user) == Actor(id="42", name="berta")
