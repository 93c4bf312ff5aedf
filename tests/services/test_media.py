"""Folders beside a database: stored, proven, judged, repaired, rebuilt and removed with their backup."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.checks import check_media, check_settings
from backups_app.core.errors import BackupError, InputError, NotFoundError, RefusedError
from backups_app.core.manifest import Manifest
from backups_app.destinations import LocalDestination
from backups_app.documents import backup_document
from backups_app.encryption import Keyring
from backups_app.models import AuditEvent, Backup, Copy, Database, Verification
from backups_app.services import create as creating
from backups_app.services import publish
from backups_app.services.create import create_backup
from backups_app.services.databases import add_database
from backups_app.services.extract import extract_backup
from backups_app.services.heal import heal_interrupted
from backups_app.services.health import check_health
from backups_app.services.keys.rekey import rekey_backup
from backups_app.services.media import media_folders
from backups_app.services.names import media_name, stored_names
from backups_app.services.overview import stored as stored_in_all
from backups_app.services.prune import give_up
from backups_app.services.rescan import rescan
from backups_app.services.restores import approve_restore, request_restore, run_restore
from backups_app.services.restores import run as run_module
from backups_app.services.scrub import scrub_database
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.core.media.packed import tree_of
from tests.keys import Key
from tests.services.restores.conftest import ANNA, BEN
from tests.support import bytes_in, content_of, names_in, needs_tool

MakeBackup = Callable[..., Backup]
Encrypting = Callable[..., None]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder of a site: three files, one of them in a folder below."""
    folder = tmp_path / "site media"
    (folder / "2026").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(os.urandom(30_000))
    (folder / "empty").write_bytes(b"")
    (folder / "2026" / "b.txt").write_text("hello")
    return folder


@pytest.fixture
def with_media(shop: Database, media: Path, settings: Settings) -> Database:
    """The shop, with that folder by the setting."""
    settings.BACKUPS = {**settings.BACKUPS, "MEDIA": {"shop": [str(media)]}}
    return shop


@pytest.fixture
def backup(with_media: Database, make_backup: MakeBackup) -> Backup:
    made = make_backup(with_media)
    assert made.state == "verified", made.reason
    return made


def object_of(backup: Backup, home: Path) -> Path:
    """The stored archive of the folders."""
    return home / "archives" / media_name(backup.archive_name)


def rot(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # another destination on this disk may have the same file by a hard link
    path.write_bytes(content)


def verified(backup: Backup, level: str, keyring: Keyring | None = None) -> Verification:
    (found,) = verify_backup(backup, level=level, actor=ACTOR, keyring=keyring)
    return found


def failed_checks(found: Verification) -> list[str]:
    return [check["name"] for check in found.checks if not check["ok"]]


# Create


def test_a_backup_holds_the_folders_with_the_database(backup: Backup, media: Path, home: Path, tmp_path: Path):
    names = stored_names(backup.archive_name, has_media=True)
    assert set(bytes_in(home / "archives")) == set(names)
    assert len(names) == 4
    manifest = Manifest.from_bytes((home / "archives" / names[2]).read_bytes())
    assert manifest.media is not None
    assert manifest.taken_at <= manifest.media.read_from <= manifest.media.read_until
    assert backup.media == manifest.media.as_dict()
    assert backup.media_bytes == object_of(backup, home).stat().st_size
    checks = {check["name"]: check["ok"] for check in backup.verifications.get().checks}
    assert checks["media reading"]
    assert checks["media stored bytes"]
    assert checks["media content digest"]
    assert names_in(home / "scratch") == set()
    target = tmp_path / "stock"
    target.mkdir()
    pipe = f"{needs_tool('zstd')} -dc '{object_of(backup, home)}' | {needs_tool('tar')} -x -C '{target}'"
    subprocess.run(["bash", "-c", pipe], check=True)
    assert tree_of(target / media.name) == tree_of(media)


def test_its_json_says_what_there_is_and_that_of_others_says_nothing(
    backup: Backup, make_backup: MakeBackup, settings: Settings
):
    assert backup_document(backup)["media"] == {
        "files": 3,
        "folders": ["site media"],
        "bytes": 30_005,
        "archive_bytes": backup.media_bytes,
    }
    settings.BACKUPS = {**settings.BACKUPS, "MEDIA": {}}
    plain = make_backup(backup.database)
    assert backup_document(plain)["media"] is None
    assert (plain.media, plain.media_bytes) == (None, 0)


def test_a_backup_without_folders_is_stored_as_ever(shop: Database, make_backup: MakeBackup, home: Path):
    plain = make_backup(shop)
    assert set(bytes_in(home / "archives")) == set(stored_names(plain.archive_name))
    content = (home / "archives" / stored_names(plain.archive_name)[1]).read_bytes()
    assert b'"format":2,' in content
    assert b"media" not in content


def test_a_folder_that_is_gone_fails_the_backup_and_leaves_nothing(
    with_media: Database, media: Path, make_backup: MakeBackup, home: Path
):
    shutil.rmtree(media)
    failed = make_backup(with_media)
    assert (failed.state, failed.failure_code) == ("failed", "not_found")
    assert str(media) in failed.reason
    assert bytes_in(home / "archives") == {}
    assert names_in(home / "scratch") == set()


def test_a_file_that_is_not_read_whole_makes_the_backup_one_that_is_not_good(
    with_media: Database, media: Path, make_backup: MakeBackup, home: Path, tmp_path: Path
):
    (media / "0 large").write_bytes(os.urandom(12 << 20))
    cut: list[str] = []

    def cut_short(phase: str, *_: int) -> None:
        if phase == "media" and not cut:
            cut.append(phase)
            os.truncate(media / "0 large", 1 << 20)

    made = make_backup(with_media, on_progress=cut_short)
    assert cut
    assert (made.state, made.verdict, made.copies.get().state) == ("failed", "failed", "failed")
    assert "media reading" in made.reason
    assert "large" in made.reason
    assert object_of(made, home).exists()  # what could be read is kept as evidence, as of a damaged database
    assert not with_media.backups.filter(state="verified").exists()


def test_what_was_left_out_is_a_remark(with_media: Database, media: Path, make_backup: MakeBackup):
    os.mkfifo(media / "pipe")
    made = make_backup(with_media)
    assert made.state == "verified"
    assert any("pipes or devices were left out: site media/pipe" in each for each in made.remarks)


def test_a_folder_that_has_lost_its_files_is_remarked_on_and_needs_attention(
    with_media: Database, media: Path, make_backup: MakeBackup
):
    make_backup(with_media)
    assert not any("Unusual" in each for each in make_backup(with_media).remarks)
    for each in ("a.jpg", "empty"):
        (media / each).unlink()
    made = make_backup(with_media)
    assert made.state == "verified"
    assert "Unusual: 1 media files where 3 are usual (67 % fewer)." in made.remarks
    assert any(each.code == "anomaly" and "media files" in each.message for each in check_health().problems)


def test_the_live_database_in_the_folder_is_left_out(
    tmp_path: Path, shop: Database, settings: Settings, make_backup: MakeBackup
):
    folder = tmp_path / "all in one"
    folder.mkdir()
    (folder / "link to it").hardlink_to(shop.path)
    (folder / "file").write_text("1")
    settings.BACKUPS = {**settings.BACKUPS, "MEDIA": {"shop": [str(folder)]}}
    made = make_backup(shop)
    assert made.state == "verified"
    assert made.media["files"] == 1  # type: ignore[index]
    assert any("link to it" in each for each in made.remarks)


def test_a_cancel_while_the_folders_are_read_leaves_nothing(with_media: Database, home: Path):
    phases: list[str] = []
    made = create_backup(
        with_media,
        actor=ACTOR,
        trigger=Backup.Trigger.COMMAND,
        on_progress=lambda phase, *_: phases.append(phase),
        is_cancelled=lambda: "media" in phases,
    )
    assert (made.state, made.failure_code) == ("cancelled", "cancelled")
    assert bytes_in(home / "archives") == {}
    assert names_in(home / "scratch") == set()


def test_an_archive_of_folders_that_does_not_come_back_leaves_nothing(
    with_media: Database, make_backup: MakeBackup, home: Path, monkeypatch: pytest.MonkeyPatch
):
    really_store = LocalDestination.store

    def store(self: LocalDestination, source: Path, name: str, **options: object) -> None:
        really_store(self, source, name, **options)  # type: ignore[arg-type]
        if ".media." in name:
            rot(home / "archives" / name)

    monkeypatch.setattr(LocalDestination, "store", store)
    made = make_backup(with_media)
    assert (made.state, made.verdict) == ("failed", "failed")
    assert "media stored bytes" in made.reason
    assert bytes_in(home / "archives") == {}
    assert backup_document(made)["media"] is None


def test_what_a_killed_process_stored_is_removed(
    with_media: Database, make_backup: MakeBackup, home: Path, monkeypatch: pytest.MonkeyPatch
):
    class Killed(BaseException):
        """The process ends here."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(publish, "record_outcome", die)
        patch.setattr(publish, "discard", lambda _: None)
        patch.setattr(creating, "record_failure", lambda *_, **__: None)
        with pytest.raises(Killed):
            make_backup(with_media)
    left = Backup.objects.get()
    assert left.state == "running"
    assert object_of(left, home).exists()
    heal_interrupted()
    left.refresh_from_db()
    assert left.state == "failed"
    assert bytes_in(home / "archives") == {}


# Policy


def test_folders_given_with_a_database_are_stored_with_it(
    home: Path, shop_file: Path, media: Path, db_catalog: None, make_backup: MakeBackup
):
    database = add_database("shop", shop_file, actor=ACTOR, media=[media])
    assert database.media == [str(media)]
    assert media_folders(database) == [media]
    assert make_backup(database).media["files"] == 3  # type: ignore[index]
    assert str(media) in AuditEvent.objects.get(action="add-database").detail


def test_the_setting_counts_more_than_what_a_database_was_added_with(
    home: Path, shop_file: Path, media: Path, db_catalog: None, settings: Settings
):
    database = add_database("shop", shop_file, actor=ACTOR, media=[media])
    settings.BACKUPS = {**settings.BACKUPS, "MEDIA": {"shop": []}}
    assert media_folders(database) == []


def test_folders_outside_the_roots_are_refused_when_added_and_when_used(
    home: Path, shop_file: Path, media: Path, db_catalog: None, settings: Settings, tmp_path: Path
):
    roots = tmp_path / "only here"
    roots.mkdir()
    moved = shop_file.rename(roots / "shop.db")
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": [roots]}
    with pytest.raises(RefusedError, match="outside"):
        add_database("shop", moved, actor=ACTOR, media=[media])
    assert not Database.objects.filter(name="shop").exists()
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": [tmp_path]}
    database = add_database("shop", moved, actor=ACTOR, media=[media])
    settings.BACKUPS = {**settings.BACKUPS, "ROOTS": [roots]}
    with pytest.raises(RefusedError, match="outside"):
        media_folders(database)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("relative", InputError, "not an absolute path"),
        ("missing", NotFoundError, "is not there"),
        ("file", InputError, "is no folder"),
        ("link", InputError, "is a link"),
        ("home", RefusedError, "lie in each other"),
        ("above home", RefusedError, "lie in each other"),
        ("in home", RefusedError, "lie in each other"),
        ("twice", InputError, "comes twice"),
        ("nested", InputError, "comes twice"),
    ],
)
def test_folders_that_cannot_be_stored_are_refused(
    given: str,
    error: type[BackupError],
    message: str,
    shop: Database,
    media: Path,
    home: Path,
    tmp_path: Path,
    settings: Settings,
):
    (home / "inside").mkdir(parents=True, exist_ok=True)
    (tmp_path / "link").symlink_to(media)
    (tmp_path / "a file").write_text("1")
    folders = {
        "relative": ["media"],
        "missing": [str(tmp_path / "missing")],
        "file": [str(tmp_path / "a file")],
        "link": [str(tmp_path / "link")],
        "home": [str(home)],
        "above home": [str(tmp_path)],
        "in home": [str(home / "inside")],
        "twice": [str(media), f"{media}/"],
        "nested": [str(media), str(media / "2026")],
    }[given]
    settings.BACKUPS = {**settings.BACKUPS, "MEDIA": {"shop": folders}}
    with pytest.raises(error, match=message):
        media_folders(shop)
    (warning,) = check_media(None)
    assert warning.id == "backups.W070"
    assert message in warning.msg


def test_a_usable_setting_gives_no_warning_and_an_unusable_one_an_error(settings: Settings, home: Path, media: Path):
    settings.BACKUPS = {**settings.BACKUPS, "MEDIA": {"default": [media]}}
    assert check_media(None) == check_settings(None) == []
    for wrong in ("media", {"default": "media"}, {"default": [5]}, {5: []}):
        settings.BACKUPS = {**settings.BACKUPS, "MEDIA": wrong}
        assert [each.id for each in check_settings(None)] == ["backups.E005"]
        assert check_media(None) == []


# Verify


@pytest.mark.parametrize("level", ["quick", "full", "drill"])
def test_each_level_looks_at_the_folders_too(backup: Backup, level: str, home: Path):
    found = verified(backup, level)
    assert found.verdict == "passed"
    names = [check["name"] for check in found.checks]
    assert "media stored bytes" in names
    assert ("media files" in names) == (level != "quick")
    assert names_in(home / "scratch") == set()


@pytest.mark.parametrize("level", ["quick", "full", "drill"])
def test_a_damaged_archive_of_folders_fails_the_copy_and_is_named(backup: Backup, level: str, home: Path):
    rot(object_of(backup, home))
    found = verified(backup, level)
    assert found.verdict == "failed"
    assert "media stored bytes" in failed_checks(found)
    assert "stored bytes" not in failed_checks(found)
    assert "media stored bytes" in found.reason
    backup.refresh_from_db()
    assert (backup.state, backup.copies.get().state) == ("failed", "failed")


def test_a_good_copy_is_good_again_only_when_its_folders_are(backup: Backup, home: Path):
    good = object_of(backup, home).read_bytes()
    rot(object_of(backup, home))
    verified(backup, "full")
    object_of(backup, home).write_bytes(good)
    verified(backup, "quick")
    backup.refresh_from_db()
    assert backup.state == "verified"


def test_a_missing_archive_of_folders_is_not_called_corrupt(backup: Backup, home: Path):
    object_of(backup, home).unlink()
    found = verified(backup, "full")
    assert found.verdict == "unreachable"
    assert media_name(backup.archive_name).rsplit("/", 1)[-1] in found.reason


def test_a_host_with_recipients_only_proves_and_one_with_the_identity_reads(
    with_media: Database,
    make_backup: MakeBackup,
    encrypting: Encrypting,
    key: Key,
    home: Path,
    media: Path,
    tmp_path: Path,
):
    encrypting(key)
    made = make_backup(with_media)
    assert made.state == "verified"
    assert object_of(made, home).name.endswith(".media.tar.zst.age")
    assert b"a.jpg" not in object_of(made, home).read_bytes()
    assert verified(made, "full").verdict == "key_missing"
    ring = Keyring([key.path])
    assert verified(made, "full", ring).verdict == "passed"
    extract_backup(made, tmp_path / "new.db", media_target=tmp_path / "new", actor=ACTOR, keyring=ring)
    assert tree_of(tmp_path / "new" / media.name) == tree_of(media)
    rot(object_of(made, home))
    assert verified(made, "full").verdict == "failed"


def test_folders_are_encrypted_anew_with_their_database(
    with_media: Database,
    make_backup: MakeBackup,
    encrypting: Encrypting,
    key: Key,
    other: Key,
    home: Path,
    media: Path,
    tmp_path: Path,
):
    encrypting(key)
    old = make_backup(with_media)
    encrypting(other)
    (media / "later").write_text("not in the old backup")
    new = rekey_backup(old, actor=ACTOR, keyring=Keyring([key.path]))
    assert (new.state, new.key_ids) == ("verified", [other.recipient])
    same = ("tar_sha256", "index_sha256", "files", "content_bytes", "read_from", "labels")
    assert [new.media[each] for each in same] == [old.media[each] for each in same]  # type: ignore[index]
    assert set(bytes_in(home / "archives")) == set(stored_names(new.archive_name, has_media=True))
    ring = Keyring([other.path])
    assert verified(new, "full", ring).verdict == "passed"
    extract_backup(new, tmp_path / "new.db", media_target=tmp_path / "new", actor=ACTOR, keyring=ring)
    assert names_in(tmp_path / "new" / media.name) == {"a.jpg", "empty", "2026"}


def test_folders_whose_first_copy_no_key_opens_for_damage_are_encrypted_anew_from_the_second(
    far: Path,
    with_media: Database,
    make_backup: MakeBackup,
    encrypting: Encrypting,
    key: Key,
    other: Key,
    home: Path,
):
    encrypting(key)
    old = make_backup(with_media)
    (stored,) = (home / "archives").rglob("*.media.tar.zst.age")
    content = stored.read_bytes()
    at = content.index(b"\n", content.index(b"-> X25519 ")) + 1
    end = content.index(b"\n", at)
    wrapped = base64.b64encode(bytes(32)).rstrip(b"=")  # as good a text as before, for nobody's key
    assert len(wrapped) == end - at
    stored.write_bytes(content[:at] + wrapped + content[end:])
    encrypting(other)
    new = rekey_backup(old, actor=ACTOR, keyring=Keyring([key.path]))
    assert (new.state, new.reason, new.key_ids) == ("verified", "", [other.recipient])
    assert new.media["tar_sha256"] == old.media["tar_sha256"]  # type: ignore[index]


# Restore


def test_both_are_restored_to_new_places_and_recorded(backup: Backup, media: Path, shop_file: Path, tmp_path: Path):
    done = extract_backup(backup, tmp_path / "new.db", media_target=tmp_path / "new", actor=ACTOR)
    assert content_of(tmp_path / "new.db") == content_of(shop_file)
    assert tree_of(tmp_path / "new" / media.name) == tree_of(media)
    assert "media files" in [check.name for check in done.checks]
    assert str(tmp_path / "new") in AuditEvent.objects.get(action="extract").detail


@pytest.mark.parametrize("which", ["archive", "media"])
def test_damage_to_either_leaves_neither(backup: Backup, home: Path, tmp_path: Path, which: str):
    rot(object_of(backup, home) if which == "media" else home / "archives" / backup.archive_name)
    before = names_in(tmp_path)
    with pytest.raises(BackupError):
        extract_backup(backup, tmp_path / "new.db", media_target=tmp_path / "new", actor=ACTOR)
    assert names_in(tmp_path) == before


def test_a_folder_that_appears_meanwhile_is_not_touched_and_the_database_goes_too(backup: Backup, tmp_path: Path):
    target = tmp_path / "new"

    def appear(phase: str, *_: int) -> None:
        if phase == "unpack" and not target.exists():
            target.mkdir()

    with pytest.raises(RefusedError, match="exists already"):
        extract_backup(backup, tmp_path / "new.db", media_target=target, actor=ACTOR, on_progress=appear)
    assert names_in(target) == set()
    assert not (tmp_path / "new.db").exists()


def test_a_backup_without_folders_says_so(shop: Database, make_backup: MakeBackup, tmp_path: Path):
    with pytest.raises(InputError, match="holds no folders"):
        extract_backup(make_backup(shop), tmp_path / "new.db", media_target=tmp_path / "new", actor=ACTOR)
    assert not (tmp_path / "new.db").exists()
    assert not (tmp_path / "new").exists()


def test_a_restore_in_place_does_not_touch_the_folders_and_says_how_they_come_back(
    backup: Backup, media: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(run_module, "connections", {"default": SimpleNamespace(in_atomic_block=False)})
    (media / "a.jpg").unlink()
    before = tree_of(media)
    restore = request_restore(backup, backup.database, reason="try", actor=ANNA)
    command = f"manage.py backup restore {backup.pk} --to FILE --media-to FOLDER"
    assert restore.preview is not None
    assert any(command in each for each in restore.preview["warnings"])
    approve_restore(restore, actor=BEN)
    run_restore(restore, actor=BEN)
    restore.refresh_from_db()
    assert restore.state == "succeeded"
    assert restore.report is not None
    assert any(command in each for each in restore.report["notes"])
    assert tree_of(media) == before
    safety = restore.safety_backup
    assert safety is not None
    assert safety.media is None  # what is not touched need not be saved


# Keeping


def test_every_destination_gets_the_folders(far: Path, with_media: Database, make_backup: MakeBackup, home: Path):
    made = make_backup(with_media)
    assert made.state == "verified"
    assert bytes_in(far) == bytes_in(home / "archives")
    assert len(bytes_in(far)) == 4


def test_a_rotten_archive_of_folders_is_repaired_from_the_other_destination(
    far: Path, with_media: Database, make_backup: MakeBackup, home: Path
):
    made = make_backup(with_media)
    good = bytes_in(home / "archives")
    rot(object_of(made, home))
    long_ago = timezone.now().replace(year=2020)
    made.verifications.update(started_at=long_ago, finished_at=long_ago)
    found = scrub_database(with_media, actor=ACTOR)
    verdicts = [(each.destination, each.verdict) for each in found]
    assert ("local", "failed") in verdicts
    assert ("local", "passed") in verdicts, [each.reason for each in found]
    assert bytes_in(home / "archives") == good
    made.refresh_from_db()
    assert {copy.state for copy in made.copies.all()} == {"verified"}


def test_pruning_removes_the_folders_too(backup: Backup, make_backup: MakeBackup, home: Path):
    other = make_backup(backup.database)
    give_up(backup, reason="test", actor=ACTOR, now=timezone.now())
    assert set(bytes_in(home / "archives")) == set(stored_names(other.archive_name, has_media=True))


def test_sums_of_stored_bytes_hold_the_folders(backup: Backup, home: Path):
    sizes = [(home / "archives" / name).stat().st_size for name in stored_names(backup.archive_name, has_media=True)]
    assert backup.stored_bytes == sizes[0] + sizes[1]
    assert stored_in_all(now=timezone.now()).total_bytes == backup.stored_bytes


# Rescan


def test_a_rescan_rebuilds_a_backup_with_its_folders(backup: Backup, home: Path, media: Path, tmp_path: Path):
    facts = backup.media
    Verification.objects.all().delete()
    Copy.objects.all().delete()
    Backup.objects.update(job=None)
    backup.database.jobs.all().delete()
    Backup.objects.all().delete()
    done = rescan(actor=ACTOR)
    assert (done.registered, [each.code for each in done.damage]) == (1, [])
    found = Backup.objects.get()
    assert (found.state, found.media, found.media_bytes) == ("verified", facts, facts["bytes"])  # type: ignore[index]
    extract_backup(found, tmp_path / "new.db", media_target=tmp_path / "new", actor=ACTOR)
    assert tree_of(tmp_path / "new" / media.name) == tree_of(media)


def test_a_rescan_of_what_is_right_finds_nothing(backup: Backup):
    done = rescan(actor=ACTOR)
    assert (done.known, done.findings) == (1, [])


@pytest.mark.parametrize(("harm", "code"), [("rot", "archive_replaced"), ("delete", "archive_deleted")])
def test_a_rescan_finds_harm_to_the_folders(backup: Backup, home: Path, harm: str, code: str):
    rot(object_of(backup, home)) if harm == "rot" else object_of(backup, home).unlink()
    done = rescan(actor=ACTOR)
    assert [each.code for each in done.damage] == [code]
    assert "media" in done.damage[0].message
    backup.refresh_from_db()
    assert backup.copies.get().state == ("failed" if harm == "rot" else "unreachable")


def test_a_rescan_finds_an_archive_of_folders_that_belongs_to_nothing(
    shop: Database, make_backup: MakeBackup, home: Path
):
    plain = make_backup(shop)
    object_of(plain, home).write_bytes(b"what is this")
    stray = home / "archives" / "shop" / "2026" / "shop-20260101T000000Z-ffffffffffff.media.tar.zst"
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"and this")
    found = {each.path: each.code for each in rescan(actor=ACTOR).findings}
    assert found == {
        media_name(plain.archive_name): "stray_archive",
        str(stray.relative_to(home / "archives")): "stray_archive",
    }
    plain.refresh_from_db()
    assert plain.state == "verified"
