"""A write-ahead log that grows, seen by ``stat`` alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Database
from backups_app.services.health import check_health
from tests.support import connected, run_python

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def sparse_wal(path: Path, size_bytes: int) -> Path:
    """A file in place of the log that takes no room on the disk."""
    wal = path.with_name(path.name + "-wal")
    with open(wal, "wb") as file:
        os.truncate(file.fileno(), size_bytes)
    return wal


def test_two_gigabytes_are_a_problem_and_an_emptied_log_is_none(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup]
):
    make_backup(shop)
    wal = sparse_wal(shop_file, 2 << 30)
    (problem,) = check_health().problems
    assert (problem.code, problem.database) == ("wal_large", "shop")
    assert "2,147,483,648" in problem.message
    wal.unlink()
    assert check_health().is_ok


def test_the_limit_is_a_setting_and_counts_when_it_is_passed(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup], settings: Settings
):
    make_backup(shop)
    settings.BACKUPS = {**settings.BACKUPS, "WAL_LIMIT_BYTES": 5000}
    wal = sparse_wal(shop_file, 5000)
    assert check_health().is_ok
    os.truncate(wal, 5001)
    assert [each.code for each in check_health().problems] == ["wal_large"]


_WRITE = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0.1, isolation_level=None).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as exc:
    print(exc)
"""


def test_a_look_drops_no_lock_of_this_process(shop: Database, shop_file: Path, make_backup: Callable[..., Backup]):
    make_backup(shop)
    with connected(shop_file) as connection:
        connection.execute("INSERT INTO product (name) VALUES ('fig')")
        connection.execute("BEGIN IMMEDIATE")
        assert check_health().databases[0].wal_bytes > 0
        assert run_python(_WRITE, shop_file).stdout == "database is locked\n"
        connection.execute("ROLLBACK")
    assert run_python(_WRITE, shop_file).stdout == "", "the other process can, when it may"
