"""Room for the next backup and the next restore, on real disks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Database
from backups_app.services.health import check_health
from tests.services.health.rows import verified
from tests.support import mounted_tmpfs

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def test_needs_follow_from_the_last_sizes_and_are_added_up_on_one_disk(shop: Database):
    verified(shop, size_bytes=10_000_000, archive_bytes=4_000_000).save()
    (disk,) = check_health().disks
    assert disk.backup_bytes == int(1.1 * (4_000_000 + 1.05 * 10_000_000 + 4_000_000))
    assert disk.restore_bytes == int(1.1 * (4_000_000 + 2.05 * 10_000_000 + 4_000_000 + 2.1 * 10_000_000))
    assert (disk.hungriest, disk.is_nearly_full) == ("shop", False)
    assert disk.places == ("archives", "scratch folder", "database shop")


def test_of_several_databases_the_hungriest_counts(shop: Database):
    other = Database.objects.create(name="other", path=shop.path)
    verified(shop, size_bytes=10, archive_bytes=10).save()
    verified(other, size_bytes=10_000_000, archive_bytes=4_000_000).save()
    (disk,) = check_health().disks
    assert disk.hungriest == "other"
    assert disk.backup_bytes == int(1.1 * (4_000_000 + 1.05 * 10_000_000 + 4_000_000))


def test_a_need_larger_than_the_disk_is_a_problem_with_both_figures(shop: Database):
    verified(shop, size_bytes=10**16, archive_bytes=10**15, row_count=7).save()
    (problem,) = check_health().problems
    assert (problem.code, problem.database) == ("disk_nearly_full", "")
    assert "next backup may need" in problem.message
    assert "shop" in problem.message
    assert problem.subject.endswith("archives")


def test_a_disk_of_its_own_for_the_archives_fills_up_and_gets_room_again(
    tmp_path: Path, home: Path, shop: Database, make_backup: Callable[..., Backup], settings: Settings
):
    home.mkdir(exist_ok=True)
    with mounted_tmpfs(home / "archives", size_bytes=1 << 20):
        make_backup(shop)
        health = check_health()
        assert health.is_ok
        (archives,) = [each for each in health.disks if each.places == ("archives",)]
        assert archives.total_bytes == 1 << 20
        filler = home / "archives" / "filler"
        filler.write_bytes(b"x" * (archives.free_bytes - 100))
        (problem,) = check_health().problems
        assert (problem.code, problem.subject) == ("disk_nearly_full", str(home / "archives"))
        filler.unlink()
        assert check_health().is_ok


def test_folders_that_are_not_made_yet_are_asked_where_they_will_be(shop: Database, home: Path):
    assert not (home / "archives").exists()
    (disk,) = check_health().disks
    assert disk.folder == home / "archives"
    assert disk.free_bytes > 0


def test_the_disk_of_a_database_that_is_gone_hides_nothing(shop: Database, shop_file: Path):
    Database.objects.update(path="/proc/none/shop.sqlite3")
    assert "database_missing" in [each.code for each in check_health().problems]
