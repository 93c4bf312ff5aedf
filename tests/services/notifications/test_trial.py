"""A test message tells at once who would hear of a failure."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from django.core import mail

from backups_app.core.errors import BackupError, NotFoundError
from backups_app.models import AuditEvent, Notification
from backups_app.services.notifications import send_due, send_test
from tests.conftest import ACTOR
from tests.receivers import hang, hook, raw_server
from tests.services.notifications.conftest import Tell
from tests.support import NOW

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

TOKEN = "t0ken-9f8e7d"


def test_each_receiver_is_tried_and_told_of_by_name(tell: Tell):
    with hook() as good, hook(500) as bad:
        tell(
            NOTIFY_EMAILS=["ops@x.example"],
            WEBHOOK_URLS=[good.url(f"/{TOKEN}"), bad.url(f"/{TOKEN}")],
            HEARTBEAT_URL=good.url("/ping"),
        )
        trials = send_test(actor=ACTOR, now=NOW)
    assert [(each.receiver.name, each.is_delivered, each.reason) for each in trials] == [
        ("mail 1", True, ""),
        ("webhook 1 (127.0.0.1)", True, ""),
        ("webhook 2 (127.0.0.1)", False, "127.0.0.1 answered 500."),
        ("heartbeat (127.0.0.1)", True, ""),
    ]
    assert {call.path for call in good.calls} == {f"/{TOKEN}", "/ping"}
    assert good.calls[0].document["event"] == "test"
    assert "anna asked for it" in mail.outbox[0].body


def test_the_outcome_is_recorded_and_nothing_is_repeated(tell: Tell):
    with hook() as good, hook(500) as bad:
        tell(WEBHOOK_URLS=[good.url(), bad.url(f"/{TOKEN}")])
        send_test(actor=ACTOR, now=NOW)
        assert send_due(now=NOW).sent == 0
    rows = Notification.objects.order_by("receiver").values_list("event", "state", "reason")
    assert list(rows) == [("test", "sent", ""), ("test", "failed", "127.0.0.1 answered 500.")]
    event = AuditEvent.objects.get(action="notify-test")
    assert (event.actor_name, event.outcome) == ("anna", "failed")
    assert event.detail == "not delivered: webhook 2 (127.0.0.1)"
    assert TOKEN not in repr(list(AuditEvent.objects.values()) + list(Notification.objects.values()))


def test_receivers_that_hang_are_waited_for_together(tell: Tell):
    with raw_server(hang) as port:
        tell(WEBHOOK_URLS=[f"http://127.0.0.1:{port}/{number}" for number in range(5)])
        started = time.monotonic()
        trials = send_test(actor=ACTOR, now=NOW, timeout_seconds=0.5)
        assert time.monotonic() - started < 2
    assert {each.reason for each in trials} == {"127.0.0.1: no answer within 0.5 s."}


def test_nobody_to_tell_is_said_with_the_cure(tell: Tell):
    with pytest.raises(NotFoundError) as raised:
        send_test(actor=ACTOR, now=NOW)
    assert "WEBHOOK_URLS" in raised.value.hint
    assert not AuditEvent.objects.exists()


def test_settings_that_cannot_be_read_are_said(tell: Tell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("BACKUPS_WEBHOOK_URLS_FILE", str(tmp_path / "missing"))
    with pytest.raises(BackupError, match="BACKUPS_WEBHOOK_URLS_FILE cannot be read"):
        send_test(actor=ACTOR, now=NOW)
