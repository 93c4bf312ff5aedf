"""``prune``: the dry run explains each line, and --yes deletes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from backups_app.models import AuditEvent, Backup, Database
from tests.console import Finished

Run = Callable[..., Finished]


@pytest.fixture
def history(shop: Database, make_backup: Callable[..., Backup]) -> list[Backup]:
    """Three backups, a day apart, the newest first; one is to be kept."""
    found = [make_backup(shop) for _ in range(3)]
    for days, backup in enumerate(found):
        assert backup.taken_at is not None
        moments = {"created_at": backup.created_at, "taken_at": backup.taken_at}
        Backup.objects.filter(pk=backup.pk).update(**{k: v - timedelta(days=days) for k, v in moments.items()})
    Database.objects.filter(pk=shop.pk).update(keep_last=1)
    return found


def test_a_dry_run_explains_each_line_and_changes_nothing(run: Run, history: list[Backup]):
    finished = run("prune", "shop", "--dry-run")
    assert finished.code == 0
    for backup, why in zip(
        history, ("the newest verified backup", "no rule keeps it", "no rule keeps it"), strict=True
    ):
        (line,) = [each for each in finished.stdout.splitlines() if backup.pk in each]
        assert why in line
        assert ("would be deleted" in line) is (backup is not history[0])
    assert "1 kept, 2 would be deleted" in finished.stdout
    assert set(Backup.objects.values_list("state", flat=True)) == {"verified"}


def test_a_dry_run_as_json_has_the_shape_of_a_run(run: Run, history: list[Backup]):
    planned = run("prune", "shop", "--dry-run", "--json").document["prune"]
    assert (planned["dry_run"], [each["id"] for each in planned["kept"]]) == (True, [history[0].pk])
    assert [each["reason"] for each in planned["deleted"]] == ["no rule keeps it"] * 2
    done = run("prune", "shop", "--yes", "--json").document["prune"]
    assert done["dry_run"] is False
    assert {each["id"] for each in done["deleted"]} == {each["id"] for each in planned["deleted"]}
    assert [each["id"] for each in done["kept"]] == [history[0].pk]


def test_without_yes_and_without_a_terminal_nothing_is_deleted(run: Run, history: list[Backup]):
    finished = run("prune", "shop")
    assert finished.code == 7
    assert "Give --yes" in finished.stderr
    assert set(Backup.objects.values_list("state", flat=True)) == {"verified"}


def test_without_yes_there_is_nothing_to_confirm_when_everything_is_kept(run: Run, history: list[Backup]):
    Database.objects.filter(pk=history[0].database_id).update(keep_last=3)
    finished = run("prune", "--json")
    assert finished.code == 0
    assert len(finished.document["prune"]["kept"]) == 3
    assert finished.document["prune"]["deleted"] == []


def test_without_names_all_databases_are_pruned_and_a_refusal_stops_no_other(run: Run, history: list[Backup]):
    Database.objects.create(name="aaa", path="/nowhere/aaa.sqlite3", keep_last=0)
    finished = run("prune", "--yes", "--json")
    assert finished.code == 7
    assert [each["about"] for each in finished.document["errors"]] == ["aaa"]
    assert len(finished.document["prune"]["deleted"]) == 2


def test_an_unknown_name_is_not_found(run: Run, history: list[Backup]):
    assert run("prune", "shopp", "--yes").code == 6


def test_a_person_needs_the_permission(run: Run, history: list[Backup], django_user_model: type):
    django_user_model.objects.create_user("ben")  # type: ignore[attr-defined]
    finished = run("prune", "shop", "--yes", "--user", "ben")
    assert finished.code == 7
    assert set(Backup.objects.values_list("state", flat=True)) == {"verified"}


def test_pruned_backups_are_left_out_of_the_list_unless_asked_for(run: Run, history: list[Backup]):
    run("prune", "shop", "--yes")
    assert [each["id"] for each in run("list", "--json").document["backups"]] == [history[0].pk]
    everything = run("list", "--pruned", "--json").document["backups"]
    assert {each["state"] for each in everything} == {"verified", "pruned"}
    gone = run("show", history[2].pk)
    assert "no rule keeps it" in gone.stdout


def test_hold_and_release(run: Run, history: list[Backup]):
    held = run("hold", history[2].pk, "--json").backup()
    assert (held["held"], held["held_by"]) == (True, "system")
    run("hold", history[2].pk)
    assert AuditEvent.objects.filter(action="hold").count() == 1, "it was held already"
    run("prune", "shop", "--yes")
    assert Backup.objects.get(pk=history[2].pk).state == "verified"
    assert run("release", history[2].pk, "--json").backup()["held"] is False
    run("prune", "shop", "--yes")
    assert Backup.objects.get(pk=history[2].pk).state == "pruned"
    assert run("hold", history[2].pk).code == 7
