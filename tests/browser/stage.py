"""Fills the home of a desk with a row of each kind; run in a process of its own, with the settings of these tests."""

from __future__ import annotations

import json
import os
from pathlib import Path

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.utils import timezone  # noqa: E402

from backups_app.models import (  # noqa: E402
    AuditEvent,
    HealthProblem,
    Job,
    Notification,
    Schedule,
    ScheduledRun,
    Verification,
)
from backups_app.services.audit import Actor  # noqa: E402
from backups_app.services.clock import tick  # noqa: E402
from backups_app.services.databases import add_database, get_database, sync_databases  # noqa: E402
from backups_app.services.jobs.ask import ask_create, ask_drill, ask_verify  # noqa: E402
from backups_app.services.jobs.run import run_job  # noqa: E402
from backups_app.services.keys.registry import sync_recipients  # noqa: E402
from backups_app.services.restores import request_restore  # noqa: E402
from backups_app.services.triage.runs import ask_triage  # noqa: E402


def fill() -> dict[str, object]:
    """A backup with each kind of proof, a request, a schedule, a judged folder, a key, a job that waits."""
    folder = Path(os.environ["BACKUPS_TRIAGE_ROOTS"])
    anna = Actor.of(User.objects.get(username="anna"))
    sync_databases()
    (recipient,) = sync_recipients(now=timezone.now())
    default = get_database("default")
    add_database("a-long-name-that-nobody-would-choose-for-a-database-of-theirs", folder / "shop.sqlite3", actor=anna)
    run = ask_triage([str(folder)], actor=anna, trigger=Job.Trigger.ADMIN)
    assert run.job is not None
    run_job(run.job.pk)
    asked = ask_create(default, actor=anna, trigger=Job.Trigger.ADMIN)
    run_job(asked.pk)
    backup = asked.backups.get()
    for job in (
        *ask_verify([backup], level=Verification.Level.FULL, actor=anna, trigger=Job.Trigger.ADMIN),
        ask_drill(default, actor=anna, trigger=Job.Trigger.ADMIN),
    ):
        run_job(job.pk)
    drill = backup.verifications.get(level=Verification.Level.DRILL)
    restore = request_restore(backup, default, reason="The prices were wrong.", actor=anna)
    schedule = Schedule.objects.create(database=default, kind="create", cron="15 3 * * *", time_zone="Europe/Athens")
    tick(now=timezone.now())
    waiting = ask_create(default, actor=anna, trigger=Job.Trigger.ADMIN)
    now = timezone.now()
    return {
        "database": default.pk,
        "backup": backup.pk,
        "verification": drill.pk,
        "restore": restore.pk,
        "schedule": schedule.pk,
        "run": run.pk,
        "recipient": recipient.pk,
        "job": asked.pk,
        "waiting": waiting.pk,
        "problem": HealthProblem.objects.create(
            code="too_old", database="default", message="It is too old.", first_seen=now, last_seen=now
        ).pk,
        "notification": Notification.objects.create(channel="mail", event="test", content={"subject": "A test."}).pk,
        "event": AuditEvent.objects.latest("pk").pk,
        "scheduled": ScheduledRun.objects.create(schedule=schedule, due_at=now).pk,
        "file": run.files.first().pk,
    }


if __name__ == "__main__":
    print(json.dumps(fill()))
