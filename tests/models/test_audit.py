"""Audit events are append-only: the database itself says so."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, connections, transaction

from backups_app.models import AuditEvent

pytestmark = pytest.mark.django_db(databases=["default", "catalog"])


@pytest.fixture
def event() -> AuditEvent:
    return AuditEvent.objects.create(actor_name="anna", action="create", outcome="done")


def refused(event: AuditEvent) -> None:
    """The event is as it was."""
    found = AuditEvent.objects.get()
    assert (found.pk, found.actor_name, found.action, found.outcome) == (event.pk, "anna", "create", "done")


def test_an_event_cannot_be_changed(event: AuditEvent):
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(using="catalog"):
        AuditEvent.objects.filter(pk=event.pk).update(actor_name="berta")
    refused(event)


def test_an_event_cannot_be_saved_again(event: AuditEvent):
    event.outcome = "failed"
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(using="catalog"):
        event.save()
    refused(event)


def test_an_event_cannot_be_deleted(event: AuditEvent):
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(using="catalog"):
        AuditEvent.objects.all().delete()
    refused(event)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE backups_app_auditevent SET actor_name = 'berta'",
        "UPDATE backups_app_auditevent SET id = 99",
        "DELETE FROM backups_app_auditevent",
        "INSERT INTO backups_app_auditevent (id, at, actor_id, actor_name, action, outcome, database_name, subject, "
        "detail) SELECT id, at, '', 'berta', 'create', 'done', '', '', '' FROM backups_app_auditevent WHERE true "
        "ON CONFLICT (id) DO UPDATE SET actor_name = 'berta'",
    ],
)
def test_nor_by_raw_sql(event: AuditEvent, statement: str):
    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic(using="catalog"):
        with connections["catalog"].cursor() as cursor:
            cursor.execute(statement)
    refused(event)


def test_an_event_can_be_added(event: AuditEvent):
    AuditEvent.objects.create(actor_name="berta", action="verify", outcome="failed")
    assert AuditEvent.objects.count() == 2
