"""``rekey`` on the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backups_app.models import Backup, Database
from tests.console import Finished
from tests.keys import Key

Run = Callable[..., Finished]


@pytest.fixture
def old(
    shop: Database, make_backup: Callable[..., Backup], encrypting: Callable[..., None], key: Key, other: Key
) -> list[Backup]:
    encrypting(key)
    made = [make_backup(shop), make_backup(shop)]
    encrypting(other)
    return made


def test_all_that_need_it_are_encrypted_anew(run: Run, old: list[Backup], key: Key, other: Key):
    finished = run("rekey", "--all", "--identity", key.path, "--json")
    assert finished.code == 0
    found = finished.document["backups"]
    assert [(each["state"], each["key_ids"]) for each in found] == [("verified", [other.recipient[:16]])] * 2
    assert run("rekey", "--all", "--identity", key.path).code == 6, "nothing is left to do"
    assert run("verify", *(each["id"] for each in found), "--identity", other.path).code == 0


def test_without_the_key_the_exit_code_says_so(run: Run, old: list[Backup], other: Key):
    assert run("rekey", "--all").code == 5
    finished = run("rekey", old[0].pk, "--identity", other.path, "--json")
    assert finished.code == 5
    assert finished.document["errors"][0]["code"] == "key_missing"


def test_what_to_rekey_has_to_be_said(run: Run, old: list[Backup]):
    assert run("rekey").code == 2
    assert run("rekey", old[0].pk, "--all").code == 2


def test_an_archive_that_another_backup_needs_stays_and_that_is_no_success(
    run: Run,
    shop: Database,
    make_backup: Callable[..., Backup],
    encrypting: Callable[..., None],
    key: Key,
    other: Key,
):
    encrypting(key, REUSE_UNCHANGED=True)
    owner, sharing = make_backup(shop), make_backup(shop)
    assert sharing.shares_with == owner.pk
    encrypting(other)
    finished = run("rekey", owner.pk, "--identity", key.path, "--json")
    assert finished.code == 7
    (error,) = finished.document["errors"]
    assert (error["about"], error["code"]) == (owner.pk, "refused")
    assert "another backup shares it" in error["message"]
    owner.refresh_from_db()
    assert owner.state == "verified"
    assert run("rekey", owner.pk, "--identity", key.path, "--keep-old").code == 0
    assert run("rekey", "--all", "--identity", key.path).code == 0, "the one that shares it goes first"
    assert set(Backup.objects.filter(trigger="command").values_list("state", flat=True)) == {"pruned"}
    assert Backup.objects.filter(trigger="rekey").count() == 2
