"""How a message gets out: mail and HTTP POST, each within its time, whatever the other side does."""

from __future__ import annotations

import base64
import http.client
import json
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from django.conf import settings
from django.core.mail import EmailMessage, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connections

from ... import __version__
from ...conf import is_web_address
from ...core.terminal import printable
from ...models import Notification
from .receivers import Channel, Receiver


class DeliveryError(Exception):
    """A message did not arrive. The text names a host at most: never an address, a token or an answer."""

    def __init__(self, reason: str, *, is_timeout: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_timeout = is_timeout


def deliver(receiver: Receiver, content: dict[str, Any], *, timeout_seconds: float) -> None:
    """Hand one message over; returns within ``timeout_seconds``, also when the other side hangs or dribbles.

    After a timeout the message may still arrive: it is sent at least once, not exactly once.

    Raises:
        DeliveryError: it was not accepted.
    """
    if receiver.channel == Channel.MAIL:
        _mail(receiver.address, content, timeout_seconds=timeout_seconds)
        return
    is_failure = content.get("event") == Notification.Event.FAILED
    address = receiver.address
    if not is_web_address(address):
        raise DeliveryError("The setting holds no http or https address.")
    parts = urlsplit(address)
    if receiver.channel == Channel.HEARTBEAT and is_failure:
        parts = parts._replace(path=parts.path.rstrip("/") + "/fail")
    _post(parts, json.dumps(content).encode("ascii"), timeout_seconds=timeout_seconds)


def _within(seconds: float, work: Callable[[], None], *, hang_up: Callable[[], None]) -> None:
    """Run ``work`` in a thread, for so long at most.

    Timeouts of sockets count anew with each byte, and name servers have their own: only a second
    thread bounds the whole. It ends with its socket, which ``hang_up`` closes.

    Raises:
        TimeoutError: it was not done in time. Else what ``work`` raised.
    """
    raised: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as exc:  # noqa: BLE001 - raised again in the thread that waits
            raised.append(exc)
        finally:
            connections.close_all()  # those of this thread: a mail backend may have used one

    thread = threading.Thread(target=run, name="notification", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        hang_up()
        raise TimeoutError
    if raised:
        raise raised[0]


def _hang_up(sock: Any) -> None:
    """Wake a thread that waits for this socket; it closes it."""
    if isinstance(sock, socket.socket):
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of the base class: TLS would wait for a goodbye


# HTTP


def _post(parts: SplitResult, body: bytes, *, timeout_seconds: float) -> None:
    host = str(parts.hostname)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, parts.port, timeout=timeout_seconds)
    is_over = threading.Event()
    statuses: list[int] = []

    def exchange() -> None:
        try:
            connection.connect()
            if is_over.is_set():  # the name server took all the time
                return
            connection.request("POST", _target(parts), body=body, headers=_headers(parts))
            with connection.getresponse() as response:  # its body is not read, whatever its size
                statuses.append(response.status)
        finally:
            connection.close()

    def hang_up() -> None:
        is_over.set()
        _hang_up(connection.sock)

    try:
        _within(timeout_seconds, exchange, hang_up=hang_up)
    except (OSError, http.client.HTTPException, ValueError) as exc:
        is_timeout = isinstance(exc, TimeoutError)
        why = f"no answer within {timeout_seconds:g} s" if is_timeout else _network_reason(exc)
        raise DeliveryError(f"{host}: {why}.", is_timeout=is_timeout) from None
    (status,) = statuses
    if 300 <= status < 400:
        raise DeliveryError(f"{host} answered {status}: redirects are not followed, set the final address.")
    if not 200 <= status < 300:
        raise DeliveryError(f"{host} answered {status}.")


def _target(parts: SplitResult) -> str:
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _headers(parts: SplitResult) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "User-Agent": f"django-walsafe/{__version__}", "Connection": "close"}
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode('ascii')}"
    return headers


def _network_reason(exc: Exception) -> str:
    """Why an exchange failed, in words of ours: the texts of libraries may quote what they were given."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return "its certificate is not accepted"
    if isinstance(exc, ssl.SSLError):
        return "no secure connection could be made"
    if isinstance(exc, socket.gaierror):
        return "its name cannot be resolved"
    if isinstance(exc, ConnectionRefusedError):
        return "it refuses connections"
    if isinstance(exc, http.client.RemoteDisconnected | ConnectionError):
        return "it closed the connection without an answer"
    if isinstance(exc, OSError) and exc.strerror:
        return f"it cannot be reached ({exc.strerror})"
    return f"its answer cannot be understood ({type(exc).__name__})"


# Mail


def _mail(address: str, content: dict[str, Any], *, timeout_seconds: float) -> None:
    def send() -> None:
        message = EmailMessage(
            subject=printable(f"{settings.EMAIL_SUBJECT_PREFIX}{content.get('subject', '')}"),
            body=mail_text(content),
            to=[address],
            headers={"Auto-Submitted": "auto-generated"},
            connection=backend,
        )
        if not message.send():
            raise DeliveryError("The mail backend sent nothing.")

    backend = _mail_backend(timeout_seconds)
    try:
        _within(
            timeout_seconds, send, hang_up=lambda: _hang_up(getattr(getattr(backend, "connection", None), "sock", None))
        )
    except DeliveryError:
        raise
    except Exception as exc:  # noqa: BLE001 - the site chooses the backend, and so what it raises
        # smtplib says "disconnected" when the server was only silent.
        is_timeout = isinstance(exc, TimeoutError) or isinstance(exc.__context__, TimeoutError)
        why = f"no answer within {timeout_seconds:g} s" if is_timeout else _mail_reason(exc)
        raise DeliveryError(f"Mail: {why}.", is_timeout=is_timeout) from None


def _mail_backend(timeout_seconds: float) -> BaseEmailBackend:
    limit = min(settings.EMAIL_TIMEOUT or timeout_seconds, timeout_seconds)
    try:
        found: BaseEmailBackend = get_connection(timeout=limit)
    except TypeError:  # a backend of the site that does not know the option
        found = get_connection()
    return found


def _mail_reason(exc: Exception) -> str:
    if isinstance(exc, smtplib.SMTPRecipientsRefused):
        codes = ", ".join(sorted({str(code) for code, _ in exc.recipients.values()}))
        return f"the server refuses the receiver ({codes})"
    if isinstance(exc, smtplib.SMTPAuthenticationError):
        return f"the server does not accept user and password ({exc.smtp_code})"
    if isinstance(exc, smtplib.SMTPResponseException):
        return f"the server answered {exc.smtp_code}"
    if isinstance(exc, smtplib.SMTPServerDisconnected):
        return "the server closed the connection"
    if isinstance(exc, smtplib.SMTPException) or not isinstance(exc, OSError):
        return f"it could not be sent ({type(exc).__name__})"
    return _network_reason(exc).replace("it ", "the server ", 1)


def mail_text(content: dict[str, Any]) -> str:
    """The document as a person reads it: what happened, what to do, then the facts.

    Control characters are spelled out, and so are those that turn the direction of what follows.
    """
    told = ("event", "subject", "outcome", "hint")
    texts = [str(content[name]) for name in ("subject", "outcome", "hint") if content.get(name)]
    facts = [f"{name.replace('_', ' ')}: {_fact(value)}" for name, value in content.items() if name not in told]
    parts = [*texts, "\n".join(each for each in facts if not each.endswith(": "))]
    return "\n".join(printable(each) for each in "\n\n".join(parts).split("\n")) + "\n"


def _fact(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_fact(each) for each in value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
