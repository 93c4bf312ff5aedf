"""``status`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from backups_app.models import Backup, Database
from tests.console import Finished

Run = Callable[..., Finished]


def test_all_is_well(run: Run, shop: Database, make_backup: Callable[..., Backup]):
    make_backup(shop)
    finished = run("status", "--json")
    assert finished.code == 0
    health = finished.document["health"]
    assert (health["ok"], health["problems"]) == (True, [])
    assert "safe" in run("status").stdout


def test_nothing_under_care_is_exit_code_8(run: Run):
    finished = run("status", "--json")
    assert finished.code == 8
    assert [each["code"] for each in finished.document["health"]["problems"]] == ["nothing_under_care"]


def test_never_verified_is_exit_code_8_with_a_hint(run: Run, shop: Database):
    assert run("status", "--json").code == 8
    printed = run("status").stdout
    assert "There is no verified backup" in printed
    assert "backup create" in printed


def test_too_old_is_exit_code_8(run: Run, shop: Database, make_backup: Callable[..., Backup]):
    backup = make_backup(shop)
    assert backup.taken_at is not None
    Backup.objects.update(taken_at=backup.taken_at - timedelta(hours=27))
    finished = run("status", "--json")
    assert finished.code == 8
    assert [each["code"] for each in finished.document["health"]["problems"]] == ["too_old"]


def test_a_failed_last_run_is_exit_code_8(
    run: Run, shop: Database, shop_file: Path, make_backup: Callable[..., Backup]
):
    make_backup(shop)
    shop_file.rename(shop_file.with_name("aside"))
    make_backup(shop)
    codes = [each["code"] for each in run("status", "--json").document["health"]["problems"]]
    assert codes == ["database_missing", "last_run_failed"]
    shop_file.with_name("aside").rename(shop_file)
    assert run("status").code == 8
    make_backup(shop)
    assert run("status").code == 0


def test_a_run_whose_process_died_is_found(run: Run, shop: Database, make_backup: Callable[..., Backup]):
    make_backup(shop)
    Backup.objects.create(database=shop, trigger="command", archive_name="shop/2026/x.sqlite3.zst")
    finished = run("status", "--json")
    assert finished.code == 8
    (problem,) = finished.document["health"]["problems"]
    assert problem["code"] == "last_run_failed"
    assert "ended before" in problem["message"]
