"""Rows of recipients are evidence: they follow the settings, and never lead them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from backups_app.core.errors import InputError
from backups_app.models import Backup, Database, Recipient
from backups_app.services.keys.registry import sync_recipients
from tests.keys import Key
from tests.support import NOW

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def test_rows_follow_the_settings(encrypting: Callable[..., None], key: Key, other: Key):
    encrypting(key)
    sync_recipients(now=NOW)
    encrypting(other, key)
    assert [each.public for each in sync_recipients(now=NOW)] == [other.recipient, key.recipient]
    encrypting(other)
    later = NOW + timedelta(hours=1)
    sync_recipients(now=later)
    assert Recipient.objects.get(public=key.recipient).retired_at == later
    encrypting(key)
    sync_recipients(now=later)
    assert Recipient.objects.get(public=key.recipient).retired_at is None


def test_a_row_never_makes_a_reader_of_archives(
    shop: Database, make_backup: Callable[..., Backup], encrypting: Callable[..., None], key: Key, other: Key
):
    encrypting(key)
    now = timezone.now()
    Recipient.objects.create(public=other.recipient, key_id="planted", first_seen_at=now, proven_at=now)
    assert make_backup(shop).key_ids == [key.recipient]


def test_recipients_that_cannot_be_read_change_no_row(encrypting: Callable[..., None], key: Key):
    encrypting(key)
    sync_recipients(now=NOW)
    encrypting(AGE_RECIPIENTS=["age1x"])
    with pytest.raises(InputError):
        sync_recipients(now=NOW)
    assert Recipient.objects.get().retired_at is None


def test_the_first_archive_is_noted(
    shop: Database, make_backup: Callable[..., Backup], encrypting: Callable[..., None], key: Key
):
    encrypting(key)
    first = make_backup(shop)
    noted = Recipient.objects.get().first_used_at
    assert noted == first.finished_at
    make_backup(shop)
    assert Recipient.objects.get().first_used_at == noted
