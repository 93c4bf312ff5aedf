"""Which key still opens what: from keygen over rotation to the loss of the old identity."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

from django.utils import timezone

from backups_app.core.age import read_identities
from backups_app.encryption import Keyring
from backups_app.models import Backup, Database, Recipient
from backups_app.services.health import check_health
from backups_app.services.keys.health import check_keys
from backups_app.services.keys.keygen import generate_key
from backups_app.services.keys.kit import recovery_kit
from backups_app.services.keys.proof import answer_challenge, find_recipient, make_challenge
from backups_app.services.keys.report import report_keys
from tests.conftest import ACTOR
from tests.keys import Key, age_decrypt

MakeBackup = Callable[..., Backup]
Encrypting = Callable[..., None]


def prove(recipient: str, key: Key, tmp_path: Path) -> None:
    now = timezone.now()
    row = find_recipient(recipient, now=now)
    challenge = tmp_path / f"challenge-{row.key_id}"
    challenge.write_text(make_challenge(row, actor=ACTOR, now=now).armored)
    word = age_decrypt(key, challenge, challenge.with_suffix(".txt")).read_text()
    challenge.with_suffix(".txt").unlink()
    answer_challenge(row, word, actor=ACTOR, now=now)


def codes() -> set[str]:
    return {each.code for each in check_keys(now=timezone.now())}


def lost() -> list[str]:
    return [each.pk for each in report_keys(now=timezone.now()).lost]


def test_the_way_of_a_lost_key(shop: Database, make_backup: MakeBackup, encrypting: Encrypting, tmp_path: Path):
    """keygen → prove → rotate → delete the old identity: exactly the archives for it alone are named."""
    first = make_key(tmp_path / "first.key")
    encrypting(first, identity=first.path)
    assert codes() == {"keys_not_proven"}
    old = [make_backup(shop), make_backup(shop)]
    prove(first.recipient, first, tmp_path)
    assert codes() == {"one_proven_recipient"}

    second = make_key(tmp_path / "second.key")
    encrypting(first, second, identity=first.path)
    both = make_backup(shop)
    prove(second.recipient, second, tmp_path)
    assert codes() == set()

    encrypting(second, identity=second.path)
    new = make_backup(shop)
    assert sorted(lost()) == sorted(each.pk for each in old), "the first key is retired, its identity not at hand"
    encrypting(second, identity=first.path)
    assert lost() == [], "an identity at hand still opens them"

    first.path.unlink()
    assert sorted(lost()) == sorted(each.pk for each in old)
    (finding,) = [each for each in check_keys(now=timezone.now()) if each.code == "archives_cannot_be_opened"]
    assert all(each.pk in finding.message for each in old)
    assert not any(each.pk in finding.message for each in (both, new))
    by_key = {each.recipient.public: each for each in report_keys(now=timezone.now()).keys}
    assert (by_key[first.recipient].archives, by_key[first.recipient].archives_alone) == (3, 2)
    assert (by_key[second.recipient].archives, by_key[second.recipient].archives_alone) == (2, 1)
    assert not by_key[first.recipient].is_configured


def make_key(path: Path) -> Key:
    made = generate_key(path, actor=ACTOR, now=timezone.now())
    (identity,) = read_identities(made.path)
    return Key(path, identity)


def test_a_retired_key_counts_again_when_it_is_proven_again(
    shop: Database, make_backup: MakeBackup, encrypting: Encrypting, key: Key, other: Key, tmp_path: Path
):
    encrypting(key)
    old = make_backup(shop)
    prove(key.recipient, key, tmp_path)
    encrypting(other)
    assert lost() == [old.pk]
    (tmp_path / f"challenge-{key.recipient[:16]}").unlink()
    prove(key.recipient, key, tmp_path)
    assert lost() == []
    Recipient.objects.filter(public=key.recipient).update(
        proven_at=timezone.now() - timedelta(days=300), retired_at=timezone.now() - timedelta(days=301)
    )
    assert lost() == [old.pk], "that proof is too old"


def test_an_archive_for_a_key_that_nobody_knows_counts_as_lost(
    shop: Database, make_backup: MakeBackup, encrypting: Encrypting, key: Key
):
    encrypting(key)
    backup = make_backup(shop)
    Backup.objects.update(key_ids=[])
    assert lost() == [backup.pk]


def test_plain_archives_need_no_key(shop: Database, make_backup: MakeBackup):
    make_backup(shop)
    report = report_keys(now=timezone.now())
    assert (report.keys, list(report.lost), report.encrypted_archives, report.plain_archives) == ([], [], 0, 1)
    assert codes() == set()


def test_a_given_identity_is_at_hand(
    shop: Database, make_backup: MakeBackup, encrypting: Encrypting, key: Key, other: Key
):
    encrypting(key, other)
    make_backup(shop)
    report = report_keys(now=timezone.now(), keyring=Keyring([other.path]))
    assert {each.recipient.public: each.is_at_hand for each in report.keys} == {
        key.recipient: False,
        other.recipient: True,
    }


def test_health_tells_of_keys(shop: Database, make_backup: MakeBackup, encrypting: Encrypting, key: Key):
    encrypting(key)
    make_backup(shop)
    assert "keys_not_proven" in {each.code for each in check_health().problems}
    Recipient.objects.update(proven_at=timezone.now())
    health = check_health()
    assert health.is_ok
    assert [each.code for each in health.warnings] == ["one_proven_recipient"]
    encrypting()
    health = check_health()
    assert "archives_cannot_be_opened" in {each.code for each in health.problems}
    assert [each.code for each in health.warnings] == ["encryption_off"]


def test_recipients_that_cannot_be_used_are_a_problem_of_their_own(shop: Database, encrypting: Encrypting):
    encrypting(AGE_RECIPIENTS="age1x")
    assert codes() == {"recipients_unusable"}


def test_the_recovery_kit_names_an_archive_that_its_steps_make_a_database_of(
    shop: Database, shop_file: Path, make_backup: MakeBackup, encrypting: Encrypting, key: Key
):
    encrypting(key, DELTA_CHAIN=5)
    with closing(sqlite3.connect(shop_file)) as connection, connection:
        connection.execute("CREATE TABLE filler AS SELECT randomblob(400000) AS bytes")
    whole = make_backup(shop)
    with closing(sqlite3.connect(shop_file)) as connection, connection:
        connection.execute("DELETE FROM sale")
    delta = make_backup(shop)
    assert (whole.builds_on, delta.builds_on) == ("", whole.pk)
    kit = recovery_kit(now=timezone.now())
    assert f"newest verified: {whole.archive_name}" in kit
    assert f"newer, but a delta: {delta.archive_name}" in kit


def test_the_recovery_kit_says_all_and_holds_no_secret(
    shop: Database, make_backup: MakeBackup, encrypting: Encrypting, key: Key, home: Path
):
    encrypting(key, identity=key.path)
    backup = make_backup(shop)
    kit = recovery_kit(now=timezone.now())
    for part in (key.recipient, str(home / "archives"), backup.archive_name, "age -d -i", "zstd -d", "sha256sum"):
        assert part in kit
    assert key.secret not in kit
    assert not re.search(r"AGE-SECRET-KEY-1[A-Z0-9]", kit)
    assert kit.isascii() or all(ord(each) < 0x3000 for each in kit)
