"""``--identity`` wherever an archive has to be opened, and the exit code when it is missing or wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backups_app.models import Backup, Database, Restore
from backups_app.verbs import identity as identity_module
from tests.console import Console, Finished
from tests.keys import Key, stock_restore, wrapped
from tests.support import connected, content_of, names_in

Run = Callable[..., Finished]


@pytest.fixture
def locked(changed: Backup, make_backup: Callable[..., Backup], encrypting: Callable[..., None], key: Key) -> Backup:
    encrypting(key)
    return make_backup(changed.database)


def test_create_notes_an_unproven_key_on_stderr(run: Run, shop: Database, encrypting: Callable[..., None], key: Key):
    encrypting(key)
    finished = run("create", "shop", "--json")
    assert finished.code == 0
    assert finished.backup()["encrypted"] is True
    assert key.recipient[:16] in finished.stderr
    assert "prove" in finished.stderr


def test_verify_says_key_missing_and_passes_with_the_identity(run: Run, locked: Backup, key: Key, other: Key):
    for more in ([], ["--identity", other.path]):
        finished = run("verify", locked.pk, *more, "--json")
        assert finished.code == 5
        assert finished.document["verifications"][0]["verdict"] == "key_missing"
    assert run("verify", locked.pk, "--level", "quick").code == 0
    assert run("verify", locked.pk, "--identity", key.path).code == 0
    assert run("verify", locked.pk, "--identity", other.path, "--identity", key.path).code == 0


def test_restore_to_a_file(run: Run, locked: Backup, key: Key, other: Key, tmp_path: Path):
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "new.sqlite3"
    for more in ([], ["--identity", other.path], ["--identity", tmp_path / "missing"]):
        assert run("restore", locked.pk, "--to", target, *more).code == 5
    assert names_in(tmp_path / "out") == set()
    assert run("restore", locked.pk, "--to", target, "--identity", key.path).code == 0
    assert target.exists()


def test_restore_in_place_approve_and_undo(run: Run, locked: Backup, key: Key, shop_file: Path):
    with connected(shop_file) as connection:
        connection.execute("DELETE FROM product")
    ask = ("restore", locked.pk, "--reason", "x", "--user", "anna")
    assert run(*ask).code == 5
    filed = run(*ask, "--identity", key.path, "--json").document["restore"]
    approve = ("approve", filed["id"], "--user", "ben", "--yes")
    assert run(*approve).code == 5
    assert Restore.objects.get(pk=filed["id"]).state == "approved"
    assert run(*approve, "--identity", key.path).code == 0
    assert count(shop_file) == 4
    undo = ("undo", filed["id"], "--user", "ben", "--yes")
    assert run(*undo).code == 5
    assert run(*undo, "--identity", key.path).code == 0
    assert count(shop_file) == 0


def count(path: Path) -> int:
    with connected(path) as connection:
        return int(connection.execute("SELECT count(*) FROM product").fetchone()[0])


def test_a_key_is_never_queued(run: Run, locked: Backup, key: Key):
    for verb in (["verify", locked.pk], ["approve", "0" * 12], ["undo", "0" * 12]):
        assert run(*verb, "--identity", key.path, "--enqueue").code == 2


def test_a_passphrase_is_asked_for_once(
    run: Run, locked: Backup, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    protected = wrapped(key, tmp_path / "protected", passphrase="correct horse")
    finished = run("verify", locked.pk, "--identity", protected)
    assert finished.code == 5, "there is no terminal"
    assert "BACKUPS_AGE_PASSPHRASE_FILE" in finished.stderr
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        return "correct horse"

    monkeypatch.setattr(identity_module, "ask_passphrase", ask)
    make_second = run("create", "shop", "--json").backup()["id"]
    assert run("verify", locked.pk, make_second, "--identity", protected).code == 0
    assert asked == [1]


def test_the_real_command_end_to_end(console: Console, site: Path, key: Key, tmp_path: Path):
    encrypted = Console(console.home, {**console.extra, "BACKUPS_AGE_RECIPIENTS": key.recipient})
    backup = encrypted.ok("create", "--all", "--json").backup()
    assert (backup["state"], backup["encrypted"]) == ("verified", True)
    archive = console.home / "archives" / backup["copies"][0]["name"]
    assert content_of(stock_restore(key, archive, tmp_path / "found.sqlite3")) == content_of(site)
    assert encrypted.run("verify", backup["id"]).code == 5
    with_key = Console(console.home, {**encrypted.extra, "BACKUPS_AGE_IDENTITY_FILE": str(key.path)})
    assert with_key.ok("verify", backup["id"], "--json").document["verifications"][0]["verdict"] == "passed"
    shown: dict[str, Any] = with_key.run("status", "--json").document["health"]
    assert [each["code"] for each in shown["problems"]] == ["keys_not_proven"]
