"""A job that was asked for, and jobs whose owner is dead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.utils import timezone

from backups_app.models import Database, Job
from backups_app.services.audit import Actor
from backups_app.services.jobs import ask_create

ANNA, BEN = Actor(id="1", name="anna"), Actor(id="2", name="ben")


@pytest.fixture
def asked(shop: Database) -> Job:
    """Anna has asked for a backup of the shop."""
    return ask_create(shop, actor=ANNA, trigger=Job.Trigger.ADMIN)


@pytest.fixture
def orphan(shop: Database) -> Callable[..., Job]:
    """A function that adds a running job whose owner is dead: nobody holds its lock."""

    def make(kind: str = Job.Kind.CREATE, **changed: object) -> Job:
        facts = {
            "kind": kind,
            "database": shop,
            "state": Job.State.RUNNING,
            "trigger": Job.Trigger.ADMIN,
            "token": 1,
            "attempts": 1,
            "owner": "dead:1",
            "started_at": timezone.now(),
            "heartbeat_at": timezone.now(),
            **changed,
        }
        return Job.objects.create(**facts)

    return make
