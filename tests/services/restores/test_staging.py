"""Only a proven copy is ever staged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.core.errors import CancelledError, NotFoundError, VerificationError
from backups_app.core.progress import Watch
from backups_app.models import Backup, Copy
from backups_app.services.restores.staging import stage_backup
from tests.services.restores.test_request import SPOILED
from tests.support import names_in, rows_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir(mode=0o700)
    return tmp_path / "folder"


def test_the_file_is_private_and_its_census_is_that_of_the_backup(backup: Backup, folder: Path):
    staged, census = stage_backup(backup, folder, watch=Watch())
    assert staged.stat().st_mode & 0o777 == 0o600
    assert rows_of(staged) == census.tables == backup.tables
    assert names_in(folder) == {staged.name}


@pytest.mark.parametrize("spoil", SPOILED)
def test_nothing_is_left_of_a_copy_that_cannot_be_trusted(
    backup: Backup, folder: Path, archive_of: Callable[[Backup], Path], spoil: Callable[[Path], None]
):
    spoil(archive_of(backup))
    with pytest.raises(VerificationError):
        stage_backup(backup, folder, watch=Watch())
    assert names_in(folder) == set()


def test_an_altered_manifest_is_not_trusted(backup: Backup, folder: Path, archive_of: Callable[[Backup], Path]):
    manifest = Path(str(archive_of(backup)).replace(".sqlite3.zst", ".manifest.json"))
    manifest.write_bytes(manifest.read_bytes().replace(b'"product":3', b'"product":4'))
    with pytest.raises(VerificationError, match="manifest"):
        stage_backup(backup, folder, watch=Watch())
    assert names_in(folder) == set()


def test_a_copy_that_was_never_stored_is_none(backup: Backup, folder: Path):
    Copy.objects.update(state="pending", stored_at=None, checked_at=None)
    with pytest.raises(NotFoundError):
        stage_backup(backup, folder, watch=Watch())


def test_a_cancel_ends_it(backup: Backup, folder: Path):
    with pytest.raises(CancelledError):
        stage_backup(backup, folder, watch=Watch(is_cancelled=lambda: True))
