"""What the tests of the restore screens share: people with passwords, and requests in every state."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from backups_app.models import AuditEvent, Backup, Job, Restore
from backups_app.services.audit import Actor
from backups_app.services.restores import request_restore, run, run_restore
from tests.admin.conftest import Person
from tests.support import connected

PASSWORD = "correct horse battery"
QUEUE = "/admin/backups_app/restore/"
VIEW = ("view_database", "view_backup", "view_restore", "view_job")
REQUEST = (*VIEW, "request_restore")
APPROVE = (*VIEW, "approve_restore")


def somebody(name: str, *rights: str, is_superuser: bool = False, **options: Any) -> Person:
    """A member of staff with a password, signed in."""
    user = User.objects.create_user(name, password=PASSWORD, is_staff=True, is_superuser=is_superuser)
    wanted = Permission.objects.filter(content_type__app_label="backups_app", codename__in=rights)
    assert len(wanted) == len(rights)
    user.user_permissions.set(wanted)
    client = Client(**options)
    client.force_login(user)
    return Person(name, client, user)


def actor_of(person: Person) -> Actor:
    """The actor that a person is for the services."""
    return Actor.of(person.user)


def request_page(restore: Restore) -> str:
    """The page of a request."""
    return f"{QUEUE}{restore.pk}/change/"


def job_page(job: Job) -> str:
    """The page of a job."""
    return f"/admin/backups_app/job/{job.pk}/change/"


def decision_page(restore: Restore, verb: str) -> str:
    """The page of a decision."""
    return f"{QUEUE}{restore.pk}/{verb}/"


def ask(backup: Backup, by: Person, *, reason: str = "the prices were wrong", **options: Any) -> Restore:
    """A real request with a real preview."""
    return request_restore(backup, backup.database, reason=reason, actor=actor_of(by), **options)


def turn(restore: Restore, state: str, **facts: Any) -> Restore:
    """Put a request into any state, keeping every constraint."""
    now = timezone.now()
    if state in ("approved", "running", "succeeded", "rolled_back", "failed"):
        restore.approved_by_id, restore.approved_by_name = "999", "clara"
        restore.approved_at, restore.approved_binding = now, restore.binding_sha256
    if state in ("succeeded", "failed", "rolled_back", "rejected", "expired", "cancelled"):
        restore.finished_at = now
    if state in ("failed", "rolled_back", "rejected"):
        restore.outcome = "It went wrong."
    if state == "succeeded":
        restore.safety_backup = restore.backup
    if state == "expired":
        restore.expires_at = now - timedelta(hours=1)
    restore.state = Restore.State(state)
    for name, value in facts.items():
        setattr(restore, name, value)
    restore.save()
    return restore


def trace() -> tuple[list[Any], int, list[Any]]:
    """Everything that a decision would change in the catalogue."""
    restores, jobs = Restore.objects.order_by("pk").values(), Job.objects.order_by("pk").values()
    return list(restores), AuditEvent.objects.count(), list(jobs)


def work() -> list[Job]:
    """What a worker does with the restores that were asked for."""
    jobs = list(Job.objects.filter(kind=Job.Kind.RESTORE, state=Job.State.QUEUED).select_related("restore__database"))
    for job in jobs:
        assert job.restore is not None
        ended = run_restore(job.restore, actor=Actor(id=job.requested_by_id, name=job.requested_by_name))
        is_good = ended.state == Restore.State.SUCCEEDED
        job.state = Job.State.SUCCEEDED if is_good else Job.State.FAILED
        job.outcome, job.hint, job.finished_at = ended.outcome, ended.hint, timezone.now()
        job.save()
    return jobs


def prices(path: Path) -> list[str]:
    """The names of the products of the live shop."""
    with connected(path) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM product ORDER BY id")]


def change_prices(path: Path) -> None:
    """What happens to the live shop after the backup: one product more, one less."""
    with connected(path) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('quince'), ('grape')")
        connection.execute("DELETE FROM sale WHERE id = 4")


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restore of another file may run although the test holds a transaction of the site."""
    monkeypatch.setattr(run, "connections", {"default": SimpleNamespace(in_atomic_block=False)})
