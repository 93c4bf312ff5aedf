"""A backup encrypted anew: proven first, then the old archive goes; a failure changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from backups_app.core.errors import BackupError, KeyMissingError, NotFoundError, RefusedError
from backups_app.destinations import LocalDestination
from backups_app.encryption import Keyring
from backups_app.models import AuditEvent, Backup, Database, Restore
from backups_app.services.delete import refuse_deletion
from backups_app.services.heal import heal_interrupted
from backups_app.services.health import check_health
from backups_app.services.hold import hold_backup, release_backup
from backups_app.services.keys import rekey
from backups_app.services.keys.rekey import backups_to_rekey, rekey_backup, require_replaced
from backups_app.services.prune import is_held_by_hand, simulate_prune
from backups_app.services.restores import request_restore
from backups_app.services.scrub import newest_verified
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.keys import Key, stock_restore
from tests.support import bytes_in, content_of, names_in

MakeBackup = Callable[..., Backup]
Encrypting = Callable[..., None]


@pytest.fixture
def old(shop: Database, make_backup: MakeBackup, encrypting: Encrypting, key: Key, other: Key) -> Backup:
    """A backup for ``key``; ``other`` is set now."""
    encrypting(key)
    made = make_backup(shop, note="the last good one")
    encrypting(other)
    return made


def ring(key: Key) -> Keyring:
    return Keyring([key.path])


def test_the_new_archive_has_the_same_content_for_the_new_key(
    old: Backup, key: Key, other: Key, shop_file: Path, home: Path, archive_of: Callable[[Backup], Path], tmp_path: Path
):
    before = archive_of(old)
    new = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    assert (new.state, new.verdict, new.key_ids) == ("verified", "passed", [other.recipient])
    assert (new.sha256, new.content_sha256, new.taken_at) == (old.sha256, old.content_sha256, old.taken_at)
    assert new.note == old.note
    assert content_of(stock_restore(other, archive_of(new), tmp_path / "found")) == content_of(shop_file)
    (full,) = verify_backup(new, level="full", actor=ACTOR, keyring=ring(other))
    assert full.verdict == "passed"
    assert not before.exists()
    assert names_in(home / "scratch") == set()


def test_the_old_row_says_where_its_content_is(old: Backup, key: Key):
    new = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    old.refresh_from_db()
    assert old.state == "pruned"
    assert new.pk in old.prune_reason
    assert old.copies.get().state == "pruned"
    assert AuditEvent.objects.filter(action="rekey", subject=old.pk, outcome="done").exists()


def test_the_old_archive_may_be_kept(old: Backup, key: Key, archive_of: Callable[[Backup], Path]):
    rekey_backup(old, actor=ACTOR, keyring=ring(key), is_old_kept=True)
    old.refresh_from_db()
    assert old.state == "verified"
    assert archive_of(old).exists()


def test_a_plain_backup_becomes_an_encrypted_one(
    shop: Database, make_backup: MakeBackup, encrypting: Encrypting, key: Key
):
    plain = make_backup(shop)
    encrypting(key)
    assert backups_to_rekey() == [plain]
    new = rekey_backup(plain, actor=ACTOR)
    assert (new.state, new.is_encrypted) == ("verified", True)
    with pytest.raises(NotFoundError):
        backups_to_rekey()


def unchanged(old: Backup, home: Path, before: dict[str, bytes]) -> None:
    old.refresh_from_db()
    assert old.state == "verified"
    assert bytes_in(home / "archives") == before
    assert names_in(home / "scratch") == set()


def test_without_the_key_nothing_changes(old: Backup, other: Key, home: Path):
    before = bytes_in(home / "archives")
    for keyring in (None, ring(other)):
        with pytest.raises(KeyMissingError):
            rekey_backup(old, actor=ACTOR, keyring=keyring)
    unchanged(old, home, before)
    assert Backup.objects.count() == 1


def test_without_recipients_nothing_changes(old: Backup, key: Key, encrypting: Encrypting, home: Path):
    before = bytes_in(home / "archives")
    encrypting()
    new = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    assert (new.state, new.failure_code) == ("failed", "usage")
    unchanged(old, home, before)


def test_a_damaged_archive_is_not_made_anew(old: Backup, key: Key, home: Path, archive_of: Callable[[Backup], Path]):
    content = bytearray(archive_of(old).read_bytes())
    content[-1] ^= 1
    archive_of(old).write_bytes(content)
    before = bytes_in(home / "archives")
    new = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    assert (new.state, new.failure_code) == ("failed", "verification_failed")
    unchanged(old, home, before)


def test_a_new_archive_that_cannot_be_proven_leaves_the_old_one(
    old: Backup, key: Key, home: Path, monkeypatch: pytest.MonkeyPatch
):
    before = bytes_in(home / "archives")
    store = LocalDestination.store

    def altering(self: LocalDestination, source: Path, name: str, **more: object) -> None:
        source.write_bytes(source.read_bytes()[:-1])
        store(self, source, name)

    monkeypatch.setattr(LocalDestination, "store", altering)
    new = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    assert new.state == "failed"
    heal_interrupted()
    unchanged(old, home, before)


def test_a_backup_in_an_open_request_is_left_alone(old: Backup, key: Key, other: Key, home: Path):
    before = bytes_in(home / "archives")
    both = Keyring([key.path, other.path])
    request_restore(old, old.database, reason="x", actor=ACTOR, keyring=both)
    with pytest.raises(RefusedError, match="open"):
        rekey_backup(old, actor=ACTOR, keyring=both)
    unchanged(old, home, before)


def test_a_backup_that_is_not_verified_is_refused(old: Backup, key: Key):
    Backup.objects.filter(pk=old.pk).update(state="failed", reason="x")
    old.refresh_from_db()
    with pytest.raises(BackupError, match="verified"):
        rekey_backup(old, actor=ACTOR, keyring=ring(key))


def test_an_undo_finds_the_safety_backup_again(old: Backup, key: Key):
    Backup.objects.filter(pk=old.pk).update(is_held=True, held_by_name="ben")
    old.refresh_from_db()
    restore = Restore.objects.create(
        backup=old,
        database=old.database,
        reason="x",
        archive_sha256=old.archive_sha256,
        requested_by_name="anna",
        state="expired",
        requested_at=old.created_at,
        expires_at=old.created_at,
        finished_at=old.created_at,
        outcome="x",
        safety_backup=old,
    )
    new = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    restore.refresh_from_db()
    assert restore.safety_backup == new
    new.refresh_from_db()
    assert (new.is_held, new.held_by_name) == (True, "ben")
    old.refresh_from_db()
    assert old.state == "pruned"


def test_a_hold_that_came_after_the_listing_is_not_lost(old: Backup, key: Key):
    (listed,) = backups_to_rekey()
    hold_backup(old, actor=ACTOR)
    new = rekey_backup(listed, actor=ACTOR, keyring=ring(key))
    found = Backup.objects.get(pk=new.pk)
    assert (found.is_held, found.held_by_name) == (True, "anna")
    old.refresh_from_db()
    assert (old.state, old.is_held, old.held_by_name) == ("pruned", False, "")


def test_a_hold_that_ended_after_the_listing_is_not_taken_up_again(old: Backup, key: Key):
    hold_backup(old, actor=ACTOR)
    (listed,) = backups_to_rekey()
    release_backup(old, actor=ACTOR)
    new = rekey_backup(listed, actor=ACTOR, keyring=ring(key))
    found = Backup.objects.get(pk=new.pk)
    assert (found.is_held, found.held_by_name) == (False, "")


def test_an_old_archive_that_has_to_stay_keeps_its_hold_and_no_run_makes_another_one(far: Path, old: Backup, key: Key):
    hold_backup(old, actor=ACTOR)
    far.rename(far.with_name("away"))
    far.write_text("no folder")
    new = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    with pytest.raises(RefusedError, match="nothing newer is verified at far"):
        require_replaced(old, new)
    assert (old.state, old.is_held, old.held_by_name) == ("verified", True, "anna")
    new.refresh_from_db()
    assert (new.state, new.is_held, new.held_by_name) == ("verified", True, "anna")
    (event,) = AuditEvent.objects.filter(action="rekey")
    assert event.detail.endswith("old archive stays")
    assert rekey_backup(old, actor=ACTOR, keyring=ring(key)).pk == new.pk
    assert Backup.objects.count() == 2


def test_a_run_that_was_killed_before_the_old_archive_went_is_finished_by_the_next_one(
    old: Backup, key: Key, home: Path, monkeypatch: pytest.MonkeyPatch
):
    hold_backup(old, actor=ACTOR)

    def killed(*_found: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rekey, "_replace", killed)
        with pytest.raises(KeyboardInterrupt):
            rekey_backup(old, actor=ACTOR, keyring=ring(key))
    (made,) = Backup.objects.exclude(pk=old.pk)
    assert (made.state, made.is_held) == ("verified", False)
    assert [rekey_backup(each, actor=ACTOR, keyring=ring(key)).pk for each in backups_to_rekey()] == [made.pk]
    made.refresh_from_db()
    old.refresh_from_db()
    assert (made.is_held, made.held_by_name, old.state) == (True, "anna", "pruned")
    assert not [name for name in bytes_in(home / "archives") if old.pk in name]


def test_what_an_earlier_run_made_does_not_serve_when_it_has_rotted(
    old: Backup, key: Key, archive_of: Callable[[Backup], Path]
):
    first = rekey_backup(old, actor=ACTOR, keyring=ring(key), is_old_kept=True)
    content = bytearray(archive_of(first).read_bytes())
    content[-1] ^= 1
    archive_of(first).write_bytes(content)
    second = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    assert second.pk != first.pk
    assert (second.state, second.verdict) == ("verified", "passed")


def test_a_safety_backup_stays_one_within_its_window_and_no_longer(
    shop: Database, old: Backup, make_backup: MakeBackup, encrypting: Encrypting, key: Key, other: Key
):
    Backup.objects.filter(pk=old.pk).update(trigger="safety", is_held=True)
    old.refresh_from_db()
    newer, newest = make_backup(shop), make_backup(shop)
    Database.objects.update(keep_last=1)
    shop.refresh_from_db()
    new = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    encrypting(key)
    new = rekey_backup(new, actor=ACTOR, keyring=ring(other))
    new.refresh_from_db()
    assert not is_held_by_hand(new)
    with pytest.raises(RefusedError, match="safety backup"):
        refuse_deletion(new, now=timezone.now())

    def kept(*, now: datetime) -> set[str]:
        return {each.backup.pk for each in simulate_prune(shop, now=now) if each.decision.is_kept}

    assert kept(now=timezone.now()) == {newest.pk, new.pk}
    later = timezone.now() + timedelta(days=31)
    assert kept(now=later) == {newest.pk}
    refuse_deletion(new, now=later)
    assert newer.pk not in kept(now=later)


def test_an_import_stays_one(shop: Database, old: Backup, key: Key):
    Backup.objects.filter(pk=old.pk).update(trigger="import", is_held=True, origin_sha256="1" * 64)
    old.refresh_from_db()
    new = rekey_backup(old, actor=ACTOR, keyring=ring(key))
    new.refresh_from_db()
    assert (new.trigger, new.origin_sha256, is_held_by_hand(new)) == ("rekey", "1" * 64, True)
    (health,) = check_health().databases
    assert health.last_verified is None, "it says nothing of today"
    with pytest.raises(NotFoundError):
        newest_verified(shop)
