"""Secrets do not get into text, and innocent text stays as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from backups_app.redaction import HIDDEN, host_of, redacted, redacted_document

AGE_KEY = "AGE-SECRET-KEY-1QQPQYRZXG4J6EWUKTM9HPEM5MQYAV0GUY4ZV9KRTLGHKYXF6TS7SAEQ6QF"


@pytest.mark.parametrize(
    "text",
    [
        "The disk is full: no space left while writing the archive.",
        "Run `manage.py backup show 3e3c4cbebcd0`, and make a new backup.",
        "default/2026/default-20260220T031500Z-3e3c4cbebcd0.sqlite3.zst",
        "key missing: the archive is encrypted and no given key opens it",
        "See https://sqlite.org.",
        "12:30 passes: 3 of 4",
        "",
    ],
)
def test_innocent_text_stays_as_it_is(text: str):
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"no key {AGE_KEY}.", f"no key {HIDDEN}."),
        (f"no key {AGE_KEY.lower()}", f"no key {HIDDEN}"),
        ("redis://:pass@cache.example:6379/0 is down", f"redis://cache.example:6379/{HIDDEN} is down"),
        ("postgresql://anna:p%40ss@db.example", "postgresql://db.example"),
        ("'https://hooks.example/T0/B1/abc?key=1' failed", f"'https://hooks.example/{HIDDEN}' failed"),
        ("password=hunter2 host=db", f"password={HIDDEN} host=db"),
        ('{"api_key": "abc", "n": 1}', f'{{"api_key": {HIDDEN}", "n": 1}}'),
        ("AWS_SECRET_ACCESS_TOKEN: abc", f"AWS_SECRET_ACCESS_TOKEN: {HIDDEN}"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, expected: str):
    assert redacted(text) == expected


def test_secrets_of_the_settings_are_hidden_wherever_they_stand(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    settings.SECRET_KEY = "of-django-itself"
    settings.EMAIL_HOST_PASSWORD = "of-the-mail"
    settings.STORAGES = {**settings.STORAGES, "away": {"OPTIONS": {"secret_key": "of-the-store", "bucket": "backups"}}}
    settings.BACKUPS = {"WEBHOOK_URLS": ["https://x.example/hook"]}
    (tmp_path / "pulse").write_text("https://y.example/pulse")
    monkeypatch.setenv("BACKUPS_HEARTBEAT_URL_FILE", str(tmp_path / "pulse"))
    text = "of-django-itself, of-the-mail, of-the-store, backups, https://x.example/hook+https://y.example/pulse"
    assert redacted(text) == f"{HIDDEN}, {HIDDEN}, {HIDDEN}, backups, {HIDDEN}+{HIDDEN}"


def test_a_short_secret_does_not_blacken_the_rest(settings: Settings):
    settings.EMAIL_HOST_PASSWORD = "is"
    assert redacted("The disk is full.") == "The disk is full."


def test_settings_that_cannot_be_read_hide_nothing_and_break_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("BACKUPS_WEBHOOK_URLS_FILE", str(tmp_path / "missing"))
    assert redacted("text") == "text"


def test_a_document_is_hidden_in_all_its_texts():
    found: dict[str, Any] = {"a": [{"b": AGE_KEY}, 5, None, True], "c": (AGE_KEY,)}
    assert redacted_document(found) == {"a": [{"b": HIDDEN}, 5, None, True], "c": [HIDDEN]}


@pytest.mark.parametrize(
    ("address", "host"),
    [("https://anna:pass@x.example:8000/token", "x.example"), ("token", HIDDEN), ("http://[::1", HIDDEN)],
)
def test_only_the_host_of_an_address_is_shown(address: str, host: str):
    assert host_of(address) == host
