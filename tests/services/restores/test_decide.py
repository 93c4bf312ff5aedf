"""Two pairs of eyes: who may approve, once, in time, and what exactly."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.core.errors import InputError, RefusedError
from backups_app.models import AuditEvent, Backup, Job, Restore
from backups_app.services.audit import Actor
from backups_app.services.jobs import ask_restore
from backups_app.services.restores import (
    approve_restore,
    expire_restores,
    reject_restore,
    request_restore,
    run_restore,
)
from tests.services.restores.conftest import ANNA, BEN, CARL


def events(action: str) -> list[tuple[str, str, str]]:
    """Who, outcome, detail."""
    found = AuditEvent.objects.filter(action=action).order_by("id")
    return [(each.actor_name, each.outcome, each.detail) for each in found]


def raw(statement: str, *parameters: object) -> int:
    """Change the catalogue behind the app's back."""
    with connections["catalog"].cursor() as cursor:
        cursor.execute(statement, parameters)
        return int(cursor.rowcount)


def past() -> str:
    return str(timezone.now() - timedelta(seconds=1))


def test_a_second_person_approves(requested: Restore):
    restore = approve_restore(requested, actor=BEN)
    restore.refresh_from_db()
    assert (restore.state, restore.approved_by_id, restore.approved_by_name) == ("approved", "2", "ben")
    assert restore.approved_binding == restore.binding_sha256
    assert restore.approved_at is not None
    assert not restore.is_self_approved
    assert events("approve-restore") == [("ben", "done", "")]


@pytest.mark.parametrize(
    "actor",
    [
        ANNA,
        Actor(id="1", name="renamed"),
        Actor(id="99", name="anna"),
        Actor(id="unchecked:anna", name="anna (unchecked)"),
        Actor(id="unchecked:Anna", name="Anna (unchecked)"),
        Actor(id="unchecked:x", name="ａｎｎａ (unchecked)"),
    ],
    ids=["same", "same id", "same name", "unchecked", "unchecked, other case", "unchecked, wide letters"],
)
def test_nobody_approves_their_own_request(requested: Restore, actor: Actor):
    with pytest.raises(RefusedError, match="somebody else must approve"):
        approve_restore(requested, actor=actor)
    requested.refresh_from_db()
    assert (requested.state, requested.approved_by_name) == ("requested", "")
    assert events("approve-restore")[0][:2] == (actor.name, "refused")


def test_an_unchecked_requester_is_known_again(backup: Backup):
    restore = request_restore(
        backup, backup.database, reason="x", actor=Actor(id="unchecked:anna", name="anna (unchecked)")
    )
    with pytest.raises(RefusedError, match="somebody else"):
        approve_restore(restore, actor=ANNA)
    assert approve_restore(restore, actor=BEN).state == "approved"


def test_the_system_account_may_not_approve(requested: Restore):
    with pytest.raises(RefusedError, match="system account"):
        approve_restore(requested, actor=Actor.system())
    requested.refresh_from_db()
    assert requested.state == "requested"


def test_an_approval_is_given_once(approved: Restore):
    with pytest.raises(RefusedError, match="approved, not waiting"):
        approve_restore(approved, actor=CARL)
    approved.refresh_from_db()
    assert approved.approved_by_name == "ben"


def test_the_approver_may_come_back_to_an_approval_that_nobody_used(approved: Restore):
    """A busy database kept it from running: the same command works later."""
    at = approved.approved_at
    assert approve_restore(approved, actor=BEN).state == "approved"
    assert approved.approved_at == at
    assert len(events("approve-restore")) == 1


@pytest.mark.parametrize(
    "change",
    [
        'overrides = \'{"empty": "sneaked in"}\'',
        "is_migrating = true",
        "backup_id = (SELECT id FROM backups_app_backup WHERE id <> backup_id)",
    ],
)
def test_a_request_that_was_changed_is_not_approved(requested: Restore, backup: Backup, make_backup, change: str):
    make_backup(backup.database)
    assert raw(f"UPDATE backups_app_restore SET {change} WHERE id = %s", requested.pk) == 1
    requested = Restore.objects.get(pk=requested.pk)
    with pytest.raises(RefusedError, match="not those of the request"):
        approve_restore(requested, actor=BEN)
    assert Restore.objects.get(pk=requested.pk).state == "requested"


def test_a_single_person_site_approves_for_itself_and_says_so(requested: Restore, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "FOUR_EYES": False}
    restore = approve_restore(requested, actor=ANNA)
    restore.refresh_from_db()
    assert (restore.state, restore.is_self_approved, restore.approved_by_name) == ("approved", True, "anna")
    assert events("approve-restore") == [("anna", "done", "self-approved: the four-eyes rule is switched off")]


def test_a_second_person_on_such_a_site_is_no_self_approval(requested: Restore, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "FOUR_EYES": False}
    assert not approve_restore(requested, actor=BEN).is_self_approved
    assert events("approve-restore") == [("ben", "done", "")]


def test_a_self_approval_does_not_run_when_two_are_needed_again(
    requested: Restore, settings: Settings, outside_transactions: None
):
    settings.BACKUPS = {**settings.BACKUPS, "FOUR_EYES": False}
    approve_restore(requested, actor=ANNA)
    settings.BACKUPS = {**settings.BACKUPS, "FOUR_EYES": True}
    with pytest.raises(RefusedError, match="somebody else must approve"):
        run_restore(requested, actor=ANNA)
    assert Restore.objects.get(pk=requested.pk).state == "approved"


def test_a_request_expires(requested: Restore):
    Restore.objects.filter(pk=requested.pk).update(expires_at=past())
    with pytest.raises(RefusedError, match="expired"):
        approve_restore(requested, actor=BEN)
    requested.refresh_from_db()
    assert requested.state == "expired"
    assert requested.finished_at is not None
    assert events("expire-restore")[0][:2] == ("system", "done")


def test_an_approval_expires(approved: Restore, outside_transactions: None):
    Restore.objects.filter(pk=approved.pk).update(expires_at=past())
    with pytest.raises(RefusedError, match="in time"):
        run_restore(approved, actor=BEN)
    assert expire_restores() == 1
    approved.refresh_from_db()
    assert approved.state == "expired"
    with pytest.raises(RefusedError, match="expired"):
        run_restore(approved, actor=BEN)


def test_only_what_is_over_expires_and_once(requested: Restore):
    assert expire_restores() == 0
    Restore.objects.filter(pk=requested.pk).update(expires_at=past())
    assert [expire_restores(), expire_restores()] == [1, 0]
    assert len(events("expire-restore")) == 1


def test_a_rejection_needs_a_reason_and_keeps_it(requested: Restore):
    with pytest.raises(InputError, match="reason"):
        reject_restore(requested, reason=" ", actor=BEN)
    restore = reject_restore(requested, reason="not today", actor=BEN)
    restore.refresh_from_db()
    assert (restore.state, restore.rejected_by_name, restore.outcome) == ("rejected", "ben", "not today")
    assert events("reject-restore") == [("ben", "done", "not today")]


def test_the_requester_withdraws(requested: Restore):
    assert reject_restore(requested, reason="found another way", actor=ANNA).state == "cancelled"


def test_an_approval_can_be_taken_back_before_it_is_used(approved: Restore):
    assert reject_restore(approved, reason="stop", actor=CARL).state == "rejected"


@pytest.mark.parametrize("ended", ["rejected", "cancelled", "expired"])
def test_what_has_ended_is_neither_approved_nor_rejected_nor_run(
    requested: Restore, outside_transactions: None, shop_file, ended: str
):
    before = shop_file.read_bytes()
    if ended == "expired":
        Restore.objects.filter(pk=requested.pk).update(expires_at=past())
        expire_restores()
    else:
        reject_restore(requested, reason="no", actor=BEN if ended == "rejected" else ANNA)
    for act in (
        lambda: approve_restore(requested, actor=BEN),
        lambda: reject_restore(requested, reason="again", actor=BEN),
        lambda: run_restore(requested, actor=BEN),
    ):
        with pytest.raises(RefusedError, match=ended):
            act()
    assert Restore.objects.get(pk=requested.pk).state == ended
    assert shop_file.read_bytes() == before
    assert not Backup.objects.filter(trigger="safety").exists()


def test_a_rejection_cancels_the_job_that_waits(approved: Restore, shop_file):
    job = ask_restore(approved, actor=BEN, trigger=Job.Trigger.ADMIN)
    reject_restore(approved, reason="no longer wanted", actor=CARL)
    assert Job.objects.get(pk=job.pk).state == "cancelled"
    assert Restore.objects.get(pk=approved.pk).state == "rejected"
