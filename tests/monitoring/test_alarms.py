"""Each alarm changes the command, the page, the metrics and one notification, and each recovers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Database, Host, Notification, Schedule
from backups_app.services.health import Problem, check
from backups_app.services.health.watch import watch
from tests.console import Finished
from tests.monitoring.conftest import Samples
from tests.support import mounted_tmpfs


@dataclass(frozen=True)
class World:
    """What the faults need."""

    home: Path
    shop: Database
    shop_file: Path
    monkeypatch: pytest.MonkeyPatch


@contextmanager
def worker_stopped(world: World) -> Iterator[None]:
    now = timezone.now()
    host = Host.objects.create(name="web1", seen_at=now - timedelta(minutes=2), started_at=now)
    yield
    Host.objects.filter(pk=host.pk).update(seen_at=timezone.now() + timedelta(hours=1))


@contextmanager
def schedule_missed(world: World) -> Iterator[None]:
    now = timezone.now()
    schedule = Schedule.objects.create(database=world.shop, cron="* * * * *", handled_until=now - timedelta(minutes=9))
    yield
    Schedule.objects.filter(pk=schedule.pk).update(handled_until=timezone.now() + timedelta(minutes=4))


@contextmanager
def disk_nearly_full(world: World) -> Iterator[None]:
    filler = world.home / "filler"
    filler.write_bytes(b"x" * (os.statvfs(world.home).f_bavail * os.statvfs(world.home).f_frsize - 8192))
    yield
    filler.unlink()


@contextmanager
def key_removed(world: World) -> Iterator[None]:
    """As the check of the keys tells it: one more in the registry."""
    found = Problem(
        code="key_missing", database="shop", message="No key opens it.", hint="Put it back.", is_severe=True
    )
    world.monkeypatch.setattr(check, "CHECKS", (*check.CHECKS, lambda _look: [found]))
    yield
    world.monkeypatch.setattr(check, "CHECKS", check.CHECKS[:-1])


@contextmanager
def wal_at_2_gb(world: World) -> Iterator[None]:
    wal = world.shop_file.with_name(world.shop_file.name + "-wal")
    wal.touch()
    os.truncate(wal, 2 << 30)
    yield
    wal.unlink()


@contextmanager
def too_old(world: World) -> Iterator[None]:
    taken = dict(Backup.objects.values_list("pk", "taken_at"))
    Backup.objects.update(taken_at=timezone.now() - timedelta(hours=27))
    yield
    for pk, taken_at in taken.items():
        Backup.objects.filter(pk=pk).update(taken_at=taken_at)


FAULTS = {
    "host_silent": worker_stopped,
    "schedule_overdue": schedule_missed,
    "disk_nearly_full": disk_nearly_full,
    "key_missing": key_removed,
    "wal_large": wal_at_2_gb,
    "too_old": too_old,
}


@pytest.fixture
def world(
    home: Path, shop_file: Path, db_catalog: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """A safe database, its archives on a small disk, and one receiver of news."""
    from backups_app.services.databases import add_database
    from tests.conftest import ACTOR

    settings.ADMINS = []
    settings.BACKUPS = {**settings.BACKUPS, "WEBHOOK_URLS": ["http://one.example/"]}
    home.mkdir(exist_ok=True)
    with mounted_tmpfs(home, size_bytes=4 << 20):
        shop = add_database("shop", shop_file, actor=ACTOR)
        yield World(home, shop, shop_file, monkeypatch)


def told() -> list[tuple[str, str]]:
    """News of the health; those of jobs are others."""
    rows = Notification.objects.filter(job=None).order_by("pk")
    return [(each.event, each.content["code"]) for each in rows]


@pytest.mark.parametrize("code", FAULTS)
def test_an_alarm_is_seen_everywhere_told_once_and_ends(
    world: World,
    run: Callable[..., Finished],
    scrape: Callable[[], Samples],
    client_of: Callable[..., Client],
    make_backup: Callable[..., Backup],
    code: str,
):
    browser = client_of(permission="view_database")
    assert make_backup(world.shop).state == "verified"

    def seen() -> tuple[int, bool, bool, float]:
        """Exit code; in status, on the page; how often in the metrics."""
        status = run("status", "--json")
        codes = [each["code"] for each in status.document["health"]["problems"]]
        page = browser.get("/admin/backups_app/healthproblem/health/").content.decode()
        found = {dict(labels)["code"]: value for (name, labels), value in scrape().items() if name == "walsafe_problem"}
        return status.code, code in codes, "What needs attention" in page, found.get(code, 0)

    now = timezone.now()
    assert seen() == (0, False, False, 0)
    assert watch(now=now).told == []
    with FAULTS[code](world):
        assert seen() == (8, True, True, 1)
        for seconds in (0, 20, 40, 60):
            watch(now=now + timedelta(seconds=seconds))
        assert told() == [("failed", code)]
    assert seen() == (0, False, False, 0)
    for seconds in (80, 100, 145):
        watch(now=now + timedelta(seconds=seconds))
    assert told() == [("failed", code), ("recovered", code)]
