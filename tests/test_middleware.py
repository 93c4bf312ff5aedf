"""Visitors during an exchange: 503 and when to come back, without touching a database."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.http import HttpResponse
from django.test import Client, RequestFactory
from pytest_django.fixtures import Settings

from backups_app.middleware import RestoreInProgressMiddleware
from backups_app.models import Database
from backups_app.services.swapping import swapping

SITE = Database(name="default", alias="default")
OTHER = Database(name="other", alias="other")


@pytest.fixture
def middleware(home: Path) -> RestoreInProgressMiddleware:
    return RestoreInProgressMiddleware(lambda _request: HttpResponse("the page"))


def test_normally_the_page_is_served(middleware: RestoreInProgressMiddleware, home: Path):
    assert middleware(RequestFactory().get("/")).content == b"the page"
    assert not home.exists()


def test_during_the_exchange_visitors_are_asked_to_come_back(middleware: RestoreInProgressMiddleware):
    """No database is allowed in this test, so none is touched."""
    with swapping(SITE):
        answer = middleware(RequestFactory().post("/"))
    assert answer.status_code == 503
    assert answer["Retry-After"] == "5"
    assert answer["Cache-Control"] == "no-store"
    assert answer["Content-Type"].startswith("text/plain")
    assert b"the page" not in answer.content


def test_afterwards_the_page_is_served_again(middleware: RestoreInProgressMiddleware):
    with swapping(SITE):
        pass
    assert middleware(RequestFactory().get("/")).status_code == 200


def test_an_exchange_of_another_database_is_no_reason(middleware: RestoreInProgressMiddleware):
    with swapping(OTHER):
        assert middleware(RequestFactory().get("/")).status_code == 200


def test_it_works_in_the_chain_of_the_site(home: Path, settings: Settings):
    settings.MIDDLEWARE = ["backups_app.middleware.RestoreInProgressMiddleware", *settings.MIDDLEWARE]
    with swapping(SITE):
        assert Client().get("/admin/login/").status_code == 503
    assert Client().get("/admin/jsi18n/").status_code != 503


def test_looking_never_keeps_a_restore_from_starting(middleware: RestoreInProgressMiddleware):
    for _ in range(20):
        middleware(RequestFactory().get("/"))
        with swapping(SITE):
            pass
