"""Scrubbing: each copy is proven again when it is time, within a budget, and a bad one is repaired."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app import destinations
from backups_app.core.errors import BackupError, DiskFullError, NotFoundError
from backups_app.core.progress import Watch
from backups_app.destinations import LocalDestination
from backups_app.jobs.claim import claim_queued, job_lock
from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Verification
from backups_app.services.jobs import ask_due, ask_verify, reap, run
from backups_app.services.jobs.reap import reap_jobs
from backups_app.services.jobs.run import run_job
from backups_app.services.names import stored_names
from backups_app.services.rescan import rescan
from backups_app.services.scrub import bytes_left, due_copies, scrub_claimed_database, scrub_database
from backups_app.services.verify import verify_backup, verify_copy
from tests.conftest import ACTOR
from tests.faults import Fault, failing
from tests.keys import Key
from tests.support import bytes_in, names_in

MakeBackup = Callable[..., Backup]


@pytest.fixture
def far(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second destination, named ``far``."""
    folder = home.parent / "far"
    monkeypatch.setitem(destinations._DESTINATIONS, "far", lambda: LocalDestination(folder, name="far"))
    return folder


def proven(backup: Backup, *, days_ago: float) -> Backup:
    """The backup, as if its last deep proof had been that long ago."""
    moment = timezone.now() - timedelta(days=days_ago)
    backup.verifications.update(started_at=moment, finished_at=moment)
    backup.copies.update(stored_at=moment, checked_at=moment)
    return backup


def copied(backup: Backup, home: Path, folder: Path) -> Copy:
    """A second verified copy of a backup."""
    for name in stored_names(backup.archive_name):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(home / "archives" / name, folder / name)
    now = timezone.now()
    return Copy.objects.create(
        backup=backup, destination="far", name=backup.archive_name, state="verified", stored_at=now, checked_at=now
    )


def rot(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


def verdicts(found: list[Verification]) -> list[tuple[str, str]]:
    return [(each.destination, each.verdict) for each in found]


# What is due


def test_a_copy_is_due_when_its_last_deep_proof_is_old(shop: Database, make_backup: MakeBackup):
    old, older, young = (make_backup(shop) for _ in range(3))
    proven(old, days_ago=31)
    proven(older, days_ago=60)
    proven(young, days_ago=29)
    assert [each.backup_id for each in due_copies(shop, now=timezone.now())] == [older.pk, old.pk]
    assert [each.backup_id for each in scrub_database(shop, actor=ACTOR)] == [older.pk, old.pk]
    assert due_copies(shop, now=timezone.now()) == []
    assert old.verifications.count() == 2, "the history of verdicts is kept"


def test_a_quick_look_is_no_deep_proof(shop: Database, make_backup: MakeBackup):
    backup = proven(make_backup(shop), days_ago=31)
    verify_backup(backup, level="quick", actor=ACTOR)
    assert len(due_copies(shop, now=timezone.now())) == 1
    verify_backup(backup, level="drill", actor=ACTOR)
    assert due_copies(shop, now=timezone.now()) == []


def test_the_time_between_proofs_is_a_setting(shop: Database, make_backup: MakeBackup, settings: Settings):
    proven(make_backup(shop), days_ago=2)
    settings.BACKUPS = {**settings.BACKUPS, "VERIFY_DAYS": 1}
    assert len(due_copies(shop, now=timezone.now())) == 1


def test_a_copy_that_could_not_be_reached_is_due_until_it_can(shop: Database, make_backup: MakeBackup, home: Path):
    backup = make_backup(shop)
    (home / "archives").rename(home / "unmounted")
    verify_backup(backup, level="full", actor=ACTOR)
    assert verdicts(scrub_database(shop, actor=ACTOR)) == [("local", "unreachable")]
    backup.refresh_from_db()
    assert backup.state == "verified", "nothing is known against it"
    assert not Verification.objects.filter(verdict="failed").exists()
    (home / "unmounted").rename(home / "archives")
    assert verdicts(scrub_database(shop, actor=ACTOR)) == [("local", "passed")]
    assert scrub_database(shop, actor=ACTOR) == []


@pytest.mark.parametrize("has_identity", [True, False])
def test_an_encrypted_backup_whose_row_was_rebuilt_is_proven_as_deeply_as_can_be_and_then_no_more(
    shop: Database, make_backup: MakeBackup, encrypting: Callable[..., None], key: Key, has_identity: bool
):
    encrypting(key, identity=key.path if has_identity else None)
    made = make_backup(shop)
    for rows in (Verification.objects, Copy.objects, Backup.objects):
        rows.all().delete()
    assert rescan(actor=ACTOR).registered == 1
    again = proven(Backup.objects.get(), days_ago=31)
    assert (again.pk, again.is_encrypted, again.key_ids) == (made.pk, True, [])
    found = scrub_database(shop, actor=ACTOR)
    assert [(each.level, each.verdict) for each in found] == [("full" if has_identity else "quick", "passed")]
    assert scrub_database(shop, actor=ACTOR) == []


@pytest.mark.parametrize("is_other", [True, False])
def test_a_copy_for_a_key_that_is_not_here_is_compared_within_the_budget_and_not_at_each_scrub(
    shop: Database,
    make_backup: MakeBackup,
    encrypting: Callable[..., None],
    key: Key,
    other: Key,
    settings: Settings,
    is_other: bool,
):
    encrypting(key, identity=other.path if is_other else None, SCRUB_BYTES_PER_DAY=1)
    older, old = make_backup(shop), make_backup(shop)
    proven(older, days_ago=60)
    proven(old, days_ago=31)
    for backup in (older, old):
        found = scrub_database(shop, actor=ACTOR)
        assert [(each.backup_id, each.level, each.verdict) for each in found] == [(backup.pk, "quick", "passed")]
        assert scrub_database(shop, actor=ACTOR) == [], "the budget of the day is used up"
        yesterday = timezone.now() - timedelta(days=1)
        Verification.objects.filter(pk__in=[each.pk for each in found]).update(
            started_at=yesterday, finished_at=yesterday
        )
    assert due_copies(shop, now=timezone.now()) == []
    assert len(due_copies(shop, now=timezone.now() + timedelta(days=30))) == 2


def test_pruned_and_other_databases_backups_are_not_due(shop: Database, make_backup: MakeBackup):
    gone = proven(make_backup(shop), days_ago=99)
    Backup.objects.filter(pk=gone.pk).update(state="pruning", pruning_at=timezone.now(), prune_reason="x")
    assert due_copies(shop, now=timezone.now()) == []
    assert due_copies(Database.objects.create(name="other", path="/x"), now=timezone.now()) == []


# The budget


def test_the_budget_of_a_day_ends_the_run_and_the_rest_waits(
    shop: Database, make_backup: MakeBackup, settings: Settings
):
    backups = [proven(make_backup(shop), days_ago=90 - number) for number in range(3)]
    size = backups[0].archive_bytes
    assert size is not None
    settings.BACKUPS = {**settings.BACKUPS, "SCRUB_BYTES_PER_DAY": size + 1}
    assert bytes_left(now=timezone.now()) == size + 1
    assert [each.backup_id for each in scrub_database(shop, actor=ACTOR)] == [backups[0].pk, backups[1].pk]
    left = bytes_left(now=timezone.now())
    assert left is not None
    assert left <= 0
    assert scrub_database(shop, actor=ACTOR) == []
    tomorrow = timezone.now() + timedelta(days=1)
    assert bytes_left(now=tomorrow) == size + 1


def test_a_copy_larger_than_the_budget_is_read_all_the_same(
    shop: Database, make_backup: MakeBackup, settings: Settings
):
    proven(make_backup(shop), days_ago=90)
    settings.BACKUPS = {**settings.BACKUPS, "SCRUB_BYTES_PER_DAY": 1}
    assert verdicts(scrub_database(shop, actor=ACTOR)) == [("local", "passed")]


def test_there_may_be_no_budget(settings: Settings, home: Path):
    settings.BACKUPS = {**settings.BACKUPS, "SCRUB_BYTES_PER_DAY": None}
    assert bytes_left(now=timezone.now()) is None


# Repair


def test_bit_rot_in_one_of_two_copies_is_found_and_repaired(
    shop: Database, make_backup: MakeBackup, home: Path, far: Path, archive_of: Callable[[Backup], Path]
):
    backup = make_backup(shop)
    copied(backup, home, far)
    proven(backup, days_ago=31)
    good = bytes_in(far)
    rot(archive_of(backup))
    found = scrub_database(shop, actor=ACTOR)
    assert sorted(verdicts(found)) == [("far", "passed"), ("local", "failed"), ("local", "passed")]
    assert bytes_in(home / "archives") == good
    backup.refresh_from_db()
    assert (backup.state, set(backup.copies.values_list("state", flat=True))) == ("verified", {"verified"})
    assert [each.verdict for each in backup.verifications.filter(destination="local").order_by("pk")] == [
        "passed",
        "failed",
        "passed",
    ]
    event = AuditEvent.objects.get(action="repair")
    assert (event.outcome, event.detail) == ("done", "local from far: passed")
    assert scrub_database(shop, actor=ACTOR) == [], "it is told once"
    assert names_in(home / "scratch") == set()


@pytest.mark.parametrize("index", [0, 1], ids=["archive", "manifest"])
@pytest.mark.parametrize("harm", ["rot", "truncate"])
def test_archive_and_manifest_are_repaired(
    shop: Database, make_backup: MakeBackup, home: Path, far: Path, index: int, harm: str
):
    backup = make_backup(shop)
    copied(backup, home, far)
    proven(backup, days_ago=31)
    path = far / stored_names(backup.archive_name)[index]
    if harm == "rot":
        rot(path)
    else:
        path.write_bytes(b"")
    scrub_database(shop, actor=ACTOR)
    assert bytes_in(far) == bytes_in(home / "archives")
    assert set(backup.copies.values_list("state", flat=True)) == {"verified"}


def test_without_another_good_copy_nothing_is_removed(
    shop: Database, make_backup: MakeBackup, home: Path, archive_of: Callable[[Backup], Path]
):
    backup = proven(make_backup(shop), days_ago=31)
    rot(archive_of(backup))
    before = bytes_in(home / "archives")
    assert verdicts(scrub_database(shop, actor=ACTOR)) == [("local", "failed")]
    assert bytes_in(home / "archives") == before


def test_two_bad_copies_are_left_as_they_are(
    shop: Database, make_backup: MakeBackup, home: Path, far: Path, archive_of: Callable[[Backup], Path]
):
    backup = make_backup(shop)
    copied(backup, home, far)
    proven(backup, days_ago=31)
    rot(archive_of(backup))
    (far / backup.archive_name).write_bytes(b"gone")
    before = bytes_in(far) | bytes_in(home / "archives")
    scrub_database(shop, actor=ACTOR)
    backup.refresh_from_db()
    assert backup.state == "failed"
    assert bytes_in(far) | bytes_in(home / "archives") == before
    assert scrub_database(shop, actor=ACTOR) == [], "what is known to be bad is told once"


def test_a_bad_copy_is_repaired_when_there_is_a_good_one_again(
    shop: Database, make_backup: MakeBackup, home: Path, far: Path, archive_of: Callable[[Backup], Path]
):
    backup = proven(make_backup(shop), days_ago=31)
    rot(archive_of(backup))
    assert verdicts(scrub_database(shop, actor=ACTOR)) == [("local", "failed")]
    copied(backup, home, far)
    content = bytearray((far / backup.archive_name).read_bytes())
    content[len(content) // 2] ^= 0x01  # the bit that had flipped
    (far / backup.archive_name).write_bytes(content)
    assert verdicts(scrub_database(shop, actor=ACTOR))[0] == ("local", "passed")
    assert archive_of(backup).read_bytes() == bytes(content)


def test_a_fault_of_the_data_is_no_fault_of_the_copy(shop: Database, make_backup: MakeBackup, home: Path, far: Path):
    backup = make_backup(shop)
    copy = copied(backup, home, far)
    Copy.objects.filter(pk=copy.pk).update(state="failed", reason="required tables: no rows in missing")
    before = {path: path.stat().st_ino for path in far.rglob("*") if path.is_file()}
    scrub_database(shop, actor=ACTOR)
    assert {path: path.stat().st_ino for path in far.rglob("*") if path.is_file()} == before
    assert not AuditEvent.objects.filter(action="repair").exists()


def test_a_full_scratch_disk_is_said_of_a_repair_and_of_no_copy(
    shop: Database, make_backup: MakeBackup, home: Path, far: Path
):
    backup = make_backup(shop)
    copied(backup, home, far)
    rot(far / backup.archive_name)
    verify_backup(backup, level="full", actor=ACTOR)
    with failing(Fault(home / "scratch", "sync", "no space", 1)) as fault:
        scrub_database(shop, actor=ACTOR)
    assert "fetch.py" in fault.fired
    bad, good = (backup.copies.get(destination=name) for name in ("far", "local"))
    assert (bad.state, good.state, good.reason) == ("failed", "verified", "")
    assert "disk is full" in bad.reason
    assert "cannot be read" not in bad.reason
    Copy.objects.update(retry_at=None)
    assert verdicts(scrub_database(shop, actor=ACTOR)) == [("far", "passed")]


def test_a_repair_that_was_interrupted_is_finished_by_the_next_scrub(
    shop: Database, make_backup: MakeBackup, home: Path, far: Path, monkeypatch: pytest.MonkeyPatch
):
    backup = make_backup(shop)
    copied(backup, home, far)
    proven(backup, days_ago=31)
    rot(far / backup.archive_name)

    class Full(LocalDestination):
        def store(self, source: Path, name: str, **more: object) -> None:
            raise DiskFullError("The disk is full.", "Free some space.")

    with monkeypatch.context() as patch:
        patch.setitem(destinations._DESTINATIONS, "far", lambda: Full(far, name="far"))
        found = scrub_database(shop, actor=ACTOR)
        assert ("far", "failed") in verdicts(found)
        assert backup.copies.get(destination="far").state == "repairing"
        assert AuditEvent.objects.get(action="repair").outcome == "failed"
        assert verify_backup(backup, level="quick", actor=ACTOR)[0].destination == "local", "the good one is there"
        assert rescan(actor=ACTOR, destination="far").findings == [], "a gap that is being mended is no attack"
    assert verdicts(scrub_database(shop, actor=ACTOR)) == [("far", "passed")]
    assert bytes_in(far) == bytes_in(home / "archives")


def test_an_unreachable_store_is_not_repaired(shop: Database, make_backup: MakeBackup, home: Path, far: Path):
    backup = make_backup(shop)
    copied(backup, home, far)
    proven(backup, days_ago=31)
    far.rename(far.with_name("unmounted"))
    assert sorted(verdicts(scrub_database(shop, actor=ACTOR))) == [("far", "unreachable"), ("local", "passed")]
    assert not far.exists(), "nothing is written to where a disk would be mounted"


# As a job


def done(job: Job) -> Job:
    run_job(job.pk)
    job.refresh_from_db()
    return job


def test_a_schedule_proves_what_is_due_and_the_newest(shop: Database, make_backup: MakeBackup):
    old, fresh, newest = (make_backup(shop) for _ in range(3))
    proven(old, days_ago=31)
    found = scrub_claimed_database(shop, actor=ACTOR, job=None, watch=Watch())
    assert [each.backup_id for each in found] == [old.pk, newest.pk]
    assert fresh.verifications.count() == 1


def test_a_schedule_without_anything_to_look_at_says_so(shop: Database):
    with pytest.raises(NotFoundError, match="no verified backup"):
        scrub_claimed_database(shop, actor=ACTOR, job=None, watch=Watch())


def test_the_job_of_a_scrub_fails_when_a_copy_was_bad(shop: Database, make_backup: MakeBackup, home: Path, far: Path):
    backup = make_backup(shop)
    copied(backup, home, far)
    proven(backup, days_ago=31)
    rot(far / backup.archive_name)
    job = done(ask_due(shop, actor=ACTOR, trigger="command"))
    assert (job.state, job.failure_code) == ("failed", "verification_failed")
    assert job.outcome.endswith("did not pass); it was replaced by a good copy")
    assert done(ask_due(shop, actor=ACTOR, trigger="command")).state == "succeeded"


def test_who_asks_for_one_backup_while_a_scrub_waits_gets_both(shop: Database, make_backup: MakeBackup):
    old, asked, newest = (make_backup(shop) for _ in range(3))
    proven(old, days_ago=31)
    scrub = ask_due(shop, actor=ACTOR, trigger="schedule")
    (joined,) = ask_verify([asked], level="quick", actor=ACTOR, trigger="admin")
    assert joined.pk == scrub.pk
    job = done(joined)
    assert {each.backup_id: each.level for each in job.verifications.all()} == {
        old.pk: "full",
        newest.pk: "full",
        asked.pk: "quick",
    }


def test_a_drill_that_was_asked_for_while_a_scrub_waits_is_made(shop: Database, make_backup: MakeBackup):
    newest = make_backup(shop)
    ask_due(shop, actor=ACTOR, trigger="schedule")
    (joined,) = ask_verify([newest], level="drill", actor=ACTOR, trigger="admin")
    job = done(joined)
    assert list(job.verifications.order_by("pk").values_list("level", "verdict")) == [
        ("full", "passed"),
        ("drill", "passed"),
    ]
    assert (job.state, job.outcome) == ("succeeded", "2 verified: passed.")


def complains(_connection: sqlite3.Connection) -> str:
    return "the till is empty"


def test_a_copy_that_failed_after_it_had_passed_is_not_called_replaced(
    shop: Database, make_backup: MakeBackup, settings: Settings
):
    settings.BACKUPS = {**settings.BACKUPS, "DRILL_CHECKS": [f"{complains.__module__}.complains"]}
    newest = make_backup(shop)
    ask_due(shop, actor=ACTOR, trigger="schedule")
    job = done(ask_verify([newest], level="drill", actor=ACTOR, trigger="admin")[0])
    assert (job.state, job.failure_code) == ("failed", "verification_failed")
    assert "the till is empty" in job.outcome
    assert "replaced" not in job.outcome


# A worker that is killed in the middle


def interrupted(job: Job, backup: Backup, *, destination: str, level: str = "full") -> None:
    """A worker claims the job, judges one copy, and is killed."""
    database = job.database
    with job_lock(database) as is_ours:
        claim = claim_queued(job.pk)
        assert is_ours
        assert claim is not None
        copy = backup.copies.get(destination=destination)
        verify_copy(backup, copy, level=level, actor=ACTOR, job=claim.job, watch=claim.watch())
    assert [each.pk for each in reap_jobs()] == [job.pk]
    job.refresh_from_db()
    assert (job.state, job.attempts) == ("queued", 1)


@pytest.fixture
def _no_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reap, run):
        monkeypatch.setattr(module, "wake", lambda _job: True)


@pytest.mark.usefixtures("_no_queue")
def test_the_next_attempt_reads_the_copies_that_the_first_one_did_not(
    shop: Database, make_backup: MakeBackup, home: Path, far: Path
):
    backup = make_backup(shop)
    copied(backup, home, far)
    (job,) = ask_verify([backup], level="full", actor=ACTOR, trigger="admin")
    interrupted(job, backup, destination="local")
    (far / backup.archive_name).write_bytes(bytes(backup.archive_bytes or 0))
    job = done(job)
    found = job.verifications.order_by("pk")
    assert verdicts(list(found)) == [("local", "passed"), ("far", "failed")], "each is read once"
    assert (job.state, job.failure_code) == ("failed", "verification_failed")
    assert f"{backup.pk} at far" in job.outcome


@pytest.mark.usefixtures("_no_queue")
def test_the_next_attempt_of_a_scrub_reads_the_copies_that_the_first_one_did_not(
    shop: Database, make_backup: MakeBackup, home: Path, far: Path
):
    backup = make_backup(shop)
    copied(backup, home, far)
    verify_backup(backup, level="full", actor=ACTOR)
    assert due_copies(shop, now=timezone.now()) == []
    job = ask_due(shop, actor=ACTOR, trigger="schedule")
    interrupted(job, backup, destination="local")
    rot(far / backup.archive_name)
    job = done(job)
    found = job.verifications.order_by("pk")
    assert verdicts(list(found)) == [("local", "passed"), ("far", "failed"), ("far", "passed")]
    assert (job.state, job.failure_code) == ("failed", "verification_failed")
    assert job.outcome.endswith("it was replaced by a good copy")
    assert bytes_in(far) == bytes_in(home / "archives")


@pytest.mark.usefixtures("_no_queue")
@pytest.mark.parametrize("has_another", [True, False])
def test_what_the_first_attempt_of_a_scrub_found_bad_is_told_by_the_next(
    shop: Database, make_backup: MakeBackup, archive_of: Callable[[Backup], Path], has_another: bool
):
    if has_another:
        make_backup(shop)
    bad = make_backup(shop)
    rot(archive_of(bad))
    job = ask_due(shop, actor=ACTOR, trigger="schedule")
    interrupted(job, bad, destination="local")
    job = done(job)
    assert (job.state, job.failure_code) == ("failed", "verification_failed")
    assert bad.pk in job.outcome
    assert job.verifications.filter(backup=bad).count() == 1, "it is told once"


def test_a_backup_that_was_pruned_since_it_was_asked_for_is_nobodys_loss(shop: Database, make_backup: MakeBackup):
    backup = make_backup(shop)
    (job,) = ask_verify([backup], level="full", actor=ACTOR, trigger="admin")
    Backup.objects.filter(pk=backup.pk).update(state="pruning", pruning_at=timezone.now(), prune_reason="x")
    assert done(job).state == "succeeded"


def test_a_repair_that_fails_raises_nothing(shop: Database, make_backup: MakeBackup, monkeypatch: pytest.MonkeyPatch):
    from backups_app.services import recopy

    def fail(*_args: object, **_options: object) -> None:
        raise BackupError("no", "hint")

    monkeypatch.setattr(recopy, "repair_copy", fail)
    backup = proven(make_backup(shop), days_ago=31)
    backup.copies.update(state="repairing")
    assert scrub_database(shop, actor=ACTOR) == []
