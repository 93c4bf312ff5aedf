"""Retention on the screen: the policy, its simulator, pruning and holding."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from pytest_django.fixtures import Settings

from backups_app.models import AuditEvent, Backup, Database, Job
from backups_app.services.prune import prune_database
from tests.admin.conftest import Person, backup_row
from tests.admin.markup import page_of
from tests.conftest import ACTOR

MakePerson = Callable[..., Person]
DATABASES, BACKUPS = "/admin/backups_app/database/", "/admin/backups_app/backup/"


@pytest.fixture
def history(shop: Database, make_backup: Callable[..., Backup]) -> list[Backup]:
    """Three backups, a day apart, the newest first."""
    found = [make_backup(shop) for _ in range(3)]
    for days, backup in enumerate(found):
        assert backup.taken_at is not None
        backup.created_at -= timedelta(days=days)
        backup.taken_at -= timedelta(days=days)
        backup.save()
    return found


def policy(**rules: object) -> dict[str, object]:
    return {"required_tables": "[]", "freshness_hours": "", **dict.fromkeys(Database.KEEP_FIELDS, ""), **rules}


# The policy


def test_rules_are_stored_and_recorded(person: MakePerson, shop: Database):
    page = f"{DATABASES}{shop.pk}/change/"
    assert person("policymaker").post(page, policy(keep_last="3", keep_daily="7")).status_code == 302
    shop.refresh_from_db()
    assert (shop.keep_last, shop.keep_daily, shop.keep_weekly) == (3, 7, None)
    event = AuditEvent.objects.get(action="change-policy")
    assert "keep_last 3, keep_hourly as in the settings, keep_daily 7" in event.detail


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ({"keep_last": "0"}, "would keep nothing"),
        ({"keep_last": "-1"}, "greater than or equal to 0"),
        ({"keep_within_days": "36501"}, "Give 0 to 36500"),
        ({"keep_daily": "many"}, "Enter a whole number"),
    ],
)
def test_rules_that_cannot_be_used_are_refused(person: MakePerson, shop: Database, rules: dict[str, str], error: str):
    response = person("policymaker").post(f"{DATABASES}{shop.pk}/change/", policy(**rules))
    assert response.status_code == 200
    assert error in page_of(response).text
    shop.refresh_from_db()
    assert shop.keep_last is None


def test_zero_is_a_rule_where_others_keep_something(person: MakePerson, shop: Database, settings: Settings):
    settings.BACKUPS = {**settings.BACKUPS, "RETENTION": {"keep_last": 5, "keep_daily": 2}}
    person("policymaker").post(f"{DATABASES}{shop.pk}/change/", policy(keep_last="0"))
    shop.refresh_from_db()
    assert shop.keep_last == 0


# The simulator


def test_the_simulator_shows_what_the_given_rules_would_do_and_changes_nothing(
    person: MakePerson, shop: Database, history: list[Backup]
):
    events = AuditEvent.objects.count()
    page = page_of(person("policymaker").get(f"{DATABASES}{shop.pk}/retention/", {"keep_last": "2"}))
    assert "2 would be kept, 1 deleted" in page.text
    cells = page.cells()
    assert cells[cells.index(history[2].pk) + 3] == "no rule keeps it"
    assert "last 2 of 2" in cells
    assert (Job.objects.filter(kind="prune").count(), AuditEvent.objects.count()) == (0, events)
    assert set(Backup.objects.values_list("state", flat=True)) == {"verified"}
    shop.refresh_from_db()
    assert shop.keep_last is None


def test_the_simulator_begins_with_the_stored_rules(person: MakePerson, shop: Database, history: list[Backup]):
    empty = page_of(person("policymaker").get(f"{DATABASES}{shop.pk}/retention/"))
    assert "No rule is set, so everything is kept." in empty.text
    Database.objects.filter(pk=shop.pk).update(keep_last=1)
    page = page_of(person("pruner").get(f"{DATABASES}{shop.pk}/retention/"))
    assert "1 would be kept, 2 deleted" in page.text
    (field,) = [each for each in page.all("input") if each.attributes.get("name") == "keep_last"]
    assert field.attributes["value"] == "1"


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"keep_last": "0"}, "The policy would keep nothing."),
        ({"keep_last": "x"}, "Enter a whole number"),
        ({"keep_last": "99999999999999999999"}, "less than or equal to 36500"),
        ({"keep_within_days": "36500"}, "3 would be kept"),
    ],
)
def test_the_simulator_answers_anything(
    person: MakePerson, shop: Database, history: list[Backup], query: dict[str, str], text: str
):
    assert text in page_of(person("policymaker").get(f"{DATABASES}{shop.pk}/retention/", query)).text


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_the_simulator_is_for_reading_only(person: MakePerson, shop: Database, method: str):
    response = getattr(person("superuser").client, method)(f"{DATABASES}{shop.pk}/retention/", {"keep_last": "1"})
    assert response.status_code == 405


@pytest.mark.parametrize("page", ["retention", "prune"])
def test_pages_of_retention_need_their_permission_and_a_database(person: MakePerson, shop: Database, page: str):
    assert person("viewer").get(f"{DATABASES}{shop.pk}/{page}/").status_code == 403
    assert person("anonymous").get(f"{DATABASES}{shop.pk}/{page}/").status_code == 302
    pruner = person("pruner")
    for wrong in ("0", "9" * 30, "x"):
        assert pruner.get(f"{DATABASES}{wrong}/{page}/").status_code in (302, 404)


# Pruning


def test_prune_shows_what_goes_and_asks_for_a_job(person: MakePerson, shop: Database, history: list[Backup]):
    Database.objects.filter(pk=shop.pk).update(keep_last=1)
    pruner = person("pruner")
    page = page_of(pruner.get(f"{DATABASES}{shop.pk}/prune/"))
    assert "1 would be kept, 2 deleted" in page.text
    assert "Prune" in page.buttons
    assert not Job.objects.filter(kind="prune").exists()
    assert pruner.post(f"{DATABASES}{shop.pk}/prune/").status_code == 302
    job = Job.objects.get(kind="prune")
    assert (job.state, job.trigger, job.requested_by_name, job.database) == ("queued", "admin", "pruner", shop)
    assert set(Backup.objects.values_list("state", flat=True)) == {"verified"}, "the admin runs nothing"


def test_where_nothing_goes_there_is_nothing_to_press(person: MakePerson, shop: Database, history: list[Backup]):
    assert "Prune" not in page_of(person("pruner").get(f"{DATABASES}{shop.pk}/prune/")).buttons


def test_pruned_backups_are_hidden_unless_asked_for_and_offer_nothing(
    superuser: Person, shop: Database, history: list[Backup]
):
    Database.objects.filter(pk=shop.pk).update(keep_last=1)
    shop.refresh_from_db()
    prune_database(shop, actor=ACTOR)
    gone = history[2].pk
    assert list(superuser.get(BACKUPS).context["cl"].result_list) == [history[0]]
    assert superuser.get(BACKUPS, {"state__exact": "pruned"}).context["cl"].result_count == 2
    page = page_of(superuser.get(f"{BACKUPS}{gone}/change/"))
    assert "Its archive was deleted: no rule keeps it. The record stays." in page.text
    assert not [each for each in page.links if each.endswith(("/verify/", "/restore/", "/hold/")) and gone in each]
    assert "zstd -d" not in page.text
    superuser.post(f"{BACKUPS}{gone}/hold/", {"verb": "hold"})
    assert not Backup.objects.get(pk=gone).is_held


# Holding


def test_hold_and_release(person: MakePerson, backup: Backup):
    holder = person("holder")
    page = f"{BACKUPS}{backup.pk}/hold/"
    assert "Hold" in page_of(holder.get(page)).buttons
    assert not Backup.objects.get().is_held
    holder.post(page, {"verb": "hold"})
    assert (Backup.objects.get().is_held, Backup.objects.get().held_by_name) == (True, "holder")
    shown = page_of(holder.get(page))
    assert "It is held by holder." in shown.text
    holder.post(page, {"verb": "release"})
    assert not Backup.objects.get().is_held
    assert [each.action for each in AuditEvent.objects.filter(action__in=["hold", "release"]).order_by("pk")] == [
        "hold",
        "release",
    ]


def test_holding_needs_the_permission(person: MakePerson, shop: Database):
    made = backup_row(shop)
    made.save()
    for name in ("operator", "pruner"):
        assert person(name).post(f"{BACKUPS}{made.pk}/hold/", {"verb": "hold"}).status_code == 403
    assert not Backup.objects.get().is_held
