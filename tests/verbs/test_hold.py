"""``hold`` and ``release``: who did it is known, and what is gone cannot be held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.utils import timezone

from backups_app.models import AuditEvent, Backup, Database
from tests.console import Finished

Run = Callable[..., Finished]


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    return make_backup(shop)


def test_a_person_holds_and_another_releases(run: Run, backup: Backup, django_user_model: Any):
    for name in ("anna", "ben"):
        django_user_model.objects.create_superuser(name)
    assert run("hold", backup.pk[:6], "--user", "anna", "--json").backup()["held_by"] == "anna"
    assert "by anna" in run("show", backup.pk).stdout
    assert run("release", backup.pk, "--user", "ben", "--json").backup()["held"] is False
    events = AuditEvent.objects.filter(action__in=["hold", "release"]).order_by("pk")
    assert [(each.action, each.actor_name, each.subject) for each in events] == [
        ("hold", "anna", backup.pk),
        ("release", "ben", backup.pk),
    ]


@pytest.mark.parametrize("verb", ["hold", "release"])
def test_a_person_needs_the_permission(run: Run, backup: Backup, verb: str, django_user_model: Any):
    django_user_model.objects.create_user("carl")
    Backup.objects.update(is_held=verb == "release", held_by_name="anna" if verb == "release" else "")
    assert run(verb, backup.pk, "--user", "carl").code == 7
    assert Backup.objects.get().is_held is (verb == "release")


@pytest.mark.parametrize("verb", ["hold", "release"])
def test_what_is_gone_is_refused_and_what_never_was_is_not_found(run: Run, backup: Backup, verb: str):
    Backup.objects.update(state="pruning", pruning_at=timezone.now(), prune_reason="no rule keeps it")
    gone = run(verb, backup.pk)
    assert gone.code == 7
    assert "was pruned" in gone.stderr
    assert run(verb, "0123456789ab").code == 6
