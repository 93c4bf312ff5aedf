"""``rescan`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import Backup, Database
from tests.console import Console, Finished

Run = Callable[..., Finished]


@pytest.fixture
def backup(shop: Database, make_backup: Callable[..., Backup]) -> Backup:
    return make_backup(shop)


def test_nothing_wrong_is_exit_code_0(run: Run, backup: Backup):
    finished = run("rescan", "--json")
    assert finished.code == 0
    assert set(finished.document) == {"rescan", "rescans"}
    document = finished.document["rescan"]
    assert finished.document["rescans"] == [document]
    assert (document["known"], document["registered"], document["damage"], document["findings"]) == (1, 0, 0, [])
    (head,) = document["heads"]
    assert head == {
        "database": "shop",
        "sequence": 1,
        "manifest_sha256": backup.manifest_sha256,
        "backup": backup.pk,
    }


def test_damage_is_exit_code_3_with_reason_and_hint(run: Run, backup: Backup, archive_of: Callable[[Backup], Path]):
    archive_of(backup).write_bytes(b"other")
    finished = run("rescan", "--json")
    assert finished.code == 3
    (finding,) = finished.document["rescan"]["findings"]
    assert (finding["code"], finding["backup"], finding["path"]) == (
        "archive_replaced",
        backup.pk,
        backup.archive_name,
    )
    assert finding["message"]
    assert finding["hint"]
    assert "archive_replaced" in finished.stderr
    status = run("status", "--json")
    assert status.code == 8
    assert "archive_replaced" in {each["code"] for each in status.document["health"]["problems"]}


def test_an_unknown_destination_is_exit_code_6(run: Run, backup: Backup):
    finished = run("rescan", "--destination", "nosuch", "--json")
    assert finished.code == 6
    assert finished.document["errors"][0]["code"] == "not_found"


def test_people_get_words(run: Run, backup: Backup, archive_of: Callable[[Backup], Path]):
    printed = run("rescan").stdout
    assert "1 backups are known and right" in printed
    assert backup.manifest_sha256 in printed
    archive_of(backup).unlink()
    assert "Hint:" in run("rescan", "--dry-run").stderr


def test_a_key_that_is_not_there_is_exit_code_6(run: Run, backup: Backup, tmp_path: Path):
    assert run("rescan", "--trust", tmp_path / "none.pem").code == 6


def test_an_unreachable_destination_is_exit_code_3_and_nothing_is_deleted(run: Run, backup: Backup, home: Path):
    (home / "archives").rename(home / "aside")
    finished = run("rescan", "--json")
    assert finished.code == 3
    assert [each["code"] for each in finished.document["rescan"]["findings"]] == ["destination_unreachable"]
    assert Backup.objects.get().verdict == "passed"


def test_a_fresh_machine_gets_its_backups_back(console: Console, site: Path, tmp_path: Path, fresh_catalog: Path):
    made = [console.ok("create", "--all", "--json").backup() for _ in range(2)]
    other = Console(tmp_path / "new machine" / "home", console.extra)
    other.home.mkdir(parents=True)
    (console.home / "archives").rename(other.home / "archives")
    site.rename(other.site)
    document = other.ok("rescan", "--trust", console.home / "state" / "signing.pub", "--json").document["rescan"]
    assert (document["registered"], document["findings"], document["databases_added"]) == (2, [], [])
    listed = other.ok("list", "--json").document["backups"]
    for old, new in zip(reversed(made), listed, strict=True):
        assert {**new, "remarks": []} == {**old, "requested_by": None, "verified_at": new["verified_at"]} | {
            "finished_at": new["finished_at"],
            "remarks": [],
        }
    other.ok("restore", made[0]["id"], "--to", tmp_path / "out.sqlite3")
    assert other.ok("create", "--all", "--json").backup()["sequence"] == 3
    assert other.ok("rescan", "--json").document["rescan"]["findings"] == []
