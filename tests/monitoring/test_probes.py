"""``/healthz`` and ``/readyz``."""

from __future__ import annotations

import pytest
from django.db import OperationalError
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from backups_app.services import catalog
from tests.console import Console
from tests.site import run_django

_ASK = """
from django.test import Client
for address in ("/healthz", "/readyz"):
    response = Client().get(address, headers={"host": "localhost"})
    print(address, response.status_code, response.content.decode())
"""


def test_healthz_answers_without_any_database():
    """No mark, no fixture: pytest-django refuses every query here."""
    response = Client().get("/healthz")
    assert (response.status_code, response.json()) == (200, {"ok": True})
    assert "no-store" in response["Cache-Control"]


@pytest.mark.parametrize("address", ["/healthz", "/readyz"])
def test_probes_are_read_only(address: str):
    assert Client().post(address).status_code == 405


@pytest.mark.usefixtures("home", "db_catalog")
def test_readyz_says_yes_with_one_query(django_assert_max_num_queries: DjangoAssertNumQueries):
    catalog.is_ready()
    with django_assert_max_num_queries(1, using="catalog"):
        response = Client().get("/readyz")
    assert (response.status_code, response.json()) == (200, {"ready": True})


@pytest.mark.usefixtures("home", "db_catalog")
def test_readyz_says_no_and_nothing_else_when_the_catalogue_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail() -> bool:
        raise OperationalError("unable to open database file /srv/secret/catalog.sqlite3")

    monkeypatch.setattr(catalog.Database.objects, "exists", fail)
    response = Client().get("/readyz")
    assert (response.status_code, response.json()) == (503, {"ready": False})
    assert "secret" in caplog.text, "the operator finds out why"


def test_a_catalogue_that_is_missing_or_behind_is_not_ready_but_the_process_lives(console: Console):
    before = run_django(console, _ASK)
    assert before == '/healthz 200 {"ok": true}\n/readyz 200 {"ready": true}\n'
    console.change("DELETE FROM django_migrations WHERE name = '0016_scale'")
    console.change(
        "INSERT INTO backups_app_database (name, identity, alias, path, is_under_care, is_imported, required_tables, "
        "added_at, destinations, host, media) VALUES ('x', 'y', '', '/z', 1, 0, '[]', '2026-01-01', '[]', '', '[]')"
    )
    assert run_django(console, _ASK) == '/healthz 200 {"ok": true}\n/readyz 503 {"ready": false}\n'
    console.catalog.write_bytes(b"this is no database at all, whatever its name says" * 100)
    assert run_django(console, _ASK) == '/healthz 200 {"ok": true}\n/readyz 503 {"ready": false}\n'
