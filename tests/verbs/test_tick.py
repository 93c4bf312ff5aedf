"""``tick`` on the command line, also from many processes at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from backups_app.models import Database, Job, Schedule, ScheduledRun
from backups_app.services.schedules import save_schedule
from tests.conftest import ACTOR
from tests.console import Console, Finished, finish
from tests.site import run_django
from tests.test_documents import UTC_TIME

Run = Callable[..., Finished]


@pytest.fixture
def due(shop: Database) -> Schedule:
    """A schedule that was due about ten minutes ago, and a day before that."""
    moment = timezone.now() - timedelta(minutes=10)
    schedule = Schedule(database=shop, kind="create", cron=f"{moment.minute} {moment.hour} * * *", time_zone="UTC")
    save_schedule(schedule, actor=ACTOR, now=moment - timedelta(days=1, minutes=5))
    return schedule


def test_what_is_due_is_fired_and_printed(run: Run, due: Schedule):
    finished = run("tick")
    scheduled, job = ScheduledRun.objects.get(), Job.objects.get()
    assert (finished.code, finished.stderr) == (0, "")
    assert finished.stdout == (
        f"create shop: due {scheduled.due_at:%Y-%m-%d %H:%M} UTC, job {job.pk}, late, stands for 1 missed\n"
    )
    again = run("tick")
    assert (again.code, again.stdout, again.stderr) == (0, "", "")
    assert (ScheduledRun.objects.count(), Job.objects.count()) == (1, 1)


def test_the_document_of_a_tick(run: Run, due: Schedule):
    finished = run("tick", "--json")
    scheduled = ScheduledRun.objects.get()
    (document,) = finished.document["runs"]
    assert set(document) == {"id", "schedule", "database", "kind", "due_at", "fired_at", "late", "missed", "job"}
    assert (document["id"], document["schedule"], document["job"]) == (scheduled.pk, due.pk, Job.objects.get().pk)
    assert (document["database"], document["kind"]) == ("shop", "create")
    assert (document["late"], document["missed"]) == (True, 1)
    assert UTC_TIME.fullmatch(document["due_at"])
    assert UTC_TIME.fullmatch(document["fired_at"])
    assert run("tick", "--json").document == {"runs": []}


def test_a_schedule_that_cannot_be_read_fails_the_tick_and_the_others_are_fired(
    run: Run, due: Schedule, shop: Database
):
    broken = Schedule.objects.create(database=shop, kind="prune", cron="nonsense")
    finished = run("tick", "--json")
    assert finished.code == 1
    assert [each["schedule"] for each in finished.document["runs"]] == [due.pk]
    (error,) = finished.document["errors"]
    assert "nonsense" in error["message"]
    assert error["hint"]
    assert "Error: " in finished.stderr
    assert not ScheduledRun.objects.filter(schedule=broken).exists()


def test_an_alias_that_left_the_settings_fires_nothing(run: Run, due: Schedule, shop: Database):
    Database.objects.filter(pk=shop.pk).update(alias="gone")
    assert run("tick", "--json").document == {"runs": []}
    assert not Job.objects.exists()


def test_a_tick_takes_no_argument(console: Console):
    assert console.run("tick", "now").code == 2


_SCHEDULE = """
from datetime import UTC, datetime
from backups_app.models import Database, Schedule
from backups_app.services.audit import Actor
from backups_app.services.databases import sync_databases
from backups_app.services.schedules import save_schedule
sync_databases()
database = Database.objects.get(name="default")
for kind, cron in (("create", "{cron}"), ("prune", "{other}")):
    schedule = Schedule(database=database, kind=kind, cron=cron)
    save_schedule(schedule, actor=Actor.system(), now=datetime.fromisoformat("{since}"))
"""


@pytest.mark.slow
def test_eight_processes_that_tick_at_once_make_one_run_and_one_job(console: Console, site: Path):
    moment = datetime.now(UTC) - timedelta(minutes=30)
    since = (moment - timedelta(minutes=1)).isoformat()
    later = moment + timedelta(hours=12)
    cron, other = (f"{each.minute} {each.hour} * * *" for each in (moment, later))
    run_django(console, _SCHEDULE.format(cron=cron, other=other, since=since))
    finished = [finish(each) for each in [console.start("tick", "--json") for _ in range(8)]]
    assert [(each.code, each.stderr) for each in finished] == [(0, "")] * 8
    fired = [run for each in finished for run in each.document["runs"]]
    assert len(fired) == 1
    assert console.query("SELECT is_late, missed, job_id FROM backups_app_scheduledrun") == [(1, 0, fired[0]["job"])]
    assert console.query("SELECT id, kind, state FROM backups_app_job") == [(fired[0]["job"], "create", "queued")]
    assert console.archived() == set(), "a tick asks for work and does none"
