"""Each problem is told once, and so is its end; what comes and goes is told once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.models import Database, HealthProblem, Notification
from backups_app.services.health import Health, Problem
from backups_app.services.health.watch import remember, watch
from tests.services.health.rows import verified

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

START = datetime.fromisoformat("2026-03-04T05:06:07+00:00")


@pytest.fixture(autouse=True)
def receiver(home: object, settings: Settings) -> None:
    """One webhook, so that each message is one row."""
    settings.ADMINS = []
    settings.BACKUPS = {**settings.BACKUPS, "WEBHOOK_URLS": ["http://one.example/"]}


def problem(code: str = "wal_large", database: str = "shop", **facts: object) -> Problem:
    return Problem(code=code, database=database, message="It is bad.", hint="Cure it.", **facts)  # type: ignore[arg-type]


def look(seconds: float, *problems: Problem) -> None:
    """A look so long after the start that finds these problems."""
    at = START + timedelta(seconds=seconds)
    remember(Health(checked_at=at, databases=[], problems=list(problems), notices=[]))


def told() -> list[tuple[str, str]]:
    return [(each.event, each.content["subject"]) for each in Notification.objects.order_by("pk")]


BAD = ("failed", "Needs attention: wal large (shop)")
GOOD = ("recovered", "No longer a problem: wal large (shop)")


def test_a_problem_that_stays_is_told_at_the_second_look_and_never_again():
    look(0, problem())
    assert told() == []
    for seconds in (20, 40, 60, 86_400):
        look(seconds, problem())
    assert told() == [BAD]
    row = HealthProblem.objects.get()
    assert (row.first_seen, row.told_at) == (START, START + timedelta(seconds=20))
    assert row.last_seen == START + timedelta(seconds=86_400)
    content = Notification.objects.get().content
    assert (content["kind"], content["code"], content["database"]) == ("health", "wal_large", "shop")
    assert (content["outcome"], content["hint"], content["count"]) == ("shop: It is bad.", "Cure it.", 1)


def test_a_severe_problem_is_told_at_once():
    look(0, problem(is_severe=True))
    assert told() == [BAD]


def test_its_end_is_told_once_after_a_minute_away():
    look(0, problem())
    look(20, problem())
    look(40)
    look(60)
    assert told() == [BAD]
    look(100)
    look(120)
    assert told() == [BAD, GOOD]
    row = HealthProblem.objects.get()
    assert (row.is_open, row.resolved_at) == (False, START + timedelta(seconds=100))


def test_a_problem_that_comes_and_goes_is_told_once():
    for seconds in range(0, 2000, 40):
        look(seconds, problem())
        look(seconds + 20)
    assert told() == [BAD]
    assert HealthProblem.objects.count() == 1


def test_what_was_seen_once_only_is_told_to_nobody():
    look(0, problem())
    look(20)
    look(100)
    assert told() == []
    assert HealthProblem.objects.get().resolved_at is not None


def test_two_hosts_that_look_at_nearly_the_same_time_are_not_two_looks():
    look(0, problem())
    look(3, problem())
    assert told() == []
    look(20, problem())
    look(23, problem())
    assert told() == [BAD]


def test_a_problem_that_returns_after_its_end_is_another():
    for start in (0, 1000):
        look(start, problem())
        look(start + 20, problem())
        look(start + 40)
        look(start + 100)
    assert told() == [BAD, GOOD, BAD, GOOD]
    assert HealthProblem.objects.count() == 2


def test_problems_of_one_kind_are_told_in_one_message():
    many = [problem(database=f"db{number:03}") for number in range(200)]
    look(0, *many)
    look(20, *many)
    (row,) = Notification.objects.all()
    assert row.content["subject"] == "Needs attention: wal large (db000) and 199 more"
    assert (row.content["count"], len(row.content["problems"])) == (200, 50)
    look(40)
    look(100)
    assert Notification.objects.filter(event="recovered").count() == 1


def test_problems_are_told_apart_by_what_they_are_about():
    hosts = [problem("host_silent", "", subject=name) for name in ("one", "two")]
    look(0, *hosts)
    look(20, *hosts)
    look(40, hosts[0])
    look(100, hosts[0])
    assert told()[-1] == ("recovered", "No longer a problem: host silent (two)")


def test_what_the_end_of_a_job_has_told_is_remembered_only():
    for seconds in (0, 20):
        look(seconds, problem("last_run_failed"), problem("run_failed", subject="verify"))
    assert told() == []
    assert HealthProblem.objects.filter(told_at__isnull=False).count() == 2
    look(40)
    look(100)
    assert told() == []


def test_the_message_follows_and_the_record_stays_one():
    look(0, problem())
    changed = Problem(code="wal_large", database="shop", message="It is worse.", hint="Hurry.")
    look(20, changed)
    row = HealthProblem.objects.get()
    assert (row.message, row.hint) == ("It is worse.", "Hurry.")


def test_old_records_are_forgotten_and_open_ones_are_not():
    look(0, problem())
    look(20)
    look(100)
    look(200, problem(database="other"))
    later = 91 * 86_400
    look(later, problem(), problem(database="other"))
    look(later + 20, problem(database="other"))
    look(later + 100, problem(database="other"))
    assert sorted(HealthProblem.objects.values_list("database", flat=True)) == ["other", "shop"]
    assert HealthProblem.objects.get(database="shop").first_seen > START + timedelta(days=90)


def test_when_all_is_well_nothing_is_written(shop: Database):
    verified(shop).save()
    with CaptureQueriesContext(connections["catalog"]) as queries:
        found = watch(now=timezone.now())
    assert (found.told, found.recovered) == ([], [])
    assert not [each["sql"] for each in queries if not each["sql"].lstrip().startswith("SELECT")]


def test_news_and_record_are_one(monkeypatch: pytest.MonkeyPatch):
    def fail(*_arguments: object, **_facts: object) -> int:
        raise RuntimeError("cut")

    look(0, problem())
    with monkeypatch.context() as patch:
        patch.setattr("backups_app.services.health.watch.notify", fail)
        with pytest.raises(RuntimeError):
            look(20, problem())
    assert HealthProblem.objects.get().told_at is None
    look(40, problem())
    assert told() == [BAD]


def test_the_tick_watches(run: Callable[..., object], shop: Database):
    run("tick")
    assert HealthProblem.objects.filter(code="never_verified", database="shop").exists()
