"""Hosts that share a catalogue: each works on its own databases, and judges the others' by their rows alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from backups_app import conf
from backups_app.core.errors import NotFoundError, RefusedError
from backups_app.models import AuditEvent, Backup, Copy, Database, Finding, HealthProblem, Host, Job, Restore, Schedule
from backups_app.services import hosts
from backups_app.services.clock import tick
from backups_app.services.create import create_backup
from backups_app.services.databases import (
    add_database,
    databases_here,
    databases_under_care,
    imported_database,
    live_path,
    required_tables,
    sync_databases,
)
from backups_app.services.extract import extract_backup
from backups_app.services.heal import heal_interrupted
from backups_app.services.health import check_health
from backups_app.services.health.watch import remember, watch
from backups_app.services.hosts import is_anybody_working
from backups_app.services.jobs import ask_create, ask_verify
from backups_app.services.jobs.attend import look_at_workers, ready_jobs, wake_waiting
from backups_app.services.jobs.reap import GIVEN_UP_AFTER, bury_dead_of, give_up_lost_jobs, reap_jobs
from backups_app.services.jobs.run import run_job
from backups_app.services.prune import prune_database
from backups_app.services.rescan import rescan
from backups_app.services.restores import heal_restores, request_restore
from backups_app.services.schedules import fire_due, overdue
from backups_app.services.verify import verify_backup
from tests.admin.conftest import backup_row
from tests.conftest import ACTOR
from tests.support import build_shop, bytes_in

AsHost = Callable[[str], None]
LONG_AGO = timedelta(hours=2)


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What was sent to a queue: the id of the job and the name of the queue."""
    sent: list[tuple[Any, ...]] = []
    monkeypatch.setattr("django_q.tasks.async_task", lambda _task, job, cluster: sent.append((job, cluster)))
    return sent


@pytest.fixture
def site_alias(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An alias ``site`` with a file, as each host has one."""
    facts = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3", "NAME": tmp_path / "site"}
    monkeypatch.setitem(connections.settings, "site", facts)


@pytest.fixture
def far(as_host: AsHost, db_catalog: None, tmp_path: Path) -> Database:
    """A database of the host beta; this process is alpha from then on."""
    as_host("beta")
    made = add_database("far", build_shop(tmp_path / "far.sqlite3"), actor=ACTOR)
    as_host("alpha")
    return made


def running(database: Database, *, host: str = "beta", **changed: Any) -> Job:
    """A job that runs on a host, as its row says; nobody holds its lock here."""
    now = timezone.now()
    facts = {"kind": "create", "trigger": "admin", "state": "running", "token": 1, "attempts": 1, "owner": "x:1"}
    return Job.objects.create(
        **{**facts, "database": database, "host": host, "started_at": now, "heartbeat_at": now, **changed}
    )


def stored_copy(backup: Backup) -> Copy:
    """A good copy in the archives folder of its host, as the rows say."""
    facts = {"state": "verified", "stored_at": timezone.now(), "checked_at": timezone.now()}
    return Copy.objects.create(backup=backup, destination="local", name=backup.archive_name, **facts)


# Names and rows


@pytest.mark.usefixtures("site_alias")
def test_each_host_has_its_own_alias_and_the_names_differ(as_host: AsHost, db_catalog: None):
    for name in ("alpha", "beta", "gamma", "beta", "alpha"):
        as_host(name)
        sync_databases()
    found = {each.name: (each.alias, each.host) for each in databases_under_care()}
    assert found == {
        "site": ("site", "alpha"),
        "site@beta": ("site", "beta"),
        "site@gamma": ("site", "gamma"),
    }
    assert [each.name for each in databases_here()] == ["site"]


@pytest.mark.usefixtures("site_alias")
def test_an_alias_that_one_host_lacks_does_not_leave_care_on_the_others(
    as_host: AsHost, db_catalog: None, monkeypatch: pytest.MonkeyPatch
):
    for name in ("alpha", "beta"):
        as_host(name)
        sync_databases()
    monkeypatch.setattr("backups_app.services.databases._reason_to_skip", lambda *_: "gone")
    sync_databases()
    assert {each.host: each.is_under_care for each in Database.objects.all()} == {"alpha": True, "beta": False}


@pytest.mark.usefixtures("site_alias")
def test_rows_of_an_older_catalogue_get_the_name_of_the_host_that_looks_first(as_host: AsHost, db_catalog: None):
    Database.objects.create(name="site", alias="site", path="/x")
    Database.objects.create(name="old", path="/y")
    as_host("alpha")
    sync_databases()
    assert set(Database.objects.values_list("name", "host")) == {("site", "alpha"), ("old", "alpha")}
    as_host("beta")
    sync_databases()
    assert Database.objects.get(name="old").host == "alpha"


@pytest.mark.sqlite_catalog
@pytest.mark.usefixtures("site_alias")
def test_a_machine_with_a_catalogue_of_its_own_may_change_its_name(home: Path, db_catalog: None, settings: Any):
    settings.BACKUPS = {**settings.BACKUPS, "HOST": "container-1"}
    sync_databases()
    settings.BACKUPS = {**settings.BACKUPS, "HOST": "container-2"}
    sync_databases()
    (database,) = Database.objects.all()
    assert (database.name, database.host) == ("site", "container-2")
    job = running(database, host="container-1")
    assert reap_jobs() == [job]


@pytest.mark.usefixtures("site_alias")
def test_imported_archives_of_two_hosts_are_kept_apart(as_host: AsHost, db_catalog: None):
    as_host("alpha")
    first = imported_database("shop")
    as_host("beta")
    second = imported_database("shop")
    assert first != second
    assert imported_database("shop") == second
    assert {first.host, second.host} == {"alpha", "beta"}


@pytest.mark.usefixtures("site_alias")
def test_settings_name_a_database_by_its_alias_on_its_own_host_only(as_host: AsHost, db_catalog: None, settings: Any):
    for name in ("alpha", "beta"):
        as_host(name)
        settings.BACKUPS = {**settings.BACKUPS, "REQUIRED_TABLES": {"site": [f"table_of_{name}"]}}
        sync_databases()
    own, other = Database.objects.get(host="beta"), Database.objects.get(host="alpha")
    assert own.name == "site@beta"
    assert required_tables(own) == ("table_of_beta",)
    as_host("alpha")
    assert required_tables(own) == ()
    assert other.name == "site"


# Work that is another host's


def test_nothing_of_another_host_is_worked_on_in_this_process(far: Database, tmp_path: Path):
    backup = backup_row(far)
    backup.save()
    stored_copy(backup)
    before = bytes_in(tmp_path)
    for work in (
        lambda: create_backup(far, actor=ACTOR, trigger="command"),
        lambda: verify_backup(backup, level="full", actor=ACTOR),
        lambda: prune_database(far, actor=ACTOR),
        lambda: request_restore(backup, far, reason="x", actor=ACTOR),
        lambda: live_path(far),
    ):
        with pytest.raises(RefusedError, match="'beta'"):
            work()
    assert not Job.objects.exists()
    assert Backup.objects.count() == 1
    assert Copy.objects.get().state == "verified"
    assert not Restore.objects.exists()
    assert {
        name for name in bytes_in(tmp_path) if name not in before and "audit" not in name and "lock" not in name
    } == set()


def test_an_archive_that_only_another_host_has_is_said_to_be_there(far: Database, tmp_path: Path):
    backup = backup_row(far)
    backup.save()
    stored_copy(backup)
    with pytest.raises(NotFoundError, match="on the host 'beta'"):
        extract_backup(backup, tmp_path / "new", actor=ACTOR, overrides={"unsigned": "a test"})
    assert not (tmp_path / "new").exists()


def test_jobs_go_to_the_queue_of_the_host_that_has_the_database(
    far: Database, tmp_path: Path, calls: list[Any], django_capture_on_commit_callbacks: Any
):
    near = add_database("near", build_shop(tmp_path / "near.sqlite3"), actor=ACTOR)
    backup = backup_row(far)
    backup.save()
    stored_copy(backup)
    with django_capture_on_commit_callbacks(using="catalog", execute=True):
        jobs = [ask_create(each, actor=ACTOR, trigger="admin") for each in (near, far)]
        jobs += ask_verify([backup], level="full", actor=ACTOR, trigger="admin")
    assert [each.host for each in jobs] == ["alpha", "beta", "beta"]
    assert calls == [(each.pk, f"backups@{each.host}") for each in jobs]


@pytest.mark.sqlite_catalog
def test_a_machine_alone_uses_the_queue_of_its_settings(shop: Database, calls: list[Any]):
    from backups_app.jobs.queue import queue_of, wake

    assert wake(ask_create(shop, actor=ACTOR, trigger="admin").pk)
    assert [cluster for _job, cluster in calls] == [None]
    assert queue_of("anything") is None


def test_a_worker_does_not_take_the_job_of_another_host(far: Database):
    job = ask_create(far, actor=ACTOR, trigger="admin")
    run_job(job.pk)
    job.refresh_from_db()
    assert (job.state, job.token, job.attempts) == ("queued", 0, 0)
    assert not Backup.objects.exists()


def test_the_clock_calls_for_own_jobs_only_and_does_not_blame_its_worker_for_others(
    far: Database, tmp_path: Path, calls: list[Any], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("backups_app.services.jobs.attend.waiting_calls", lambda: 0)
    near = add_database("near", build_shop(tmp_path / "near.sqlite3"), actor=ACTOR)
    asked = [ask_create(each, actor=ACTOR, trigger="admin") for each in (near, far)]
    old = timezone.now() - LONG_AGO
    Job.objects.update(created_at=old, woken_at=old)
    assert len(ready_jobs()) == 2
    assert wake_waiting(now=timezone.now()) == 1
    assert calls == [(asked[0].pk, "backups@alpha")]
    asked[0].delete()
    assert not look_at_workers(now=timezone.now()).is_stalled


def test_schedules_are_fired_by_the_host_that_has_the_database(far: Database, as_host: AsHost):
    schedule = Schedule.objects.create(
        database=far, kind="create", cron="* * * * *", handled_until=timezone.now() - timedelta(minutes=30)
    )
    now = timezone.now()
    assert fire_due(now=now).runs == []
    assert [each.schedule for each in overdue(now=now)] == [schedule]
    as_host("beta")
    (run,) = fire_due(now=now).runs
    assert run.job.host == "beta"


# The dead and the living


def test_a_running_backup_of_another_host_is_never_called_dead(far: Database, as_host: AsHost):
    job = running(far)
    backup = backup_row(far, state="running", verdict="")
    backup.job = job
    backup.save()
    pruning = backup_row(far, state="pruning")
    pruning.pruning_at, pruning.prune_reason = timezone.now(), "a test"
    pruning.save()
    stored_copy(pruning)

    assert heal_interrupted() == []
    assert reap_jobs() == []
    bury_dead_of(far)
    tick(now=timezone.now())
    assert give_up_lost_jobs(now=timezone.now()) == []
    job.refresh_from_db()
    assert (job.state, job.token) == ("running", 1)
    assert {each.pk: each.state for each in Backup.objects.all()} == {backup.pk: "running", pruning.pk: "pruning"}
    assert Copy.objects.get().state == "verified"

    as_host("beta")  # whose locks are free: there they are dead
    conf.archives_folder().mkdir(parents=True)
    reap_jobs()
    job.refresh_from_db()
    assert job.state == "queued"
    assert {each.pk: each.state for each in Backup.objects.all()} == {backup.pk: "failed", pruning.pk: "pruned"}


def test_a_running_restore_of_another_host_is_left_to_it(far: Database, as_host: AsHost):
    backup = backup_row(far)
    backup.save()
    now = timezone.now()
    restore = Restore.objects.create(
        backup=backup,
        database=far,
        reason="x",
        state="running",
        archive_sha256=backup.archive_sha256,
        binding_sha256="b",
        approved_binding="b",
        requested_by_id="1",
        requested_by_name="anna",
        approved_by_id="2",
        approved_by_name="ben",
        requested_at=now,
        approved_at=now,
        started_at=now,
        expires_at=now + timedelta(hours=1),
    )
    assert heal_restores() == []
    assert Restore.objects.get().state == "running"
    as_host("beta")
    assert heal_restores() == [restore]
    assert Restore.objects.get().state == "failed"


def test_a_job_of_a_host_that_is_gone_is_interrupted_after_an_hour_and_nothing_else_of_it(far: Database):
    silent_since = timezone.now() - GIVEN_UP_AFTER - timedelta(seconds=1)
    job = running(far, heartbeat_at=silent_since, started_at=silent_since)
    backup = backup_row(far, state="running", verdict="")
    backup.job = job
    backup.save()
    assert [each.pk for each in give_up_lost_jobs(now=timezone.now())] == [job.pk]
    job.refresh_from_db()
    assert (job.state, job.failure_code) == ("interrupted", "interrupted")
    assert "beta" in job.outcome
    assert Backup.objects.get().state == "running"
    assert AuditEvent.objects.filter(subject=job.pk, outcome="failed").count() == 1
    assert give_up_lost_jobs(now=timezone.now()) == []


def test_own_jobs_are_never_given_up_by_the_clock_alone(far: Database, tmp_path: Path):
    near = add_database("near", build_shop(tmp_path / "near.sqlite3"), actor=ACTOR)
    old = timezone.now() - LONG_AGO
    job = running(near, host="alpha", heartbeat_at=old, started_at=old)
    assert give_up_lost_jobs(now=timezone.now()) == []
    job.refresh_from_db()
    assert job.state == "running"


# Health


def codes(health: Any) -> dict[str, str]:
    return {each.code: each.host for each in health.problems}


def test_the_files_of_another_host_are_judged_by_it_and_told_by_all(far: Database, as_host: AsHost):
    Path(far.path).unlink()
    assert "database_missing" not in codes(check_health())
    as_host("beta")
    now = timezone.now()
    assert codes(check_health(now=now))["database_missing"] == "beta"
    assert any(row.code == "database_missing" for row in watch(now=now).told)

    as_host("alpha")
    health = check_health(now=now)
    assert codes(health)["database_missing"] == "beta"
    (message,) = [each.message for each in health.problems if each.code == "database_missing"]
    assert message.startswith("On beta: ")
    for minutes in (1, 2, 3):  # that alpha cannot see it is no recovery
        remember(check_health(now=now + timedelta(minutes=minutes)))
    rows = HealthProblem.objects.filter(code="database_missing")
    assert [(each.host, each.resolved_at, each.gone_since) for each in rows] == [("beta", None, None)]

    as_host("beta")
    build_shop(Path(far.path))
    watch(now=now + timedelta(minutes=4))
    assert [row.code for row in watch(now=now + timedelta(minutes=6)).recovered] == ["database_missing"]
    as_host("alpha")
    assert "database_missing" not in codes(check_health())


def test_a_host_that_does_not_answer_is_an_alarm_that_ends(far: Database):
    now = timezone.now()
    Host.objects.create(name="beta", seen_at=now - timedelta(minutes=1), started_at=now - LONG_AGO)
    found = [each for each in check_health(now=now).problems if each.code == "host_silent"]
    assert [(each.subject, each.host) for each in found] == [("beta", "")]
    Host.objects.update(seen_at=now)
    assert "host_silent" not in codes(check_health(now=now))


def test_jobs_that_wait_are_one_problem_for_each_host(far: Database, tmp_path: Path):
    near = add_database("near", build_shop(tmp_path / "near.sqlite3"), actor=ACTOR)
    for each in (near, far):
        ask_create(each, actor=ACTOR, trigger="admin")
    Job.objects.update(created_at=timezone.now() - LONG_AGO)
    found = {each.subject: each for each in check_health().problems if each.code == "jobs_wait"}
    assert set(found) == {"alpha", "beta"}
    assert "on beta" in found["beta"].hint


def test_somebody_works_is_asked_of_the_host_that_has_to(far: Database):
    now = timezone.now()
    Host.objects.create(name="alpha", seen_at=now, started_at=now)
    assert is_anybody_working(now)
    assert is_anybody_working(now, host="alpha")
    assert not is_anybody_working(now, host="beta")


def test_another_machine_of_the_same_name_is_refused_while_it_works(
    as_host: AsHost, db_catalog: None, monkeypatch: pytest.MonkeyPatch
):
    as_host("alpha")
    now = timezone.now()
    hosts.report_started(now=now)
    hosts.require_own_name(now=now)  # started again
    monkeypatch.setattr(hosts, "_instance", lambda: "another")
    with pytest.raises(RefusedError, match="works as 'alpha'"):
        hosts.require_own_name(now=now)
    hosts.require_own_name(now=now + timedelta(seconds=31))  # it is gone: this one takes its place


# Rescan


def test_a_rescan_leaves_what_belongs_to_other_hosts_alone(far: Database, as_host: AsHost, tmp_path: Path):
    as_host("beta")
    backup = create_backup(far, actor=ACTOR, trigger="command")
    assert backup.state == "verified"
    as_host("alpha")
    near = add_database("near", build_shop(tmp_path / "near.sqlite3"), actor=ACTOR)
    create_backup(near, actor=ACTOR, trigger="command")
    done = rescan(actor=ACTOR)
    assert (done.known, [each.code for each in done.damage]) == (1, [])
    assert Copy.objects.get(backup=backup).state == "verified"

    as_host("beta")  # what one finds is not forgotten by the other's look
    (tmp_path / "home-beta" / "archives" / backup.archive_name).unlink()
    assert rescan(actor=ACTOR).damage
    as_host("alpha")
    rescan(actor=ACTOR)
    assert set(Finding.objects.filter(is_damage=True).values_list("host", flat=True)) == {"beta"}
