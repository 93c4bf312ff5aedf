"""Downloading on the screen: who may, what is sent, and what the page says first."""

from __future__ import annotations

import hashlib
import http.client
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest

from backups_app.models import AuditEvent, Backup, Database
from tests.admin.conftest import Person
from tests.admin.markup import page_of
from tests.admin.restores import PASSWORD, somebody
from tests.admin.server import PASSWORD as SERVED_PASSWORD
from tests.admin.server import prepare_site, served
from tests.console import Console, wait_until
from tests.keys import Key

BACKUPS = "/admin/backups_app/backup/"


@pytest.fixture
def dora(home: Path, db_catalog: None) -> Person:
    """Somebody who may download."""
    return somebody("dora", "view_backup", "view_database", "download_backup")


def page(backup: Backup, what: str = "download") -> str:
    return f"{BACKUPS}{backup.pk}/{what}/"


def events() -> int:
    return AuditEvent.objects.filter(action="download").count()


def test_the_page_says_what_can_be_had_and_sends_nothing(dora: Person, backup: Backup):
    found = page_of(dora.get(page(backup)))
    wanted = {each.attributes["value"] for each in found.all("input") if each.attributes["type"] == "radio"}
    assert wanted == {"archive", "manifest", "signature", "database"}
    assert "That you took it is recorded." in found.text
    assert found.inline_code == []
    assert events() == 0


def test_the_archive_is_sent_as_an_attachment_that_nobody_keeps(
    dora: Person, backup: Backup, archive_of: Callable[[Backup], Path]
):
    response = dora.post(page(backup), {"what": "archive", "password": PASSWORD})
    assert response.status_code == 200
    assert response["Content-Disposition"] == f'attachment; filename="{archive_of(backup).name}"'
    assert "no-store" in response["Cache-Control"]
    assert response["Content-Type"] == "application/octet-stream"
    assert response["X-Content-Type-Options"] == "nosniff"
    content = b"".join(response.streaming_content)
    assert int(response["Content-Length"]) == len(content)
    assert hashlib.sha256(content).hexdigest() == backup.archive_sha256
    assert events() == 1


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"what": "archive"},
        {"what": "archive", "password": "wrong"},
        {"password": PASSWORD},
        {"what": "../x", "password": PASSWORD},
    ],
)
def test_without_password_or_choice_nothing_is_sent(dora: Person, backup: Backup, form: dict[str, str]):
    response = dora.post(page(backup), form)
    assert "Content-Disposition" not in response
    assert page_of(response).errors
    assert events() == 0


def test_without_the_permission_there_is_no_page_and_no_link(person: Callable[..., Person], backup: Backup):
    operator = person("operator")
    assert operator.get(page(backup)).status_code == 403
    assert operator.post(page(backup), {"what": "archive"}).status_code == 403
    assert page(backup) not in page_of(operator.get(page(backup, "change"))).links
    assert events() == 0


def test_a_lost_archive_is_refused_in_words(dora: Person, backup: Backup, archive_of: Callable[[Backup], Path]):
    archive_of(backup).unlink()
    response = dora.post(page(backup), {"what": "archive", "password": PASSWORD})
    assert "is not at the destination local" in page_of(response).text
    assert AuditEvent.objects.get(action="download").outcome == "failed"


def test_an_encrypted_database_is_not_offered_without_its_key(
    dora: Person, shop: Database, make_backup: Callable[..., Backup], encrypting: Callable[..., None], key: Key
):
    encrypting(key)
    backup = make_backup(shop)
    found = page_of(dora.get(page(backup)))
    assert "database" not in {each.attributes.get("value") for each in found.all("input")}
    assert "The database itself cannot be had here: The archive is encrypted" in found.text
    response = dora.post(page(backup), {"what": "database", "password": PASSWORD})
    assert "Content-Disposition" not in response
    encrypting(key, identity=key.path)
    response = dora.post(page(backup), {"what": "database", "password": PASSWORD})
    assert hashlib.sha256(b"".join(response.streaming_content)).hexdigest() == backup.sha256


def test_the_manifest_is_shown_to_whoever_sees_the_backup(person: Callable[..., Person], backup: Backup):
    found = page_of(person("viewer").get(page(backup, "manifest")))
    assert backup.archive_sha256 in found.text
    assert found.inline_code == []
    change = page_of(person("operator").get(page(backup, "change")))
    assert page(backup, "manifest") in change.links
    assert f"manage.py backup restore {backup.pk} --to NEW.sqlite3" in change.text


def test_a_real_browser_that_goes_away_leaves_nothing_in_scratch(tmp_path: Path):
    console = Console(tmp_path / "home", {"BACKUPS_ROOTS": str(tmp_path)})
    console.home.mkdir()
    prepare_site(console.home)
    _fill(tmp_path / "big.sqlite3", megabytes=24)
    console.ok("add-database", "big", tmp_path / "big.sqlite3")
    made = console.ok("create", "big", "--json").backup()
    where = f"{BACKUPS}{made['id']}/download/"
    with served(console.home) as site:
        ben = site.browser("ben")
        assert ben.get(where).status == 200
        token = ben.cookie("csrftoken")
        form = urlencode({"what": "database", "password": SERVED_PASSWORD, "csrfmiddlewaretoken": token})
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Cookie": "; ".join(f"{each.name}={each.value}" for each in ben.cookies),
        }
        connection = http.client.HTTPConnection(site.base.removeprefix("http://"), timeout=60)
        connection.request("POST", where, form, headers)
        response = connection.getresponse()
        assert response.status == 200
        assert re.search(r'filename=".*\.sqlite3"', response.headers["Content-Disposition"])
        assert response.read(1000)[:15] == b"SQLite format 3"
        connection.close()
        response.close()
        wait_until(lambda: not [each for each in console.scratch() if each.startswith("download-")])
    (event,) = console.query("SELECT outcome FROM backups_app_auditevent WHERE action = 'download'")
    assert event == ("done",)


def _fill(path: Path, *, megabytes: int) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE noise (id INTEGER PRIMARY KEY, content BLOB)")
        connection.executemany("INSERT INTO noise (content) VALUES (randomblob(?))", [(1 << 20,)] * megabytes)
        connection.commit()
