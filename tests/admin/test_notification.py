"""Notifications on the screen, and the test of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connections
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from pytest_django.fixtures import Settings

from backups_app.models import AuditEvent, Database, Job, Notification
from backups_app.services.notifications import notify, notify_job
from tests.admin.conftest import Person
from tests.admin.markup import page_of
from tests.receivers import hook

LIST = "/admin/backups_app/notification/"
TEST = f"{LIST}test/"
TOKEN = "t0ken-9f8e7d"
HOSTILE = "<script>alert(1)</script>"

MakePerson = Callable[..., Person]


@pytest.fixture
def someone(person: MakePerson) -> MakePerson:
    """A function that makes a person who may also look at notifications."""

    def make(name: str) -> Person:
        found = person(name)
        assert found.user is not None
        found.user.user_permissions.add(Permission.objects.get(codename="view_notification"))
        return found

    return make


@pytest.fixture
def row(shop: Database, settings: Settings) -> Notification:
    """News of a failed backup for one webhook."""
    settings.ADMINS = []
    settings.BACKUPS = {**settings.BACKUPS, "WEBHOOK_URLS": [f"https://one.example/{TOKEN}"]}
    now = timezone.now()
    job = Job.objects.create(
        database=shop,
        kind="create",
        trigger="schedule",
        state="failed",
        started_at=now,
        finished_at=now,
        failure_code="disk_full",
        outcome=HOSTILE,
        hint="Free some space.",
    )
    notify_job(job, now=now)
    return Notification.objects.get()


def test_the_list_shows_what_was_told_and_how_it_fared(superuser: Person, row: Notification):
    Notification.objects.update(state="failed", reason="one.example answered 500.", attempts=12)
    page = page_of(superuser.get(LIST))
    cells = page.cells()
    start = cells.index("Backup of shop failed")
    assert cells[start - 1] == "✗ given up"
    assert cells[start + 1 : start + 4] == ["one.example answered 500.", "webhook", "failed"]
    assert cells[start + 5] == "12"
    assert TOKEN not in page.source


@pytest.mark.parametrize(("state", "badge"), [("pending", "… pending"), ("sent", "✓ sent"), ("failed", "✗ given up")])
def test_each_state_has_a_badge_and_a_filter(superuser: Person, row: Notification, state: str, badge: str):
    Notification.objects.update(state=state, sent_at=timezone.now())
    assert page_of(superuser.get(LIST, {"state__exact": state})).badges == [badge]


def test_the_detail_page_is_a_table_of_facts(superuser: Person, row: Notification):
    page = page_of(superuser.get(f"{LIST}{row.pk}/change/"))
    cells = page.cells()
    assert cells[cells.index("database") + 1] == "shop"
    assert cells[cells.index("failure code") + 1] == "disk_full"
    assert cells[cells.index("outcome") + 1] == HOSTILE, "as text"
    assert HOSTILE not in page.source
    assert page.inline_code == []
    assert "number 1 in the settings" in page.text
    assert str(row.job_id) in page.text
    assert TOKEN not in page.source


def test_news_of_any_shape_are_shown(superuser: Person, row: Notification):
    odd: list[Any] = [{}, {"subject": "half \udcff", "deep": {"a": [1]}}, {"database": None, "backups": ["a", "b"]}]
    for content in odd:
        Notification.objects.update(content=content, job=None)
        for address in (LIST, f"{LIST}{row.pk}/change/"):
            assert superuser.get(address).status_code == 200


def test_nothing_can_be_added_changed_or_deleted(superuser: Person, row: Notification):
    for address in (f"{LIST}add/", f"{LIST}{row.pk}/delete/"):
        assert superuser.get(address).status_code == 403
    assert superuser.post(f"{LIST}{row.pk}/change/", {"state": "sent"}).status_code == 403


def test_the_list_asks_a_bounded_number_of_questions(
    superuser: Person, row: Notification, django_assert_max_num_queries: DjangoAssertNumQueries
):
    Notification.objects.bulk_create([Notification(channel="mail", event="failed", job=row.job) for _ in range(200)])
    superuser.get(LIST)
    with django_assert_max_num_queries(8, connection=connections["catalog"]):
        superuser.get(LIST)


# The test


def test_who_may_send_a_test(someone: MakePerson, person: MakePerson, row: Notification):
    viewer, policymaker, visitor = someone("viewer"), someone("policymaker"), person("anonymous")
    assert viewer.get(LIST).status_code == 200
    assert TEST not in page_of(viewer.get(LIST)).links
    assert TEST in page_of(policymaker.get(LIST)).links
    for response in (viewer.get(TEST), viewer.post(TEST)):
        assert response.status_code == 403
    for response in (visitor.get(TEST), visitor.post(TEST)):
        assert response["Location"].startswith("/admin/login/")
    assert person("staff").get(LIST).status_code == 403
    assert not Notification.objects.filter(event="test").exists()


def test_asking_shows_who_will_get_it_and_sends_nothing(superuser: Person, row: Notification, settings: Settings):
    with hook() as server:
        settings.BACKUPS = {
            **settings.BACKUPS,
            "NOTIFY_EMAILS": ["ops@x.example"],
            "WEBHOOK_URLS": [server.url(f"/{TOKEN}")],
        }
        page = page_of(superuser.get(TEST))
        assert "webhook 1 (127.0.0.1)" in page.text
        assert "dead man" not in page.text
        settings.BACKUPS = {**settings.BACKUPS, "HEARTBEAT_URL": server.url(f"/{TOKEN}")}
        page = page_of(superuser.get(TEST))
        assert "dead man" in page.text
        assert server.calls == []
    assert TOKEN not in page.source
    assert "ops@x.example" not in page.source
    assert page.inline_code == []


def test_sending_tells_how_each_receiver_fared(someone: MakePerson, row: Notification, settings: Settings):
    with hook() as good, hook(500) as bad:
        settings.BACKUPS = {**settings.BACKUPS, "WEBHOOK_URLS": [good.url(f"/{TOKEN}"), bad.url(f"/{TOKEN}")]}
        response = someone("policymaker").post(TEST, follow=True)
    page = page_of(response)
    assert page.messages == [
        ("success", "Webhook 1 (127.0.0.1): delivered."),
        ("error", "Webhook 2 (127.0.0.1): not delivered. 127.0.0.1 answered 500."),
    ]
    assert TOKEN not in page.source
    assert AuditEvent.objects.get(action="notify-test").actor_name == "policymaker"


def test_without_receivers_it_is_said_what_to_set(superuser: Person, row: Notification, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "WEBHOOK_URLS": []}
    for response in (superuser.get(TEST, follow=True), superuser.post(TEST, follow=True)):
        ((level, text),) = page_of(response).messages
        assert level == "warning"
        assert "WEBHOOK_URLS" in text


def test_a_form_from_elsewhere_sends_nothing(person: MakePerson, row: Notification):
    assert person("superuser", enforce_csrf_checks=True).post(TEST).status_code == 403


def test_news_without_a_job_have_a_dash(superuser: Person, row: Notification):
    Notification.objects.all().delete()
    notify("failed", subject="Space is scarce", content={}, now=timezone.now())
    cells = page_of(superuser.get(LIST)).cells()
    assert cells[cells.index("Space is scarce") + 4] == "–"
