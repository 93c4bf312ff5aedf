"""A backup at several destinations, some of which behave badly: each ends as documented, none is believed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app import destinations
from backups_app.core.errors import BackupError, UnreachableError
from backups_app.destinations import LocalDestination
from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Verification
from backups_app.services.extract import extract_backup
from backups_app.services.heal import heal_interrupted
from backups_app.services.health import check_health
from backups_app.services.jobs.run import run_job
from backups_app.services.names import stored_names
from backups_app.services.prune import prune_database
from backups_app.services.recopy import ask_recopies
from backups_app.services.scrub import scrub_database
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.destinations.bucket import keys_in, storage_of, unfinished_uploads
from tests.destinations.stores import Down
from tests.support import bytes_in, names_in

MakeBackup = Callable[..., Backup]
StoreAt = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("proven_key")

BAD = {
    "Lying": "is not at the destination",
    "Truncating": "does not give back",
    "Altering": "does not give back",
    "Full": "is full",
    "Renaming": "exists already",
    "Down": "does not answer",
    "OnceFailing": "Connection reset",
    "HalfStoring": "TimeoutError",
    "Deaf": "TimeoutError",
}
"""Store → what its copy says after the first backup."""

RECOVERING = ("OnceFailing", "HalfStoring", "Deaf")


def states(backup: Backup) -> dict[str, str]:
    return dict(backup.copies.values_list("destination", "state"))


def objects_at(name: str) -> dict[str, int]:
    return {each.name: each.size_bytes for each in destinations.get_destination(name).list()}


def problem_codes() -> list[str]:
    return [each.code for each in check_health().problems]


@pytest.fixture(params=sorted(BAD))
def bad(request: pytest.FixtureRequest, store_at: StoreAt, down: type[Down]) -> str:
    """The name of a store that behaves badly, as the second destination ``odd``."""
    store_at("odd", f"tests.destinations.stores.{request.param}")
    return str(request.param)


def test_a_bad_store_stops_no_other_one_and_is_never_verified(
    shop: Database, make_backup: MakeBackup, home: Path, bad: str
):
    backup = make_backup(shop)
    assert backup.state == "verified"
    assert states(backup) == {"local": "verified", "odd": "pending"}
    copy = backup.copies.get(destination="odd")
    assert BAD[bad] in copy.reason
    assert copy.stored_at is None
    assert copy.attempts == 1
    assert copy.retry_at is not None
    assert any("not stored at odd" in each for each in backup.remarks)
    assert Verification.objects.filter(backup=backup).values_list("destination", "verdict").get() == ("local", "passed")
    assert AuditEvent.objects.get(action="store").outcome == "failed"
    assert "copies_missing" in problem_codes()
    assert set(bytes_in(home / "archives")) == set(stored_names(backup.archive_name))
    assert names_in(home / "scratch") == set()
    if bad not in ("Down", "Deaf"):
        assert objects_at("odd") == {}, "nothing unproven is left"


def test_a_bad_store_alone_fails_the_backup_and_nothing_is_left(
    shop: Database, make_backup: MakeBackup, home: Path, bad: str, settings: Settings
):
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["odd"]}
    backup = make_backup(shop)
    assert backup.state == "failed"
    assert BAD[bad] in backup.reason
    assert "s3cret" not in backup.reason
    assert not Verification.objects.exists()
    assert not Copy.objects.filter(state="verified").exists()
    assert not (home / "archives").exists() or bytes_in(home / "archives") == {}
    assert names_in(home / "scratch") == set()
    if bad != "Down":
        assert not Copy.objects.exists()
        assert objects_at("odd") == {}


def test_a_scrub_tries_again_and_believes_nobody(shop: Database, make_backup: MakeBackup, bad: str, home: Path):
    backup = make_backup(shop)
    found = scrub_database(shop, actor=ACTOR)
    backup.refresh_from_db()
    assert backup.state == "verified"
    assert not Verification.objects.filter(verdict="failed").exists()
    assert names_in(home / "scratch") == set()
    if bad in RECOVERING:
        assert [(each.destination, each.verdict) for each in found] == [("odd", "passed")]
        assert states(backup) == {"local": "verified", "odd": "verified"}
        assert set(objects_at("odd")) == set(stored_names(backup.archive_name))
        assert "copies_missing" not in problem_codes()
    else:
        assert found == []
        assert states(backup) == {"local": "verified", "odd": "pending"}
        assert backup.copies.get(destination="odd").attempts == 2


def test_a_slow_store_is_waited_for(shop: Database, make_backup: MakeBackup, store_at: StoreAt, monkeypatch):
    monkeypatch.setattr("tests.destinations.stores.Slow.seconds", 0.01)
    store_at("odd", "tests.destinations.stores.Slow")
    assert states(make_backup(shop)) == {"local": "verified", "odd": "verified"}


def test_a_store_that_is_too_slow_ends_at_the_deadline_and_keeps_the_other_copy(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, settings: Settings, monkeypatch
):
    monkeypatch.setattr("tests.destinations.stores.Slow.seconds", 3)
    store_at("odd", "tests.destinations.stores.Slow")
    settings.BACKUPS = {**settings.BACKUPS, "DEADLINE_SECONDS": 8}
    backup = make_backup(shop)
    assert backup.state == "verified"
    assert states(backup) == {"local": "verified", "odd": "pending"}
    assert "longer than its limit" in backup.copies.get(destination="odd").reason
    assert objects_at("odd") == {}


def test_a_cancel_removes_what_every_destination_has(
    shop: Database, home: Path, store_at: StoreAt, bucket: str, s3_url: str
):
    from backups_app.services.create import create_backup

    store_at("s3", storage_of(s3_url, bucket))
    stored: list[int] = []

    def progress(phase: str, done: int, total: int) -> None:
        if phase == "store" and done == total:
            stored.append(done)

    backup = create_backup(
        shop, actor=ACTOR, trigger="command", on_progress=progress, is_cancelled=lambda: bool(stored)
    )
    assert backup.state == "cancelled"
    assert stored
    assert not Copy.objects.exists()
    assert bytes_in(home / "archives") == {}
    assert keys_in(s3_url, bucket) == {}
    assert unfinished_uploads(s3_url, bucket) == 0
    assert names_in(home / "scratch") == set()


# A store that is down, and comes back


def test_a_store_that_was_down_gets_its_copies_by_the_clock(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, down: type[Down], django_capture_on_commit_callbacks
):
    store_at("odd", "tests.destinations.stores.Down")
    backup = make_backup(shop)
    copy = backup.copies.get(destination="odd")
    assert copy.retry_at is not None
    moment, pauses = copy.retry_at, []
    for _ in range(7):  # an hour
        assert ask_recopies(now=moment - timedelta(seconds=1)) == [], "not before its time"
        Copy.objects.filter(pk=copy.pk).update(retry_at=timezone.now())
        (job,) = ask_recopies(now=timezone.now())
        assert ask_recopies(now=timezone.now()) == [], "one waits already"
        before = timezone.now()
        run_job(job.pk)
        job.refresh_from_db()
        assert (job.kind, job.state) == ("copy", "succeeded")
        assert "Still waiting at odd" in job.outcome
        copy.refresh_from_db()
        assert copy.state == "pending"
        pauses.append(round((copy.retry_at - before).total_seconds() / 60))
        moment = copy.retry_at
    assert pauses == [2, 4, 8, 16, 32, 64, 128]
    assert not Verification.objects.exclude(verdict="passed").exists()
    assert [each.code for each in check_health().problems if each.subject == "odd"] == ["copies_missing"]
    down.is_down = False
    Copy.objects.filter(pk=copy.pk).update(retry_at=timezone.now())
    (job,) = ask_recopies(now=timezone.now())
    run_job(job.pk)
    assert states(backup) == {"local": "verified", "odd": "verified"}
    assert Backup.objects.get(pk=backup.pk).state == "verified"
    assert "copies_missing" not in problem_codes()
    assert ask_recopies(now=timezone.now() + timedelta(days=1)) == []


def test_verifying_while_a_store_is_down_calls_nothing_failed(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, down: type[Down]
):
    down.is_down = False
    store_at("odd", "tests.destinations.stores.Down")
    backup = make_backup(shop)
    assert states(backup) == {"local": "verified", "odd": "verified"}
    down.is_down = True
    verdicts = {each.destination: each.verdict for each in verify_backup(backup, level="full", actor=ACTOR)}
    assert verdicts == {"local": "passed", "odd": "unreachable"}
    assert Backup.objects.get(pk=backup.pk).state == "verified"
    down.is_down = False
    scrub_database(shop, actor=ACTOR)
    assert states(backup) == {"local": "verified", "odd": "verified"}
    assert not Verification.objects.filter(verdict="failed").exists()


def test_what_a_dead_backup_left_at_a_store_that_is_down_is_removed_later(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, down: type[Down], home: Path
):
    down.is_down = False
    store_at("odd", "tests.destinations.stores.Down")
    backup = make_backup(shop)
    Verification.objects.all().delete()
    Backup.objects.filter(pk=backup.pk).update(state="running", finished_at=None, verdict="", manifest_sha256="")
    Copy.objects.update(state="pending", stored_at=None, checked_at=None)
    down.is_down = True
    assert [each.pk for each in heal_interrupted()] == [backup.pk]
    assert states(backup) == {"odd": "pending"}
    assert bytes_in(home / "archives") == {}
    down.is_down = False
    heal_interrupted()
    assert states(backup) == {"odd": "pending"}, "its pause is not over"
    Copy.objects.update(retry_at=timezone.now())
    heal_interrupted()
    assert states(backup) == {}
    assert objects_at("odd") == {}
    assert Backup.objects.get(pk=backup.pk).state == "failed"


def test_a_prune_removes_where_it_can_and_ends_when_the_store_is_back(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, down: type[Down], home: Path, monkeypatch
):
    down.is_down = False
    store_at("odd", "tests.destinations.stores.Down")
    old, new = make_backup(shop), make_backup(shop)
    Database.objects.update(keep_last=1)
    shop.refresh_from_db()
    with monkeypatch.context() as patch:  # it goes down between the look at what is kept and the removal
        patch.setattr("backups_app.services.prune._unsafe_places", lambda _judged: {})
        down.is_down = True
        pruned = prune_database(shop, actor=ACTOR)
    assert len(pruned.failures) == 1
    assert states(old) == {"local": "pruned", "odd": "verified"}
    assert Backup.objects.get(pk=old.pk).state == "pruning"
    assert set(bytes_in(home / "archives")) == set(stored_names(new.archive_name))
    down.is_down = False
    Copy.objects.update(retry_at=None)
    heal_interrupted()
    assert Backup.objects.get(pk=old.pk).state == "pruned"
    assert set(objects_at("odd")) == set(stored_names(new.archive_name))


def test_a_prune_while_a_store_is_down_deletes_nothing_that_it_has(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, down: type[Down], home: Path
):
    down.is_down = False
    store_at("odd", "tests.destinations.stores.Down")
    both = make_backup(shop)
    Copy.objects.filter(backup=(here := make_backup(shop)), destination="odd").delete()
    newest = make_backup(shop)
    Database.objects.update(keep_last=1)
    shop.refresh_from_db()
    down.is_down = True
    pruned = prune_database(shop, actor=ACTOR)
    assert [each.backup.pk for each in pruned.deleted] == [here.pk]
    assert isinstance(pruned.failures[0], UnreachableError)
    assert Backup.objects.get(pk=both.pk).state == "verified"
    assert Backup.objects.get(pk=newest.pk).state == "verified"


# Bit rot


def test_bit_rot_in_one_of_two_copies_is_found_repaired_and_told_once(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, s3_url: str, bucket: str, home: Path
):
    from backups_app.services.jobs import ask_due
    from tests.destinations.bucket import client

    store_at("s3", storage_of(s3_url, bucket))
    backup = make_backup(shop)
    assert states(backup) == {"local": "verified", "s3": "verified"}
    name = f"site/{backup.archive_name}"
    content = bytearray(client(s3_url).get_object(Bucket=bucket, Key=name)["Body"].read())
    content[len(content) // 2] ^= 1
    client(s3_url).put_object(Bucket=bucket, Key=name, Body=bytes(content))
    ended = []
    for _ in range(3):
        month_ago = timezone.now() - timedelta(days=31)
        backup.verifications.update(started_at=month_ago, finished_at=month_ago)
        job = ask_due(shop, actor=ACTOR, trigger="schedule")
        run_job(job.pk)
        job.refresh_from_db()
        ended.append(job.state)
    assert ended == ["failed", "succeeded", "succeeded"], "told once"
    assert states(backup) == {"local": "verified", "s3": "verified"}
    stored = client(s3_url).get_object(Bucket=bucket, Key=name)["Body"].read()
    assert stored == (home / "archives" / backup.archive_name).read_bytes()


# Reading from another copy


def test_a_backup_is_restored_from_the_bucket_when_the_folder_is_gone(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, s3_url: str, bucket: str, home: Path, tmp_path: Path
):
    store_at("s3", storage_of(s3_url, bucket))
    backup = make_backup(shop)
    (home / "archives").rename(home / "gone")
    found = extract_backup(backup, tmp_path / "new.sqlite3", actor=ACTOR)
    assert found.destination == "s3"
    assert (tmp_path / "new.sqlite3").stat().st_size == backup.size_bytes


def test_a_copy_at_a_destination_that_is_configured_no_more_is_unreachable(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, settings: Settings, tmp_path: Path
):
    store_at("odd", "django.core.files.storage.InMemoryStorage")
    backup = make_backup(shop)
    settings.STORAGES = {name: each for name, each in settings.STORAGES.items() if name != "odd"}
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["local"]}
    verdicts = {each.destination: each.verdict for each in verify_backup(backup, level="quick", actor=ACTOR)}
    assert verdicts == {"local": "passed", "odd": "unreachable"}
    assert extract_backup(backup, tmp_path / "new.sqlite3", actor=ACTOR).destination == "local"


# Policy


def test_a_database_chooses_its_own_destinations(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, tmp_path: Path
):
    location = tmp_path / "attic"
    folder = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(location)}}
    store_at("attic", folder)
    Database.objects.filter(pk=shop.pk).update(destinations=["attic"])
    shop.refresh_from_db()
    backup = make_backup(shop)
    assert states(backup) == {"attic": "verified"}
    assert set(bytes_in(location)) == set(stored_names(backup.archive_name))
    for path in [location, *location.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_alias_that_is_unknown_waits_and_stops_no_other_one(shop: Database, make_backup: MakeBackup, home: Path):
    Database.objects.filter(pk=shop.pk).update(destinations=["local", "nowhere"])
    shop.refresh_from_db()
    backup = make_backup(shop)
    assert backup.state == "verified"
    assert states(backup) == {"local": "verified", "nowhere": "pending"}
    Database.objects.filter(pk=shop.pk).update(destinations=["nowhere"])
    shop.refresh_from_db()
    alone = make_backup(shop)
    assert (alone.state, alone.failure_code) == ("failed", "refused")
    assert states(alone) == {}


def test_what_is_not_encrypted_does_not_leave_this_host_now_or_later(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, settings: Settings
):
    settings.BACKUPS = {**settings.BACKUPS, "AGE_RECIPIENTS": []}
    store_at("odd", "django.core.files.storage.InMemoryStorage")
    backup = make_backup(shop)
    assert backup.state == "verified"
    assert states(backup) == {"local": "verified", "odd": "refused"}
    assert "copies_missing" in problem_codes()
    scrub_database(shop, actor=ACTOR)
    backup.copies.filter(destination="odd").update(state="pending")
    scrub_database(shop, actor=ACTOR)
    assert objects_at("odd") == {}
    assert states(backup)["odd"] == "pending"


def test_a_refused_copy_is_stored_once_the_key_is_proven(shop: Database, make_backup: MakeBackup, store_at: StoreAt):
    from backups_app.models import Recipient

    Recipient.objects.update(proven_at=None)
    store_at("odd", "django.core.files.storage.InMemoryStorage")
    backup = make_backup(shop)
    assert states(backup) == {"local": "verified", "odd": "refused"}
    Recipient.objects.update(proven_at=timezone.now())
    scrub_database(shop, actor=ACTOR)
    assert states(backup) == {"local": "verified", "odd": "verified"}


def test_each_of_two_folders_keeps_the_archive_when_the_other_one_fails(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, home: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_args: object, **_options: object) -> None:
        raise BackupError("The disk is read-only.", "Look at it.")

    store_at("odd", "django.core.files.storage.InMemoryStorage")
    monkeypatch.setattr(LocalDestination, "store", fail)
    backup = make_backup(shop)
    assert backup.state == "verified"
    assert states(backup) == {"local": "pending", "odd": "verified"}
    monkeypatch.undo()
    assert Job.objects.filter(kind="create", state="succeeded").exists()
