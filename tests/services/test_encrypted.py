"""Encrypted backups end to end, on a host that knows public recipients only, and with identities."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_django.fixtures import Settings

from backups_app.core.errors import KeyMissingError
from backups_app.core.manifest import Manifest
from backups_app.core.restore import Restored
from backups_app.documents import backup_document
from backups_app.encryption import Keyring
from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Restore, Verification
from backups_app.services.create import create_backup
from backups_app.services.extract import extract_backup
from backups_app.services.heal import heal_interrupted
from backups_app.services.jobs import ask_restore
from backups_app.services.jobs.run import run_job
from backups_app.services.restores import approve_restore, request_restore, run_restore, undo_restore
from backups_app.services.restores import run as run_module
from backups_app.services.restores.guards import GuardError
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.keys import Key, stock_restore, wrapped
from tests.services.restores.conftest import ANNA, BEN
from tests.support import PROJECT, bytes_in, connected, content_of, names_in, needs_tool

MakeBackup = Callable[..., Backup]
Encrypting = Callable[..., None]
SECRET_ROW = "a-row-that-nobody-else-may-read"


@pytest.fixture
def outside_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test itself runs in a transaction that is rolled back, which a restore would refuse."""
    monkeypatch.setattr(run_module, "connections", {"default": SimpleNamespace(in_atomic_block=False)})


@pytest.fixture
def locked(shop: Database, make_backup: MakeBackup, encrypting: Encrypting, key: Key) -> Backup:
    """A backup made by a host that knows the public recipient only."""
    encrypting(key)
    return make_backup(shop)


def ring(*keys: Key) -> Keyring:
    return Keyring([each.path for each in keys])


def verdict(backup: Backup, *, level: str = "full", keyring: Keyring | None = None) -> Verification:
    (found,) = verify_backup(backup, level=level, actor=ACTOR, keyring=keyring)
    backup.refresh_from_db()
    return found


# Create


def test_a_host_with_a_public_recipient_only_proves_its_backups(
    locked: Backup, key: Key, shop_file: Path, archive_of: Callable[[Backup], Path], tmp_path: Path
):
    assert (locked.state, locked.verdict, locked.is_encrypted) == ("verified", "passed", True)
    assert locked.key_ids == [key.recipient]
    assert locked.archive_name.endswith(".sqlite3.zst.age")
    (verification,) = locked.verifications.all()
    assert {"stored bytes", "content digest"} <= {each["name"] for each in verification.checks if each["ok"]}
    assert content_of(stock_restore(key, archive_of(locked), tmp_path / "found.sqlite3")) == content_of(shop_file)


def test_the_manifest_says_how_it_is_encrypted(locked: Backup, archive_of: Callable[[Backup], Path]):
    archive = archive_of(locked)
    path = archive.with_name(archive.name.removesuffix(".sqlite3.zst.age") + ".manifest.json")
    assert Manifest.from_bytes(path.read_bytes()).encryption == "age"


def test_the_document_shows_key_ids(locked: Backup, key: Key):
    document = backup_document(locked)
    assert document["encrypted"] is True
    assert document["key_ids"] == [key.recipient[:16]]


def test_an_unproven_key_is_told_of(locked: Backup, key: Key):
    assert any(key.recipient[:16] in each and "prove" in each for each in locked.remarks)


def test_without_a_recipient_nothing_is_encrypted(shop: Database, make_backup: MakeBackup):
    backup = make_backup(shop)
    assert (backup.is_encrypted, backup.key_ids, backup.remarks) == (False, [], [])
    assert backup.archive_name.endswith(".sqlite3.zst")


def test_recipients_that_cannot_be_used_end_the_backup_and_never_make_a_plain_one(
    shop: Database, make_backup: MakeBackup, settings: Settings, home: Path
):
    settings.BACKUPS = {**settings.BACKUPS, "AGE_RECIPIENTS": "age1malformed"}
    backup = make_backup(shop)
    assert (backup.state, backup.failure_code) == ("failed", "usage")
    assert not (home / "archives").exists()


def test_a_secret_key_among_the_recipients_is_refused_and_shown_nowhere(
    shop: Database, make_backup: MakeBackup, settings: Settings, key: Key
):
    settings.BACKUPS = {**settings.BACKUPS, "AGE_RECIPIENTS": [key.secret]}
    backup = make_backup(shop)
    assert backup.state == "failed"
    assert key.secret not in backup.reason + backup.hint


def test_recipients_come_from_every_place_that_names_them(
    shop: Database,
    make_backup: MakeBackup,
    encrypting: Encrypting,
    key: Key,
    other: Key,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    third, fourth = Key(tmp_path / "third.txt"), Key(tmp_path / "fourth.txt")
    (tmp_path / "recipients").write_text(f"# of the safe\n{fourth.recipient}\n{key.recipient}\n")
    encrypting(key)
    monkeypatch.setenv("BACKUPS_AGE_RECIPIENTS", f"{other.recipient}, {third.recipient} {key.recipient}")
    monkeypatch.setenv("BACKUPS_AGE_RECIPIENTS_FILE", str(tmp_path / "recipients"))
    backup = make_backup(shop)
    assert backup.key_ids == [each.recipient for each in (key, other, third, fourth)]
    for each in (key, other, third, fourth):
        assert verdict(backup, keyring=ring(each)).verdict == "passed"


def test_a_recipients_file_that_is_gone_ends_the_backup(
    shop: Database, make_backup: MakeBackup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BACKUPS_AGE_RECIPIENTS_FILE", str(tmp_path / "gone"))
    assert make_backup(shop).state == "failed"


def test_an_archive_that_comes_back_altered_is_not_verified(
    shop: Database,
    make_backup: MakeBackup,
    encrypting: Encrypting,
    key: Key,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    from backups_app.destinations import LocalDestination

    store = LocalDestination.store

    def altering(self: LocalDestination, source: Path, name: str, **more: object) -> None:
        content = bytearray(source.read_bytes())
        content[len(content) // 2] ^= 1
        source.write_bytes(content)
        store(self, source, name)

    encrypting(key)
    monkeypatch.setattr(LocalDestination, "store", altering)
    backup = make_backup(shop)
    assert (backup.state, backup.failure_code) == ("failed", "verification_failed")
    assert bytes_in(home / "archives") == {}
    assert names_in(home / "scratch") == set()
    assert not Copy.objects.exists()


def test_a_cancelled_backup_leaves_nothing(shop: Database, encrypting: Encrypting, key: Key, home: Path):
    encrypting(key)
    phases: list[str] = []
    backup = create_backup(
        shop,
        actor=ACTOR,
        trigger="command",
        on_progress=lambda phase, *_: phases.append(phase),
        is_cancelled=lambda: "compress" in phases,
    )
    assert backup.state == "cancelled"
    assert names_in(home / "scratch") == set()
    assert not (home / "archives").exists() or bytes_in(home / "archives") == {}


def test_nothing_in_the_clear_is_left_outside_of_scratch(
    shop: Database, shop_file: Path, make_backup: MakeBackup, encrypting: Encrypting, key: Key, home: Path
):
    with connected(shop_file) as connection:
        connection.execute("INSERT INTO product (name) VALUES (?)", (SECRET_ROW,))
    encrypting(key)
    backup = make_backup(shop)
    verdict(backup, keyring=ring(key))
    assert names_in(home / "scratch") == set()
    for name, content in bytes_in(home).items():
        assert SECRET_ROW.encode() not in content, name
        assert not content.startswith((b"SQLite format 3", b"\x28\xb5\x2f\xfd")), name


def test_no_key_reaches_rows_logs_or_documents(
    shop: Database,
    make_backup: MakeBackup,
    encrypting: Encrypting,
    key: Key,
    other: Key,
    tmp_path: Path,
    home: Path,
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.DEBUG)
    protected = wrapped(key, tmp_path / "protected", passphrase="of-the-identity")
    encrypting(key, identity=protected, AGE_PASSPHRASE="of-the-identity")
    backup = make_backup(shop, note=f"careless: {key.secret}")
    verdict(backup)
    verdict(backup, keyring=ring(other))
    extract_backup(backup, tmp_path / "out.sqlite3", actor=ACTOR)
    rows = [
        *AuditEvent.objects.values_list(),
        *Job.objects.exclude(options__has_key="note").values_list(),
        *Job.objects.values_list("log", "outcome", "hint"),
        *Verification.objects.values_list(),
        *Backup.objects.values_list("reason", "hint", "remarks", "census", "key_ids"),
    ]
    files = [content for name, content in bytes_in(home).items() if "site" not in name]
    for text in [repr(rows), caplog.text, *(repr(each) for each in files)]:
        for secret in (key.secret, other.secret, "of-the-identity"):
            assert secret not in text


# Verify


def test_a_quick_look_needs_no_key(locked: Backup):
    assert verdict(locked, level="quick").verdict == "passed"


def test_a_full_look_without_the_key_is_key_missing_and_never_failed(locked: Backup, other: Key, tmp_path: Path):
    nothing = Keyring([tmp_path / "gone"])
    for keyring in (None, ring(other), nothing):
        found = verdict(locked, keyring=keyring)
        assert found.verdict == "key_missing"
        assert "stored bytes" in {each["name"] for each in found.checks if each["ok"]}
        assert (locked.state, locked.verdict) == ("verified", "key_missing")
        assert locked.copies.get().state == "key_missing"


def test_a_quick_look_after_a_missing_key_goes_back_to_the_proof_at_creation(locked: Backup):
    verdict(locked)
    verdict(locked, level="quick")
    assert locked.copies.get().state == "verified"
    assert locked.verdict == "passed"


def test_with_the_identity_a_full_look_passes(locked: Backup, key: Key, encrypting: Encrypting, home: Path):
    assert verdict(locked, keyring=ring(key)).verdict == "passed"
    encrypting(key, identity=key.path)
    assert verdict(locked).verdict == "passed"
    assert names_in(home / "scratch") == set()


@pytest.mark.parametrize("damage", ["flip", "header", "cut", "empty"])
@pytest.mark.parametrize("has_key", [True, False], ids=["key", "no key"])
def test_damage_is_failed_and_never_key_missing(
    locked: Backup, key: Key, archive_of: Callable[[Backup], Path], damage: str, has_key: bool
):
    content = bytearray(archive_of(locked).read_bytes())
    if damage == "flip":
        content[-20] ^= 1
    elif damage == "header":
        content[60] ^= 1
    archive_of(locked).write_bytes({"cut": content[:-50], "empty": b""}.get(damage, content))
    found = verdict(locked, keyring=ring(key) if has_key else None)
    assert found.verdict == "failed"
    assert locked.state == "failed"


def test_an_archive_that_is_gone_is_unreachable(locked: Backup, archive_of: Callable[[Backup], Path]):
    archive_of(locked).unlink()
    assert verdict(locked).verdict == "unreachable"


# Extract and restore


def test_a_new_file_needs_the_identity(locked: Backup, key: Key, other: Key, shop_file: Path, tmp_path: Path):
    target = tmp_path / "out" / "new.sqlite3"
    target.parent.mkdir()
    for keyring in (None, ring(other)):
        with pytest.raises(KeyMissingError) as raised:
            extract_backup(locked, target, actor=ACTOR, keyring=keyring)
        assert raised.value.exit_code == 5
    assert names_in(target.parent) == set()
    extract_backup(locked, target, actor=ACTOR, keyring=ring(key))
    assert content_of(target) == content_of(shop_file)


def change(path: Path) -> None:
    with connected(path) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('newer')")
        connection.execute("DELETE FROM sale")


@pytest.mark.usefixtures("outside_transactions")
def test_a_restore_in_place_and_its_undo_with_the_identity(locked: Backup, key: Key, shop_file: Path):
    change(shop_file)
    before = content_of_live(shop_file)
    restore = request_restore(locked, locked.database, reason="x", actor=ANNA, keyring=ring(key))
    assert restore.preview is not None
    assert any("undo needs the identity" in each for each in restore.preview["warnings"])
    done = run_restore(approve_restore(restore, actor=BEN), actor=BEN, keyring=ring(key))
    assert done.state == Restore.State.SUCCEEDED, done.outcome
    assert live_rows(shop_file) == {"product": 3, "sale": 4}
    assert done.safety_backup is not None
    assert done.safety_backup.is_encrypted
    assert done.safety_backup.state == "verified"
    with pytest.raises(KeyMissingError):
        undo_restore(done, actor=BEN)
    assert not done.undos.exists()
    undo = undo_restore(done, actor=BEN, keyring=ring(key))
    assert undo.state == Restore.State.SUCCEEDED, undo.outcome
    assert content_of_live(shop_file) == before


def live_rows(path: Path) -> dict[str, int]:
    with connected(path) as connection:
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("product", "sale")}


def content_of_live(path: Path) -> list[object]:
    with connected(path) as connection:
        return [connection.execute(f"SELECT * FROM {name}").fetchall() for name in ("product", "sale")]


def test_a_restore_without_the_key_cannot_be_asked_for(locked: Backup, shop_file: Path):
    change(shop_file)
    with pytest.raises(KeyMissingError):
        request_restore(locked, locked.database, reason="x", actor=ANNA)
    assert not Restore.objects.exists()
    assert live_rows(shop_file) == {"product": 4, "sale": 0}


@pytest.mark.usefixtures("outside_transactions")
def test_an_approval_is_not_used_up_by_a_missing_key(locked: Backup, key: Key, shop_file: Path):
    change(shop_file)
    restore = request_restore(locked, locked.database, reason="x", actor=ANNA, keyring=ring(key))
    approve_restore(restore, actor=BEN)
    with pytest.raises(KeyMissingError):
        run_restore(restore, actor=BEN)
    restore.refresh_from_db()
    assert restore.state == Restore.State.APPROVED
    assert run_restore(restore, actor=BEN, keyring=ring(key)).state == Restore.State.SUCCEEDED


@pytest.mark.usefixtures("outside_transactions")
def test_a_restore_that_could_not_be_undone_here_is_refused_without_a_reason(
    shop: Database, shop_file: Path, make_backup: MakeBackup, encrypting: Encrypting, key: Key
):
    plain = make_backup(shop)
    change(shop_file)
    encrypting(key)
    with pytest.raises(GuardError, match="undo_key_missing"):
        request_restore(plain, shop, reason="x", actor=ANNA)
    restore = request_restore(
        plain, shop, reason="x", actor=ANNA, overrides={"undo_key_missing": "the key is in the safe"}
    )
    done = run_restore(approve_restore(restore, actor=BEN), actor=BEN)
    assert done.state == Restore.State.SUCCEEDED, done.outcome
    assert undo_restore(done, actor=BEN, keyring=ring(key)).state == Restore.State.SUCCEEDED
    assert live_rows(shop_file) == {"product": 4, "sale": 0}


@pytest.mark.usefixtures("outside_transactions")
def test_a_roll_back_needs_no_identity(
    shop: Database,
    shop_file: Path,
    make_backup: MakeBackup,
    encrypting: Encrypting,
    key: Key,
    monkeypatch: pytest.MonkeyPatch,
):
    """The key of the safety backup's archive is kept in memory until the restore has ended."""
    plain = make_backup(shop)
    change(shop_file)
    encrypting(key)
    restore = request_restore(plain, shop, reason="x", actor=ANNA, overrides={"undo_key_missing": "known"})
    exchange, calls = run_module.restore_in_place, []

    def failing_once(*arguments: Any, **options: Any) -> Restored:
        done = exchange(*arguments, **options)
        calls.append(done)
        if len(calls) == 1:
            raise run_module.RestoreCheckError(done)
        return done

    monkeypatch.setattr(run_module, "restore_in_place", failing_once)
    done = run_restore(approve_restore(restore, actor=BEN), actor=BEN)
    assert done.state == Restore.State.ROLLED_BACK, done.outcome
    assert live_rows(shop_file) == {"product": 4, "sale": 0}


# A protected identity


def test_the_passphrase_of_the_settings_opens_a_protected_identity(
    locked: Backup, key: Key, encrypting: Encrypting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    protected = wrapped(key, tmp_path / "protected", passphrase="correct horse")
    encrypting(key, identity=protected)
    found = verdict(locked)
    assert found.verdict == "key_missing"
    assert "passphrase" in found.reason
    (tmp_path / "passphrase").write_text("correct horse\n")
    monkeypatch.setenv("BACKUPS_AGE_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    assert verdict(locked).verdict == "passed"
    monkeypatch.setenv("BACKUPS_AGE_PASSPHRASE", "wrong horse")
    assert verdict(locked).verdict == "key_missing"


def test_blanks_around_a_passphrase_in_a_file_belong_to_it(
    locked: Backup, key: Key, encrypting: Encrypting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    encrypting(key, identity=wrapped(key, tmp_path / "protected", passphrase=" correct horse "))
    monkeypatch.setenv("BACKUPS_AGE_PASSPHRASE_FILE", str(tmp_path / "passphrase"))
    (tmp_path / "passphrase").write_bytes(b" correct horse \r\n")
    assert verdict(locked).verdict == "passed"
    (tmp_path / "passphrase").write_bytes(b"correct horse\n")
    assert verdict(locked).verdict == "key_missing"


def test_a_person_is_asked_once(locked: Backup, key: Key, tmp_path: Path):
    protected = wrapped(key, tmp_path / "protected", passphrase="correct horse")
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        return "correct horse"

    keyring = Keyring([protected], ask_passphrase=ask)
    assert [verdict(locked, keyring=keyring).verdict for _ in range(2)] == ["passed", "passed"]
    assert asked == [1]


def test_nobody_is_asked_for_plain_archives(shop: Database, make_backup: MakeBackup, key: Key, tmp_path: Path):
    def ask() -> str:
        raise AssertionError("asked")

    protected = wrapped(key, tmp_path / "protected", passphrase="x")
    assert verdict(make_backup(shop), keyring=Keyring([protected], ask_passphrase=ask)).verdict == "passed"


# Workers, the dead, and the words on paper


def test_a_worker_without_the_key_leaves_the_approval_unused(locked: Backup, key: Key, shop_file: Path):
    change(shop_file)
    restore = request_restore(locked, locked.database, reason="x", actor=ANNA, keyring=ring(key))
    job = ask_restore(approve_restore(restore, actor=BEN), actor=BEN, trigger="admin")
    run_job(job.pk)
    job.refresh_from_db()
    restore.refresh_from_db()
    assert (job.state, job.failure_code) == ("failed", "key_missing")
    assert restore.state == Restore.State.APPROVED
    assert live_rows(shop_file) == {"product": 4, "sale": 0}


def test_what_a_killed_process_stored_is_removed(shop: Database, home: Path):
    name = "shop/2026/shop-20260304T050607Z-abc.sqlite3.zst.age"
    row = Backup.objects.create(database=shop, trigger="command", archive_name=name)
    folder = home / "archives" / "shop" / "2026"
    folder.mkdir(parents=True)
    for each in (name.rsplit("/", 1)[-1], "shop-20260304T050607Z-abc.manifest.json"):
        (folder / each).write_bytes(b"half")
    heal_interrupted()
    row.refresh_from_db()
    assert row.state == "failed"
    assert names_in(folder) == set()


def test_the_commands_of_the_documents_give_the_database(
    locked: Backup, key: Key, archive_of: Callable[[Backup], Path], shop_file: Path, tmp_path: Path
):
    text = (PROJECT / "docs/recovery.md").read_text()
    blocks = [each for each in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) if "age -d -i backup.key -o" in each]
    assert len(blocks) == 1
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (named,) = set(re.findall(r"\S+\.zst\.age", blocks[0]))
    shutil.copy(archive_of(locked), folder / named)
    shutil.copy(key.path, folder / "backup.key")
    needs_tool("age")
    done = subprocess.run(["bash", "-e", "-c", blocks[0]], cwd=folder, capture_output=True, text=True, check=True)
    if "sha256sum" in blocks[0]:
        assert locked.sha256 in done.stdout
    (recovered,) = set(re.findall(r"zstd -d .*-o (\S+\.sqlite3)", blocks[0]))
    assert content_of(folder / recovered) == content_of(shop_file)
