"""Fills the home of a desk with a row of each kind; run in a process of its own, with the settings of these tests."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.utils import timezone  # noqa: E402

from backups_app.models import (  # noqa: E402
    AuditEvent,
    Backup,
    Database,
    Finding,
    HealthProblem,
    Host,
    Job,
    Notification,
    Schedule,
    ScheduledRun,
    TriageRun,
    Verification,
)
from backups_app.services.audit import Actor  # noqa: E402
from backups_app.services.clock import tick  # noqa: E402
from backups_app.services.databases import add_database, get_database, sync_databases  # noqa: E402
from backups_app.services.jobs.ask import ask_create, ask_drill, ask_verify  # noqa: E402
from backups_app.services.jobs.run import run_job  # noqa: E402
from backups_app.services.keys.registry import sync_recipients  # noqa: E402
from backups_app.services.quarantine import receive  # noqa: E402
from backups_app.services.restores import request_restore  # noqa: E402
from backups_app.services.triage.runs import ask_triage, ask_upload_triage  # noqa: E402

OTHER = "a-long-name-that-nobody-would-choose-for-a-database-of-theirs"


def _upload(path: Path, actor: Actor) -> TriageRun:
    """An archive of somebody else that was uploaded under a long name, and judged."""
    copy = path.with_name("copy.sqlite3")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")
    receiving = receive()
    receiving.write(copy.read_bytes())
    name = "production-database-of-the-shop-before-the-move-to-the-new-server-2026-02-20.sqlite3"
    run = ask_upload_triage(receiving.finish(), name=name, actor=actor, trigger=Job.Trigger.ADMIN)
    assert run.job is not None
    run_job(run.job.pk)
    return run


def _past(database: Database, actor: Actor) -> None:
    """Backups of earlier days, so that strips and trends have something to show."""
    for days in (12, 11, 10, 9, 8, 5, 4, 3, 2, 1):
        job = ask_create(database, actor=actor, trigger=Job.Trigger.SCHEDULE)
        run_job(job.pk)
        backup, ago = job.backups.get(), timedelta(days=days)
        moments = {name: getattr(backup, name) - ago for name in ("created_at", "taken_at", "finished_at")}
        Backup.objects.filter(pk=backup.pk).update(**moments)
    first_seen = timezone.now() - timedelta(days=12)
    Database.objects.filter(pk=database.pk).update(added_at=first_seen)


def fill() -> dict[str, object]:
    """A backup with each kind of proof, a request, a schedule, a judged folder, a key, a job that waits."""
    folder = Path(os.environ["BACKUPS_TRIAGE_ROOTS"])
    anna = Actor.of(User.objects.get(username="anna"))
    sync_databases()
    (recipient,) = sync_recipients(now=timezone.now())
    default = get_database("default")
    add_database(OTHER, folder / "shop.sqlite3", actor=anna)
    run = ask_triage([str(folder)], actor=anna, trigger=Job.Trigger.ADMIN)
    assert run.job is not None
    run_job(run.job.pk)
    _past(default, anna)
    asked = ask_create(default, actor=anna, trigger=Job.Trigger.ADMIN)
    run_job(asked.pk)
    backup = asked.backups.get()
    for job in (
        *ask_verify([backup], level=Verification.Level.FULL, actor=anna, trigger=Job.Trigger.ADMIN),
        ask_drill(default, actor=anna, trigger=Job.Trigger.ADMIN),
    ):
        run_job(job.pk)
    free = ask_create(get_database(OTHER), actor=anna, trigger=Job.Trigger.ADMIN)
    run_job(free.pk)
    upload = _upload(folder / "shop.sqlite3", anna)
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
        "upload": upload.pk,
        "free": free.backups.get().pk,
        "copy": backup.copies.get().pk,
        "event": AuditEvent.objects.filter(subject=backup.pk).latest("pk").pk,
        "recipient": recipient.pk,
        "job": asked.pk,
        "waiting": waiting.pk,
        "problem": HealthProblem.objects.create(
            code="too_old", database="default", message="It is too old.", first_seen=now, last_seen=now
        ).pk,
        "notification": Notification.objects.create(channel="mail", event="test", content={"subject": "A test."}).pk,
        "scheduled": ScheduledRun.objects.create(schedule=schedule, due_at=now).pk,
        "finding": Finding.objects.create(
            destination="local",
            code="unknown_file",
            is_damage=False,
            database_name="default",
            path="default/2026/02/notes-of-the-move-to-the-new-server.txt",
            message="It is not named like anything of ours.",
            hint="It was left alone. Remove it by hand if nobody needs it.",
            found_at=now,
        ).pk,
        "host": Host.objects.create(name="alpha", seen_at=now, started_at=now, stopped_at=now).pk,
        "file": run.files.first().pk,
    }


if __name__ == "__main__":
    print(json.dumps(fill()))
