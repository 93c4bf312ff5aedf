"""What does not change is stored once; what changes a little is stored as its pages; and nothing is lost by it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app import conf
from backups_app.core.age import X25519Identity, identity_file
from backups_app.core.errors import UnreachableError, VerificationError
from backups_app.core.manifest import Manifest
from backups_app.core.progress import Watch
from backups_app.documents import backup_document
from backups_app.models import Backup, Copy, Database, Job
from backups_app.services import overview
from backups_app.services.create import create_backup
from backups_app.services.databases import add_database, change_policy
from backups_app.services.extract import extract_backup
from backups_app.services.heal import heal_interrupted
from backups_app.services.links import all_referring, chain_of, is_referred_to, referring_first
from backups_app.services.names import manifest_name, stored_names
from backups_app.services.prune import give_up, prune_database, simulate_prune
from backups_app.services.removal import finish_removal
from backups_app.services.repair import repair_copy
from backups_app.services.rescan import rescan
from backups_app.services.restores.binding import binding_of
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.deltas import build_pages, insert
from tests.support import names_in

pytestmark = pytest.mark.usefixtures("db_catalog")


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return build_pages(tmp_path / "pages.sqlite3", rows=200)


@pytest.fixture
def pages(home: Path, live: Path, settings: Settings) -> Database:
    """A database of many pages, under care, with both ways of saving space."""
    settings.BACKUPS = {**settings.BACKUPS, "REUSE_UNCHANGED": True, "DELTA_CHAIN": 10}
    return add_database("pages", live, actor=ACTOR)


def back_up(database: Database, **options: object) -> Backup:
    made = create_backup(database, actor=ACTOR, trigger=Backup.Trigger.COMMAND, **options)  # type: ignore[arg-type]
    assert made.state == "verified", (made.reason, made.hint)
    return made


def grow(live: Path, rows: int = 4) -> None:
    with closing(sqlite3.connect(live, isolation_level=None)) as connection:
        insert(connection, rows)


def chain_of_three(database: Database, live: Path) -> list[Backup]:
    found = []
    for _ in range(3):
        found.append(back_up(database))
        grow(live)
    assert [bool(each.builds_on) for each in found] == [False, True, True]
    return found


def archives(home: Path) -> set[str]:
    return {path.name for path in (home / "archives").rglob("*.zst*")}


def path_of(home: Path, backup: Backup) -> Path:
    return home / "archives" / backup.archive_name


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # destinations on one disk may share its blocks
    path.write_bytes(content)


def rows_in(path: Path) -> int:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM note").fetchone()[0])


def restored(backup: Backup, folder: Path) -> int:
    target = folder / f"restored-{backup.pk}.db"
    extract_backup(backup, target, actor=ACTOR)
    return rows_in(target)


def states(*backups: Backup) -> list[str]:
    return [Backup.objects.get(pk=each.pk).state for each in backups]


def aged(backup: Backup, *, days: float) -> Backup:
    for name in ("created_at", "taken_at", "finished_at", "verified_at"):
        setattr(backup, name, getattr(backup, name) - timedelta(days=days))
    backup.save()
    return backup


# Reuse


def test_an_unchanged_database_costs_no_archive(pages: Database, home: Path, tmp_path: Path):
    first, second, third = (back_up(pages) for _ in range(3))
    assert archives(home) == {path_of(home, first).name}
    assert (second.shares_with, third.shares_with) == (first.pk, first.pk)
    assert second.archive_sha256 == first.archive_sha256
    assert second.sha256 == first.sha256
    assert (second.sequence, third.sequence) == (2, 3)
    assert "shares the archive" in " ".join(second.remarks)
    assert backup_document(second)["shares_with"] == first.pk
    assert backup_document(first)["shares_with"] is None
    for each in (first, second, third):
        (copy,) = backup_document(each)["copies"]
        assert (home / "archives" / copy["name"]).is_file(), "the name leads to the archive that opens"
    assert restored(third, tmp_path) == 200
    assert conf.page_digests(pages.identity).exists()


def test_the_manifest_of_a_shared_archive_is_its_own_signed_and_in_the_chain(pages: Database, home: Path):
    first, second = back_up(pages), back_up(pages)
    content = (home / "archives" / manifest_name(second.copies.get().name)).read_bytes()
    manifest = Manifest.from_bytes(content)
    assert (manifest.id, manifest.archive_name) == (second.pk, first.archive_name)
    assert manifest.previous == first.manifest_sha256
    assert [each.verdict for each in verify_backup(second, level="full", actor=ACTOR)] == ["passed"]


def test_the_proof_of_a_shared_archive_is_done_again(pages: Database, home: Path):
    back_up(pages)
    second = back_up(pages)
    proof = second.verifications.get(level="creation")
    names = {check["name"] for check in proof.checks}
    assert {"stored bytes", "content digest", "census", "manifest", "signature"} <= names


def test_a_shared_archive_that_rotted_is_noticed_and_the_new_backup_stands_alone(
    pages: Database, home: Path, tmp_path: Path
):
    first = back_up(pages)
    flip(path_of(home, first))
    second = back_up(pages)
    assert (second.shares_with, second.builds_on) == ("", "")
    assert archives(home) == {path_of(home, first).name, path_of(home, second).name}
    assert states(first, second) == ["failed", "verified"]
    assert restored(second, tmp_path) == 200


def test_a_shared_archive_that_is_gone_is_not_shared(pages: Database, home: Path):
    first = back_up(pages)
    path_of(home, first).unlink()
    second = back_up(pages)
    assert second.shares_with == ""
    assert path_of(home, second).exists()


def test_without_the_setting_every_backup_has_its_archive(pages: Database, home: Path, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "REUSE_UNCHANGED": False, "DELTA_CHAIN": 0}
    assert {back_up(pages).shares_with, back_up(pages).shares_with} == {""}
    assert len(archives(home)) == 2


def test_other_recipients_make_an_archive_of_their_own(pages: Database, home: Path, settings: Settings):
    first = back_up(pages)
    recipient = str(X25519Identity.generate().recipient)
    settings.BACKUPS = {**settings.BACKUPS, "AGE_RECIPIENTS": [recipient]}
    second, third = back_up(pages), back_up(pages)
    assert (second.shares_with, second.builds_on) == ("", "")
    assert third.shares_with == second.pk
    assert not first.is_encrypted
    assert third.is_encrypted
    assert [check["name"] for check in third.verifications.get().checks].count("stored bytes") == 1


def test_a_safety_backup_has_an_archive_of_its_own(pages: Database, home: Path):
    back_up(pages)
    safety = create_backup(pages, actor=ACTOR, trigger=Backup.Trigger.SAFETY)
    assert (safety.state, safety.shares_with, safety.builds_on) == ("verified", "", "")
    assert len(archives(home)) == 2


def test_a_shared_archive_is_counted_once(pages: Database, home: Path):
    first = back_up(pages)
    before = overview.stored(now=timezone.now()).total_bytes
    back_up(pages)
    assert overview.stored(now=timezone.now()).total_bytes == before == first.archive_bytes


# Deltas


def test_what_changed_is_stored_as_pages_and_every_backup_is_restored(
    pages: Database, live: Path, tmp_path: Path, home: Path
):
    backups = chain_of_three(pages, live)
    full, second, third = backups
    assert (second.builds_on, third.builds_on) == (full.pk, second.pk)
    assert second.archive_name.endswith(".sqlite3.delta.zst")
    assert (second.archive_bytes or 0) < (full.archive_bytes or 0) / 5
    assert second.restored_sha256 != second.archive_sha256
    assert [restored(each, tmp_path) for each in backups] == [200, 204, 208]
    for level in ("quick", "full", "drill"):
        assert [each.verdict for each in verify_backup(third, level=level, actor=ACTOR)] == ["passed"]
    assert backup_document(third)["builds_on"] == second.pk
    assert not list((home / "scratch").iterdir())


def test_the_row_of_a_database_says_how_long_a_chain_may_be(pages: Database, live: Path):
    change_policy(pages, required_tables=[], freshness_hours=None, delta_chain=1, actor=ACTOR)
    pages.refresh_from_db()
    found = []
    for _ in range(4):
        found.append(bool(back_up(pages).builds_on))
        grow(live)
    assert found == [False, True, False, True]
    change_policy(pages, required_tables=[], freshness_hours=None, actor=ACTOR)
    pages.refresh_from_db()
    assert pages.delta_chain == 1


def test_deltas_are_off_unless_they_are_asked_for(pages: Database, live: Path, settings: Settings):
    settings.BACKUPS = {key: value for key, value in settings.BACKUPS.items() if key != "DELTA_CHAIN"}
    back_up(pages)
    grow(live)
    assert back_up(pages).builds_on == ""
    assert not conf.page_digests(pages.identity).exists()


def test_an_unchanged_database_shares_a_delta_too(pages: Database, live: Path, tmp_path: Path):
    full, second, third = chain_of_three(pages, live)
    last = back_up(pages)
    again = back_up(pages)
    assert again.shares_with == last.pk
    assert (again.builds_on, again.links_sha256) == (last.builds_on, last.links_sha256)
    grow(live)
    top = back_up(pages)
    assert top.builds_on in ("", last.pk), "a delta builds on the owner of an archive, never on one that shares it"
    assert restored(again, tmp_path) == restored(last, tmp_path)
    assert [each.pk for each in chain_of(third)] == [third.pk, second.pk, full.pk]


@pytest.mark.parametrize("loss", ["state", "base failed"])
def test_a_full_archive_is_made_when_the_base_cannot_be_built_on(pages: Database, live: Path, home: Path, loss: str):
    first = back_up(pages)
    grow(live)
    if loss == "state":
        conf.page_digests(pages.identity).unlink()
    else:
        flip(path_of(home, first))
        verify_backup(first, level="quick", actor=ACTOR)
    assert back_up(pages).builds_on == ""


def test_a_delta_on_a_base_whose_bytes_rotted_is_not_stored_as_verified(pages: Database, live: Path, home: Path):
    """The base is read again while the delta is proven."""
    first = back_up(pages)
    grow(live)
    flip(path_of(home, first))
    second = create_backup(pages, actor=ACTOR, trigger=Backup.Trigger.COMMAND)
    assert second.state == "verified"
    assert second.builds_on == ""
    assert states(first) == ["failed"]
    assert archives(home) == {path_of(home, first).name, path_of(home, second).name}


def test_a_host_that_knows_recipients_only_makes_deltas(
    pages: Database, live: Path, settings: Settings, tmp_path: Path
):
    identity = X25519Identity.generate()
    settings.BACKUPS = {**settings.BACKUPS, "AGE_RECIPIENTS": [str(identity.recipient)]}
    third = chain_of_three(pages, live)[2]
    assert third.archive_name.endswith(".sqlite3.delta.zst.age")
    assert [each.verdict for each in verify_backup(third, level="full", actor=ACTOR)] == ["key_missing"]
    key = tmp_path / "key.txt"
    key.write_bytes(identity_file(identity, now=timezone.now()))
    key.chmod(0o600)
    settings.BACKUPS = {**settings.BACKUPS, "AGE_IDENTITY_FILE": key}
    assert [each.verdict for each in verify_backup(third, level="full", actor=ACTOR)] == ["passed"]
    assert restored(third, tmp_path) == 208


# Damage


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("level", ["quick", "full"])
def test_a_bad_link_fails_all_that_build_on_it_and_none_below(
    pages: Database, live: Path, home: Path, tmp_path: Path, number: int, level: str
):
    backups = chain_of_three(pages, live)
    flip(path_of(home, backups[number]))
    verify_backup(backups[2], level=level, actor=ACTOR)  # whoever is looked at, the cause is found
    assert states(*backups) == ["verified"] * number + ["failed"] * (3 - number)
    with pytest.raises(VerificationError):
        extract_backup(backups[2], tmp_path / "never.db", actor=ACTOR)
    assert not (tmp_path / "never.db").exists()
    for good in backups[:number]:
        assert restored(good, tmp_path) == rows_expected(good)


def rows_expected(backup: Backup) -> int:
    return backup.tables["note"]


def test_a_link_whose_bytes_are_back_makes_the_chain_good_again(pages: Database, live: Path, home: Path):
    backups = chain_of_three(pages, live)
    original = path_of(home, backups[0]).read_bytes()
    flip(path_of(home, backups[0]))
    verify_backup(backups[0], level="quick", actor=ACTOR)
    assert states(*backups) == ["failed"] * 3
    path_of(home, backups[0]).write_bytes(original)
    verify_backup(backups[0], level="quick", actor=ACTOR)
    assert states(*backups) == ["verified"] * 3


def test_a_missing_link_is_unreachable_and_says_which(pages: Database, live: Path, home: Path, tmp_path: Path):
    backups = chain_of_three(pages, live)
    path_of(home, backups[0]).unlink()
    found = verify_backup(backups[2], level="full", actor=ACTOR)
    assert [each.verdict for each in found] == ["unreachable"]
    with pytest.raises(UnreachableError):
        extract_backup(backups[2], tmp_path / "never.db", actor=ACTOR)
    assert not (tmp_path / "never.db").exists()


def test_an_altered_manifest_below_is_noticed(pages: Database, live: Path, home: Path):
    backups = chain_of_three(pages, live)
    manifest = home / "archives" / manifest_name(backups[1].archive_name)
    manifest.write_bytes(manifest.read_bytes().replace(b'"trigger":"command"', b'"trigger":"comnand"'))
    assert [each.verdict for each in verify_backup(backups[2], level="quick", actor=ACTOR)] == ["failed"]


# Approvals


def test_an_approval_is_bound_to_every_archive_of_the_chain(pages: Database, live: Path):
    from backups_app.models import Restore

    third = chain_of_three(pages, live)[2]
    restore = Restore(backup=third, database=pages, overrides={}, is_migrating=False)
    before = binding_of(restore)
    restore.backup.links_sha256 = "0" * 64
    assert binding_of(restore) != before


# Pruning


def prune_to_last(database: Database) -> None:
    Database.objects.filter(pk=database.pk).update(keep_last=1)
    database.refresh_from_db()
    prune_database(database, actor=ACTOR)


def test_what_kept_backups_build_on_is_kept_and_says_so(pages: Database, live: Path, tmp_path: Path):
    backups = [aged(each, days=3 - number) for number, each in enumerate(chain_of_three(pages, live))]
    prune_to_last(pages)
    assert states(*backups) == ["verified"] * 3
    reasons = {each.backup.pk: each.decision.reason for each in simulate_prune(pages, now=timezone.now())}
    assert reasons[backups[1].pk] == f"backup {backups[2].pk}, which is kept, needs it"
    assert reasons[backups[0].pk] == f"backup {backups[1].pk}, which is kept, needs it"
    assert restored(backups[2], tmp_path) == 208


def test_a_chain_goes_when_nothing_needs_it_any_more(pages: Database, live: Path, home: Path):
    old = [aged(each, days=5 - number) for number, each in enumerate(chain_of_three(pages, live))]
    old.append(aged(back_up(pages), days=1))  # the last of the chain
    conf.page_digests(pages.identity).unlink()
    grow(live)
    new = back_up(pages)
    assert new.builds_on == ""
    prune_to_last(pages)
    assert states(*old, new) == ["pruned"] * 4 + ["verified"]
    assert archives(home) == {path_of(home, new).name}


def test_an_archive_goes_with_the_last_backup_that_shares_it(pages: Database, live: Path, home: Path, tmp_path: Path):
    first, second = aged(back_up(pages), days=3), aged(back_up(pages), days=2)
    prune_to_last(pages)
    assert states(first, second) == ["verified", "verified"]
    assert restored(second, tmp_path) == 200
    conf.page_digests(pages.identity).unlink()
    grow(live)
    third = back_up(pages)
    prune_to_last(pages)
    assert states(first, second, third) == ["pruned", "pruned", "verified"]
    assert archives(home) == {path_of(home, third).name}


def test_a_wrong_plan_does_not_remove_what_others_need(pages: Database, live: Path, home: Path):
    backups = chain_of_three(pages, live)
    back_up(pages)
    assert not give_up(backups[0], reason="a wrong plan", actor=ACTOR, now=timezone.now())
    assert states(*backups) == ["verified"] * 3
    assert is_referred_to(backups[0])
    assert {each.pk for each in all_referring(backups[0])} >= {backups[1].pk, backups[2].pk}


def test_removing_leaves_an_archive_that_others_share_even_when_it_is_called(
    pages: Database, home: Path, tmp_path: Path
):
    first, second = back_up(pages), back_up(pages)
    mark(first)
    finish_removal(first, actor=ACTOR)
    assert path_of(home, first).exists(), "the other one needs it"
    assert restored(second, tmp_path) == 200
    mark(second)
    finish_removal(second, actor=ACTOR)
    assert names_in(home / "archives") >= {"pages"}
    assert archives(home) == set()


def mark(backup: Backup) -> None:
    Backup.objects.filter(pk=backup.pk).update(
        state="pruning", pruning_at=timezone.now(), prune_reason="a test", is_held=False
    )
    backup.refresh_from_db()


def test_what_needs_others_is_removed_before_them(pages: Database, live: Path):
    backups = chain_of_three(pages, live)
    assert [each.pk for each in referring_first(backups)] == [each.pk for each in reversed(backups)]


# Crashes


def test_a_process_killed_while_it_makes_a_delta_leaves_the_chain_as_it_was(
    pages: Database, live: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from backups_app.services import create as create_module
    from backups_app.services import publish

    full = back_up(pages)
    grow(live)

    class KilledError(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(publish, "record_outcome", die)
        patch.setattr(publish, "discard", lambda *_: None)  # a dead process tidies up nothing
        patch.setattr(create_module, "record_failure", lambda *_, **__: None)
        with pytest.raises(KilledError):
            create_backup(pages, actor=ACTOR, trigger=Backup.Trigger.COMMAND)
    assert len(archives(home)) == 2
    heal_interrupted()
    assert archives(home) == {path_of(home, full).name}
    second = back_up(pages)
    assert second.builds_on == full.pk
    assert restored(second, tmp_path) == 204


def test_a_process_that_dies_before_it_keeps_the_page_digests_makes_the_next_archive_a_full_one(
    pages: Database, live: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from backups_app.services import publish

    back_up(pages)
    grow(live)
    with monkeypatch.context() as patch:
        patch.setattr(publish, "_keep_digests", lambda *_, **__: None)
        back_up(pages)
    grow(live)
    third = back_up(pages)
    assert third.builds_on == ""
    assert restored(third, tmp_path) == 208


# Rescan and repair


def forget(home: Path) -> None:
    """The catalogue is lost, the destination is there."""
    Backup.objects.all().delete()
    Job.objects.all().delete()
    Database.objects.all().delete()
    shutil.rmtree(home / "state" / "chain", ignore_errors=True)


def test_a_rescan_rebuilds_sharing_and_chains(pages: Database, live: Path, home: Path, tmp_path: Path):
    full, second, third = chain_of_three(pages, live)
    last = back_up(pages)
    again = back_up(pages)
    assert again.shares_with == last.pk
    forget(home)
    found = rescan(actor=ACTOR)
    assert [each.code for each in found.findings] == []
    rows = {each.pk: each for each in Backup.objects.all()}
    assert {each.state for each in rows.values()} == {"verified"}
    assert (rows[third.pk].builds_on, rows[third.pk].links_sha256) == (second.pk, third.links_sha256)
    assert (rows[again.pk].shares_with, rows[again.pk].archive_name) == (last.pk, last.archive_name)
    assert rows[full.pk].builds_on == ""
    assert restored(rows[again.pk], tmp_path) == 212
    assert [each.code for each in rescan(actor=ACTOR).findings] == []


def test_a_rescan_says_which_backups_a_replaced_link_breaks(pages: Database, live: Path, home: Path):
    backups = chain_of_three(pages, live)
    flip(path_of(home, backups[0]))
    found = rescan(actor=ACTOR)
    assert {each.backup for each in found.findings if each.code == "archive_replaced"} == {each.pk for each in backups}
    assert states(*backups) == ["failed"] * 3
    assert any(backups[0].pk in each.message for each in found.findings if each.backup == backups[2].pk)


def test_a_rescan_of_a_store_that_lacks_a_link_says_what_it_breaks(pages: Database, live: Path, home: Path):
    backups = chain_of_three(pages, live)
    forget(home)
    for name in stored_names(backups[0].archive_name):
        (home / "archives" / name).unlink()
    found = rescan(actor=ACTOR)
    assert {each.backup for each in found.findings} >= {backups[1].pk, backups[2].pk}
    assert "verified" not in set(Backup.objects.values_list("state", flat=True))


def test_a_damaged_shared_archive_is_repaired_for_all_that_share_it(
    pages: Database, home: Path, tmp_path: Path, settings: Settings
):
    from django.core.files.storage import storages

    settings.STORAGES = {
        **settings.STORAGES,
        "mirror": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "mirror")},
        },
    }
    storages.backends  # noqa: B018 - made anew from the settings
    (tmp_path / "mirror").mkdir()
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["local", "mirror"]}
    first, second = back_up(pages), back_up(pages)
    assert second.shares_with == first.pk
    assert set(second.copies.values_list("state", flat=True)) == {"verified"}
    flip(path_of(home, first))
    verify_backup(second, level="quick", actor=ACTOR)
    assert set(Copy.objects.filter(destination="local").values_list("state", flat=True)) == {"failed"}
    repair_copy(second, second.copies.get(destination="local"), actor=ACTOR, job=None, watch=Watch())
    assert set(Copy.objects.filter(backup=second).values_list("state", flat=True)) == {"verified"}
    verify_backup(first, level="quick", actor=ACTOR)
    assert set(Copy.objects.values_list("state", flat=True)) == {"verified"}


def test_a_place_that_lacks_the_base_gets_a_full_archive(
    pages: Database, live: Path, tmp_path: Path, settings: Settings
):
    first = back_up(pages)
    (tmp_path / "mirror").mkdir()
    settings.STORAGES = {
        **settings.STORAGES,
        "mirror": {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {"location": str(tmp_path / "mirror")},
        },
    }
    settings.BACKUPS = {**settings.BACKUPS, "DESTINATIONS": ["local", "mirror"]}
    assert back_up(pages).shares_with == "", "nothing of the first one is there"
    grow(live)
    third = back_up(pages)
    assert third.builds_on not in ("", first.pk)
    assert set(third.copies.values_list("state", flat=True)) == {"verified"}
