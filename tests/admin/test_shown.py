"""What is meant for machines is shown to no person: raw codes, backticks, times without a zone, missing values."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from backups_app.models import Backup, Copy, Database, Finding, HealthProblem, Job, Restore, TriageFile, Verification
from tests.admin.conftest import Person, backup_row, verification_row
from tests.admin.markup import Page, page_of
from tests.admin.test_matrix import MATRIX, address, rows  # noqa: F401

HINT = "Run `manage.py backup <b>verify</b>` there. Look at `two words`"
RAW = {
    "a backtick": re.compile("`"),
    "nothing": re.compile(r"\bNone\b(?! is| chosen)"),
    "a boolean": re.compile(r"\b(True|False)\b"),
    "half a day": re.compile(r"\b[ap]\.m\."),
    "two full stops": re.compile(r"\.\.(?!\.)"),
    "a code": re.compile(r"too_old|digest_differs|key_missing|rolled_back"),
}


@pytest.fixture
def hinted(rows: dict[str, Any]) -> dict[str, Any]:  # noqa: F811
    """One row of each model, with a hint wherever there is room for one, and codes of several words."""
    now = timezone.now()
    HealthProblem.objects.update(code="too_old", message=HINT, hint=HINT, told_at=now)
    Finding.objects.update(code="digest_differs", message=HINT, hint=HINT)
    Copy.objects.update(reason=HINT, state="key_missing")
    Job.objects.filter(pk=rows["job"].pk).update(outcome=HINT, hint=HINT, state="failed", finished_at=now)
    Restore.objects.update(outcome=HINT, hint=HINT, state="rolled_back", finished_at=now, **_approved(rows["restore"]))
    TriageFile.objects.update(reason=HINT, outcome=HINT)
    Verification.objects.filter(level="creation").update(verdict="key_missing", reason=HINT, hint=HINT)
    Backup.objects.update(verdict="key_missing")
    type(rows["notification"]).objects.update(reason=HINT, content={"subject": "A test.", "is_ok": False, "hint": HINT})
    return rows


def _approved(restore: Restore) -> dict[str, Any]:
    return {
        "approved_by_name": "clara",
        "approved_by_id": "9",
        "approved_at": timezone.now(),
        "approved_binding": restore.binding_sha256,
    }


def test_no_page_shows_what_is_meant_for_machines(hinted: dict[str, Any], superuser: Person):
    found, looked_at = {}, 0
    for name, rule in MATRIX.items():
        response = superuser.client.get(address(name, hinted)) if "S" in rule.get else None
        if response is None or response.status_code != 200 or "html" not in response["Content-Type"]:
            continue
        looked_at += 1
        page = page_of(response)
        text = _without_documents(page)
        said = {what: rule.search(text) for what, rule in RAW.items()}
        if wrong := {what: text[max(0, m.start() - 60) : m.end() + 20] for what, m in said.items() if m}:
            found[name] = wrong
        assert "<b>verify" not in page.source, name
    assert found == {}
    assert looked_at > 50


def _without_documents(page: Page) -> str:
    """The words of a page without the documents on it, which are for machines."""
    text = page.text
    for each in [*page.all("pre"), *page.all("textarea"), *page.all("option")]:
        text = text.replace(" ".join(each.text.split()), " ") if each.text.strip() else text
    return text


def test_what_is_to_be_typed_is_shown_as_code(hinted: dict[str, Any], superuser: Person):
    for name in ("healthproblem", "finding", "job", "restore", "verification", "notification"):
        page = page_of(superuser.client.get(address(f"backups_app_{name}_change", hinted)))
        assert "manage.py backup <b>verify</b>" in {each.text for each in page.all("code")}, name
        assert "&lt;b&gt;verify" in page.source, name


def test_a_time_on_a_page_tells_its_zone_and_second(superuser: Person, hinted: dict[str, Any]):
    moment = datetime(2024, 7, 6, 22, 0, 7, tzinfo=UTC)
    HealthProblem.objects.update(first_seen=moment)
    page = page_of(superuser.client.get(address("backups_app_healthproblem_change", hinted)))
    assert "July 6, 2024, 22:00:07 UTC" in page.text
    # The help of the field stays beside it.
    backup = page_of(superuser.client.get(address("backups_app_backup_change", hinted)))
    assert "Every commit acknowledged before this instant is inside." in backup.text


def test_codes_are_words_in_filters_too(superuser: Person, hinted: dict[str, Any]):
    for model, code, words in (
        ("healthproblem", "too_old", "Too old"),
        ("finding", "digest_differs", "Digest differs"),
    ):
        where = reverse(f"admin:backups_app_{model}_changelist")
        page = page_of(superuser.client.get(where))
        links = {each.text.strip(): each.attributes["href"] for each in page.all("a") if "code" in str(each.attributes)}
        assert links[words] == f"?code={code}"
        assert page_of(superuser.client.get(where + links[words])).text.count(words) >= 2


@pytest.mark.parametrize(("state", "others"), [("open", "over"), ("over", "open")])
def test_problems_are_chosen_by_whether_they_are_open(superuser: Person, db_catalog: None, state: str, others: str):
    now = timezone.now()
    facts = {"message": "x", "first_seen": now, "last_seen": now}
    HealthProblem.objects.create(code="is_open", **facts)
    HealthProblem.objects.create(code="is_over", resolved_at=now, **facts)
    page = page_of(superuser.client.get(reverse("admin:backups_app_healthproblem_changelist"), {"state": state}))
    badges = " ".join(page.badges)
    assert state in badges
    assert others not in badges


def test_a_backup_that_does_not_pass_any_more_says_so_before_somebody_restores_it(superuser: Person, shop: Database):
    backup = backup_row(shop, verdict="failed")
    backup.save()
    verification_row(backup, verdict="failed", reason="12 bytes differ.", hint="Take `another`.").save()
    for where in (
        reverse("admin:backups_app_backup_change", args=[backup.pk]),
        reverse("admin:backups_app_backup_restore", args=[backup.pk]),
    ):
        text = page_of(superuser.client.get(where)).text
        assert "It was proven when it was made, but does not pass any more. 12 bytes differ. Take another." in text
        assert "gives exactly the database" not in text


def test_a_held_backup_says_so_on_its_page_and_in_the_list(superuser: Person, shop: Database):
    backup = backup_row(shop, is_held=True, held_by_name="anna")
    backup.save()
    for where in (
        reverse("admin:backups_app_backup_change", args=[backup.pk]),
        reverse("admin:backups_app_backup_changelist"),
    ):
        assert "⚑ held" in page_of(superuser.client.get(where)).badges


def test_a_database_with_an_open_problem_is_not_called_safe(superuser: Person, shop: Database):
    now = timezone.now()
    backup_row(shop).save()
    where = reverse("admin:backups_app_database_changelist")
    assert "✓ safe" in page_of(superuser.client.get(where)).badges
    HealthProblem.objects.create(code="copies_bad", database="shop", message="x", first_seen=now, last_seen=now)
    badges = page_of(superuser.client.get(where)).badges
    assert "! needs attention" in badges
    assert len([each for each in badges if "safe" in each]) == Database.objects.count() - 1


def test_the_reason_of_a_deletion_ends_once(superuser: Person, shop: Database):
    now = timezone.now()
    backup = backup_row(shop, state="pruned", pruning_at=now, pruned_at=now, prune_reason="deleted by anna: too many.")
    backup.save()
    text = page_of(superuser.client.get(reverse("admin:backups_app_backup_change", args=[backup.pk]))).text
    assert "deleted by anna: too many. The record stays." in text


LISTS = ("auditevent", "copy", "finding", "healthproblem", "host", "job", "notification", "recipient", "restore")


@pytest.mark.parametrize("model", [*LISTS, "backup", "schedule", "scheduledrun", "triagerun", "triagefile"])
def test_an_empty_list_says_why_or_what_to_do(superuser: Person, db_catalog: None, model: str):
    where = reverse(f"admin:backups_app_{model}_changelist")
    notes = [each.text.strip() for each in page_of(superuser.client.get(where)).all("p", "walsafe-note")]
    assert notes
    assert "There is nothing yet." not in notes
    searched = page_of(superuser.client.get(where, {"q": "nothing-like-this"}))
    (note,) = [each.text for each in searched.all("p", "walsafe-note")]
    assert "Show all" in note


def test_a_list_with_rows_says_no_such_thing(superuser: Person, shop: Database):
    backup_row(shop).save()
    assert not page_of(superuser.client.get(reverse("admin:backups_app_backup_changelist"))).all("p", "walsafe-note")


def test_pruning_nothing_promises_no_deletion(superuser: Person, shop: Database):
    backup_row(shop).save()
    page = page_of(superuser.client.get(reverse("admin:backups_app_database_prune", args=[shop.pk])))
    assert "There is nothing to prune now." in page.text
    assert "deleted for good" not in page.text
    assert reverse("admin:backups_app_database_retention", args=[shop.pk]) in page.links


def test_only_what_people_edit_offers_a_history(superuser: Person, hinted: dict[str, Any]):
    for name in ("finding", "host", "copy", "healthproblem", "notification", "auditevent", "triagefile"):
        page = page_of(superuser.client.get(address(f"backups_app_{name}_change", hinted)))
        assert not page.all("a", "historylink"), name
    assert page_of(superuser.client.get(address("backups_app_schedule_change", hinted))).all("a", "historylink")


def test_each_cell_of_a_table_that_becomes_a_list_has_the_heading_of_its_column(
    superuser: Person, hinted: dict[str, Any]
):
    tables = 0
    for name in ("backup_change", "database_change", "healthproblem_health", "database_retention", "schedule_change"):
        source = superuser.client.get(_where(name, hinted)).content.decode()
        for table in re.findall(r'<table class="walsafe-table walsafe-stack">.*?</table>', source, re.DOTALL):
            tables += 1
            heads = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", table)
            for row in re.findall(r"<tr>(<td.*?)</tr>", table, re.DOTALL):
                assert re.findall(r"<td data-label=\"([^\"]*)\"", row) == heads
    assert tables >= 7


def _where(name: str, rows: dict[str, Any]) -> str:  # noqa: F811
    if name == "healthproblem_health":
        return reverse("admin:backups_app_health")
    return address(f"backups_app_{name}", rows)
