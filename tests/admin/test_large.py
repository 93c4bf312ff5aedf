"""With 100,000 backups over 200 databases every page stays quick, and none loads a whole table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.db import connections
from django.db.backends.utils import CursorWrapper
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from backups_app.models import (
    AuditEvent,
    Backup,
    Copy,
    Database,
    Finding,
    HealthProblem,
    Host,
    Job,
    Notification,
    Restore,
    Schedule,
    ScheduledRun,
    TriageFile,
    TriageRun,
    Verification,
)
from backups_app.services import signing
from backups_app.services.groups import PERMISSIONS, setup_groups
from benchmarks.catalogue import fill
from tests.admin.conftest import job_row
from tests.admin.markup import page_of
from tests.conftest import ACTOR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("home")]

MOST_ROWS = 500
MOST_QUERIES_OF_A_LIST = 12
MOST_QUERIES_OF_THE_OVERVIEW = 20
OVERVIEW = "/admin/backups_app/overview/"
ROLES = ["superuser", *PERMISSIONS]


class Counting:
    """Counts the queries of all databases, and the rows that each returned."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int]] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        self.rows.append((sql, 0))
        return execute(sql, params, many, context)

    def returned(self, number: int) -> None:
        """The last query gave rows."""
        sql, before = self.rows[-1]
        self.rows[-1] = (sql, before + number)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    """Counts from here on."""
    counted = Counting()

    def fetch(name: str) -> Any:
        original = getattr(CursorWrapper, name, None)

        def fetched(self: CursorWrapper, *args: Any) -> Any:
            result = original(self, *args) if original else getattr(self.cursor, name)(*args)
            counted.returned(len(result) if name != "fetchone" else int(result is not None))
            return result

        return fetched

    for name in ("fetchmany", "fetchall", "fetchone"):
        monkeypatch.setattr(CursorWrapper, name, fetch(name), raising=False)
    with connections["default"].execute_wrapper(counted), connections["catalog"].execute_wrapper(counted):
        yield counted


def lists() -> list[str]:
    """The list of every model of the app, whatever models there will be."""
    models = [model for model in admin.site._registry if model._meta.app_label == "backups_app"]
    found = [reverse(f"admin:backups_app_{model._meta.model_name}_changelist") for model in models]
    return [each for each in found if each != OVERVIEW]


def somebody_in(role: str) -> Client:
    """A signed-in member of one group; of all groups there are, with each permission asked for twice."""
    user = User.objects.create_user(role, is_staff=True, is_superuser=role == "superuser")
    user.groups.set(Group.objects.filter(name=role))
    client = Client()
    client.force_login(user)
    return client


def make_everything_bad() -> None:
    """Give each check of the health something to find, and each list a second page."""
    now = timezone.now()
    databases = list(Database.objects.order_by("pk"))
    some = {each.database_id: each for each in Backup.objects.filter(state="verified").order_by("-created_at")[:150]}
    times = {"started_at": now - timedelta(days=1), "finished_at": now - timedelta(days=1)}
    Verification.objects.bulk_create(
        Verification(
            backup=each, destination="local", level="drill", verdict=verdict, reason=reason, checks=[], **times, **took
        )
        for each in some.values()
        for verdict, reason, took in (
            ("failed", "It went wrong.", {}),
            ("passed", "", {"recovery_seconds": 1, "data_age_seconds": 1}),
        )
    )
    Job.objects.bulk_create(job_row(each, state="failed", kind="verify") for each in databases[:100])
    Job.objects.bulk_create(job_row(each, state="running") for each in databases[:100])
    Job.objects.bulk_create(
        job_row(each, kind=kind, created_at=now - timedelta(hours=1))
        for each in databases
        for kind in ("create", "verify", "drill")
    )
    Copy.objects.filter(backup__in=[each.pk for each in some.values()]).update(state="failed")
    Finding.objects.bulk_create(
        Finding(destination="local", code=code, database_name=f"tenant-{number:03d}", message="x", found_at=now)
        for code in ("archive_deleted", "forged")
        for number in range(100)
    )
    Host.objects.create(name="gone", supervisor_pid=1, seen_at=now - timedelta(days=1), started_at=now)
    AuditEvent.objects.create(actor_name="anna", action=signing.MAKE_KEY, detail=signing._REPLACES)
    Notification.objects.bulk_create(
        Notification(channel="mail", event="test", state="pending", created_at=now - timedelta(days=1))
        for _ in range(150)
    )
    Schedule.objects.update(handled_until=now - timedelta(days=1))
    ScheduledRun.objects.bulk_create(
        ScheduledRun(schedule=each, due_at=now, is_late=True, missed=2) for each in Schedule.objects.all()
    )
    Database.objects.filter(pk__in=[each.pk for each in databases[-3:]]).update(alias="", is_under_care=True)
    Database.objects.filter(pk=databases[0].pk).update(alias="vanished", is_under_care=False)
    HealthProblem.objects.bulk_create(
        HealthProblem(code="too_old", database=f"tenant-{number:03d}", message="x", first_seen=now, last_seen=now)
        for number in range(150)
    )
    triage = [TriageRun(requested_by_name="anna", paths=["/x"], finished_at=now) for _ in range(150)]
    TriageRun.objects.bulk_create(triage)
    file = {"location": b"/x", "format": "sqlite", "size_bytes": 1, "is_judged": True, "verdict": "empty"}
    TriageFile.objects.bulk_create(
        TriageFile(run=triage[0], path=f"/{number}", is_useless=True, **file) for number in range(1500)
    )
    with_restore = list(some.values())
    requested = {"requested_by_id": "7", "requested_by_name": "anna", "reason": "x", "archive_sha256": "0" * 64}
    Restore.objects.bulk_create(
        Restore(
            backup=each,
            database_id=each.database_id,
            binding_sha256="0" * 64,
            state="requested",
            expires_at=now + timedelta(days=1),
            **requested,
        )
        for each in with_restore
    )


def variants(client: Client, address: str) -> list[str]:
    """The list searched, on its second page, and once through each kind of link that it offers."""
    by_name: dict[tuple[str, ...], str] = {}
    for link in sorted(page_of(client.get(address)).links):
        if link.startswith("?") and len(link) > 1:
            by_name.setdefault(tuple(sorted(name for name, _value in parse_qsl(link[1:]))), link)
    return [address + each for each in ("", "?q=tenant-007", "?p=2", *by_name.values())]


def test_no_page_needs_many_queries_or_rows(db_catalog: None, counting: Counting):
    fill(databases=200, backups=100_000)
    assert (Database.objects.count(), Backup.objects.count()) == (200, 100_000)
    make_everything_bad()
    setup_groups(actor=ACTOR)
    assert len(lists()) > 12
    wrong, seen = [], 0
    for role in ROLES:
        client = somebody_in(role)
        client.get("/admin/backups_app/database/")  # the first visit brings rows in line with the settings
        overviews = [OVERVIEW, f"{OVERVIEW}?p=5", f"{OVERVIEW}?p=99"]
        pages = [(each, MOST_QUERIES_OF_THE_OVERVIEW) for each in [*overviews, reverse("admin:backups_app_health")]]
        for each in lists():
            if role == "Backup approver":  # has more queries than a superuser: through every filter and date
                pages += [(variant, MOST_QUERIES_OF_A_LIST) for variant in variants(client, each)]
            else:
                pages.append((each, MOST_QUERIES_OF_A_LIST))
        for page, most_queries in pages:
            counting.rows.clear()
            response = client.get(page)
            assert response.status_code in (200, 403), (page, response.status_code)
            queries, most = len(counting.rows), max(rows for _sql, rows in counting.rows)
            seen += response.status_code == 200
            if os.environ.get("SHOW_QUERIES"):
                print(role, page, response.status_code, queries, most)
            if queries > most_queries or most > MOST_ROWS:
                wrong.append((role, page, queries, most))
    assert wrong == []
    assert seen > 100
