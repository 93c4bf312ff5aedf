"""Visitors during an exchange: 503 and when to come back, without touching a database; and their time zones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.jobs.cron import zone_names
from backups_app.middleware import TIME_ZONE_COOKIE, RestoreInProgressMiddleware, TimeZoneMiddleware
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


# The zone of the visitor


def zone_with(cookie: str | None) -> str:
    """The zone in which a page is made for a browser with this cookie."""
    request = RequestFactory().get("/")
    if cookie is not None:
        request.COOKIES[TIME_ZONE_COOKIE] = cookie
    middleware = TimeZoneMiddleware(lambda _request: HttpResponse(timezone.get_current_timezone_name()))
    return str(middleware(request).content.decode())  # type: ignore[attr-defined]


def test_times_are_in_the_zone_of_the_browser():
    assert zone_with("Europe/Athens") == "Europe/Athens"


def test_without_a_cookie_they_are_in_the_zone_of_the_site(settings: Settings):
    assert zone_with(None) == settings.TIME_ZONE


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Mars/Olympus",
        "../../etc/passwd",
        "/etc/localtime",
        "localtime",
        "UTC\0",
        "<b>",
        "É" * 5000,
        "europe/athens",
    ],
)
def test_a_cookie_that_names_no_zone_is_ignored(given: str, settings: Settings):
    assert zone_with(given) == settings.TIME_ZONE


def test_the_zone_ends_with_the_request(settings: Settings):
    zone_with("Asia/Kathmandu")
    assert timezone.get_current_timezone_name() == settings.TIME_ZONE


def test_the_zone_ends_with_a_request_that_fails(settings: Settings):
    def fail(_request: HttpRequest) -> HttpResponse:
        raise RuntimeError("a fault of the site")

    request = RequestFactory().get("/")
    request.COOKIES[TIME_ZONE_COOKIE] = "Asia/Kathmandu"
    with pytest.raises(RuntimeError):
        TimeZoneMiddleware(fail)(request)
    assert timezone.get_current_timezone_name() == settings.TIME_ZONE


def test_the_script_and_the_middleware_mean_the_same_cookie():
    found = finders.find("backups_app/time_zone.js")
    assert isinstance(found, str)
    script = Path(found).read_text("utf-8")
    assert f"`{TIME_ZONE_COOKIE}=${{zone}}`" in script
    assert "SameSite=Lax" in script


def test_no_name_of_a_zone_is_more_than_the_script_sends():
    assert all(re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", each) for each in zone_names())
