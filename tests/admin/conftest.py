"""Fixtures of the screens: people with different rights, and rows in every state."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Verification
from backups_app.services import catalog
from tests.conftest import ACTOR

_VIEW = ("view_database", "view_backup", "view_verification", "view_auditevent", "view_job")
_RIGHTS: dict[str, tuple[str, ...]] = {
    "staff": (),
    "viewer": _VIEW,
    "operator": (*_VIEW, "create_backup", "verify_backup", "cancel_job"),
    "policymaker": (*_VIEW, "change_database"),
    "pruner": (*_VIEW, "prune_backup"),
    "holder": (*_VIEW, "hold_backup"),
    "scheduler": (
        *_VIEW,
        "view_schedule",
        "add_schedule",
        "change_schedule",
        "delete_schedule",
        "view_scheduledrun",
    ),
    "schedule viewer": (*_VIEW, "view_schedule", "view_scheduledrun"),
    "superuser": (),
}


@dataclass
class Person:
    """Somebody with a browser, signed in unless ``user`` is None."""

    name: str
    client: Client
    user: User | None

    def get(self, address: str, query: dict[str, Any] | None = None, **options: Any) -> Any:
        """Open a page."""
        return self.client.get(address, query, **options)

    def post(self, address: str, data: dict[str, Any] | None = None, **options: Any) -> Any:
        """Send a form."""
        return self.client.post(address, data or {}, **options)


@pytest.fixture
def person(db_catalog: None) -> Callable[..., Person]:
    """A function that makes a person: anonymous, superuser, or one of ``_RIGHTS``."""

    def make(name: str, **options: Any) -> Person:
        client = Client(**options)
        if name == "anonymous":
            return Person(name, client, None)
        user = User.objects.create_user(name, is_staff=True, is_superuser=name == "superuser")
        wanted = Permission.objects.filter(content_type__app_label="backups_app", codename__in=_RIGHTS[name])
        assert len(wanted) == len(_RIGHTS[name])
        user.user_permissions.set(wanted)
        client.force_login(user)
        return Person(name, client, user)

    return make


@pytest.fixture
def superuser(person: Callable[..., Person]) -> Person:
    """Somebody who may do everything that can be done."""
    return person("superuser")


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    """A real verified backup of the small database."""
    made = make_backup(shop)
    assert made.state == Backup.State.VERIFIED
    return made


@pytest.fixture
def unready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered about the catalogue, neither before nor after the test."""
    monkeypatch.setattr(catalog, "_ready_files", set())


def backup_row(database: Database, *, state: str = "verified", verdict: str = "passed", **facts: Any) -> Backup:
    """An unsaved backup row that keeps every constraint of the catalogue."""
    now = timezone.now() - timedelta(hours=1)
    backup = Backup(
        database=database, state=state, verdict=verdict, trigger="command", requested_by_name="anna", created_at=now
    )
    backup.archive_name = f"shop/2026/shop-{backup.pk}.sqlite3.zst"
    if state != "running":
        backup.finished_at = now
    if state in ("failed", "cancelled"):
        backup.failure_code, backup.reason, backup.hint = "failed", "It went wrong.", "Try it again."
    if state == "verified":
        backup.taken_at = backup.verified_at = now
        backup.size_bytes, backup.archive_bytes, backup.row_count = 1234567, 4321, 7654321
        backup.sha256 = backup.archive_sha256 = secrets.token_hex(32)
        backup.content_sha256 = backup.manifest_sha256 = secrets.token_hex(32)
        backup.census = {"tables": {"product": 7654300, "sale": 21, "draft": 0}}
    for name, value in facts.items():
        setattr(backup, name, value)
    return backup


def job_row(database: Database | None, *, state: str = "queued", kind: str = "create", **facts: Any) -> Job:
    """An unsaved job row that keeps every constraint of the catalogue."""
    now = timezone.now()
    job = Job(
        kind=kind,
        database=database,
        state=state,
        trigger="admin",
        requested_by_id="7",
        requested_by_name="anna",
        created_at=now - timedelta(minutes=10),
    )
    if state != "queued":
        job.started_at, job.heartbeat_at = now - timedelta(seconds=200), now
        job.owner, job.token, job.attempts, job.host = "generation:77", 1, 1, "here"
    if state == "running":
        job.phase, job.phase_started_at = "compress", now - timedelta(seconds=100)
        job.done_bytes, job.total_bytes = 500_000_000, 2_000_000_000
    if not job.is_open:
        job.finished_at = now - timedelta(seconds=5)
    if state in ("failed", "cancelled", "interrupted"):
        job.outcome, job.hint = "It went wrong.", "Try it again."
    for name, value in facts.items():
        setattr(job, name, value)
    return job


def verification_row(backup: Backup, *, level: str = "full", verdict: str = "passed", **facts: Any) -> Verification:
    """An unsaved verification row that keeps every constraint of the catalogue."""
    now = timezone.now()
    is_good = verdict == "passed"
    checks = [
        {"name": "content digest", "ok": is_good, "evidence": "SHA-256 of it", "advisory": False},
        {"name": "foreign_key_check", "ok": False, "evidence": "2 rows refer to nothing", "advisory": True},
    ]
    reason = "" if is_good else "It is not as it must be."
    given = {"checks": checks, "reason": reason, "hint": "", "destination": "local", **facts}
    if level == "drill" and is_good:
        given = {"recovery_seconds": 1.5, "data_age_seconds": 7200.0, **given}
    return Verification(
        backup=backup,
        level=level,
        verdict=verdict,
        started_at=now,
        finished_at=now,
        requested_by_name="anna",
        **given,
    )


@pytest.fixture
def every_state(shop: Database) -> list[Backup]:
    """Backups in every state with every verdict, copies in every state, each kind of verification and event."""
    pairs = [
        ("running", ""),
        ("verified", "passed"),
        ("verified", "failed"),
        ("verified", "unreachable"),
        ("verified", "key_missing"),
        ("failed", ""),
        ("failed", "failed"),
        ("failed", "unreachable"),
        ("cancelled", ""),
    ]
    backups = Backup.objects.bulk_create([backup_row(shop, state=state, verdict=verdict) for state, verdict in pairs])
    now = timezone.now()
    for backup, state in zip(backups, Copy.State.values, strict=False):
        times = {} if state == "pending" else {"stored_at": now, "checked_at": now}
        Copy.objects.create(backup=backup, destination="local", name=backup.archive_name, state=state, **times)
    for level in Verification.Level.values:
        for verdict in Verification.Verdict.values:
            verification_row(backups[1], level=level, verdict=verdict).save()
    verification_row(backups[3], verdict="unreachable", checks=[]).save()
    for outcome in AuditEvent.Outcome.values:
        AuditEvent.objects.create(
            actor_id=ACTOR.id, actor_name=ACTOR.name, action="verify", outcome=outcome, database_name="shop"
        )
    return backups
