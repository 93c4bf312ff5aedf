"""People who are not told are a problem."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from backups_app.models import Notification
from backups_app.services.audit import Actor
from backups_app.services.notifications import notify, send_due, send_test, undelivered
from tests.receivers import free_port, hook
from tests.services.notifications.conftest import Tell
from tests.support import NOW

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

HOUR = timedelta(hours=1)
TOKEN = "t0ken-9f8e7d"


def queue(at: datetime = NOW) -> None:
    notify("succeeded", subject="News", content={}, now=at)


def give_up() -> datetime:
    """Try until it is given up; returns when."""
    now = NOW
    queue()
    while row := Notification.objects.filter(state="pending").first():
        now = row.next_attempt_at
        send_due(now=now)
    return now + timedelta(seconds=10)


def test_nothing_to_tell_and_nobody_to_tell_is_no_problem(tell: Tell):
    assert undelivered(now=NOW) == []
    tell(WEBHOOK_URLS=["http://one.example"])
    assert undelivered(now=NOW) == []


def test_what_waits_for_an_hour_is_a_problem(tell: Tell):
    tell(WEBHOOK_URLS=[f"http://127.0.0.1:{free_port()}/{TOKEN}"])
    queue()
    assert undelivered(now=NOW + HOUR) == []
    (found,) = undelivered(now=NOW + 1.5 * HOUR)
    assert found.message == "1 notification waits to be sent, the oldest for 1.5 h."
    assert "running?" in found.hint
    queue()
    send_due(now=NOW)
    (found,) = undelivered(now=NOW + 2 * HOUR)
    assert found.message == "2 notifications wait to be sent, the oldest for 2.0 h."
    assert "notify-test" in found.hint


def test_what_was_given_up_is_a_problem_until_something_arrives(tell: Tell):
    tell(WEBHOOK_URLS=[f"http://127.0.0.1:{free_port()}/{TOKEN}"])
    now = give_up()
    (found,) = undelivered(now=now)
    assert found.message == "Notifications for webhook 1 (127.0.0.1) do not arrive; some were given up."
    assert TOKEN not in found.message + found.hint
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url()])
        queue(now)
        send_due(now=now)
    assert undelivered(now=now) == []


def test_a_test_that_arrives_ends_the_alarm_and_one_that_does_not_raises_it(tell: Tell):
    tell(WEBHOOK_URLS=[f"http://127.0.0.1:{free_port()}"])
    send_test(actor=Actor.system(), now=NOW)
    assert len(undelivered(now=NOW)) == 1
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url()])
        send_test(actor=Actor.system(), now=NOW + HOUR)
    assert undelivered(now=NOW + HOUR) == []


def test_another_receiver_that_works_does_not_end_the_alarm(tell: Tell):
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url(), f"http://127.0.0.1:{free_port()}"])
        now = give_up()
    (found,) = undelivered(now=now)
    assert "webhook 2" in found.message


def test_a_receiver_that_left_the_settings_is_nobodys_loss(tell: Tell):
    tell(WEBHOOK_URLS=[f"http://127.0.0.1:{free_port()}"])
    now = give_up()
    tell(WEBHOOK_URLS=[])
    assert undelivered(now=now) == []


def test_settings_that_cannot_be_read_are_a_problem(tell: Tell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("BACKUPS_HEARTBEAT_URL_FILE", str(tmp_path / "missing"))
    (found,) = undelivered(now=NOW)
    assert "BACKUPS_HEARTBEAT_URL_FILE cannot be read" in found.message
