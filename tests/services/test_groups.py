"""The groups are made once, and nothing is taken from them."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission

from backups_app.models import AuditEvent
from backups_app.services.groups import PERMISSIONS, setup_groups
from tests.conftest import ACTOR

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def held(name: str) -> set[str]:
    return set(Group.objects.get(name=name).permissions.values_list("codename", flat=True))


def test_each_group_gets_what_the_table_says_and_this_version_has():
    done = {each.name: each for each in setup_groups(actor=ACTOR)}
    for name, codenames in PERMISSIONS.items():
        assert held(name) == set(codenames) - set(done[name].unknown)
        assert done[name].is_new
    assert AuditEvent.objects.filter(action="setup-groups", actor_name="anna").count() == len(PERMISSIONS)


def test_a_second_run_changes_and_records_nothing():
    setup_groups(actor=ACTOR)
    again = setup_groups(actor=ACTOR)
    assert not any(each.is_new or each.added for each in again)
    assert AuditEvent.objects.count() == len(PERMISSIONS)


def test_what_an_administrator_added_stays_and_what_is_lacking_comes_back():
    setup_groups(actor=ACTOR)
    group = Group.objects.get(name="Backup viewer")
    group.permissions.add(Permission.objects.get(codename="download_backup"))
    group.permissions.remove(Permission.objects.get(codename="view_job"))
    done = next(each for each in setup_groups(actor=ACTOR) if each.name == "Backup viewer")
    assert done.added == ["view_job"]
    assert {"download_backup", "view_job"} <= held("Backup viewer")


def test_nobody_may_both_ask_for_and_approve_a_restore():
    for codenames in PERMISSIONS.values():
        assert len({"request_restore", "approve_restore"} & set(codenames)) < 2


def test_no_group_may_give_data_away_or_destroy_it():
    dangerous = {"download_backup", "manage_keys", "prune_backup", "discard_archive", "change_database"}
    assert not any(dangerous & set(codenames) for codenames in PERMISSIONS.values())


def test_a_group_of_the_site_is_left_alone():
    Group.objects.create(name="viewer")
    setup_groups(actor=ACTOR)
    assert held("viewer") == set()
