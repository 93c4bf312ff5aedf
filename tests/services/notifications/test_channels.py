"""Handing a message over, to receivers of every kind, within the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core import mail
from pytest_django.fixtures import Settings

from backups_app.services.notifications.channels import DeliveryError, deliver, mail_text
from backups_app.services.notifications.receivers import Receiver
from tests.receivers import (
    babble,
    close_at_once,
    dribble,
    free_port,
    hang,
    hook,
    mail_server,
    raw_server,
)

SMTP = "django.core.mail.backends.smtp.EmailBackend"
CONTENT = {
    "id": 7,
    "event": "failed",
    "subject": "Backup of shop failed",
    "outcome": "The disk is full.",
    "hint": "Free some space.",
    "database": "shop",
    "backups": ["abc", "def"],
    "failure_code": None,
}
TOKEN = "t0ken-9f8e7d"


def send(channel: str, address: str, *, seconds: float = 5.0, **changed: Any) -> None:
    receiver = Receiver(channel=channel, place=0, address=address)
    deliver(receiver, {**CONTENT, **changed}, timeout_seconds=seconds)


def refusal(channel: str, address: str, *, seconds: float = 5.0) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        send(channel, address, seconds=seconds)
    assert TOKEN not in repr(raised.value)
    return raised.value


@contextmanager
def taking_at_most(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


# HTTP


def test_a_webhook_gets_the_document():
    with hook() as server:
        send("webhook", server.url(f"/hook/{TOKEN}?key=1"))
    (call,) = server.calls
    assert (call.method, call.path, call.document) == ("POST", f"/hook/{TOKEN}?key=1", CONTENT)
    assert call.headers["Content-Type"] == "application/json"
    assert call.headers["User-Agent"].startswith("django-walsafe/")
    assert "Authorization" not in call.headers


def test_user_and_password_of_an_address_become_a_header():
    with hook() as server:
        send("webhook", f"http://anna:p%40ss@127.0.0.1:{server.port}")
    assert server.calls[0].path == "/"
    assert server.calls[0].headers["Authorization"] == "Basic YW5uYTpwQHNz"


@pytest.mark.parametrize(
    ("event", "path"),
    [
        ("failed", "/ping/fail?rid=1"),
        ("succeeded", "/ping/?rid=1"),
        ("recovered", "/ping/?rid=1"),
        ("test", "/ping/?rid=1"),
    ],
)
def test_a_heartbeat_of_a_failure_has_an_address_of_its_own(event: str, path: str):
    with hook() as server:
        send("heartbeat", server.url("/ping/?rid=1"), event=event)
    assert [call.path for call in server.calls] == [path]


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_success(status: int):
    with hook(status) as server:
        send("webhook", server.url())


@pytest.mark.parametrize("status", [400, 401, 404, 410, 429, 500, 503])
def test_any_other_answer_is_a_failure(status: int):
    with hook(status) as server:
        found = refusal("webhook", server.url(f"/{TOKEN}"))
    assert found.reason == f"127.0.0.1 answered {status}."


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int):
    with hook() as other, hook(status, headers={"Location": other.url(f"/{TOKEN}")}) as server:
        found = refusal("webhook", server.url())
    assert "redirects are not followed" in found.reason
    assert other.calls == []


def test_a_huge_answer_is_not_read():
    def endless(stream: Any) -> None:
        while True:
            stream.write(b"x" * 65536)

    with hook(body=endless) as server, taking_at_most(3):
        send("webhook", server.url())


@pytest.mark.parametrize("serve", [hang, dribble])
def test_a_receiver_that_does_not_come_to_an_end_costs_its_time_and_no_more(serve: Callable[[Any], None]):
    with raw_server(serve) as port, taking_at_most(2):
        found = refusal("webhook", f"http://127.0.0.1:{port}/{TOKEN}", seconds=0.5)
    assert found.is_timeout
    assert found.reason == "127.0.0.1: no answer within 0.5 s."


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (close_at_once, "127.0.0.1: it closed the connection without an answer."),
        (babble, "127.0.0.1: its answer cannot be understood (BadStatusLine)."),
    ],
)
def test_a_receiver_that_makes_no_sense_is_a_failure(serve: Callable[[Any], None], reason: str):
    with raw_server(serve) as port:
        found = refusal("webhook", f"http://127.0.0.1:{port}/{TOKEN}")
    assert (found.reason, found.is_timeout) == (reason, False)


def test_nobody_listening_is_a_failure():
    assert refusal("webhook", f"http://127.0.0.1:{free_port()}/{TOKEN}").reason == "127.0.0.1: it refuses connections."


def test_a_receiver_without_tls_behind_https_is_a_failure():
    with raw_server(babble) as port:
        found = refusal("webhook", f"https://127.0.0.1:{port}/{TOKEN}")
    assert found.reason == "127.0.0.1: no secure connection could be made."


def test_a_name_that_nobody_has_is_a_failure():
    assert refusal("webhook", f"http://nobody.invalid/{TOKEN}").reason.startswith("nobody.invalid: it")


@pytest.mark.parametrize(
    "address", [f"ftp://x.example/{TOKEN}", f"/{TOKEN}", f"http://x.example:99999/{TOKEN}", "http://x y/"]
)
def test_only_web_addresses_are_called(address: str):
    assert refusal("webhook", address).reason == "The setting holds no http or https address."


# Mail


@pytest.fixture
def smtp(settings: Settings) -> Settings:
    """Django's own mail backend on the loopback device."""
    settings.EMAIL_BACKEND = SMTP
    settings.EMAIL_HOST = "127.0.0.1"
    settings.EMAIL_TIMEOUT = None
    return settings


def test_a_mail_says_what_happened_what_to_do_and_the_facts(settings: Settings):
    settings.EMAIL_SUBJECT_PREFIX = "[site] "
    settings.DEFAULT_FROM_EMAIL = "backups@site.example"
    send("mail", "ops@site.example")
    (message,) = mail.outbox
    assert (message.subject, message.to) == ("[site] Backup of shop failed", ["ops@site.example"])
    assert message.from_email == "backups@site.example"
    assert message.extra_headers == {"Auto-Submitted": "auto-generated"}
    assert message.body == (
        "Backup of shop failed\n\nThe disk is full.\n\nFree some space.\n\nid: 7\ndatabase: shop\nbackups: abc, def\n"
    )


def test_facts_of_any_shape_can_be_read():
    assert mail_text({"subject": "s", "free_bytes": 5, "limits": {"a": 1}, "none": None, "empty": []}) == (
        's\n\nfree bytes: 5\nlimits: {"a": 1}\n'
    )


def test_a_mail_goes_to_the_server_of_the_site(smtp: Settings):
    with mail_server() as server:
        smtp.EMAIL_PORT, smtp.EMAIL_SUBJECT_PREFIX = server.port, "[site] "
        send("mail", "ops@site.example")
    (message,) = server.messages
    assert "Subject: [site] Backup of shop failed" in message
    assert server.receivers == ["rcpt TO:<ops@site.example>"]


def test_a_mail_server_that_refuses_the_receiver_is_a_failure_without_the_address(smtp: Settings):
    with mail_server(refusal=b"550 no such user here") as server:
        smtp.EMAIL_PORT = server.port
        found = refusal("mail", "ops@site.example")
    assert found.reason == "Mail: the server refuses the receiver (550)."
    assert server.messages == []


def test_a_mail_server_that_hangs_costs_its_time_and_no_more(smtp: Settings):
    with raw_server(hang) as port, taking_at_most(2):
        smtp.EMAIL_PORT = port
        found = refusal("mail", "ops@site.example", seconds=0.5)
    assert found.is_timeout


def test_the_time_limit_of_the_site_holds_when_it_is_shorter(smtp: Settings):
    smtp.EMAIL_TIMEOUT = 0.3
    with raw_server(hang) as port, taking_at_most(3):
        smtp.EMAIL_PORT = port
        assert refusal("mail", "ops@site.example").is_timeout


def test_a_mail_server_that_is_not_there_or_hangs_up_is_a_failure(smtp: Settings):
    smtp.EMAIL_PORT = free_port()
    assert refusal("mail", "ops@site.example").reason == "Mail: the server refuses connections."
    with raw_server(lambda connection: None) as port:
        smtp.EMAIL_PORT = port
        assert refusal("mail", "ops@site.example").reason == "Mail: the server closed the connection."


def test_a_backend_of_the_site_may_raise_what_it_likes(settings: Settings):
    settings.EMAIL_BACKEND = f"{__name__}.RudeBackend"
    assert refusal("mail", "ops@site.example").reason == "Mail: it could not be sent (KeyError)."


class RudeBackend:
    """A backend that knows no time limit and fails with a secret in its text."""

    def __init__(self, fail_silently: bool = False) -> None:
        pass

    def send_messages(self, messages: list[Any]) -> int:
        """Fail."""
        raise KeyError(TOKEN)
