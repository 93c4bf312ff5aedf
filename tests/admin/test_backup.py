"""Backups on the screen: the evidence, and *Verify*."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import Permission
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from backups_app.core.errors import BusyError
from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Verification
from tests.admin.conftest import Person, backup_row, job_row
from tests.admin.markup import page_of
from tests.support import bytes_in

LIST = "/admin/backups_app/backup/"
MakePerson = Callable[..., Person]


def change_page(backup: Backup) -> str:
    return f"{LIST}{backup.pk}/change/"


def verify_page(backup: Backup) -> str:
    return f"{LIST}{backup.pk}/verify/"


def nothing_was_asked() -> bool:
    is_untouched = not Verification.objects.exclude(level="creation").exists()
    return (
        is_untouched
        and not Job.objects.filter(trigger="admin").exists()
        and not AuditEvent.objects.filter(action="verify").exists()
    )


# Verify


@pytest.mark.parametrize("level", ["quick", "full"])
def test_verify_asks_for_one_job_and_runs_nothing(person: MakePerson, backup: Backup, home: Path, level: str):
    before = bytes_in(home / "archives")
    response = person("operator").post(verify_page(backup), {"level": level}, follow=True)
    job = Job.objects.get(kind="verify")
    assert response.redirect_chain == [(f"/admin/backups_app/job/{job.pk}/change/", 302)]
    assert page_of(response).messages == [("success", "1 job was queued.")]
    assert (job.kind, job.state, job.database, job.trigger) == ("verify", "queued", backup.database, "admin")
    assert job.requested_by_name == "operator"
    assert backup.pk in str(job.options)
    assert level in str(job.options)
    assert not Verification.objects.exclude(level="creation").exists()
    assert bytes_in(home / "archives") == before


def test_of_two_clicks_on_the_same_form_one_asks(
    person: MakePerson, backup: Backup, make_backup: Callable[..., Backup]
):
    operator, other = person("operator"), make_backup(backup.database)
    inputs = page_of(operator.get(verify_page(backup))).all("input")
    (opened,) = [each.attributes["value"] for each in inputs if each.attributes.get("name") == "opened"]
    for _ in range(2):
        operator.post(verify_page(backup), {"level": "full", "opened": opened})
        Job.objects.filter(kind="verify").update(state="succeeded", finished_at=timezone.now())
    assert Job.objects.filter(kind="verify").count() == 1
    operator.post(verify_page(other), {"level": "full", "opened": opened})
    assert Job.objects.filter(kind="verify").count() == 2, "another backup is another matter"
    Job.objects.filter(kind="verify").update(state="succeeded", finished_at=timezone.now())
    operator.post(verify_page(backup), {"level": "quick", "opened": opened})
    assert Job.objects.filter(kind="verify").count() == 2, "a full look is a quick one too"
    operator.post(verify_page(backup), {"level": "drill", "opened": opened})
    assert Job.objects.filter(kind="verify").count() == 3, "a drill is more than a full look"


def test_a_refusal_is_said_in_words(person: MakePerson, backup: Backup, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments: object, **_options: object) -> list[Job]:
        raise BusyError("It is <b>busy</b>.", "Wait.")

    monkeypatch.setattr("backups_app.admin.backup.ask_verify", refuse)
    response = person("operator").post(verify_page(backup), {"level": "full"}, follow=True)
    assert response.redirect_chain == [(change_page(backup), 302)]
    assert page_of(response).messages == [("error", "It is <b>busy</b>. Wait.")]
    assert not page_of(response).all("b")


def test_asking_to_verify_shows_what_will_happen_and_changes_nothing(person: MakePerson, backup: Backup, home: Path):
    operator, before = person("operator"), bytes_in(home)
    response = operator.get(verify_page(backup), {"level": "full"})
    assert response.status_code == 200
    page = page_of(response)
    assert page.messages == []
    levels = [each.attributes for each in page.all("input") if each.attributes.get("name") == "level"]
    assert [(each["value"], "checked" in each) for each in levels] == [
        ("full", True),
        ("quick", False),
        ("drill", False),
    ]
    (form,) = page.all("form", "walsafe-confirm")
    assert form.attributes["method"] == "post"
    assert nothing_was_asked()
    assert bytes_in(home) == before


@pytest.mark.parametrize("method", ["head", "options", "put", "delete", "patch"])
def test_only_post_verifies(person: MakePerson, backup: Backup, method: str):
    getattr(person("operator").client, method)(f"{verify_page(backup)}?level=quick", {"level": "quick"})
    assert nothing_was_asked()


@pytest.mark.parametrize(
    ("name", "status"), [("anonymous", 302), ("staff", 403), ("viewer", 403), ("policymaker", 403)]
)
def test_without_the_permission_nothing_is_verified(person: MakePerson, backup: Backup, name: str, status: int):
    assert person(name).post(verify_page(backup), {"level": "quick"}).status_code == status
    assert nothing_was_asked()


def test_without_a_csrf_token_nothing_is_verified(person: MakePerson, backup: Backup):
    superuser = person("superuser", enforce_csrf_checks=True)
    assert superuser.post(verify_page(backup), {"level": "quick"}).status_code == 403
    assert nothing_was_asked()


def test_with_the_csrf_token_of_the_form_it_is_verified(person: MakePerson, backup: Backup):
    superuser = person("superuser", enforce_csrf_checks=True)
    page = page_of(superuser.get(verify_page(backup)))
    (token,) = {each.attributes["value"] for each in page.all("input") if "csrf" in each.attributes.get("name", "")}
    assert superuser.post(verify_page(backup), {"level": "quick", "csrfmiddlewaretoken": token}).status_code == 302
    assert Job.objects.get(kind="verify").kind == "verify"


@pytest.mark.parametrize("level", ["", "creation", "drills", "FULL", "quick ", "\x00", "<b>full</b>"])
def test_an_unknown_level_asks_again_and_verifies_nothing(person: MakePerson, backup: Backup, level: str):
    response = person("operator").post(verify_page(backup), {"level": level})
    assert response.status_code == 200
    page = page_of(response)
    assert page.messages == [("error", "Choose how deep to look: quick, full or drill.")]
    assert "Verify" in page.buttons
    assert "<b>full</b>" not in response.content.decode()
    assert nothing_was_asked()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("backup_id", ["0", "none", "0123456789ab", "a" * 400, "%00", "..", "%F0%9F", "%ED%A0%80"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_verifying_an_unknown_backup_is_not_found(person: MakePerson, backup_id: str, method: str):
    response = getattr(person("operator"), method)(f"{LIST}{backup_id}/verify/", {"level": "quick"})
    assert response.status_code == 404
    assert nothing_was_asked()


@pytest.mark.parametrize("state", ["running", "failed", "cancelled"])
def test_a_backup_without_an_archive_is_not_verified(person: MakePerson, shop: Database, state: str):
    made = backup_row(shop, state=state, verdict="")
    made.save()
    operator = person("operator")
    assert verify_page(made) not in page_of(operator.get(change_page(made))).links
    asked = page_of(operator.get(verify_page(made)))
    assert "there is nothing to verify" in asked.text
    assert not asked.all("form", "walsafe-confirm")
    done = page_of(operator.post(verify_page(made), {"level": "full"}, follow=True))
    ((kind, text),) = done.messages
    assert kind == "error"
    assert "no stored copy" in text
    assert nothing_was_asked()


@pytest.mark.parametrize(("name", "is_offered"), [("viewer", False), ("operator", True), ("superuser", True)])
def test_verify_is_offered_to_those_who_may(person: MakePerson, backup: Backup, name: str, is_offered: bool):
    page = page_of(person(name).get(change_page(backup)))
    assert (verify_page(backup) in page.links) is is_offered
    assert ("Verify" in page.buttons) is is_offered


# The detail page


def test_the_page_of_a_verified_backup_shows_what_was_proven(person: MakePerson, backup: Backup):
    page = page_of(person("viewer").get(change_page(backup)))
    cells = page.cells()
    assert cells[cells.index("product") + 1] == "3"
    assert cells[cells.index("sale") + 1] == "4"
    for check in ("integrity_check", "census", "stored bytes", "content digest", "manifest"):
        assert cells[cells.index(check) + 1] == "✓ ok", check
    assert cells[cells.index("local") + 1] == "✓ verified"
    assert backup.archive_name in cells
    for digest in (backup.sha256, backup.archive_sha256, backup.content_sha256, backup.manifest_sha256):
        assert len(digest) == 64
        assert digest in page.text
    assert backup.sequence == 1
    assert f"Ed25519, key {backup.signing_key_id}" in page.text


def test_a_warning_of_a_check_is_shown_as_a_note(superuser: Person, every_state: list[Backup]):
    cells = page_of(superuser.get(change_page(every_state[1]))).cells()
    assert cells[cells.index("foreign_key_check") + 1] == "! note"
    assert cells[cells.index("foreign_key_check") + 2] == "2 rows refer to nothing"


@pytest.mark.parametrize(
    ("index", "badges"),
    [
        (0, ["… running"]),
        (1, ["✓ verified"]),
        (2, ["✓ verified", "✗ failed"]),
        (3, ["✓ verified", "? unreachable"]),
        (4, ["✓ verified", "? key missing"]),
        (5, ["✗ failed"]),
        (6, ["✗ failed"]),
        (7, ["✗ failed", "? unreachable"]),
        (8, ["– cancelled"]),
    ],
)
def test_each_state_has_a_badge_of_a_symbol_and_a_word(
    superuser: Person, every_state: list[Backup], index: int, badges: list[str]
):
    assert page_of(superuser.get(change_page(every_state[index]))).badges[: len(badges)] == badges


def test_every_page_renders_in_every_state(superuser: Person, every_state: list[Backup]):
    for model in (Backup, Verification, AuditEvent, Database):
        address = f"/admin/backups_app/{model._meta.model_name}/"
        assert superuser.get(address).status_code == 200
        for row in model._default_manager.all():
            assert superuser.get(f"{address}{row.pk}/change/").status_code == 200, row
    for backup in every_state:
        assert superuser.get(verify_page(backup)).status_code == 200, backup


def test_a_failed_backup_shows_its_reason_and_hint_and_no_recovery(superuser: Person, every_state: list[Backup]):
    page = page_of(superuser.get(change_page(every_state[5])))
    assert "It went wrong." in page.text
    assert "Try it again." in page.text
    assert not page.all("code", "walsafe-command")
    assert "was read back" not in page.text


def test_a_running_backup_is_not_called_proven(superuser: Person, every_state: list[Backup]):
    page = page_of(superuser.get(change_page(every_state[0])))
    assert "The backup is being made." in page.text
    assert "was read back" not in page.text


@pytest.fixture
def concerned(backup: Backup) -> list[Job]:
    """A job that made the backup, one that verified it, one that waits on its database, and one of no concern."""
    jobs = [
        job_row(backup.database, state="succeeded"),
        job_row(backup.database, state="succeeded", kind="verify"),
        job_row(backup.database, kind="drill"),
        job_row(backup.database, state="failed", kind="prune"),
    ]
    for job in jobs:
        job.save()
    Backup.objects.filter(pk=backup.pk).update(job=jobs[0])
    backup.verifications.update(job=jobs[1])
    return jobs


def test_the_page_of_a_backup_shows_the_jobs_that_concern_it(person: MakePerson, backup: Backup, concerned: list[Job]):
    viewer = person("viewer")
    links = page_of(viewer.get(change_page(backup))).links
    shown = [f"/admin/backups_app/job/{job.pk}/change/" in links for job in concerned]
    assert shown == [True, True, True, False]
    assert viewer.user is not None
    viewer.user.user_permissions.remove(Permission.objects.get(codename="view_job"))
    assert not [link for link in page_of(viewer.get(change_page(backup))).links if "/job/" in link]


# The list


@pytest.fixture
def many(shop: Database) -> list[Backup]:
    states = ("verified", "failed", "cancelled")
    found = [backup_row(shop, state=states[number % 3], verdict="") for number in range(300)]
    return Backup.objects.bulk_create(found)


def test_the_list_asks_a_bounded_number_of_questions_and_loads_no_census(
    superuser: Person, many: list[Backup], django_assert_max_num_queries: DjangoAssertNumQueries
):
    assert superuser.get(LIST).status_code == 200
    with django_assert_max_num_queries(8, connection=connections["catalog"]):
        with CaptureQueriesContext(connections["catalog"]) as asked:
            response = superuser.get(LIST)
    assert len(response.context["cl"].result_list) == 50
    statements = [each["sql"] for each in asked.captured_queries]
    assert any("backups_app_backup" in each for each in statements)
    assert not [each for each in statements if "census" in each or "remarks" in each]


def test_the_list_is_walked_page_by_page(superuser: Person, many: list[Backup]):
    shown = [row.pk for page in range(1, 7) for row in superuser.get(LIST, {"p": page}).context["cl"].result_list]
    assert len(shown) == 300
    assert set(shown) == {each.pk for each in many}


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("state__exact=verified", 4),
        ("state__exact=running", 1),
        ("verdict__exact=key_missing", 1),
        ("trigger__exact=command", 9),
        ("trigger__exact=admin", 0),
        ("q=shop", 9),
        ("q=nothing+like+it", 0),
        ("o=1.-2.3.4.-5.6.7", 9),
    ],
)
def test_filters_and_search_narrow_the_list(superuser: Person, every_state: list[Backup], query: str, count: int):
    response = superuser.get(f"{LIST}?{query}")
    assert response.status_code == 200
    assert len(response.context["cl"].result_list) == count


def test_search_finds_id_digest_and_note(superuser: Person, every_state: list[Backup]):
    wanted = every_state[1]
    Backup.objects.filter(pk=wanted.pk).update(note="before the sale")
    for text in (wanted.pk, wanted.sha256, wanted.archive_sha256, "the sale"):
        assert list(superuser.get(LIST, {"q": text}).context["cl"].result_list) == [wanted], text


def test_the_dates_narrow_the_list(superuser: Person, every_state: list[Backup]):
    old = timezone.now().replace(year=2020, month=5, day=6)
    Backup.objects.filter(pk=every_state[8].pk).update(created_at=old)
    for query in ("created_at__year=2020", "created_at__year=2020&created_at__month=5&created_at__day=6"):
        assert list(superuser.get(f"{LIST}?{query}").context["cl"].result_list) == [every_state[8]], query
    assert "?created_at__year=2020" in page_of(superuser.get(LIST)).links


@pytest.mark.parametrize(
    "query",
    [
        "p=0",
        "p=999",
        "o=77",
        "state__exact=odd",
        "created_at__year=x",
        "database__id__exact=x",
        "nothing=1",
        "q=%00%ff",
    ],
)
def test_a_senseless_query_never_breaks_the_list(superuser: Person, every_state: list[Backup], query: str):
    assert superuser.get(f"{LIST}?{query}", follow=True).status_code in (200, 400)


def test_the_age_is_in_words_with_the_exact_time_on_hover(superuser: Person, shop: Database):
    made = backup_row(shop)
    made.taken_at = (timezone.now() - timedelta(days=2)).replace(hour=12, minute=0, second=7)
    made.save()
    (moment, *_) = page_of(superuser.get(LIST)).all("time")
    assert moment.attributes["datetime"] == made.taken_at.isoformat()
    assert moment.attributes["title"].endswith(f"{made.taken_at.year}, 12:00:07 UTC")
    assert moment.text.endswith("ago")


def test_the_verdict_of_an_unverified_copy_is_shown_beside_it(superuser: Person, every_state: list[Backup]):
    pending = Copy.objects.get(state="pending")
    page = page_of(superuser.get(change_page(pending.backup)))
    cells = page.cells()
    assert cells[cells.index("local") + 1 : cells.index("local") + 3] == ["… pending", "never"]
