"""Whether anybody works."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from backups_app.models import Host
from backups_app.services.hosts import is_anybody_working

pytestmark = pytest.mark.usefixtures("db_catalog")


def host(name: str, *, silent_seconds: float, is_stopped: bool = False) -> Host:
    now = timezone.now()
    return Host.objects.create(
        name=name,
        seen_at=now - timedelta(seconds=silent_seconds),
        started_at=now - timedelta(days=1),
        stopped_at=now if is_stopped else None,
    )


def test_where_no_machine_was_ever_heard_of_nobody_works():
    assert not is_anybody_working(timezone.now())


@pytest.mark.parametrize(("silent_seconds", "works"), [(0, True), (25, True), (35, False), (86400, False)])
def test_a_machine_counts_while_it_gives_signs_of_life(silent_seconds: float, works: bool):
    host("one", silent_seconds=silent_seconds)
    assert is_anybody_working(timezone.now()) is works


def test_a_machine_that_was_told_to_end_does_not_count():
    host("one", silent_seconds=1, is_stopped=True)
    assert not is_anybody_working(timezone.now())


def test_one_of_several_is_enough():
    host("one", silent_seconds=1, is_stopped=True)
    host("two", silent_seconds=500)
    host("three", silent_seconds=1)
    assert is_anybody_working(timezone.now())
