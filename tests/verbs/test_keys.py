"""``keys`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import Backup, Database
from tests.console import Finished
from tests.keys import Key

Run = Callable[..., Finished]


@pytest.fixture
def locked(shop: Database, make_backup: Callable[..., Backup], encrypting: Callable[..., None], key: Key) -> Backup:
    encrypting(key)
    return make_backup(shop)


def test_keys_are_listed_with_what_they_open(run: Run, locked: Backup, key: Key):
    document = run("keys", "--json").document
    (found,) = document["keys"]
    assert found["recipient"] == key.recipient
    assert (found["configured"], found["proven"], found["archives"], found["identity_at_hand"]) == (
        True,
        False,
        1,
        False,
    )
    assert (document["encrypted_archives"], document["cannot_be_opened"]) == (1, [])
    assert run("keys", "--identity", key.path, "--json").document["keys"][0]["identity_at_hand"] is True
    assert key.recipient[:16] in run("keys").stdout


def test_archives_that_nothing_opens_are_named(run: Run, locked: Backup, encrypting: Callable[..., None], other: Key):
    encrypting(other)
    document = run("keys", "--json").document
    assert [each["backup"] for each in document["cannot_be_opened"]] == [locked.pk]
    assert f"! {locked.pk} (shop) can no longer be opened" in run("keys").stdout
    finished = run("status", "--json")
    assert finished.code == 8
    problems = {each["code"]: each["message"] for each in finished.document["health"]["problems"]}
    assert locked.pk in problems["archives_cannot_be_opened"]
    assert "keys_not_proven" in problems


def test_without_recipients_that_is_said(run: Run, shop: Database):
    assert "not encrypted" in run("keys").stdout


def test_the_kit_is_written_once(run: Run, locked: Backup, key: Key, tmp_path: Path):
    assert run("keys", "--kit", tmp_path / "kit.txt").code == 0
    kit = (tmp_path / "kit.txt").read_text()
    assert key.recipient in kit
    assert key.secret not in kit
    assert run("keys", "--kit", tmp_path / "kit.txt").code == 7
    assert (tmp_path / "kit.txt").read_text() == kit
