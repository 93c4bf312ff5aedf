"""Hostile text is inert wherever it is shown: on every page there is, in JSON, in print, in mails, on a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.core import mail
from django.urls import URLPattern, URLResolver
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.models import Database, Finding, Host, Notification
from backups_app.services.notifications import send_due
from tests.admin.conftest import Person, job_row, verification_row
from tests.admin.test_matrix import rows  # noqa: F401 - a fixture: one row of each model
from tests.console import Finished
from tests.hostile import OVERRIDE, TERMINAL, TEXTS, poison

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

ROWS_TRIED = 3
_VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
_INLINE = {"a", "abbr", "b", "code", "em", "i", "small", "span", "strong", "time", "label"}
_ALONE = {"option", "title", "textarea", "bdi"}
"""What lays out its text by itself: no override gets out of it."""


class Watcher(HTMLParser):
    """Collects what a hostile text could have made of a page."""

    def __init__(self, source: str, *, text: str = "") -> None:
        super().__init__()
        self.found: list[str] = []
        self._turned = " ".join(text.partition(OVERRIDE)[2].split()).casefold()
        self._open: list[tuple[str, bool]] = []
        self._overridden: list[list[str]] = [[]]
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what no page of ours has."""
        given = {name: value or "" for name, value in attrs}
        self.found += [f"{tag} {name}" for name in given if name.startswith("on")]
        self.found += [f"{tag} style" for name in given if name == "style"]
        self.found += [f"{tag} {value}" for value in given.values() if value.strip().lower().startswith("javascript:")]
        is_foreign_image = tag == "img" and not given.get("src", "").startswith("/static/")
        if (tag == "script" and "src" not in given) or is_foreign_image:
            self.found.append(f"<{tag}>")
        if tag in _VOID:
            return
        is_alone = tag in _ALONE or given.get("dir") == "auto"
        self._open.append((tag, is_alone))
        if tag not in _INLINE and not is_alone:
            self._overridden.append([])

    def handle_endtag(self, tag: str) -> None:
        """Leave an element, and those that were left open in it."""
        if not any(name == tag for name, _is_alone in self._open):
            return
        while self._open:
            name, is_alone = self._open.pop()
            if name not in _INLINE and not is_alone:
                self._overridden.pop()
            if name == tag:
                return

    def handle_data(self, data: str) -> None:
        """An override that nothing isolates turns round what follows it in the same block."""
        if any(is_alone for _tag, is_alone in self._open) or not data.strip():
            return
        before = self._overridden[-1]
        if before:
            self.found.append(f"turned round: {data.strip()[:40]!r} after {before[0][:40]!r}")
        if OVERRIDE in data:
            before.append(data.strip())
            rest = " ".join(data.partition(OVERRIDE)[2].split()).rstrip("…")
            if self._turned and not self._turned.startswith(rest.casefold()):
                self.found.append(f"turned round: {rest[-40:]!r}")


def addresses() -> Iterator[tuple[str, str]]:
    """Name and address of every page of the app, with up to three rows each, found by walking the patterns."""
    for resolver in admin.site.get_urls():
        if isinstance(resolver, URLResolver) and str(resolver.pattern).startswith("backups_app/"):
            model = apps.get_model("backups_app", str(resolver.pattern).split("/")[1])
            for pattern in resolver.url_patterns:
                assert isinstance(pattern, URLPattern)
                yield from _addresses(f"/admin/{resolver.pattern}", pattern, model)


def _addresses(prefix: str, pattern: URLPattern, model: Any) -> Iterator[tuple[str, str]]:
    route, name = str(pattern.pattern), pattern.name or str(pattern.pattern)
    if "<" not in route:
        query = f"?id={Database.objects.order_by('pk')[0].pk}" if "back-up" in route else ""
        yield name, prefix + route + query
        return
    chosen = model._default_manager.order_by("-pk")
    for row in chosen[:ROWS_TRIED]:
        yield name, prefix + re.sub(r"<[^>]+>", str(row.pk), route)


@pytest.fixture
def everything(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """A row of each model, in several states."""
    found: dict[str, Any] = request.getfixturevalue("rows")
    backup, now = found["backup"], timezone.now()
    job_row(backup.database, state="running").save()
    job_row(backup.database, state="failed", kind="verify").save()
    verification_row(backup, verdict="failed").save()
    code = {"destination": "local", "message": "x", "hint": "x", "path": "x", "found_at": now}
    Finding.objects.create(code="forged", database_name=backup.database.name, **code)
    Host.objects.create(name="here", supervisor_pid=1, seen_at=now, started_at=now, worker_problem="It hangs.")
    folder = tmp_path / "judged"
    folder.mkdir()
    (folder / f"{OVERRIDE}\x1b[31m<img src=x>.sqlite3").write_bytes(b"no database")
    return {**found, "folder": folder}


@pytest.mark.parametrize("kind", TEXTS)
def test_no_page_does_what_a_hostile_text_says(superuser: Person, everything: dict[str, Any], kind: str):
    assert poison(TEXTS[kind], spared=frozenset({"superuser"})) > 80
    wrong: dict[str, Any] = {}
    shown, opened = 0, set()
    for name, address in [("index", "/admin/"), ("app", "/admin/backups_app/"), *addresses()]:
        response = superuser.get(address)
        if response.status_code != 200:
            assert response.status_code in (302, 403, 404, 405), (address, response.status_code)
            continue
        opened.add(name)
        content = b"".join(response.streaming_content) if response.streaming else response.content
        kind_of = response["Content-Type"].partition(";")[0]
        if kind_of == "application/json":
            json.loads(content)
            assert response["X-Content-Type-Options"] == "nosniff"
        elif kind_of == "text/html":
            page = content.decode()
            shown += OVERRIDE in page
            found = Watcher(page, text=TEXTS[kind]).found
            if "<script>window" in page or "<img src=x" in page:
                found.append("markup")
            if found:
                wrong[address] = found[:4]
    assert wrong == {}
    assert len(opened) > 45
    assert shown > 30, "the pages show the text at all"


def test_the_watcher_sees_what_it_must():
    assert Watcher(f"<p>{OVERRIDE}name</p><p>after</p>").found == []
    assert Watcher(f"<p><bdi>{OVERRIDE}name</bdi> after</p>").found == []
    assert Watcher(f"<p><a>{OVERRIDE}name</a> after</p>").found
    assert Watcher(f"<p>of {OVERRIDE}na…</p>", text=f"{OVERRIDE}name").found == []
    assert Watcher(f"<p>of {OVERRIDE}name, after</p>", text=f"{OVERRIDE}name").found
    assert Watcher("<p onclick=x></p>").found == ["p onclick"]
    assert Watcher("<img src=x>").found == ["<img>"]
    assert Watcher("<script>x</script>").found


# Mails and other messages


@pytest.mark.parametrize("kind", TEXTS)
def test_a_mail_is_plain_text_with_one_line_of_subject(everything: dict[str, Any], settings: Settings, kind: str):
    settings.BACKUPS = {**settings.BACKUPS, "NOTIFY_EMAILS": ["ops@example.com"]}
    now, text = timezone.now(), f"{TEXTS[kind]}{TERMINAL}\r\nBcc: all@example.com"
    content = {"event": "failed", "subject": text, "database": text, "outcome": text, "hint": text, "host": text}
    Notification.objects.all().delete()
    Notification.objects.create(
        channel="mail", event="failed", receiver=0, content=content, state="pending", next_attempt_at=now
    )
    send_due(now=now)
    (message,) = mail.outbox
    raw = message.message()
    assert raw.get_content_type() == "text/plain"
    assert (message.recipients(), raw.get_all("Bcc")) == (["ops@example.com"], None)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", message.subject + message.body)


# The terminal


VERBS = (
    ("list",),
    ("databases",),
    ("status",),
    ("jobs",),
    ("keys",),
    ("requests",),
    ("triage", "{folder}"),
    ("show", "{backup}"),
    ("prune",),
)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_no_text_drives_a_terminal(everything: dict[str, Any], run: Callable[..., Finished], verb: tuple[str, ...]):
    poison(f"{OVERRIDE}{TERMINAL}{TEXTS['script']}")
    shown = run(*(each.format(backup=everything["backup"].pk, folder=everything["folder"]) for each in verb))
    said = shown.stdout + shown.stderr
    assert "Traceback" not in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", said)
