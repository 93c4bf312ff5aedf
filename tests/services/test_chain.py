"""A kill between any two steps of publication leaves a chain that goes on and a store without a finding."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.core.chain import Head, read_head, write_head
from backups_app.core.errors import BackupError
from backups_app.core.manifest import Manifest
from backups_app.models import AuditEvent, Backup, Database
from backups_app.services.chain import adopt_head, head_of, note_pruned
from backups_app.services.health import check_health
from backups_app.services.names import stored_names
from backups_app.services.rescan import rescan
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.console import Console, environment
from tests.support import PROJECT, names_in

MakeBackup = Callable[..., Backup]

# The steps of publication, each as (module, name, when): the process dies before or after that call.
_KILL = """
import os, signal, sys
sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
import django
django.setup()
from backups_app.services import publish
from backups_app.destinations import LocalDestination

step = sys.argv[1]
real = {"store": LocalDestination.store, "record": publish.record_outcome, "advance": publish.advance_head}
count = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def store(self, source, name, **more):
    global count
    count += 1
    if step == f"before {count}":
        die()
    real["store"](self, source, name)
    if step == f"after {count}":
        die()

def record(*arguments, **options):
    if step == "before row":
        die()
    real["record"](*arguments, **options)
    if step == "after row":
        die()

def advance(*arguments, **options):
    real["advance"](*arguments, **options)
    if step == "after head":
        die()

LocalDestination.store, publish.record_outcome, publish.advance_head = store, record, advance
from django.core.management import call_command
call_command("backup", "create", "--all")
"""
STEPS = ["before 1", "after 1", "after 2", "after 3", "before row", "after row", "after head"]


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_at_any_step_heals(console: Console, site: Path, step: str):
    first = console.ok("create", "--all", "--json").backup()
    killed = subprocess.run(
        [sys.executable, "-c", _KILL, step],
        cwd=PROJECT,
        env=environment(console.home, **console.extra),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    is_recorded = step in ("after row", "after head")
    rescanned = console.ok("rescan", "--json").document["rescan"]
    assert rescanned["findings"] == []
    assert rescanned["heads"][0]["sequence"] == (2 if is_recorded else 1)
    second = console.ok("create", "--all", "--json").backup()
    assert second["sequence"] == (3 if is_recorded else 2)
    names = {row[0] for row in console.query("SELECT archive_name FROM backups_app_backup WHERE state = 'verified'")}
    assert console.archived() == {each for name in names for each in stored_names(name)}
    assert console.ok("rescan", "--json").document["rescan"]["findings"] == []
    assert console.ok("verify", first["id"], second["id"], "--level", "quick", "--json").code == 0


def head_path(home: Path, database: Database) -> Path:
    return home / "state" / "chain" / f"{database.identity}.json"


def test_the_head_follows_each_backup(shop: Database, make_backup: MakeBackup, home: Path):
    for number in (1, 2):
        backup = make_backup(shop)
        head = read_head(head_path(home, shop))
        assert head == Head(sequence=number, manifest_sha256=backup.manifest_sha256, backup=backup.pk)
    assert names_in(home / "state" / "chain") == {f"{shop.identity}.json", f"{shop.identity}.lock"}


def test_a_lost_head_is_taken_from_the_catalogue(shop: Database, make_backup: MakeBackup, home: Path):
    make_backup(shop)
    second = make_backup(shop)
    head_path(home, shop).unlink()
    assert head_of(shop) == Head(sequence=2, manifest_sha256=second.manifest_sha256, backup=second.pk)
    assert make_backup(shop).sequence == 3
    assert rescan(actor=ACTOR).findings == []


def test_a_rolled_back_catalogue_does_not_move_the_chain_back(shop: Database, make_backup: MakeBackup):
    first, second = make_backup(shop), make_backup(shop)
    second.verifications.all().delete()
    second.delete()
    third = make_backup(shop)
    assert (first.sequence, third.sequence) == (1, 3)
    done = rescan(actor=ACTOR)
    assert (done.findings, done.registered) == ([], 1), "the forgotten one is back"


def test_a_damaged_head_fails_the_backup_loudly(shop: Database, make_backup: MakeBackup, home: Path):
    make_backup(shop)
    head_path(home, shop).write_text("{")
    failed = make_backup(shop)
    assert failed.state == "failed"
    assert "head" in failed.reason
    assert failed.hint
    assert len(list((home / "archives").rglob("*.zst"))) == 1


def test_a_head_never_moves_back(shop: Database, make_backup: MakeBackup, home: Path):
    make_backup(shop)
    second = make_backup(shop)
    adopt_head(Head(sequence=1, manifest_sha256="0" * 64, backup="x", pruned=((1, 1),)), database=shop)
    head = read_head(head_path(home, shop))
    assert head == Head(sequence=2, manifest_sha256=second.manifest_sha256, backup=second.pk, pruned=((1, 1),))


def test_nothing_is_noted_where_there_is_no_chain(shop: Database, home: Path):
    note_pruned(shop, [1])
    assert head_of(shop) is None


@pytest.mark.parametrize("level", ["quick", "full"])
def test_verifying_finds_a_manifest_at_another_place_of_the_chain(shop: Database, make_backup: MakeBackup, level: str):
    make_backup(shop)
    second = make_backup(shop)
    Backup.objects.filter(pk=second.pk).update(sequence=7)
    (verification,) = verify_backup(Backup.objects.get(pk=second.pk), level=level, actor=ACTOR)
    assert verification.verdict == "failed"
    assert "chain" in verification.reason


def test_verifying_finds_a_past_that_is_another_one(shop: Database, make_backup: MakeBackup, home: Path):
    first, second = make_backup(shop), make_backup(shop)
    Backup.objects.filter(pk=first.pk).update(manifest_sha256="0" * 64)
    (verification,) = verify_backup(second, level="quick", actor=ACTOR)
    assert "does not follow" in verification.reason
    write_head(head_path(home, shop), Head(sequence=2, manifest_sha256="1" * 64, backup="x"))
    (verification,) = verify_backup(second, level="quick", actor=ACTOR)
    assert "head of the chain" in verification.reason


def test_a_wrong_signature_fails_and_the_right_one_proves_again(shop: Database, make_backup: MakeBackup, home: Path):
    backup = make_backup(shop)
    path = home / "archives" / stored_names(backup.archive_name)[2]
    right = path.read_bytes()
    path.write_bytes(right[::-1])
    for level in ("full", "quick"):
        (verification,) = verify_backup(backup, level=level, actor=ACTOR)
        assert (verification.verdict, "signature" in verification.reason) == ("failed", True)
    path.write_bytes(right)
    (verification,) = verify_backup(backup, level="quick", actor=ACTOR)
    assert verification.verdict == "passed"
    backup.refresh_from_db()
    assert backup.state == "verified"


def test_a_lost_signing_key_loses_no_data_and_is_told(shop: Database, make_backup: MakeBackup, home: Path):
    first = make_backup(shop)
    assert not check_health().notices or "signing key" not in " ".join(check_health().notices)
    (home / "state" / "signing.key").unlink()
    second = make_backup(shop)
    assert first.signing_key_id != second.signing_key_id
    assert [each.subject for each in AuditEvent.objects.filter(action="make-signing-key").order_by("at")] == [
        first.signing_key_id,
        second.signing_key_id,
    ]
    assert any("new signing key" in each for each in check_health().notices)
    for backup in (first, second):
        (verification,) = verify_backup(backup, level="quick", actor=ACTOR)
        assert verification.verdict == "passed"
    assert rescan(actor=ACTOR).findings == []


def test_a_damaged_head_is_no_verdict_on_a_copy(shop: Database, make_backup: MakeBackup, home: Path):
    make_backup(shop)
    second = make_backup(shop)
    head_path(home, shop).write_bytes(b"")
    for level in ("quick", "full"):
        with pytest.raises(BackupError, match="head of a chain is damaged"):
            verify_backup(second, level=level, actor=ACTOR)
    second.refresh_from_db()
    assert second.state == "verified"
    assert [each.state for each in second.copies.all()] == ["verified"]
    assert second.verifications.exclude(verdict="passed").count() == 0
    head_path(home, shop).unlink()  # as the hint says
    (verification,) = verify_backup(second, level="full", actor=ACTOR)
    assert verification.verdict == "passed"


def test_a_damaged_signing_key_fails_the_backup(shop: Database, make_backup: MakeBackup, home: Path):
    make_backup(shop)
    (home / "state" / "signing.key").write_text("damaged")
    failed = make_backup(shop)
    assert (failed.state, "signing key" in failed.reason) == ("failed", True)


def test_the_manifest_names_its_place_and_key(shop: Database, make_backup: MakeBackup, home: Path):
    backup = make_backup(shop)
    content = (home / "archives" / stored_names(backup.archive_name)[1]).read_bytes()
    document = json.loads(content)
    assert (document["sequence"], document["previous"], document["pruned"]) == (1, None, [])
    assert document["key_id"] == backup.signing_key_id == Manifest.from_bytes(content).key.key_id
