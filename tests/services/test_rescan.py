"""A destination alone gives the catalogue back, and every attack on it is found."""

from __future__ import annotations

import os
import resource
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.core.errors import BusyError, InputError, NotFoundError
from backups_app.core.files import file_lock
from backups_app.core.manifest import Manifest, digest
from backups_app.core.signature import SigningKey
from backups_app.models import AuditEvent, Backup, Copy, Database, Finding, Notification, Verification
from backups_app.services import databases
from backups_app.services.chain import head_of, note_pruned
from backups_app.services.databases import add_database
from backups_app.services.extract import extract_backup
from backups_app.services.health import check_health
from backups_app.services.names import archive_name, stored_names
from backups_app.services.prune import give_up
from backups_app.services.rescan import Rescan, rescan
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.support import build_shop, bytes_in, connected, content_of

MakeBackup = Callable[..., Backup]


class Store:
    """The archives folder as an attacker with write access sees it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def paths(self, backup: Backup) -> tuple[Path, Path, Path]:
        archive, manifest, signature = (self.root / name for name in stored_names(backup.archive_name))
        return archive, manifest, signature

    def replace(self, backup: Backup, content: dict[str, bytes]) -> None:
        for path in self.paths(backup):
            for suffix, each in content.items():
                if path.name.endswith(suffix):
                    path.write_bytes(each)

    def delete(self, backup: Backup) -> None:
        for path in self.paths(backup):
            path.unlink()

    def manifest(self, backup: Backup) -> Manifest:
        return Manifest.from_bytes(self.paths(backup)[1].read_bytes())


@pytest.fixture
def store(home: Path) -> Store:
    return Store(home / "archives")


@pytest.fixture
def backups(shop: Database, shop_file: Path, make_backup: MakeBackup) -> list[Backup]:
    """Four backups of the shop, each with another content."""
    made = []
    for number in range(4):
        with connected(shop_file) as connection:
            connection.execute("INSERT INTO product (name) VALUES (?)", (f"new {number}",))
        made.append(make_backup(shop))
    return made


def found(**options: object) -> Rescan:
    return rescan(actor=ACTOR, **options)  # type: ignore[arg-type]


def codes(done: Rescan) -> list[str]:
    return sorted(each.code for each in done.damage)


def verdicts(backups: list[Backup]) -> list[str]:
    return [Backup.objects.get(pk=each.pk).verdict for each in backups]


def forget_everything() -> None:
    """What a fresh machine has: no rows. (The audit trail cannot be emptied.)"""
    Verification.objects.all().delete()
    Copy.objects.all().delete()
    Backup.objects.update(job=None)
    Backup.objects.all().delete()
    Notification.objects.all().delete()
    Database.objects.first().jobs.all().delete()  # type: ignore[union-attr]
    Database.objects.all().delete()


@pytest.fixture
def fresh_machine(backups: list[Backup], home: Path) -> Path:
    """Only the archives are left; returns a copy of the public key."""
    kept = home.parent / "kept.pub"
    shutil.copy(home / "state" / "signing.pub", kept)
    forget_everything()
    shutil.rmtree(home / "state")
    return kept


# Nothing wrong


def test_a_sound_destination_has_no_finding(backups: list[Backup]):
    done = found()
    assert (done.findings, done.known, done.manifests, done.registered) == ([], 4, 4, 0)
    assert done.heads["shop"].sequence == 4
    assert done.heads["shop"].manifest_sha256 == backups[-1].manifest_sha256
    assert not Finding.objects.exists()
    assert not Notification.objects.filter(content__kind="rescan").exists()
    assert AuditEvent.objects.get(action="rescan").outcome == "done"


def test_a_rescan_of_what_is_known_and_right_records_no_verdict_again(backups: list[Backup]):
    before = Verification.objects.count()
    found()
    assert Verification.objects.count() == before


def test_the_chain_goes_from_one_to_the_next(backups: list[Backup], store: Store):
    manifests = [store.manifest(each) for each in backups]
    assert [each.sequence for each in manifests] == [1, 2, 3, 4]
    assert [each.previous for each in manifests] == [None, *(each.manifest_sha256 for each in backups[:3])]
    assert [each.sequence for each in Backup.objects.order_by("created_at")] == [1, 2, 3, 4]


def test_each_database_has_a_chain_of_its_own(
    backups: list[Backup], home: Path, tmp_path: Path, make_backup: MakeBackup, store: Store
):
    other = add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR)
    assert store.manifest(make_backup(other)).sequence == 1
    assert set(found().heads) == {"shop", "other"}


def test_what_is_being_made_is_left_alone(shop: Database, backups: list[Backup], store: Store):
    running = Backup(database=shop, trigger="command")
    running.archive_name = archive_name("shop", created_at=running.created_at, backup_id=running.pk)
    running.save(force_insert=True)
    shutil.copy(store.paths(backups[0])[0], store.root / running.archive_name)
    assert found(is_dry_run=True).findings == []


def test_two_at_once_are_refused(home: Path, shop: Database):
    with file_lock(home / "state" / "locks" / "rescan.lock"):
        with pytest.raises(BusyError):
            found()


# Attacks


def test_a_replaced_archive(backups: list[Backup], store: Store):
    archive = store.paths(backups[1])[0]
    archive.write_bytes(archive.read_bytes()[:-1] + b"!")
    done = found()
    assert codes(done) == ["archive_replaced"]
    assert (done.damage[0].backup, done.damage[0].path) == (backups[1].pk, backups[1].archive_name)
    assert verdicts(backups) == ["passed", "failed", "passed", "passed"]
    assert Copy.objects.get(backup=backups[1]).state == "failed"
    assert Verification.objects.filter(backup=backups[1], level="quick", verdict="failed").exists()


def test_an_archive_forged_with_a_manifest_but_without_the_key(backups: list[Backup], store: Store):
    _archive, manifest, signature = store.paths(backups[3])
    forged = replace(store.manifest(backups[3]), archive_sha256="0" * 64)
    manifest.write_bytes(forged.to_bytes())
    assert codes(found()) == ["forged"]
    assert verdicts(backups)[3] == "failed"
    # … and with a key of their own, under the name of ours:
    key = SigningKey(Ed25519PrivateKey.generate())
    signature.write_bytes(key.sign(forged.to_bytes()))
    assert codes(found()) == ["forged"]
    # … and under its own name:
    content = replace(forged, public_key=key.public.text).to_bytes()
    manifest.write_bytes(content)
    signature.write_bytes(key.sign(content))
    assert codes(found()) == ["forged"]


@pytest.mark.parametrize(("which", "code"), [(0, "archive_replaced"), (1, "rolled_back"), (2, "forged")])
def test_one_file_rolled_back(backups: list[Backup], store: Store, which: int, code: str):
    shutil.copyfile(store.paths(backups[1])[which], store.paths(backups[3])[which])
    assert codes(found()) == [code]
    assert verdicts(backups) == ["passed", "passed", "passed", "failed"]
    (verification,) = verify_backup(backups[3], level="quick", actor=ACTOR)
    assert verification.verdict == "failed"


def test_all_three_files_rolled_back(backups: list[Backup], store: Store):
    for old, new in zip(store.paths(backups[1]), store.paths(backups[3]), strict=True):
        shutil.copyfile(old, new)
    done = found()
    assert codes(done) == ["rolled_back"]
    assert backups[1].pk in done.damage[0].message
    assert verdicts(backups)[3] == "failed"


def test_all_three_rolled_back_on_a_fresh_machine(backups: list[Backup], store: Store, fresh_machine: Path):
    for old, new in zip(store.paths(backups[1]), store.paths(backups[3]), strict=True):
        shutil.copyfile(old, new)
    done = found(trusting=str(fresh_machine))
    assert (codes(done), done.registered) == (["rolled_back"], 3)


def test_a_deleted_archive_is_unreachable_and_named(backups: list[Backup], store: Store):
    store.paths(backups[2])[0].unlink()
    assert codes(found()) == ["archive_deleted"]
    assert verdicts(backups) == ["passed", "passed", "unreachable", "passed"]
    assert Copy.objects.get(backup=backups[2]).state == "unreachable"


@pytest.mark.parametrize(("which", "code"), [(1, "manifest_deleted"), (2, "signature_missing")])
def test_a_deleted_manifest_or_signature(backups: list[Backup], store: Store, which: int, code: str):
    store.paths(backups[2])[which].unlink()
    assert codes(found()) == [code]
    assert verdicts(backups)[2] == "unreachable"


def test_a_backup_deleted_in_the_middle(backups: list[Backup], store: Store):
    store.delete(backups[1])
    done = found()
    assert codes(done) == ["backup_deleted"]
    assert done.damage[0].backup == backups[1].pk
    assert verdicts(backups) == ["passed", "unreachable", "passed", "passed"]


def test_a_backup_deleted_in_the_middle_shows_on_a_fresh_machine(
    backups: list[Backup], store: Store, fresh_machine: Path
):
    store.delete(backups[1])
    done = found(trusting=str(fresh_machine))
    assert (codes(done), done.registered) == (["backup_deleted"], 3)
    assert "number 2" in done.damage[0].message


def test_a_cut_tail_by_the_head_alone(backups: list[Backup], store: Store, home: Path):
    """The catalogue is gone too; only the head in the state folder is left."""
    chain = bytes_in(home / "state" / "chain")
    forget_everything()
    store.delete(backups[2])
    store.delete(backups[3])
    assert set(chain) == {f"{backups[0].database.identity}.json", f"{backups[0].database.identity}.lock"}
    for _ in range(2):  # before and after there is a row of the database again
        done = found()
        assert codes(done) == ["chain_cut"]
        assert "3 to 4" in done.damage[0].message


def test_what_the_head_alone_says_was_deleted_on_purpose_is_no_finding(
    backups: list[Backup], store: Store, shop: Database
):
    note_pruned(shop, [1, 2])
    store.delete(backups[0])
    store.delete(backups[1])
    forget_everything()
    for _ in range(2):
        assert found().damage == []
    assert Backup.objects.filter(state="verified").count() == 2


def test_a_cut_tail_by_catalogue_and_head(backups: list[Backup], store: Store):
    store.delete(backups[3])
    assert codes(found()) == ["backup_deleted", "chain_cut"]
    health = check_health()
    assert {"backup_deleted", "chain_cut"} <= {each.code for each in health.problems}


def test_a_cut_tail_does_not_move_the_head_back(backups: list[Backup], store: Store, shop: Database):
    store.delete(backups[3])
    found()
    head = head_of(shop)
    assert head is not None
    assert head.sequence == 4
    assert codes(found()) == ["backup_deleted", "chain_cut"]


def test_a_stray_archive(backups: list[Backup], store: Store):
    shutil.copy(store.paths(backups[0])[0], store.root / "shop" / "extra.sqlite3.zst")
    done = found()
    assert codes(done) == ["stray_archive"]
    assert verdicts(backups) == ["passed"] * 4


def test_an_unknown_file_is_a_note(backups: list[Backup], store: Store):
    (store.root / "shop" / "notes.txt").write_text("mine")
    done = found()
    assert [each.code for each in done.findings] == ["unknown_file"]
    assert done.damage == []
    assert (store.root / "shop" / "notes.txt").exists()


def test_two_archives_swapped(backups: list[Backup], store: Store):
    first, second = store.paths(backups[0])[0], store.paths(backups[1])[0]
    first.rename(store.root / "aside")
    second.rename(first)
    (store.root / "aside").rename(second)
    assert codes(found()) == ["archive_replaced", "archive_replaced"]
    assert verdicts(backups) == ["failed", "failed", "passed", "passed"]


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_link_in_place_of_an_object_is_not_followed(backups: list[Backup], store: Store, tmp_path: Path, which: int):
    path = store.paths(backups[0])[which]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    done = found()
    assert "not_a_plain_file" in codes(done)
    assert verdicts(backups)[0] == "unreachable"
    (verification,) = verify_backup(backups[0], level="full", actor=ACTOR)
    assert verification.verdict == "unreachable"


def test_a_pipe_in_place_of_a_manifest_is_not_waited_for(backups: list[Backup], store: Store):
    manifest = store.paths(backups[0])[1]
    manifest.unlink()
    os.mkfifo(manifest)
    assert "not_a_plain_file" in codes(found())


def test_a_link_to_a_folder_is_not_followed(backups: list[Backup], store: Store, tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "secret.sqlite3.zst").write_bytes(b"x")
    (store.root / "shop" / "loop").symlink_to(store.root)
    (store.root / "shop" / "etc").symlink_to(tmp_path / "etc")
    assert [each.code for each in found().findings] == ["unknown_file", "unknown_file"]


def test_the_manifest_of_another_database_copied_over(
    backups: list[Backup], store: Store, tmp_path: Path, make_backup: MakeBackup
):
    other = make_backup(add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR))
    for theirs, ours in zip(store.paths(other)[1:], store.paths(backups[0])[1:], strict=True):
        shutil.copyfile(theirs, ours)
    assert codes(found()) == ["misplaced"]
    assert verdicts(backups)[0] == "failed"


def test_a_whole_backup_under_another_name(backups: list[Backup], store: Store):
    for path in store.paths(backups[0]):
        shutil.copyfile(path, path.with_name(path.name.replace(backups[0].pk, "f" * 12)))
    done = found()
    assert (codes(done), done.registered) == (["rolled_back"], 0)


def test_a_huge_manifest_is_read_up_to_a_bound(backups: list[Backup], store: Store):
    with open(store.paths(backups[0])[1], "r+b") as file:
        file.truncate(8 << 30)  # sparse
    assert codes(found()) == ["manifest_unreadable"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b"\xff"])
def test_a_manifest_that_is_none(backups: list[Backup], store: Store, content: bytes):
    store.paths(backups[0])[1].write_bytes(content)
    assert codes(found()) == ["manifest_unreadable"]


def test_a_manifest_of_the_old_format_is_not_trusted_by_itself(backups: list[Backup], store: Store):
    """Else signatures could be got round by writing the format that has none."""
    old = replace(store.manifest(backups[0]), sequence=None, pruned=(), public_key="", failure="", previous=None)
    content = old.to_bytes()
    stem = store.paths(backups[0])[1]
    stem.with_name("shop-20200101T000000Z-aaaaaaaaaaaa.manifest.json").write_bytes(content)
    done = found()
    assert (codes(done), done.registered) == (["unsigned"], 0)


def test_a_store_that_does_not_answer_is_not_taken_for_deleted(backups: list[Backup], home: Path):
    (home / "archives").rename(home / "unmounted")
    done = found()
    assert codes(done) == ["destination_unreachable"]
    assert verdicts(backups) == ["passed"] * 4
    (home / "archives").mkdir()  # the mount point
    assert codes(found()) == ["destination_empty"]
    assert verdicts(backups) == ["passed"] * 4


def test_bytes_that_are_back_are_verified_again(backups: list[Backup], store: Store):
    archive = store.paths(backups[0])[0]
    archive.rename(store.root / "aside.tmp")
    found()
    assert verdicts(backups)[0] == "unreachable"
    (store.root / "aside.tmp").rename(archive)
    assert found().damage == []
    assert verdicts(backups)[0] == "passed"
    assert Copy.objects.get(backup=backups[0]).state == "verified"


# What is told


def test_findings_are_kept_shown_told_and_forgotten(backups: list[Backup], store: Store, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "WEBHOOK_URLS": ["http://localhost/hook"]}
    archive = store.paths(backups[0])[0]
    content = archive.read_bytes()
    archive.write_bytes(b"other")
    found()
    finding = Finding.objects.get()
    assert (finding.code, finding.about, finding.database_name) == ("archive_replaced", backups[0].pk, "shop")
    assert "archive_replaced" in {each.code for each in check_health().problems}
    told = Notification.objects.filter(content__kind="rescan")
    assert [each.event for each in told] == ["failed"]
    found()
    assert told.count() == 1, "the same damage is no news"
    archive.write_bytes(content)
    found()
    assert not Finding.objects.exists()
    assert sorted(each.event for each in told.all()) == ["failed", "recovered"]
    assert AuditEvent.objects.filter(action="rescan", outcome="failed").count() == 2


def test_a_dry_run_writes_nothing(backups: list[Backup], store: Store, home: Path):
    store.paths(backups[0])[0].unlink()
    before = bytes_in(home), Verification.objects.count(), AuditEvent.objects.count()
    assert codes(found(is_dry_run=True)) == ["archive_deleted"]
    after = bytes_in(home), Verification.objects.count(), AuditEvent.objects.count()
    after[0].pop("state/locks/rescan.lock", None)
    assert after == before
    assert not Finding.objects.exists()
    assert verdicts(backups) == ["passed"] * 4


# Retention


def test_what_was_deleted_on_purpose_is_no_finding(
    backups: list[Backup], store: Store, shop: Database, make_backup: MakeBackup
):
    note_pruned(shop, [1, 2])
    for backup in backups[:2]:
        store.delete(backup)
        backup.verifications.all().delete()
        backup.delete()
    assert found().findings == []
    newest = make_backup(shop)
    assert store.manifest(newest).pruned == ((1, 2),)
    note_pruned(shop, [3])
    store.delete(backups[2])
    backups[2].verifications.all().delete()
    backups[2].delete()
    assert found().findings == []
    assert store.manifest(make_backup(shop)).pruned == ((1, 3),)
    forget_everything()
    assert found().damage == []


def test_what_was_deleted_on_purpose_does_not_come_back(backups: list[Backup], store: Store, shop: Database):
    note_pruned(shop, [1])
    backups[0].verifications.all().delete()
    backups[0].delete()
    done = found()
    assert ([each.code for each in done.findings], done.registered) == (["pruned"], 0)


# A fresh machine


def test_the_catalogue_comes_back_from_the_archives_and_the_public_key(
    backups: list[Backup], fresh_machine: Path, shop_file: Path, tmp_path: Path
):
    done = found(trusting=str(fresh_machine))
    assert (done.registered, done.findings, done.databases_added) == (4, [], ["shop"])
    rows = list(Backup.objects.order_by("created_at"))
    for old, new in zip(backups, rows, strict=True):
        for name in ("pk", "sha256", "archive_sha256", "content_sha256", "manifest_sha256", "sequence", "census"):
            assert getattr(new, name) == getattr(old, name), name
        assert (new.taken_at, new.created_at, new.size_bytes) == (old.taken_at, old.created_at, old.size_bytes)
        assert (new.state, new.verdict, new.reason) == ("verified", "passed", "")
        assert new.verifications.filter(level="quick", verdict="passed").exists()
    database = Database.objects.get()
    assert (database.identity, database.is_under_care) == (backups[0].database.identity, False)
    extract_backup(rows[-1], tmp_path / "out.sqlite3", actor=ACTOR)
    assert content_of(tmp_path / "out.sqlite3") == content_of(shop_file)
    assert found().findings == []


def test_a_backup_made_after_it_goes_on_with_the_chain(
    backups: list[Backup], fresh_machine: Path, shop_file: Path, make_backup: MakeBackup, store: Store
):
    found(trusting=str(fresh_machine))
    shop = add_database("shop", shop_file, actor=ACTOR)
    assert (Database.objects.count(), shop.is_under_care) == (1, True)
    manifest = store.manifest(make_backup(shop))
    assert (manifest.sequence, manifest.previous) == (5, backups[3].manifest_sha256)
    assert manifest.key.key_id != backups[3].signing_key_id
    assert any("new signing key" in each for each in check_health().notices)
    assert found().findings == []


def test_an_alias_of_the_settings_takes_the_place_of_the_row(fresh_machine: Path, backups: list[Backup]):
    Database.objects.all().delete()
    found(trusting=str(fresh_machine))
    Database.objects.update(name="default")
    databases._sync_alias("default", "/srv/site.sqlite3", row=None)  # that of the test run lives in memory
    row = Database.objects.get(name="default")
    assert (row.alias, row.is_under_care, row.identity) == ("default", True, backups[0].database.identity)


def test_a_database_added_first_takes_the_identity_over(backups: list[Backup], fresh_machine: Path, shop_file: Path):
    add_database("shop", shop_file, actor=ACTOR)
    done = found(trusting=str(fresh_machine))
    assert done.databases_added == []
    row = Database.objects.get()
    assert (row.identity, row.is_under_care, row.backups.count()) == (backups[0].database.identity, True, 4)


def test_a_database_with_backups_of_its_own_keeps_its_identity(
    backups: list[Backup], fresh_machine: Path, shop_file: Path, make_backup: MakeBackup
):
    other = add_database("shop", shop_file, actor=ACTOR)
    make_backup(other)
    done = found(trusting=str(fresh_machine))
    assert (done.registered, done.findings) == (4, [])
    assert done.databases_added == [f"shop ({backups[0].database.identity[:8]})"]


def test_the_key_is_trusted_on_first_use_with_a_loud_note(backups: list[Backup], fresh_machine: Path):
    done = found()
    assert (done.registered, done.findings) == (4, [])
    assert done.trusted_keys == [backups[0].signing_key_id]
    assert "trusted from now on" in done.notes[0]
    event = AuditEvent.objects.get(action="trust-signing-key")
    assert event.subject == backups[0].signing_key_id
    assert found().notes == []


def test_several_keys_are_not_trusted_on_first_use(backups: list[Backup], fresh_machine: Path, store: Store):
    key = SigningKey(Ed25519PrivateKey.generate())
    content = replace(store.manifest(backups[3]), public_key=key.public.text).to_bytes()
    _, manifest, signature = store.paths(backups[3])
    manifest.write_bytes(content)
    signature.write_bytes(key.sign(content))
    done = found()
    assert (codes(done), done.registered) == (["key_unknown"] * 4, 0)
    assert key.public.key_id in done.notes[0]
    # The operator knows the own key, by its file or by its id:
    done = found(trusting=backups[0].signing_key_id[:20])
    assert (codes(done), done.registered) == (["key_unknown"], 3)


@pytest.mark.parametrize(("given", "error"), [("/no/such/file", NotFoundError), ("ab" * 10, NotFoundError)])
def test_a_key_that_is_none_is_refused(backups: list[Backup], given: str, error: type[Exception]):
    with pytest.raises(error):
        found(trusting=given)


def test_a_file_that_holds_no_key_is_refused(backups: list[Backup], tmp_path: Path):
    (tmp_path / "key.pem").write_text("no key")
    with pytest.raises(InputError):
        found(trusting=str(tmp_path / "key.pem"))


def test_a_damaged_archive_comes_back_as_failed(backups: list[Backup], fresh_machine: Path, store: Store):
    archive = store.paths(backups[0])[0]
    archive.write_bytes(b"x" + archive.read_bytes()[1:])
    store.paths(backups[1])[0].unlink()
    done = found(trusting=str(fresh_machine))
    assert (codes(done), done.registered) == (["archive_deleted", "archive_replaced"], 4)
    assert [each.state for each in Backup.objects.order_by("created_at")] == [
        "failed",
        "failed",
        "verified",
        "verified",
    ]
    assert verdicts(backups) == ["failed", "unreachable", "passed", "passed"]


def test_a_backup_that_had_failed_its_proof_does_not_come_back_as_verified(
    shop: Database, shop_file: Path, make_backup: MakeBackup, home: Path
):
    Database.objects.update(required_tables=["sale"])
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM sale")
    failed = make_backup(Database.objects.get())
    assert failed.state == "failed"
    forget_everything()
    assert found().registered == 1
    again = Backup.objects.get()
    assert (again.pk, again.state) == (failed.pk, "failed")
    assert "sale" in again.reason


def test_a_fresh_machine_without_archives_finds_them_unreachable(home: Path, db_catalog: None):
    assert codes(found()) == ["destination_unreachable"]


# Old backups


def test_a_backup_from_before_signatures_is_a_note_and_restores_with_a_reason(
    backups: list[Backup], store: Store, tmp_path: Path
):
    old = backups[3]
    _archive, manifest, signature = store.paths(old)
    content = replace(
        store.manifest(old), sequence=None, pruned=(), public_key="", failure="", previous=None
    ).to_bytes()
    manifest.write_bytes(content)
    signature.unlink()
    Backup.objects.filter(pk=old.pk).update(sequence=None, signing_key_id="", manifest_sha256=digest(content))
    old = Backup.objects.get(pk=old.pk)
    (verification,) = verify_backup(old, level="full", actor=ACTOR)
    assert verification.verdict == "passed"
    target = tmp_path / "out.sqlite3"
    with pytest.raises(Exception, match="unsigned"):
        extract_backup(old, target, actor=ACTOR)
    assert not target.exists()
    extract_backup(old, target, actor=ACTOR, overrides={"unsigned": "from before the update"})
    assert target.exists()
    assert "overrides unsigned: from before the update" in AuditEvent.objects.filter(action="extract").first().detail  # type: ignore[union-attr]


# Many


@pytest.mark.slow
def test_ten_thousand_manifests(shop: Database, make_backup: MakeBackup, store: Store, home: Path):
    first = make_backup(shop)
    archive = store.paths(first)[0].read_bytes()
    template = store.manifest(first)
    key = SigningKey._from_pem((home / "state" / "signing.key").read_bytes())
    previous, folder = first.manifest_sha256, store.root / "shop" / "2026"
    folder.mkdir(exist_ok=True)
    count = 10_000
    for number in range(2, count + 1):
        stem = f"shop-20260101T000000Z-{number:012x}"
        name = f"shop/2026/{stem}.sqlite3.zst"
        content = replace(
            template, id=f"{number:012x}", sequence=number, previous=previous, archive_name=name
        ).to_bytes()
        previous = digest(content)
        (store.root / name).write_bytes(archive)
        (folder / f"{stem}.manifest.json").write_bytes(content)
        (folder / f"{stem}.manifest.sig").write_bytes(key.sign(content))
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = found(is_dry_run=True)
    assert (done.manifests, done.registered, done.findings) == (count, count - 1, [])
    assert time.monotonic() - started < 120
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


def test_the_documented_findings_are_the_real_ones():
    from backups_app.services.rescan.outcome import DAMAGE, NOTES
    from tests.support import PROJECT

    page = (PROJECT / "docs" / "manifests.md").read_text()
    assert [code for code in (*DAMAGE, *NOTES) if f"`{code}`" not in page] == []


def test_what_retention_has_deleted_is_no_loss(shop, make_backup, home):
    backups = [make_backup(shop) for _ in range(3)]
    give_up(backups[1], reason="a test", actor=ACTOR, now=timezone.now())
    found = rescan(actor=ACTOR)
    assert found.damage == []
    assert [each.code for each in found.findings] == []
    make_backup(shop)
    assert rescan(actor=ACTOR).damage == []


def test_files_of_a_pruned_backup_that_came_back_are_told(shop, make_backup, home):
    make_backup(shop)
    backup, _ = make_backup(shop), make_backup(shop)
    kept = {name: (home / "archives" / name).read_bytes() for name in stored_names(backup.archive_name)}
    give_up(backup, reason="a test", actor=ACTOR, now=timezone.now())
    for name, content in kept.items():
        (home / "archives" / name).write_bytes(content)
    found = rescan(actor=ACTOR)
    assert {each.code for each in found.findings} == {"pruned"}
    backup.refresh_from_db()
    assert backup.state == "pruned"
