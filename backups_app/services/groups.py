"""The four groups of people, and what each may do: made when missing, never taken from."""

from __future__ import annotations

from dataclasses import dataclass

from django.apps import apps
from django.contrib.auth.management import create_permissions
from django.contrib.auth.models import Group, Permission
from django.db import transaction

from . import audit
from .audit import Actor

_VIEW = (
    "view_database",
    "view_backup",
    "view_copy",
    "view_verification",
    "view_restore",
    "view_job",
    "view_schedule",
    "view_scheduledrun",
    "view_notification",
    "view_host",
    "view_finding",
    "view_healthproblem",
    "view_recipient",
    "view_triagerun",
    "view_triagefile",
)

# Group → codenames. In no group, because each of them gives data away or destroys it: download_backup,
# manage_keys, prune_backup, discard_archive, change_database. Who needs one gets it by name.
PERMISSIONS: dict[str, tuple[str, ...]] = {
    "Backup viewer": _VIEW,
    "Backup operator": (
        *_VIEW,
        "create_backup",
        "verify_backup",
        "hold_backup",
        "request_restore",
        "cancel_job",
        "add_schedule",
        "change_schedule",
        "delete_schedule",
        "run_triage",
        "import_backup",
    ),
    "Backup approver": (*_VIEW, "approve_restore"),
    "Backup auditor": (*_VIEW, "view_auditevent"),
}
"""Prefixed, because a site may have a group “viewer” of its own, whose members must not see backups."""


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """What became of one group."""

    name: str
    is_new: bool
    added: list[str]
    unknown: list[str]
    """Permissions of the table that this version, or this database, does not have."""


def setup_groups(*, actor: Actor) -> list[SetUp]:
    """Make the groups that are missing and give each the permissions that it lacks; record what was changed.

    Nothing is taken away: permissions and members that somebody added stay. A second run changes nothing.
    """
    using = Group.objects.db_manager().db
    # The first migration of a site may not have come to them yet.
    create_permissions(apps.get_app_config("backups_app"), verbosity=0, using=using)
    known = {each.codename: each for each in Permission.objects.filter(content_type__app_label="backups_app")}
    with transaction.atomic(using=using):
        done = [_setup(name, codenames, known=known) for name, codenames in PERMISSIONS.items()]
    for each in done:
        if each.is_new or each.added:
            audit.record("setup-groups", actor=actor, subject=each.name, detail=", ".join(each.added))
    return done


def _setup(name: str, codenames: tuple[str, ...], *, known: dict[str, Permission]) -> SetUp:
    group, is_new = Group.objects.get_or_create(name=name)
    held = set(group.permissions.values_list("pk", flat=True))
    lacking = [known[each] for each in codenames if each in known and known[each].pk not in held]
    group.permissions.add(*lacking)
    return SetUp(
        name=name,
        is_new=is_new,
        added=[each.codename for each in lacking],
        unknown=[each for each in codenames if each not in known],
    )
