"""Pruning deletes what no rule keeps, in two steps, and never what may be needed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app import destinations
from backups_app.core.errors import BackupError, CancelledError, RefusedError, UnreachableError
from backups_app.destinations import LocalDestination
from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Restore, Verification
from backups_app.services import prune as prune_module
from backups_app.services.databases import add_database
from backups_app.services.extract import extract_backup
from backups_app.services.heal import heal_interrupted
from backups_app.services.hold import hold_backup, release_backup
from backups_app.services.names import stored_names
from backups_app.services.prune import policy_of, prune_database, simulate_prune
from backups_app.services.restores import request_restore
from backups_app.services.verify import verify_backup
from tests.conftest import ACTOR
from tests.support import build_shop, bytes_in, connected

MakeBackup = Callable[..., Backup]


def aged(backup: Backup, *, days: float) -> Backup:
    """The backup, as if it had been made that long ago."""
    for name in ("created_at", "taken_at", "finished_at", "verified_at"):
        if getattr(backup, name) is not None:
            setattr(backup, name, getattr(backup, name) - timedelta(days=days))
    backup.save()
    return backup


def keep(database: Database, **rules: int | None) -> None:
    Database.objects.filter(pk=database.pk).update(**rules)
    database.refresh_from_db()


@pytest.fixture
def history(shop: Database, make_backup: MakeBackup) -> list[Backup]:
    """Four verified backups of the shop, a day apart, the newest first; two are to be kept."""
    keep(shop, keep_last=2)
    return [aged(make_backup(shop), days=days) for days in range(4)]


def states(backups: list[Backup]) -> list[str]:
    return [Backup.objects.get(pk=each.pk).state for each in backups]


def files_of(home: Path, backup: Backup) -> list[Path]:
    return [path for name in stored_names(backup.archive_name) if (path := home / "archives" / name).exists()]


def test_what_no_rule_keeps_is_deleted_and_its_record_stays(history: list[Backup], shop: Database, home: Path):
    pruned = prune_database(shop, actor=ACTOR)
    assert [each.backup.pk for each in pruned.deleted] == [history[3].pk, history[2].pk], "the oldest first"
    assert states(history) == ["verified", "verified", "pruned", "pruned"]
    assert [len(files_of(home, each)) for each in history] == [3, 3, 0, 0]
    gone = Backup.objects.get(pk=history[3].pk)
    assert gone.prune_reason == "no rule keeps it"
    assert gone.pruning_at is not None
    assert gone.pruned_at is not None
    assert gone.copies.get().state == "pruned"
    assert gone.tables == {"product": 3, "sale": 4}


def test_pruning_is_recorded(history: list[Backup], shop: Database):
    prune_database(shop, actor=ACTOR)
    events = AuditEvent.objects.filter(action="prune", subject=history[3].pk).order_by("pk")
    assert [(each.actor_name, each.outcome, each.detail) for each in events] == [
        ("anna", "done", "given up: no rule keeps it"),
        ("anna", "done", "its files were removed: no rule keeps it"),
    ]
    job = Job.objects.get(kind="prune")
    assert (job.state, job.outcome) == ("succeeded", "2 deleted, 2 kept.")


def test_a_simulation_changes_nothing(history: list[Backup], shop: Database, home: Path):
    before = bytes_in(home / "archives")
    judged = simulate_prune(shop, now=timezone.now())
    assert [each.decision.is_kept for each in judged] == [True, True, False, False]
    assert bytes_in(home / "archives") == before
    assert states(history) == ["verified"] * 4


def test_without_a_policy_nothing_is_deleted(history: list[Backup], shop: Database):
    keep(shop, keep_last=None)
    pruned = prune_database(shop, actor=ACTOR)
    assert (len(pruned.kept), pruned.deleted) == (4, [])


def test_rules_of_the_settings_hold_where_the_database_has_none(
    history: list[Backup], shop: Database, settings: Settings
):
    settings.BACKUPS = {**settings.BACKUPS, "RETENTION": {"keep_last": 3, "keep_daily": 1}}
    assert (policy_of(shop).keep_last, policy_of(shop).keep_daily) == (2, 1)
    keep(shop, keep_last=None)
    prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified"] * 3 + ["pruned"]


def test_another_database_with_a_longer_name_is_never_touched(
    history: list[Backup], shop: Database, make_backup: MakeBackup, tmp_path: Path, home: Path
):
    archive = add_database("shop_archive", build_shop(tmp_path / "shop_archive.sqlite3"), actor=ACTOR)
    others = [aged(make_backup(archive), days=100 + days) for days in range(3)]
    prune_database(shop, actor=ACTOR)
    assert states(others) == ["verified"] * 3
    assert [len(files_of(home, each)) for each in others] == [3, 3, 3]
    Database.objects.filter(pk=shop.pk).update(name="renamed")
    keep(archive, keep_last=1)
    prune_database(archive, actor=ACTOR)
    assert states(others) == ["verified", "pruned", "pruned"]
    assert states(history)[:2] == ["verified"] * 2


def test_a_held_backup_stays_until_it_is_released(history: list[Backup], shop: Database):
    hold_backup(history[3], actor=ACTOR)
    prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified", "verified", "pruned", "verified"]
    release_backup(history[3], actor=ACTOR)
    prune_database(shop, actor=ACTOR)
    assert states(history)[3] == "pruned"


def test_a_hold_between_plan_and_deletion_counts(
    history: list[Backup], shop: Database, monkeypatch: pytest.MonkeyPatch
):
    real = prune_module._mark

    def held_in_time(judged: prune_module.Judged, **options: object) -> bool:
        Backup.objects.filter(pk=judged.backup.pk).update(is_held=True, held_by_name="ben")
        return real(judged, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(prune_module, "_mark", held_in_time)
    pruned = prune_database(shop, actor=ACTOR)
    assert (len(pruned.kept), pruned.deleted) == (4, [])
    assert states(history) == ["verified"] * 4


def test_a_request_between_plan_and_deletion_counts(
    history: list[Backup], shop: Database, monkeypatch: pytest.MonkeyPatch
):
    judged = simulate_prune(shop, now=timezone.now())
    request_restore(history[3], shop, reason="needed", actor=ACTOR)
    monkeypatch.setattr(prune_module, "simulate_prune", lambda *_args, **_options: judged)
    prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified", "verified", "pruned", "verified"]


@pytest.mark.parametrize("index", range(4))
def test_the_newest_verified_one_is_not_deleted_even_by_a_wrong_plan(
    history: list[Backup], shop: Database, monkeypatch: pytest.MonkeyPatch, index: int, home: Path
):
    """The plan says: delete everything, and the one at ``index`` twice."""
    rows = [*Backup.objects.filter(database=shop), Backup.objects.get(pk=history[index].pk)]
    wrong = [
        prune_module.Judged(
            backup=each, decision=prune_module.Decision(id=each.pk, is_kept=False, reason="a wrong plan")
        )
        for each in rows
    ]
    monkeypatch.setattr(prune_module, "simulate_prune", lambda *_args, **_options: wrong)
    prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified", "pruned", "pruned", "pruned"]
    assert len(files_of(home, history[0])) == 3
    assert verify_backup(Backup.objects.get(pk=history[0].pk), level="full", actor=ACTOR)[0].verdict == "passed"


def test_the_newest_verified_copy_at_a_destination_is_not_deleted_even_by_a_wrong_plan(
    history: list[Backup], shop: Database, monkeypatch: pytest.MonkeyPatch
):
    now = timezone.now()
    Copy.objects.create(backup=history[3], destination="far", name="x", state="verified", stored_at=now, checked_at=now)
    wrong = [
        prune_module.Judged(backup=each, decision=prune_module.Decision(id=each.pk, is_kept=False, reason="wrong"))
        for each in Backup.objects.filter(database=shop)
    ]
    monkeypatch.setattr(prune_module, "simulate_prune", lambda *_args, **_options: wrong)
    monkeypatch.setattr(prune_module, "_unsafe_places", lambda _judged: {})
    prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified", "pruned", "pruned", "verified"]


def test_only_one_module_gives_backups_up():
    app = Path(prune_module.__file__).parent.parent
    marking = re.compile(r"state\b[^=\n]*=\s+Backup\.State\.PRUNING|update\(\s*state=Backup\.State\.PRUNING\b")
    assert [path.name for path in app.rglob("*.py") if marking.search(path.read_text())] == ["prune.py"]


# Restores


def test_a_backup_that_a_request_is_for_stays(history: list[Backup], shop: Database):
    restore = request_restore(history[3], shop, reason="the sales are gone", actor=ACTOR)
    prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified", "verified", "pruned", "verified"]
    Restore.objects.filter(pk=restore.pk).update(
        state="rejected", outcome="no", rejected_by_name="ben", finished_at=timezone.now()
    )
    prune_database(shop, actor=ACTOR)
    assert states(history)[3] == "pruned"


def test_a_pruned_backup_cannot_be_restored_or_verified_and_says_why(
    history: list[Backup], shop: Database, tmp_path: Path
):
    prune_database(shop, actor=ACTOR)
    gone = Backup.objects.get(pk=history[3].pk)
    acts: list[Callable[[], object]] = [
        lambda: request_restore(gone, shop, reason="x", actor=ACTOR),
        lambda: extract_backup(gone, tmp_path / "new.sqlite3", actor=ACTOR),
        lambda: verify_backup(gone, level="full", actor=ACTOR),
        lambda: hold_backup(gone, actor=ACTOR),
    ]
    for act in acts:
        with pytest.raises(RefusedError, match=r"was pruned on .*no rule keeps it"):
            act()
    assert not (tmp_path / "new.sqlite3").exists()
    assert not Restore.objects.exists()


def safety(backup: Backup, *, days: float, **facts: object) -> Backup:
    Backup.objects.filter(pk=backup.pk).update(trigger="safety", is_held=True, **facts)
    backup.refresh_from_db()
    return aged(backup, days=days)


def test_the_hold_of_a_safety_backup_ends_with_its_window(shop: Database, make_backup: MakeBackup):
    keep(shop, keep_last=1)
    old, young, by_hand = (make_backup(shop) for _ in range(3))
    newest = make_backup(shop)
    safety(old, days=31)
    safety(young, days=29)
    safety(by_hand, days=99, held_by_name="ben")
    prune_database(shop, actor=ACTOR)
    assert states([newest, old, young, by_hand]) == ["verified", "pruned", "verified", "verified"]
    assert not Backup.objects.get(pk=old.pk).is_held


def test_a_safety_backup_that_an_undo_may_use_at_once_stays(shop: Database, make_backup: MakeBackup):
    keep(shop, keep_last=1)
    restored, before, newest = (make_backup(shop) for _ in range(3))
    safety(before, days=99)
    now = timezone.now()
    restore = Restore.objects.create(
        backup=restored, database=shop, reason="x", archive_sha256="a", binding_sha256="b", approved_binding="b",
        state="succeeded", requested_by_name="anna", approved_by_name="ben", requested_by_id="1", approved_by_id="2",
        approved_at=now, finished_at=now, expires_at=now + timedelta(hours=1), safety_backup=before,
    )  # fmt: skip
    prune_database(shop, actor=ACTOR)
    assert states([before, newest]) == ["verified", "verified"]
    Restore.objects.filter(pk=restore.pk).update(expires_at=now - timedelta(hours=1))
    prune_database(shop, actor=ACTOR)
    assert states([before, newest]) == ["pruned", "verified"]


# Refusals


def test_it_refuses_when_the_newest_run_failed(history: list[Backup], shop: Database, make_backup: MakeBackup):
    Path(shop.path).rename(f"{shop.path}.away")
    assert make_backup(shop).state == "failed"
    with pytest.raises(RefusedError, match="newest backup"):
        prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified"] * 4
    assert AuditEvent.objects.get(action="prune").outcome == "refused"
    assert Job.objects.get(kind="prune").failure_code == "refused"


def test_it_refuses_a_policy_that_keeps_nothing(history: list[Backup], shop: Database):
    keep(shop, keep_last=0)
    with pytest.raises(RefusedError, match="keep nothing"):
        prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified"] * 4


def test_nothing_goes_when_what_is_kept_is_not_there(history: list[Backup], shop: Database, home: Path):
    (home / "archives").rename(home / "unmounted")
    with pytest.raises(UnreachableError, match="Nothing was pruned"):
        prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified"] * 4
    (home / "unmounted").rename(home / "archives")
    files_of(home, history[0])[0].write_bytes(b"short")
    with pytest.raises(RefusedError, match="5 bytes"):
        prune_database(shop, actor=ACTOR)
    assert states(history) == ["verified"] * 4


def test_a_cancel_leaves_the_rest(history: list[Backup], shop: Database, home: Path):
    looks = iter([False, True])
    with pytest.raises(CancelledError):
        prune_database(shop, actor=ACTOR, is_cancelled=lambda: next(looks, True))
    assert states(history) == ["verified", "verified", "verified", "pruned"]
    assert len(files_of(home, history[2])) == 3


def test_evidence_of_failures_loses_its_files_after_its_time(shop: Database, make_backup: MakeBackup, home: Path):
    keep(shop, keep_last=5)
    Database.objects.filter(pk=shop.pk).update(required_tables=["missing"])
    shop.refresh_from_db()
    old, young = aged(make_backup(shop), days=40), aged(make_backup(shop), days=20)
    for backup, days in ((old, 40), (young, 20)):
        moment = timezone.now() - timedelta(days=days)
        backup.verifications.update(started_at=moment, finished_at=moment)
    Database.objects.filter(pk=shop.pk).update(required_tables=[])
    shop.refresh_from_db()
    make_backup(shop)
    assert (len(files_of(home, old)), len(files_of(home, young))) == (3, 3)
    prune_database(shop, actor=ACTOR)
    assert (states([old, young]), len(files_of(home, old)), len(files_of(home, young))) == (["pruned", "failed"], 0, 3)
    assert Backup.objects.get(pk=old.pk).reason, "why it failed is still known"


def rot(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)


def looked_at(backup: Backup, *, level: str, days_ago: float) -> list[str]:
    """The verdicts of a verification, as if it had been that long ago."""
    found = verify_backup(Backup.objects.get(pk=backup.pk), level=level, actor=ACTOR)
    moment = timezone.now() - timedelta(days=days_ago)
    Verification.objects.filter(pk__in=[each.pk for each in found]).update(started_at=moment, finished_at=moment)
    return [each.verdict for each in found]


def decision_on(backup: Backup, *, in_days: float = 0) -> tuple[bool, str]:
    now = timezone.now() + timedelta(days=in_days)
    (found,) = [each.decision for each in simulate_prune(backup.database, now=now) if each.backup == backup]
    return found.is_kept, found.reason


EVIDENCE_STAYS = (True, "files of a failed backup, kept for 30 days")
EVIDENCE_GOES = (False, "files of a failed backup, older than 30 days")


@pytest.fixture
def old(shop: Database, make_backup: MakeBackup) -> Backup:
    """A backup of 400 days ago, and a newer one, which is all that the policy keeps."""
    keep(shop, keep_last=1)
    backup = aged(make_backup(shop), days=400)
    moment = timezone.now() - timedelta(days=400)
    backup.verifications.update(started_at=moment, finished_at=moment)
    make_backup(shop)
    return backup


@pytest.mark.parametrize("level", ["quick", "full"])
def test_the_time_of_evidence_does_not_count_from_a_fault_that_was_repaired(old: Backup, home: Path, level: str):
    archive = home / "archives" / old.archive_name
    rot(archive)
    assert looked_at(old, level=level, days_ago=60) == ["failed"]
    assert decision_on(old) == EVIDENCE_GOES
    rot(archive)  # the bit goes back
    assert looked_at(old, level=level, days_ago=59) == ["passed"]
    rot(archive)
    assert looked_at(old, level=level, days_ago=29) == ["failed"]
    assert decision_on(old) == EVIDENCE_STAYS
    assert looked_at(old, level=level, days_ago=1) == ["failed"]
    assert decision_on(old, in_days=2) == EVIDENCE_GOES, "that it is looked at again does not renew its time"


def test_the_time_of_evidence_counts_from_the_last_copy_that_became_bad(old: Backup, home: Path, tmp_path: Path):
    far = tmp_path / "far"
    shutil.copytree(home / "archives", far)
    copy = old.copies.get()
    copy.pk, copy.destination = None, "far"
    copy.save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(destinations._DESTINATIONS, "far", lambda: LocalDestination(far, name="far"))
        rot(far / old.archive_name)
        assert sorted(looked_at(old, level="full", days_ago=60)) == ["failed", "passed"]
        rot(home / "archives" / old.archive_name)
        assert looked_at(old, level="full", days_ago=0) == ["failed", "failed"]
        assert Backup.objects.get(pk=old.pk).state == "failed"
        assert decision_on(old) == EVIDENCE_STAYS


def test_a_quick_look_at_what_was_never_good_does_not_renew_its_time(shop: Database, make_backup: MakeBackup):
    keep(shop, keep_last=1)
    Database.objects.filter(pk=shop.pk).update(required_tables=["missing"])
    shop.refresh_from_db()
    bad = aged(make_backup(shop), days=40)
    moment = timezone.now() - timedelta(days=40)
    bad.verifications.update(started_at=moment, finished_at=moment)
    Database.objects.filter(pk=shop.pk).update(required_tables=[])
    shop.refresh_from_db()
    make_backup(shop)
    assert looked_at(bad, level="quick", days_ago=10) == ["passed"]
    assert decision_on(bad) == EVIDENCE_GOES


def test_an_objection_of_the_site_is_no_fault_of_the_copy_that_evidence_counts_from(
    old: Backup, home: Path, settings: Settings
):
    settings.BACKUPS = {**settings.BACKUPS, "DRILL_CHECKS": ["tests.services.test_drill.complains"]}
    assert looked_at(old, level="drill", days_ago=60) == ["failed"]
    rot(home / "archives" / old.archive_name)
    assert looked_at(old, level="full", days_ago=0) == ["failed"]
    assert decision_on(old) == EVIDENCE_STAYS


def test_what_is_required_since_does_not_delete_what_was_made_before(
    history: list[Backup], shop: Database, shop_file: Path, home: Path, make_backup: MakeBackup
):
    with connected(shop_file) as connection:
        connection.execute("CREATE TABLE refund AS SELECT 1 AS id")
    Database.objects.filter(pk=shop.pk).update(required_tables=["refund"])
    shop.refresh_from_db()
    assert make_backup(shop).state == "verified"
    old = Backup.objects.get(pk=history[0].pk)
    assert [each.verdict for each in verify_backup(old, level="full", actor=ACTOR)] == ["failed"]
    plans = simulate_prune(shop, now=timezone.now() + timedelta(days=400))
    (kept,) = [each.decision for each in plans if each.backup.pk == old.pk]
    assert (kept.is_kept, kept.reason) == (True, "last 2 of 2")
    assert files_of(home, old)


# A crash in between


class _StuckDestination(LocalDestination):
    def remove(self, name: str) -> None:
        raise BackupError("The disk is read-only.", "Look at it.")


def test_files_that_cannot_be_removed_are_tried_again(
    history: list[Backup], shop: Database, home: Path, monkeypatch: pytest.MonkeyPatch
):
    from backups_app import destinations

    with monkeypatch.context() as patch:
        patch.setitem(destinations._DESTINATIONS, "local", lambda: _StuckDestination(home / "archives"))
        pruned = prune_database(shop, actor=ACTOR)
        assert [each.message for each in pruned.failures] == ["The disk is read-only."] * 2
        assert states(history) == ["verified", "verified", "pruning", "pruning"]
        assert Job.objects.get(kind="prune").state == "failed"
        assert heal_interrupted() == []
        assert states(history)[2:] == ["pruning", "pruning"]
    heal_interrupted()
    assert states(history)[2:] == ["pruned", "pruned"]
    assert files_of(home, history[2]) == []
    last = AuditEvent.objects.filter(action="prune", subject=history[2].pk).order_by("-pk").first()
    assert last is not None
    assert last.actor_name == "system"


def test_the_next_prune_finishes_what_was_begun(history: list[Backup], shop: Database, home: Path):
    Backup.objects.filter(pk=history[3].pk).update(
        state="pruning", pruning_at=timezone.now(), prune_reason="no rule keeps it"
    )
    files_of(home, history[3])[0].unlink()
    pruned = prune_module.prune_claimed_database(shop, actor=ACTOR, watch=prune_module.Watch())
    assert {each.backup.pk for each in pruned.deleted} == {history[2].pk, history[3].pk}
    assert files_of(home, history[3]) == []


def test_two_that_finish_at_once_record_it_once(history: list[Backup], shop: Database):
    from backups_app.services.removal import finish_removal

    Backup.objects.filter(pk=history[3].pk).update(
        state="pruning", pruning_at=timezone.now(), prune_reason="no rule keeps it"
    )
    first, second = (Backup.objects.get(pk=history[3].pk) for _ in range(2))
    assert [finish_removal(each, actor=ACTOR) for each in (first, second)] == [True, False]
    assert AuditEvent.objects.filter(action="prune").count() == 1
    assert second.state == "pruned"


# The catalogue itself


@pytest.mark.parametrize(
    "facts",
    [
        {"state": "pruned"},
        {"state": "pruning"},
        {"state": "pruning", "pruning_at": timezone.now()},
        {"state": "pruning", "pruning_at": timezone.now(), "prune_reason": "x", "is_held": True},
        {"state": "pruned", "pruning_at": timezone.now(), "prune_reason": "x"},
        {"pruning_at": timezone.now()},
        {"pruned_at": timezone.now()},
    ],
)
def test_no_row_is_pruned_without_time_and_reason_or_while_held(history: list[Backup], facts: dict[str, object]):
    with pytest.raises(IntegrityError), transaction.atomic(using="catalog"):
        Backup.objects.filter(pk=history[3].pk).update(**facts)
