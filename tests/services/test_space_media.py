"""Folders of media beside databases whose archives are shared, or hold changed pages only."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.core.extract import extract_file, inspect_file
from backups_app.core.manifest import Manifest
from backups_app.core.progress import Watch
from backups_app.core.verify import failures
from backups_app.models import Backup, Database
from backups_app.services.databases import add_database
from backups_app.services.extract import extract_backup
from backups_app.services.links import object_names
from backups_app.services.names import stored_names
from backups_app.services.overview import stored as stored_in_all
from backups_app.services.prune import give_up, prune_database
from backups_app.services.rescan import rescan
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.core.media.packed import tree_of
from tests.deltas import build_pages
from tests.keys import Key
from tests.services.test_space import aged, back_up, flip, forget, grow, path_of, rows_in
from tests.support import bytes_in

pytestmark = pytest.mark.usefixtures("db_catalog")


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return build_pages(tmp_path / "pages.sqlite3", rows=200)


@pytest.fixture
def media(tmp_path: Path) -> Path:
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(os.urandom(30_000))
    return folder


@pytest.fixture
def pages(home: Path, live: Path, media: Path, settings: Settings) -> Database:
    """A database with folders, under care, with both ways of saving space."""
    settings.BACKUPS = {
        **settings.BACKUPS,
        "REUSE_UNCHANGED": True,
        "DELTA_CHAIN": 10,
        "MEDIA": {"pages": [str(media)]},
    }
    return add_database("pages", live, actor=ACTOR)


@pytest.fixture
def pair(pages: Database, media: Path) -> tuple[Backup, Backup]:
    """Two backups of one content of the database; the folder has a new file in the second."""
    first = back_up(pages)
    (media / "b.txt").write_text("new")
    second = back_up(pages)
    assert second.shares_with == first.pk
    return first, second


def media_of(backup: Backup, home: Path) -> Path:
    assert backup.media is not None
    return home / "archives" / str(backup.media["name"])


def test_an_unchanged_database_is_shared_and_its_folders_are_stored_anew(
    pair: tuple[Backup, Backup], home: Path, media: Path, tmp_path: Path
):
    first, second = pair
    own = second.copies.get().name
    assert set(bytes_in(home / "archives")) == {
        *stored_names(first.archive_name, has_media=True),
        *stored_names(own, has_media=True)[1:],
    }
    assert second.pk in media_of(second, home).name
    assert Manifest.from_bytes((home / "archives" / object_names(second, second.copies.get())[2]).read_bytes()).media
    assert second.stored_bytes == second.media_bytes == media_of(second, home).stat().st_size
    assert stored_in_all(now=timezone.now()).total_bytes == first.stored_bytes + second.media_bytes
    proof = {each["name"] for each in second.verifications.get(level="creation").checks}
    assert {"stored bytes", "media stored bytes", "media content digest"} <= proof
    for backup in pair:
        assert [each.verdict for each in verify_backup(backup, level="full", actor=ACTOR)] == ["passed"]
    target, folder = tmp_path / "out.db", tmp_path / "out"
    extract_backup(second, target, media_target=folder, actor=ACTOR)
    assert rows_in(target) == 200
    assert tree_of(folder / media.name) == tree_of(media)


def test_without_a_catalogue_both_come_back_by_the_path_of_the_manifest(
    pair: tuple[Backup, Backup], home: Path, media: Path, tmp_path: Path
):
    manifest = home / "archives" / object_names(pair[1], pair[1].copies.get())[2]
    extract_file(manifest, tmp_path / "out.db", media_target=tmp_path / "out", watch=Watch())
    assert rows_in(tmp_path / "out.db") == 200
    assert tree_of(tmp_path / "out" / media.name) == tree_of(media)
    (tmp_path / "scratch").mkdir()
    found = inspect_file(manifest, scratch=tmp_path / "scratch", watch=Watch())
    assert failures(found.checks) == []
    assert found.media is not None
    assert found.media.counts.files == 2


def test_a_changed_database_is_a_delta_beside_its_folders(
    pages: Database, live: Path, home: Path, media: Path, tmp_path: Path
):
    first = back_up(pages)
    grow(live)
    second = back_up(pages)
    assert second.builds_on == first.pk
    assert media_of(second, home).exists()
    assert [each.verdict for each in verify_backup(second, level="full", actor=ACTOR)] == ["passed"]
    extract_file(path_of(home, second), tmp_path / "out.db", media_target=tmp_path / "out", watch=Watch())
    assert rows_in(tmp_path / "out.db") == 204
    assert tree_of(tmp_path / "out" / media.name) == tree_of(media)


def test_folders_that_cannot_be_read_whole_leave_a_full_archive(
    pages: Database, live: Path, monkeypatch: pytest.MonkeyPatch
):
    from backups_app.core.media.pack import _Packer

    back_up(pages)
    monkeypatch.setattr(
        _Packer, "_small", lambda self, _file, found: iter(self._note_failure(found, PermissionError(13, "no")) or ())
    )
    from backups_app.services.create import create_backup

    made = create_backup(pages, actor=ACTOR, trigger=Backup.Trigger.COMMAND)
    assert (made.state, made.shares_with, made.builds_on) == ("failed", "", "")
    assert "media reading" in made.reason


def test_the_folders_go_with_their_own_backup_only(pair: tuple[Backup, Backup], home: Path):
    first, second = pair
    assert give_up(second, reason="test", actor=ACTOR, now=timezone.now(), is_last_allowed=True)
    assert set(bytes_in(home / "archives")) == set(stored_names(first.archive_name, has_media=True))
    assert [each.verdict for each in verify_backup(first, level="full", actor=ACTOR)] == ["passed"]


def test_a_prune_keeps_what_a_kept_one_shares(pair: tuple[Backup, Backup], pages: Database, home: Path):
    first = aged(pair[0], days=900)
    before = bytes_in(home / "archives")
    pruned = prune_database(pages, actor=ACTOR)
    assert not pruned.deleted
    assert not pruned.failures
    assert bytes_in(home / "archives") == before
    assert Backup.objects.get(pk=first.pk).state == "verified"


def test_damage_to_folders_is_that_of_their_own_backup_only(pair: tuple[Backup, Backup], home: Path):
    first, second = pair
    flip(media_of(second, home))
    found = rescan(actor=ACTOR)
    assert [(each.code, each.backup) for each in found.findings] == [("archive_replaced", second.pk)]
    assert [Backup.objects.get(pk=each.pk).state for each in pair] == ["verified", "failed"]
    assert [each.verdict for each in verify_backup(first, level="full", actor=ACTOR)] == ["passed"]


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_rescan_rebuilds_shared_archives_with_their_folders(
    is_encrypted: bool,
    pages: Database,
    home: Path,
    media: Path,
    tmp_path: Path,
    encrypting: Callable[..., None],
    key: Key,
):
    if is_encrypted:
        encrypting(key, identity=key.path)
    back_up(pages)
    (media / "b.txt").write_text("new")
    second = back_up(pages)
    assert second.shares_with
    name = second.copies.get().name
    forget(home)
    assert rescan(actor=ACTOR).findings == []
    row = Backup.objects.get(pk=second.pk)
    assert (row.state, row.media, row.media_bytes) == ("verified", second.media, second.media_bytes)
    assert row.copies.get().name == name
    extract_backup(row, tmp_path / "out.db", media_target=tmp_path / "out", actor=ACTOR)
    assert tree_of(tmp_path / "out" / media.name) == tree_of(media)
    assert rescan(actor=ACTOR).findings == []
