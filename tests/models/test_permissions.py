"""Nobody can be given the right to add, change or delete evidence."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Permission

from backups_app.models import (
    AuditEvent,
    Backup,
    Copy,
    Database,
    HealthProblem,
    Host,
    Notification,
    Recipient,
    ScheduledRun,
    Verification,
)


def permissions(model: type) -> set[str]:
    meta = model._meta  # type: ignore[attr-defined]
    return {*meta.default_permissions, *(name for name, _ in meta.permissions)}


@pytest.mark.parametrize("model", [AuditEvent, Verification, Copy, Notification, ScheduledRun, Host, HealthProblem])
def test_evidence_can_only_be_viewed(model: type):
    assert permissions(model) == {"view"}


def test_backups_can_be_viewed_made_verified_downloaded_imported_pruned_and_held():
    verbs = ("create", "verify", "download", "import", "prune", "hold")
    assert permissions(Backup) == {"view", *(f"{verb}_backup" for verb in verbs)}


def test_keys_can_be_viewed_and_managed():
    assert permissions(Recipient) == {"view", "manage_keys"}


def test_databases_can_be_viewed_and_their_policy_changed():
    assert permissions(Database) == {"view", "change"}


@pytest.mark.django_db(databases=["default", "catalog"])
def test_schedules_are_the_only_rows_that_people_may_add_or_delete():
    create_permissions(apps.get_app_config("backups_app"), verbosity=0, using="default")
    codenames = set(Permission.objects.filter(content_type__app_label="backups_app").values_list("codename", flat=True))
    changing = {name for name in codenames if name.startswith(("add_", "delete_"))}
    assert changing == {"add_schedule", "delete_schedule"}
