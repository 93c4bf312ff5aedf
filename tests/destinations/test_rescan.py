"""A rescan of several destinations: what one of them never had is not missing there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from backups_app.models import Backup, Copy, Database, Finding, Verification
from backups_app.services.rescan import rescan_all
from tests.conftest import ACTOR
from tests.console import Finished
from tests.destinations.bucket import storage_of
from tests.destinations.stores import Down

pytestmark = pytest.mark.usefixtures("proven_key")

MakeBackup = Callable[..., Backup]
StoreAt = Callable[..., Any]
Run = Callable[..., Finished]


def test_a_gap_at_a_store_that_was_down_is_no_deletion(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, down: type[Down]
):
    make_backup(shop)  # before there was a second destination
    store_at("odd", "tests.destinations.stores.Down")
    down.is_down = False
    make_backup(shop)
    down.is_down = True
    make_backup(shop)
    down.is_down = False
    make_backup(shop)
    down.is_down = True
    make_backup(shop)
    down.is_down = False
    here, there = rescan_all(actor=ACTOR)
    assert (here.destination, there.destination) == ("local", "odd")
    assert (here.damage, there.damage) == ([], [])
    assert (here.known, there.known) == (5, 2)


def test_a_deletion_at_one_destination_is_named(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, s3_url: str, bucket: str, run: Run
):
    from tests.destinations.bucket import client

    store_at("s3", storage_of(s3_url, bucket))
    backup = make_backup(shop)
    client(s3_url).delete_object(Bucket=bucket, Key=f"site/{backup.archive_name}")
    done = run("rescan", "--json")
    assert done.code == 3
    assert [each["destination"] for each in done.document["rescans"]] == ["local", "s3"]
    assert done.document["rescan"] == done.document["rescans"][0]
    assert list(Finding.objects.values_list("destination", "code")) == [("s3", "archive_deleted")]
    assert Backup.objects.get(pk=backup.pk).state == "verified", "the other copy is good"


def test_the_catalogue_comes_back_from_a_bucket_alone(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, s3_url: str, bucket: str, run: Run
):
    store_at("s3", storage_of(s3_url, bucket), alone=True)
    backup = make_backup(shop)
    assert backup.state == "verified", backup.reason
    Verification.objects.all().delete()
    Copy.objects.all().delete()
    Backup.objects.all().delete()
    assert run("rescan", "--destination", "s3").code == 0
    assert Backup.objects.get(pk=backup.pk).state == "verified"
    assert Copy.objects.get().destination == "s3"


def test_a_destination_that_is_not_configured_is_not_found_by_name(shop: Database, run: Run):
    done = run("rescan", "--destination", "attic")
    assert done.code == 6
    assert "attic" in done.stderr
    assert not Finding.objects.exists()


def test_copies_at_a_destination_that_is_gone_are_a_finding(
    shop: Database, make_backup: MakeBackup, store_at: StoreAt, settings
):
    store_at("odd", "django.core.files.storage.InMemoryStorage")
    make_backup(shop)
    settings.STORAGES = {name: each for name, each in settings.STORAGES.items() if name != "odd"}
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["local"]}
    _here, there = rescan_all(actor=ACTOR)
    assert [each.code for each in there.findings] == ["destination_unreachable"]
