"""Deleting one backup by hand: under guards, in two steps, with the reason on its record."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app import destinations
from backups_app.core.errors import BackupError, BusyError, InputError, RefusedError, UnreachableError
from backups_app.destinations import LocalDestination
from backups_app.jobs.claim import job_lock
from backups_app.models import AuditEvent, Backup, Database, Job
from backups_app.services import delete as delete_module
from backups_app.services.delete import Last, delete_backup, last_of
from backups_app.services.heal import heal_interrupted
from backups_app.services.hold import hold_backup
from backups_app.services.restores import request_restore
from tests.conftest import ACTOR
from tests.support import names_in

Make = Callable[..., Backup]


@pytest.fixture
def pair(shop: Database, make_backup: Make) -> tuple[Backup, Backup]:
    """An older and a newer verified backup."""
    return make_backup(shop), make_backup(shop)


def events() -> list[tuple[str, str]]:
    found = AuditEvent.objects.filter(action__in=["delete", "prune"]).order_by("pk")
    return list(found.values_list("action", "outcome"))


def refuses(backup: Backup, error: type[BackupError], text: str, **options: str) -> None:
    """It is refused with this text, recorded, and nothing is lost."""
    before = Backup.objects.get(pk=backup.pk)
    with pytest.raises(error, match=text):
        delete_backup(backup, actor=ACTOR, **{"reason": "too many", **options})
    after = Backup.objects.get(pk=backup.pk)
    assert (after.state, after.pruning_at, after.prune_reason) == (before.state, None, "")
    assert events()[-1][0] == "delete"
    assert events()[-1][1] in ("refused", "failed")


def test_an_older_backup_goes_with_its_files_and_its_record_says_why(
    pair: tuple[Backup, Backup], home: Path, archive_of: Callable[[Backup], Path]
):
    older, newer = pair
    folder = archive_of(older).parent
    deleted = delete_backup(older, reason="  holds a test\nof  mine ", actor=ACTOR)
    assert (deleted.state, deleted.prune_reason) == ("pruned", "deleted by anna: holds a test of mine")
    assert set(deleted.copies.values_list("state", flat=True)) == {"pruned"}
    assert not [name for name in names_in(folder) if older.pk in name]
    assert archive_of(newer).exists()
    assert events() == [("prune", "done"), ("prune", "done"), ("delete", "done")]
    job = Job.objects.get(kind="prune")
    assert (job.state, job.options, job.requested_by_name) == ("succeeded", {"delete": older.pk}, "anna")


def test_what_lies_on_a_disk_that_is_not_mounted_is_not_called_removed(
    shop: Database, make_backup: Make, home: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    far = home.parent / "far"
    monkeypatch.setitem(destinations._DESTINATIONS, "far", lambda: LocalDestination(far, name="far"))
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["local", "far"]}
    older, _newer = make_backup(shop), make_backup(shop)
    far.rename(home.parent / "not mounted")
    with pytest.raises(UnreachableError, match="is not there"):
        delete_backup(older, reason="too many", actor=ACTOR)
    older.refresh_from_db()
    assert older.state == "pruning"
    assert dict(older.copies.values_list("destination", "state")) == {"local": "pruned", "far": "verified"}
    assert not far.exists()
    (home.parent / "not mounted").rename(far)
    older.copies.update(retry_at=None)
    heal_interrupted()
    older.refresh_from_db()
    assert older.state == "pruned"
    assert not list(far.rglob(f"*{older.pk}*"))


def test_without_a_reason_nothing_goes(pair: tuple[Backup, Backup]):
    refuses(pair[0], InputError, "A reason is missing", reason=" \n ")


def test_what_is_the_last_is_told_apart(pair: tuple[Backup, Backup], shop: Database):
    now = timezone.now()
    assert not last_of(pair[0], now=now)
    assert last_of(pair[1], now=now) == Last(is_last_verified=True, places=("local",))
    pair[0].copies.update(state="unreachable")
    assert last_of(pair[1], now=now) == Last(is_last_verified=True, places=("local",))
    Backup.objects.filter(pk=pair[1].pk).update(state="failed", reason="x")
    assert last_of(Backup.objects.get(pk=pair[1].pk), now=now) == Last(is_last_evidence=True)


def test_the_newest_copy_at_a_destination_counts_although_a_newer_backup_is_elsewhere(pair: tuple[Backup, Backup]):
    pair[1].copies.update(destination="far")
    assert last_of(pair[0], now=timezone.now()) == Last(places=("local",))
    refuses(pair[0], RefusedError, "not typed exactly")


@pytest.mark.parametrize("typed", ["", "Shop", "shop ", " shop", "shoq"])
def test_the_last_one_stays_unless_its_name_is_typed_exactly(pair: tuple[Backup, Backup], typed: str):
    refuses(pair[1], RefusedError, "not typed exactly", typed_name=typed)


def test_the_last_one_goes_with_its_name_typed(backup_alone: Backup):
    assert delete_backup(backup_alone, reason="all of it", typed_name="shop", actor=ACTOR).state == "pruned"
    assert not Backup.objects.filter(state="verified").exists()


@pytest.fixture
def backup_alone(shop: Database, make_backup: Make) -> Backup:
    """The only backup."""
    return make_backup(shop)


def test_a_held_one_stays(pair: tuple[Backup, Backup], archive_of: Callable[[Backup], Path]):
    hold_backup(pair[0], actor=ACTOR)
    refuses(Backup.objects.get(pk=pair[0].pk), RefusedError, "held by anna", typed_name="shop")
    assert archive_of(pair[0]).exists()


def test_one_that_an_open_request_needs_stays(pair: tuple[Backup, Backup], shop: Database):
    request_restore(pair[0], shop, reason="the sales are gone", actor=ACTOR)
    refuses(pair[0], RefusedError, "open restore")


def test_a_safety_backup_stays_within_its_window(shop: Database, pair: tuple[Backup, Backup], settings: Settings):
    Backup.objects.filter(pk=pair[0].pk).update(trigger="safety", is_held=True)
    refuses(Backup.objects.get(pk=pair[0].pk), RefusedError, "safety backup of a restore, kept until")
    settings.BACKUPS = {**settings.BACKUPS, "SAFETY_DAYS": 0}
    assert delete_backup(Backup.objects.get(pk=pair[0].pk), reason="over", actor=ACTOR).state == "pruned"


def test_a_running_one_and_one_without_files_are_refused(shop: Database):
    running = Backup.objects.create(database=shop, trigger="admin")
    with pytest.raises(RefusedError, match="being made"):
        delete_backup(running, reason="x", actor=ACTOR)
    empty = Backup.objects.create(
        database=shop, trigger="admin", state="failed", reason="x", finished_at=timezone.now()
    )
    with pytest.raises(RefusedError, match="has no files"):
        delete_backup(empty, reason="x", actor=ACTOR)


def test_a_second_deletion_is_refused_and_removes_nothing_more(pair: tuple[Backup, Backup]):
    delete_backup(pair[0], reason="once", actor=ACTOR)
    jobs = Job.objects.count()
    with pytest.raises(RefusedError, match="was pruned"):
        delete_backup(pair[0], reason="twice", actor=ACTOR)
    assert Job.objects.count() == jobs
    assert Backup.objects.get(pk=pair[0].pk).prune_reason.endswith("once")


def test_it_does_not_go_when_the_one_that_remains_is_not_there(
    pair: tuple[Backup, Backup], archive_of: Callable[[Backup], Path]
):
    archive_of(pair[1]).unlink()
    refuses(pair[0], UnreachableError, "is not there")
    assert archive_of(pair[0]).exists()


def test_while_another_job_runs_it_is_busy(
    pair: tuple[Backup, Backup], shop: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(delete_module, "_PATIENCE_SECONDS", 0.1)
    with job_lock(shop) as is_ours:
        assert is_ours
        refuses(pair[0], BusyError, "Another job of shop is running")


def test_a_file_that_stays_is_tried_again(
    pair: tuple[Backup, Backup], archive_of: Callable[[Backup], Path], monkeypatch: pytest.MonkeyPatch
):
    def fail(_self: LocalDestination, _name: str) -> None:
        raise BackupError("The disk does not want to.")

    with monkeypatch.context() as patch:
        patch.setattr(LocalDestination, "remove", fail)
        with pytest.raises(BackupError, match="does not want to"):
            delete_backup(pair[0], reason="x", actor=ACTOR)
    assert Backup.objects.get(pk=pair[0].pk).state == "pruning"
    assert archive_of(pair[0]).exists()
    heal_interrupted()
    assert Backup.objects.get(pk=pair[0].pk).state == "pruned"
    assert not archive_of(pair[0]).exists()


def test_what_becomes_the_last_in_between_stays(pair: tuple[Backup, Backup], monkeypatch: pytest.MonkeyPatch):
    def fail_newer(*_arguments: object, **_options: object) -> None:
        taken_at = timezone.now() - timedelta(days=400)
        Backup.objects.filter(pk=pair[1].pk).update(taken_at=taken_at)

    monkeypatch.setattr(delete_module, "_require_survivor", fail_newer)
    refuses(pair[0], RefusedError, "Something has changed since")
