"""A new key appears only where it was asked for, private, and never over anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.core.age import read_identities
from backups_app.core.errors import BackupError, NotFoundError, RefusedError
from backups_app.models import AuditEvent, Recipient
from backups_app.services.keys.keygen import generate_key
from tests.conftest import ACTOR
from tests.support import NOW, names_in, needs_tool

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def test_a_key_is_written_privately_as_age_keygen_does(tmp_path: Path):
    made = generate_key(tmp_path / "key.txt", actor=ACTOR, now=NOW)
    assert made.path.stat().st_mode & 0o777 == 0o600
    (identity,) = read_identities(made.path)
    assert str(identity.recipient) == made.recipient
    assert made.recipient.startswith(made.key_id)
    printed = subprocess.run([needs_tool("age-keygen"), "-y", made.path], capture_output=True, check=True, text=True)
    assert printed.stdout.strip() == made.recipient


def test_it_is_recorded_without_its_secret_and_not_put_to_use(tmp_path: Path):
    made = generate_key(tmp_path / "key.txt", actor=ACTOR, now=NOW)
    (identity,) = read_identities(made.path)
    event = AuditEvent.objects.get(action="keygen")
    assert made.recipient in event.detail
    assert identity.secret_text() not in event.detail
    assert not Recipient.objects.exists()


def test_an_existing_file_is_never_overwritten(tmp_path: Path):
    (tmp_path / "key.txt").write_text("precious")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("key.txt", "dangling"):
        with pytest.raises(RefusedError):
            generate_key(tmp_path / name, actor=ACTOR, now=NOW)
    assert (tmp_path / "key.txt").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


def test_a_key_is_not_made_where_it_would_be_handed_out_or_lost(tmp_path: Path, home: Path, settings: Settings):
    settings.MEDIA_ROOT, settings.STATIC_ROOT = str(tmp_path / "media"), str(tmp_path / "static")
    settings.STATICFILES_DIRS = [("x", str(tmp_path / "assets"))]
    places = [tmp_path / "media", tmp_path / "static", tmp_path / "assets"]
    places += [home / "archives", home / "archives" / "shop" / "2026", home / "scratch", home / "state"]
    (tmp_path / "media").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "media")
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    before = {place: names_in(place) for place in places}
    for place in [*places, tmp_path / "link", tmp_path / "static" / ".." / "media"]:
        with pytest.raises(RefusedError, match="must not be"):
            generate_key(place / "key.txt", actor=ACTOR, now=NOW)
    assert {place: names_in(place) for place in places} == before


def test_a_key_is_not_made_beside_the_archives_at_another_destination(tmp_path: Path, settings: Settings):
    folder = tmp_path / "far" / "shop"
    folder.mkdir(parents=True)
    settings.STORAGES = {
        **settings.STORAGES,
        "far": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(folder.parent)}},
    }
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["local", "far"]}
    for place in (folder.parent, folder):
        with pytest.raises(RefusedError, match="destination far"):
            generate_key(place / "key.txt", actor=ACTOR, now=NOW)
    assert names_in(folder.parent) == {"shop"}
    assert names_in(folder) == set()


def test_what_cannot_be_a_new_file_is_refused(tmp_path: Path):
    with pytest.raises(NotFoundError):
        generate_key(tmp_path / "missing" / "key.txt", actor=ACTOR, now=NOW)
    with pytest.raises(BackupError):
        generate_key(tmp_path, actor=ACTOR, now=NOW)
