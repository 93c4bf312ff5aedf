"""Sending what waits: once, again later, never in the way."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.db import OperationalError
from django.utils import timezone

from backups_app.models import Notification
from backups_app.services.notifications import Sent, notify, notify_job, send_due
from backups_app.services.notifications import send as sending
from backups_app.services.notifications.channels import DeliveryError
from tests.console import Console, environment
from tests.receivers import close_at_once, free_port, hang, hook, mail_server, raw_server
from tests.services.notifications.conftest import MakeJob, Tell
from tests.support import NOW, PROJECT, holding

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

TOKEN = "t0ken-9f8e7d"
SECOND = timedelta(seconds=1)


def queue(event: str = "succeeded", *, at: datetime = NOW) -> None:
    assert notify(event, subject="News", content={"outcome": "It happened."}, now=at)


def only() -> Notification:
    return Notification.objects.get()


def test_what_is_due_is_sent_once(tell: Tell):
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url()])
        queue()
        assert send_due(now=NOW) == Sent(sent=1)
        assert send_due(now=NOW + timedelta(days=1)) == Sent()
    (call,) = server.calls
    assert call.document == {"id": only().pk, **only().content}
    row = only()
    assert (row.state, row.attempts, row.reason) == ("sent", 1, "")
    assert row.sent_at is not None
    assert NOW <= row.sent_at < NOW + 5 * SECOND


def test_what_is_not_due_waits(tell: Tell):
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url()])
        queue(at=NOW + SECOND)
        assert send_due(now=NOW) == Sent()
        assert server.calls == []
        assert send_due(now=NOW + SECOND) == Sent(sent=1)


def test_each_receiver_gets_its_own(tell: Tell):
    with hook() as first, hook() as second:
        tell(WEBHOOK_URLS=[first.url(), second.url()], NOTIFY_EMAILS=["a@x.example", "b@x.example"])
        queue("failed")
        assert send_due(now=NOW) == Sent(sent=4)
    assert (len(first.calls), len(second.calls)) == (1, 1)
    assert sorted(message.to[0] for message in mail.outbox) == ["a@x.example", "b@x.example"]


def test_a_failure_of_a_job_goes_all_the_way(tell: Tell, make_job: MakeJob):
    with hook() as server:
        tell(HEARTBEAT_URL=server.url("/ping"), WEBHOOK_URLS=[server.url()])
        notify_job(make_job("failed"), now=NOW)
        assert send_due(now=NOW) == Sent(sent=2)
        notify_job(make_job(at=NOW + SECOND), now=NOW + SECOND)
        assert send_due(now=NOW + SECOND) == Sent(sent=2)
    paths = [(call.path, call.document["event"]) for call in server.calls]
    assert sorted(paths) == [
        ("/hook", "failed"),
        ("/hook", "recovered"),
        ("/ping", "recovered"),
        ("/ping/fail", "failed"),
    ]


def test_a_run_sends_so_many_and_no_more(tell: Tell):
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url()])
        for _ in range(5):
            queue()
        assert send_due(now=NOW, limit=3) == Sent(sent=3)
        assert send_due(now=NOW + SECOND, limit=3) == Sent(sent=2)


# Again


def test_what_does_not_arrive_is_tried_again(tell: Tell):
    with hook(500, 200) as server:
        tell(WEBHOOK_URLS=[server.url(f"/{TOKEN}")])
        queue()
        assert send_due(now=NOW) == Sent(retried_later=1)
        row = only()
        assert (row.state, row.attempts, row.reason) == ("pending", 1, "127.0.0.1 answered 500.")
        assert send_due(now=NOW + 59 * SECOND) == Sent()
        assert send_due(now=NOW + 63 * SECOND) == Sent(sent=1)
    assert (only().state, only().attempts, only().reason) == ("sent", 2, "")
    assert {call.document["id"] for call in server.calls} == {only().pk}, "a receiver can tell a repetition"


def test_the_pauses_grow_and_after_a_day_it_is_given_up(tell: Tell, caplog: pytest.LogCaptureFixture):
    tell(WEBHOOK_URLS=[f"http://127.0.0.1:{free_port()}/{TOKEN}"])
    queue()
    now, pauses = NOW, []
    while only().state == "pending":
        send_due(now=now)
        row = only()
        pauses.append(round((row.next_attempt_at - now).total_seconds() / 60))
        now = row.next_attempt_at
    assert pauses == [1, 5, 15, 60, *[180] * 7, 0]
    assert timedelta(hours=20) < now - NOW < timedelta(hours=24)
    assert (only().state, only().attempts) == ("failed", 12)
    assert only().reason == "127.0.0.1: it refuses connections."
    assert only().sent_at is None
    assert "given up after 12 attempts" in caplog.text
    assert TOKEN not in caplog.text
    assert send_due(now=now + timedelta(days=1)) == Sent()


def test_after_a_long_standstill_there_are_still_several_attempts(tell: Tell):
    with hook(500, 200) as server:
        tell(WEBHOOK_URLS=[server.url()])
        queue(at=NOW - timedelta(days=3))
        assert send_due(now=NOW) == Sent(retried_later=1)
        assert send_due(now=NOW + 65 * SECOND) == Sent(sent=1)


def test_a_receiver_that_left_the_settings_is_given_up_at_once(tell: Tell):
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url(), server.url()])
        queue()
        tell(WEBHOOK_URLS=[server.url()])
        assert send_due(now=NOW) == Sent(sent=1, given_up=1)
    assert Notification.objects.get(state="failed").reason == "The settings no longer name this receiver."


def test_settings_that_cannot_be_read_are_a_reason_to_try_later(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("BACKUPS_WEBHOOK_URLS_FILE", str(tmp_path / "urls"))
    queue()
    assert send_due(now=NOW) == Sent(retried_later=1)
    assert "cannot be read" in only().reason
    with hook() as server:
        (tmp_path / "urls").write_text(server.url() + "\n")
        assert send_due(now=NOW + 65 * SECOND) == Sent(sent=1)


# Never in the way


def test_a_hanging_receiver_costs_its_time_once_and_the_others_get_theirs(tell: Tell):
    with raw_server(hang) as port, hook() as server:
        tell(WEBHOOK_URLS=[f"http://127.0.0.1:{port}/{TOKEN}", server.url()])
        for _ in range(4):
            queue()
        started = time.monotonic()
        assert send_due(now=NOW, timeout_seconds=0.5) == Sent(sent=4, retried_later=1)
        assert time.monotonic() - started < 2
    assert len(server.calls) == 4
    assert Notification.objects.filter(state="pending", attempts=0).count() == 3


def test_a_hanging_mail_server_costs_its_time_once(tell: Tell, settings: Any):
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST = "127.0.0.1"
    tell(NOTIFY_EMAILS=["a@x.example", "b@x.example", "c@x.example"])
    queue("failed")
    with raw_server(hang) as port:
        settings.EMAIL_PORT = port
        started = time.monotonic()
        assert send_due(now=NOW, timeout_seconds=0.5) == Sent(retried_later=1)
        assert time.monotonic() - started < 2
    with mail_server() as server:
        settings.EMAIL_PORT = server.port
        assert send_due(now=NOW + 65 * SECOND) == Sent(sent=3)
    assert len(server.messages) == 3


def test_a_row_that_breaks_the_sender_does_not_hold_up_the_others(tell: Tell, monkeypatch: pytest.MonkeyPatch):
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url()])
        queue()
        queue()
        first = Notification.objects.order_by("pk").first()
        assert first is not None
        Notification.objects.filter(pk=first.pk).update(content=["no document"])
        assert send_due(now=NOW) == Sent(sent=1, retried_later=1)
    first.refresh_from_db()
    assert first.reason == "It could not be sent (TypeError)."


@pytest.mark.parametrize("fault", [OperationalError("database is locked"), RuntimeError(TOKEN)])
def test_no_fault_reaches_the_caller(
    tell: Tell, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
):
    def broken(*args: Any, **options: Any) -> None:
        raise fault

    monkeypatch.setattr(sending, "_claim", broken)
    assert type(fault).__name__ in send_due(now=NOW).problem
    assert TOKEN not in caplog.text
    assert "not all sent" in caplog.text


# One sender at a time


def test_a_claim_of_a_sender_that_died_runs_out(tell: Tell, monkeypatch: pytest.MonkeyPatch):
    def die(*args: Any, **options: Any) -> None:
        raise SystemExit

    with hook() as server:
        tell(WEBHOOK_URLS=[server.url()])
        queue()
        monkeypatch.setattr(sending, "deliver", die)
        with pytest.raises(SystemExit):
            send_due(now=NOW)
        monkeypatch.undo()
        tell(WEBHOOK_URLS=[server.url()])
        assert send_due(now=NOW + 60 * SECOND) == Sent(), "it may still be at work"
        assert send_due(now=NOW + 75 * SECOND) == Sent(sent=1)
    assert only().attempts == 2


def test_a_message_that_kills_each_sender_is_given_up(tell: Tell):
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url()])
        queue()
        Notification.objects.update(attempts=12)
        assert send_due(now=NOW) == Sent(given_up=1)
    assert server.calls == []
    assert "No sender lived long enough" in only().reason


def test_a_sender_whose_claim_ran_out_changes_nothing(tell: Tell, monkeypatch: pytest.MonkeyPatch):
    def overtaken(*args: Any, **options: Any) -> None:
        Notification.objects.update(attempts=2, reason="of the other")
        raise DeliveryError("too late")

    tell(WEBHOOK_URLS=["http://127.0.0.1:1/"])
    queue()
    monkeypatch.setattr(sending, "deliver", overtaken)
    send_due(now=NOW)
    assert (only().attempts, only().reason) == (2, "of the other")


_SENDER = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
from django.conf import settings
settings.DATABASES["catalog"]["OPTIONS"]["timeout"] = float(sys.argv[1])
import django
django.setup()
from django.utils import timezone
from backups_app.services.notifications import notify, send_due
for _ in range(int(sys.argv[2])):
    notify("succeeded", subject="News", content={}, now=timezone.now())
print("ready", flush=True)
sys.stdin.readline()
print(send_due(now=timezone.now()), flush=True)
"""


def sender(console: Console, *, queued: int = 0, busy_seconds: float = 20, **extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _SENDER, str(busy_seconds), str(queued)],
        env=environment(console.home, **extra),
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_that_send_at_once_send_each_message_once(console: Console):
    with hook() as server:
        urls = {"BACKUPS_WEBHOOK_URLS": f"{server.url('/one')}, {server.url('/two')}"}
        senders = [sender(console, queued=6, **urls) for _ in range(2)]
        for each in senders:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        printed = [each.communicate("go\n", timeout=60) for each in senders]
    assert [each.returncode for each in senders] == [0, 0], printed
    ids = [call.document["id"] for call in server.calls]
    assert sorted(ids) == list(range(1, 25)), "each once"
    assert console.query("SELECT state, attempts, count(*) FROM backups_app_notification") == [("sent", 1, 24)]


def test_a_locked_catalogue_is_a_word_and_no_exception(console: Console):
    waiting = sender(console, queued=1, busy_seconds=0.3, BACKUPS_WEBHOOK_URLS=f"http://127.0.0.1:1/{TOKEN}")
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == "ready\n"
    with holding(console.catalog, "BEGIN EXCLUSIVE"):
        stdout, stderr = waiting.communicate("go\n", timeout=60)
    assert waiting.returncode == 0
    assert "OperationalError" in stdout
    assert "Traceback" not in stderr
    assert TOKEN not in stdout + stderr
    assert console.query("SELECT state, attempts FROM backups_app_notification") == [("pending", 0)]


# Forgetting


def test_what_ended_long_ago_is_forgotten(tell: Tell):
    with hook() as server:
        tell(WEBHOOK_URLS=[server.url()])
        queue()
        send_due(now=NOW)
        queue()
        Notification.objects.filter(state="pending").update(state="failed")
        assert send_due(now=NOW + timedelta(days=89)) == Sent()
        assert send_due(now=NOW + timedelta(days=91)) == Sent(forgotten=2)
    assert not Notification.objects.exists()


def test_what_waits_is_never_forgotten(tell: Tell):
    with raw_server(close_at_once) as port:
        tell(WEBHOOK_URLS=[f"http://127.0.0.1:{port}"])
        queue()
        assert send_due(now=NOW + timedelta(days=365)) == Sent(retried_later=1)


# Secrets


@pytest.mark.parametrize("make_fault", [lambda: hook(500), lambda: raw_server(close_at_once)])
def test_no_secret_reaches_a_row_or_a_log(
    tell: Tell,
    settings: Any,
    make_job: MakeJob,
    caplog: pytest.LogCaptureFixture,
    make_fault: Callable[[], Any],
):
    caplog.set_level("DEBUG")
    age_key = "AGE-SECRET-KEY-1QQPQYRZXG4J6EWUKTM9HPEM5MQYAV0GUY4ZV9KRTLGHKYXF6TS7SAEQ6QF"
    settings.EMAIL_HOST_PASSWORD = "mail-pass-1234"
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", free_port()
    with make_fault() as found:
        url = f"http://anna:url-pass-5678@127.0.0.1:{getattr(found, 'port', found)}/{TOKEN}?key={TOKEN}"
        tell(WEBHOOK_URLS=[url], HEARTBEAT_URL=url + "-pulse", NOTIFY_EMAILS=["ops@site.example"])
        secrets = [TOKEN, "url-pass-5678", "mail-pass-1234", age_key, settings.SECRET_KEY, "redis-pass", "ops@site"]
        text = f"{url} {age_key} mail-pass-1234 {settings.SECRET_KEY} redis://:redis-pass@cache.example/0"
        notify_job(make_job("failed", outcome=text, hint=text, host=age_key), now=timezone.now())
        notify("failed", subject=text, content={"deep": [{"er": text}]}, now=timezone.now())
        assert send_due(now=timezone.now()).retried_later == 5
    rows = repr(list(Notification.objects.values()))
    assert "cache.example" in rows
    assert not [each for each in secrets if each in rows]
    assert not [each for each in secrets if each in caplog.text]
