"""Folders of media on the page of a backup: facts, and the way back without this app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Database
from tests.admin.conftest import Person
from tests.admin.markup import page_of

MakePerson = Callable[..., Person]


@pytest.fixture
def with_media(shop: Database, tmp_path: Path, settings: Settings, make_backup: Callable[..., Backup]) -> Backup:
    folder = tmp_path / "<b>media"
    folder.mkdir()
    (folder / "a.txt").write_text("hello")
    settings.BACKUPS = {**settings.BACKUPS, "MEDIA": {"shop": [str(folder)]}}
    made = make_backup(shop)
    assert made.state == "verified"
    return made


def html(person: MakePerson, backup: Backup) -> str:
    response = person("viewer").get(f"/admin/backups_app/backup/{backup.pk}/change/")
    assert response.status_code == 200
    assert page_of(response)
    return str(response.content.decode())


def test_the_page_shows_files_bytes_and_folders(person: MakePerson, with_media: Backup):
    page = html(person, with_media)
    assert "files with" in page
    assert "&lt;b&gt;media" in page
    assert "<b>media" not in page


def test_the_page_has_the_command_of_the_stock_tools(person: MakePerson, with_media: Backup):
    page = html(person, with_media)
    stem = with_media.archive_name.rsplit("/", 1)[-1].removesuffix(".sqlite3.zst")
    assert f"zstd -dc {stem}.media.tar.zst | tar -x -C NEW_FOLDER" in page


def test_a_backup_without_folders_says_nothing_of_them(
    person: MakePerson, shop: Database, make_backup: Callable[..., Backup]
):
    page = html(person, make_backup(shop))
    assert "files with" not in page
    assert "tar -x" not in page
