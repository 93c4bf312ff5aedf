"""What the catalogue itself refuses to hold about a restore, whoever writes to it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from backups_app.models import Backup, Database, Restore
from tests.conftest import ACTOR


@pytest.fixture
def backup(shop: Database, make_backup) -> Backup:
    return make_backup(shop)


@pytest.fixture
def restore(backup: Backup) -> Restore:
    return Restore.objects.create(
        backup=backup,
        database=backup.database,
        reason="x",
        archive_sha256=backup.archive_sha256,
        binding_sha256="b" * 64,
        requested_by_id=ACTOR.id,
        requested_by_name=ACTOR.name,
        expires_at=timezone.now() + timedelta(hours=1),
    )


APPROVED = "state = 'approved', approved_at = '2026-01-01', approved_binding = binding_sha256"


def change(restore: Restore, assignment: str) -> None:
    """A raw UPDATE, as somebody with a database shell would do it."""
    with transaction.atomic(using="catalog"), connections["catalog"].cursor() as cursor:
        cursor.execute(f"UPDATE backups_app_restore SET {assignment} WHERE id = %s", [restore.pk])


@pytest.mark.parametrize(
    ("assignment", "constraint"),
    [
        (f"{APPROVED}, approved_by_id = '7', approved_by_name = 'anna'", "another_person"),
        (f"{APPROVED}, approved_by_id = '7', approved_by_name = 'somebody'", "another_person"),
        (f"{APPROVED}, approved_by_id = '8', approved_by_name = 'anna'", "another_person"),
        (
            f"{APPROVED}, approved_by_id = requested_by_id, approved_by_name = requested_by_name",
            "another_person",
        ),
        ("state = 'approved'", "runs_only_when_approved"),
        ("state = 'running'", "runs_only_when_approved"),
        ("state = 'succeeded', finished_at = '2026-01-01'", "runs_only_when_approved"),
        ("state = 'rolled_back', finished_at = '2026-01-01', outcome = 'x'", "runs_only_when_approved"),
        (f"{APPROVED}, approved_by_id = '8', approved_by_name = ''", "runs_only_when_approved"),
        (
            "state = 'approved', approved_at = '2026-01-01', approved_binding = 'other', "
            "approved_by_id = '8', approved_by_name = 'ben'",
            "runs_only_when_approved",
        ),
        ("state = 'done'", "state_is_known"),
        ("reason = ''", "has_a_reason"),
        ("state = 'rejected', outcome = 'no'", "ends_when_it_is_finished"),
        ("state = 'cancelled'", "ends_when_it_is_finished"),
        ("state = 'expired'", "ends_when_it_is_finished"),
        ("state = 'failed', finished_at = '2026-01-01'", "failure_has_a_reason"),
        ("state = 'rejected', finished_at = '2026-01-01'", "failure_has_a_reason"),
    ],
)
def test_a_raw_update_cannot_go_past_the_rules(restore: Restore, assignment: str, constraint: str):
    with pytest.raises(IntegrityError, match=constraint):
        change(restore, assignment)
    restore.refresh_from_db()
    assert (restore.state, restore.approved_by_name) == ("requested", "")


def test_another_person_is_let_through(restore: Restore):
    change(restore, f"{APPROVED}, approved_by_id = '8', approved_by_name = 'ben'")
    assert Restore.objects.get().state == "approved"


def test_a_self_approval_must_say_so(restore: Restore):
    change(restore, f"{APPROVED}, approved_by_id = '7', approved_by_name = 'anna', is_self_approved = true")
    assert Restore.objects.get().is_self_approved


def test_one_restore_runs_per_database(restore: Restore):
    running = f"{APPROVED}, approved_by_id = '8', approved_by_name = 'ben', state = 'running'".replace(
        "state = 'approved', ", ""
    )
    change(restore, running)
    first = restore.pk
    restore.pk = "f" * 12
    restore.state = "requested"
    restore.save(force_insert=True)
    with pytest.raises(IntegrityError):
        change(restore, running)
    assert Restore.objects.get(state="running").pk == first


def test_a_backup_that_a_restore_needs_cannot_be_deleted(restore: Restore):
    from django.db.models import ProtectedError

    with pytest.raises(ProtectedError):
        restore.backup.delete()


def test_ids_are_random_and_short(restore: Restore):
    assert len(restore.pk) == 12
    assert int(restore.pk, 16) >= 0


def test_its_name_says_from_where_to_where(restore: Restore):
    assert str(restore) == f"{restore.backup_id} → shop (requested)"


@pytest.mark.parametrize("codename", ["request_restore", "approve_restore", "view_restore"])
def test_each_step_has_a_permission(db_catalog: None, codename: str):
    from django.contrib.auth.models import Permission

    assert Permission.objects.filter(content_type__app_label="backups_app", codename=codename).count() == 1
    assert not Permission.objects.filter(codename__in=["add_restore", "change_restore", "delete_restore"]).exists()
