"""Databases on the screen: how safe they are, their policy, and *Back up now*."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from backups_app.core.errors import BusyError
from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Verification
from backups_app.services.databases import add_database, change_policy
from backups_app.services.jobs import ask_create
from tests.admin.conftest import Person, backup_row
from tests.admin.markup import Page, page_of
from tests.conftest import ACTOR
from tests.support import build_shop, bytes_in

LIST = "/admin/backups_app/database/"
BACK_UP = "/admin/backups_app/database/back-up-now/"
MakePerson = Callable[..., Person]


def change_page(database: Database) -> str:
    return f"/admin/backups_app/database/{database.pk}/change/"


def backup_page(backup: Backup) -> str:
    return f"/admin/backups_app/backup/{backup.pk}/change/"


def job_page(job: Job) -> str:
    return f"/admin/backups_app/job/{job.pk}/change/"


def field_of(page: Page, name: str) -> str:
    (field,) = {each.attributes["value"] for each in page.all("input") if each.attributes.get("name") == name}
    return str(field)


def nothing_was_made(home: Path) -> bool:
    return (
        not Job.objects.exists()
        and not Backup.objects.exists()
        and not Copy.objects.exists()
        and not Verification.objects.exists()
        and not AuditEvent.objects.filter(action="create").exists()
        and not (home / "archives").exists()
    )


def nothing_ran(home: Path) -> bool:
    return not Backup.objects.exists() and not (home / "archives").exists()


# Back up now


def test_back_up_now_asks_for_one_job_and_runs_nothing(person: MakePerson, shop: Database, home: Path):
    operator, live = person("operator"), bytes_in(Path(shop.path).parent)
    response = operator.post(BACK_UP, {"id": shop.pk, "note": " before the sale "}, follow=True)
    job = Job.objects.get()
    assert response.redirect_chain == [(job_page(job), 302)]
    assert page_of(response).messages == [("success", "1 job was queued.")]
    assert (job.kind, job.state, job.database, job.trigger) == ("create", "queued", shop, "admin")
    assert operator.user is not None
    assert (job.requested_by_id, job.requested_by_name) == (str(operator.user.pk), "operator")
    assert "before the sale" in job.options.values()
    assert nothing_ran(home)
    assert bytes_in(Path(shop.path).parent) == live


def test_of_two_clicks_on_the_same_form_one_asks(person: MakePerson, shop: Database):
    operator = person("operator")
    opened = field_of(page_of(operator.get(BACK_UP, {"id": shop.pk})), "opened")
    operator.post(BACK_UP, {"id": shop.pk, "opened": opened})
    job = Job.objects.get()
    now = timezone.now()
    facts = {"started_at": now, "heartbeat_at": now, "token": 1, "owner": "w"}
    for state in ({"state": "running", **facts}, {"state": "succeeded", "finished_at": now}):
        Job.objects.update(**state)
        again = operator.post(BACK_UP, {"id": shop.pk, "opened": opened}, follow=True)
        assert again.redirect_chain == [(job_page(job), 302)]
        assert page_of(again).messages[-1] == ("info", "1 job was asked for already: nothing is done twice.")
    assert Job.objects.count() == 1
    later = field_of(page_of(operator.get(BACK_UP, {"id": shop.pk})), "opened")
    operator.post(BACK_UP, {"id": shop.pk, "opened": later})
    assert Job.objects.count() == 2, "a new form asks anew"


def test_the_job_of_somebody_else_is_not_taken_for_ones_own(person: MakePerson, shop: Database):
    operator, other = person("operator"), person("superuser")
    opened = field_of(page_of(operator.get(BACK_UP, {"id": shop.pk})), "opened")
    other.post(BACK_UP, {"id": shop.pk})
    Job.objects.update(state="succeeded", finished_at=timezone.now())
    operator.post(BACK_UP, {"id": shop.pk, "opened": opened})
    assert Job.objects.filter(requested_by_name="operator").count() == 1


@pytest.mark.parametrize("opened", ["", "yesterday", "2026-13-45T00:00:00", "2026-01-01T00:00:00", "\x00", "9" * 4000])
def test_a_form_with_a_senseless_moment_still_asks(person: MakePerson, shop: Database, opened: str):
    assert person("operator").post(BACK_UP, {"id": shop.pk, "opened": opened}).status_code == 302
    assert Job.objects.count() == 1


def test_without_the_right_to_see_jobs_one_stays_on_the_list_and_reads_what_happened(
    person: MakePerson, shop: Database
):
    operator = person("operator")
    assert operator.user is not None
    operator.user.user_permissions.remove(Permission.objects.get(codename="view_job"))
    response = operator.post(BACK_UP, {"id": shop.pk}, follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    (queued, warning) = page_of(response).messages
    assert queued == ("success", "1 job was queued.")
    assert warning[0] == "warning"
    assert "No worker is running." in warning[1]
    assert Job.objects.count() == 1
    page = page_of(operator.get(change_page(shop)))
    assert "Its jobs" not in page.buttons
    assert "Latest jobs" not in page.text


def test_a_refusal_is_said_in_words(person: MakePerson, shop: Database, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments: object, **_options: object) -> Job:
        raise BusyError("It is <b>busy</b>.", "Wait.")

    monkeypatch.setattr("backups_app.admin.database.ask_create", refuse)
    response = person("operator").post(BACK_UP, {"id": shop.pk}, follow=True)
    assert page_of(response).messages == [("error", "No job for shop: It is <b>busy</b>. Wait.")]
    assert not page_of(response).all("b")


def test_asking_to_back_up_shows_what_will_happen_and_changes_nothing(person: MakePerson, shop: Database, home: Path):
    operator, before = person("operator"), bytes_in(home)
    response = operator.get(BACK_UP, {"id": shop.pk})
    assert response.status_code == 200
    page = page_of(response)
    assert shop.path in page.text
    assert "Back up now" in page.buttons
    (form,) = [each for each in page.all("form") if "walsafe-confirm" in each.classes]
    assert form.attributes["method"] == "post"
    assert nothing_was_made(home)
    assert bytes_in(home) == before


@pytest.mark.parametrize("method", ["head", "options", "put", "delete", "patch"])
def test_only_post_makes_a_backup(person: MakePerson, shop: Database, home: Path, method: str):
    operator = person("operator")
    getattr(operator.client, method)(f"{BACK_UP}?id={shop.pk}", {"id": shop.pk})
    assert nothing_was_made(home)


@pytest.mark.parametrize(
    ("name", "status"), [("anonymous", 302), ("staff", 403), ("viewer", 403), ("policymaker", 403)]
)
def test_without_the_permission_no_backup_is_made(
    person: MakePerson, shop: Database, home: Path, name: str, status: int
):
    someone = person(name)
    assert someone.post(BACK_UP, {"id": shop.pk}).status_code == status
    someone.post(LIST, {"action": "back_up_now", "_selected_action": [shop.pk]}, follow=True)
    assert nothing_was_made(home)


def test_without_a_csrf_token_no_backup_is_made(person: MakePerson, shop: Database, home: Path):
    superuser = person("superuser", enforce_csrf_checks=True)
    assert superuser.post(BACK_UP, {"id": shop.pk}).status_code == 403
    assert superuser.post(BACK_UP, {"id": shop.pk, "csrfmiddlewaretoken": "x" * 64}).status_code == 403
    assert nothing_was_made(home)


def test_with_the_csrf_token_of_the_form_a_backup_is_made(person: MakePerson, shop: Database):
    operator = person("operator", enforce_csrf_checks=True)
    page = page_of(operator.get(BACK_UP, {"id": shop.pk}))
    inputs = [each.attributes for each in page.all("input") if "name" in each.attributes]
    fields = {each["name"]: each.get("value", "") for each in inputs}
    assert fields["id"] == str(shop.pk)
    assert operator.post(BACK_UP, fields).status_code == 302
    assert Job.objects.get().state == "queued"


@pytest.mark.parametrize("given", ["", "0", "999999", "-1", "abc", "²", "٣", "9" * 30, "9" * 5000, "1 OR 1=1", "\x00"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_an_unusable_id_leads_back_to_the_list_with_a_message(
    person: MakePerson, shop: Database, home: Path, method: str, given: str
):
    response = getattr(person("operator"), method)(BACK_UP, {"id": given}, follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    assert page_of(response).messages == [("warning", "No database under care was chosen.")]
    assert nothing_was_made(home)


@pytest.mark.parametrize("method", ["get", "post"])
def test_a_missing_id_leads_back_to_the_list_with_a_message(
    person: MakePerson, shop: Database, home: Path, method: str
):
    response = getattr(person("operator"), method)(BACK_UP, follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    assert page_of(response).messages == [("warning", "No database under care was chosen.")]
    assert nothing_was_made(home)


def test_a_database_that_is_not_under_care_is_not_backed_up(person: MakePerson, shop: Database, home: Path):
    Database.objects.update(is_under_care=False)
    response = person("operator").post(BACK_UP, {"id": shop.pk}, follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    assert nothing_was_made(home)


def test_the_list_action_backs_up_several_databases(person: MakePerson, shop: Database, tmp_path: Path):
    other = add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR)
    operator = person("operator")
    response = operator.post(LIST, {"action": "back_up_now", "_selected_action": [shop.pk, other.pk]})
    assert response.status_code == 302
    confirmation = operator.get(response["Location"])
    assert confirmation.status_code == 200
    assert not Backup.objects.exists()
    page = page_of(confirmation)
    ids = [each.attributes["value"] for each in page.all("input") if each.attributes.get("name") == "id"]
    assert sorted(ids) == sorted([str(shop.pk), str(other.pk)])
    done = operator.post(BACK_UP, {"id": ids}, follow=True)
    assert {job.database for job in Job.objects.all()} == {shop, other}
    ((address, _status),) = done.redirect_chain
    assert address.startswith("/admin/backups_app/job/?id__in=")
    assert set(done.context["cl"].result_list) == set(Job.objects.all())
    assert page_of(done).messages[0] == ("success", "2 jobs were queued.")
    assert "No worker is running." in page_of(done).messages[1][1]


def test_one_refused_database_does_not_stop_the_others(
    person: MakePerson, shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR)

    def ask(database: Database, **options: Any) -> Job:
        if database == shop:
            raise BusyError("Not now.", "Wait.")
        return ask_create(database, **options)

    monkeypatch.setattr("backups_app.admin.database.ask_create", ask)
    done = person("operator").post(BACK_UP, {"id": [shop.pk, other.pk]}, follow=True)
    assert Job.objects.get().database == other
    assert page_of(done).messages == [("error", "No job for shop: Not now. Wait."), ("success", "1 job was queued.")]


def test_the_same_id_given_twice_asks_once(person: MakePerson, shop: Database):
    person("operator").post(BACK_UP, {"id": [shop.pk, shop.pk]})
    assert Job.objects.count() == 1


def test_a_long_note_is_cut(person: MakePerson, shop: Database):
    person("operator").post(BACK_UP, {"id": shop.pk, "note": "n" * 5000})
    assert "n" * 2000 in Job.objects.get().options.values()


# Who is offered what


@pytest.mark.parametrize(
    ("name", "is_offered"),
    [("viewer", False), ("policymaker", False), ("operator", True), ("superuser", True)],
)
def test_back_up_now_is_offered_to_those_who_may(person: MakePerson, shop: Database, name: str, is_offered: bool):
    someone = person(name)
    for address in (LIST, change_page(shop)):
        assert ("Back up now" in page_of(someone.get(address)).buttons) is is_offered, address
    assert (f"{BACK_UP}?id={shop.pk}" in page_of(someone.get(change_page(shop))).links) is is_offered


def test_back_up_now_is_not_offered_for_a_database_that_left_care(superuser: Person, shop: Database):
    Database.objects.update(is_under_care=False)
    page = page_of(superuser.get(change_page(shop)))
    assert "Back up now" not in page.buttons
    assert "Its backups" in page.buttons


def test_the_page_of_a_database_leads_to_its_backups(superuser: Person, shop: Database, tmp_path: Path):
    other = add_database("other", build_shop(tmp_path / "other.sqlite3"), actor=ACTOR)
    Backup.objects.bulk_create([backup_row(shop), backup_row(other)])
    address = f"/admin/backups_app/backup/?database__id__exact={shop.pk}"
    assert address in page_of(superuser.get(change_page(shop))).links
    shown = superuser.get(address).context["cl"].result_list
    assert [each.database.name for each in shown] == ["shop"]


def test_the_page_of_a_database_shows_its_latest_jobs_and_leads_to_them(person: MakePerson, shop: Database):
    now = timezone.now()
    for number in range(7):
        at = now - timedelta(days=number)
        Job.objects.create(kind="create", database=shop, trigger="schedule", state="succeeded", finished_at=at)
    page = page_of(person("viewer").get(change_page(shop)))
    assert [each for each in page.badges if each == "✓ succeeded"] == ["✓ succeeded"] * 5
    assert len({link for link in page.links if re.fullmatch(r"/admin/backups_app/job/\w{12}/change/", link)}) == 5
    assert f"/admin/backups_app/job/?database__id__exact={shop.pk}" in page.links


# Policy


def test_a_viewer_sees_the_policy_and_cannot_change_it(person: MakePerson, shop: Database):
    viewer = person("viewer")
    page = page_of(viewer.get(change_page(shop)))
    assert not [each for each in page.elements if each.attributes.get("name") in ("required_tables", "freshness_hours")]
    assert not [each for each in page.buttons if each.startswith("Save")]
    assert viewer.post(change_page(shop), {"required_tables": '["product"]'}).status_code == 403
    shop.refresh_from_db()
    assert shop.required_tables == []


def test_an_operator_cannot_change_the_policy(person: MakePerson, shop: Database):
    response = person("operator").post(change_page(shop), {"required_tables": '["product"]', "freshness_hours": "1"})
    assert response.status_code == 403
    shop.refresh_from_db()
    assert (shop.required_tables, shop.freshness_hours) == ([], None)
    assert not AuditEvent.objects.filter(action="change-policy").exists()


def test_the_policy_is_changed_and_recorded_with_the_name_of_the_user(person: MakePerson, shop: Database):
    someone = person("policymaker")
    fields = {"required_tables": '["product", "sale", "product"]', "freshness_hours": "12"}
    response = someone.post(change_page(shop), fields, follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    shop.refresh_from_db()
    assert (shop.required_tables, shop.freshness_hours) == (["product", "sale"], 12)
    event = AuditEvent.objects.get(action="change-policy")
    assert (event.actor_name, event.database_name, event.outcome) == ("policymaker", "shop", "done")
    assert someone.user is not None
    assert event.actor_id == str(someone.user.pk)
    assert "product" in event.detail
    assert "12" in event.detail


def test_only_the_policy_can_be_changed(superuser: Person, shop: Database):
    before = Database.objects.filter(pk=shop.pk).values().get()
    fields = {
        "required_tables": "[]",
        "freshness_hours": "5",
        "name": "stolen",
        "path": "/etc/passwd",
        "alias": "default",
        "identity": "0" * 32,
        "is_under_care": "",
        "added_at": "2020-01-01",
        "added_at_0": "2020-01-01",
        "added_at_1": "00:00",
        "id": "77",
    }
    assert superuser.post(change_page(shop), fields).status_code == 302
    assert Database.objects.filter(pk=shop.pk).values().get() == {**before, "freshness_hours": 5}
    assert Database.objects.count() == 1


def test_the_form_holds_the_fields_of_the_policy(superuser: Person, shop: Database):
    page = page_of(superuser.get(change_page(shop)))
    names = {each.attributes.get("name", "") for each in page.elements if each.tag in ("input", "textarea", "select")}
    ours = {name for name in names if name and not name.startswith(("csrf", "_", "initial-"))}
    assert ours == {"required_tables", "freshness_hours", "destinations", "delta_chain", *Database.KEEP_FIELDS}


@pytest.mark.parametrize(
    "given",
    [
        "",
        "null",
        "product",
        '"product"',
        "5",
        '{"product": 1}',
        "[1]",
        "[null]",
        '[["product"]]',
        '["product", ""]',
        '["product"',
        "[NaN]",
        r'["\ud800"]',
        "[" * 300,
    ],
)
def test_required_tables_that_are_no_list_of_names_are_refused(superuser: Person, shop: Database, given: str):
    change_policy(shop, required_tables=["sale"], freshness_hours=None, actor=ACTOR)
    response = superuser.post(change_page(shop), {"required_tables": given, "freshness_hours": "3"})
    assert response.status_code == 200
    assert page_of(response).errors
    shop.refresh_from_db()
    assert (shop.required_tables, shop.freshness_hours) == (["sale"], None)
    assert AuditEvent.objects.filter(action="change-policy").count() == 1
    assert superuser.get(change_page(shop)).status_code == 200


@pytest.mark.parametrize("given", ["-1", "0", "1.5", "soon", "87841", "9" * 12, "9" * 18, "9" * 30])
def test_a_freshness_limit_that_means_nothing_is_refused(superuser: Person, shop: Database, given: str):
    Backup.objects.bulk_create([backup_row(shop)])
    response = superuser.post(change_page(shop), {"required_tables": "[]", "freshness_hours": given})
    assert response.status_code == 200
    assert page_of(response).errors
    shop.refresh_from_db()
    assert shop.freshness_hours is None
    assert superuser.get(LIST).status_code == 200


@pytest.mark.parametrize(("given", "kept"), [("1", 1), ("87840", 87840), ("", None)])
def test_a_usable_freshness_limit_is_kept(superuser: Person, shop: Database, given: str, kept: int | None):
    Backup.objects.bulk_create([backup_row(shop)])
    assert superuser.post(change_page(shop), {"required_tables": "[]", "freshness_hours": given}).status_code == 302
    shop.refresh_from_db()
    assert shop.freshness_hours == kept
    assert superuser.get(LIST).status_code == 200


@pytest.mark.parametrize("name", ['a"b', "<b>x</b>", "δεδομένα", "a,b", "]"])
def test_any_table_name_can_be_required(superuser: Person, shop: Database, name: str):
    superuser.post(change_page(shop), {"required_tables": json.dumps([name]), "freshness_hours": ""})
    shop.refresh_from_db()
    assert shop.required_tables == [name]
    (field,) = page_of(superuser.get(change_page(shop))).all("textarea")
    assert json.loads(field.text) == [name]


# How safe it is


def health_of(someone: Person) -> list[str]:
    return page_of(someone.get(LIST)).badges


def test_a_database_without_a_verified_backup_is_not_called_safe(superuser: Person, shop: Database):
    Backup.objects.bulk_create([backup_row(shop, state="failed"), backup_row(shop, state="running", verdict="")])
    assert health_of(superuser) == ["✗ never verified"]
    assert "never" in page_of(superuser.get(LIST)).cells()


def test_a_database_with_a_recent_verified_backup_is_safe(superuser: Person, shop: Database):
    made = backup_row(shop)
    Backup.objects.bulk_create([made])
    page = page_of(superuser.get(LIST))
    assert page.badges == ["✓ safe"]
    assert backup_page(made) in page.links
    assert "7,654,321" in page.cells()
    assert "1.2 MB" in page.cells()


def test_a_database_whose_last_verified_backup_is_old_is_not_called_safe(superuser: Person, shop: Database):
    made = backup_row(shop)
    made.taken_at = timezone.now() - timedelta(hours=27)
    Backup.objects.bulk_create([made])
    assert health_of(superuser) == ["! too old"]
    Database.objects.update(freshness_hours=28)
    assert health_of(superuser) == ["✓ safe"]


def test_a_newer_failed_backup_does_not_hide_how_old_the_verified_one_is(superuser: Person, shop: Database):
    made = backup_row(shop)
    made.taken_at = timezone.now() - timedelta(days=3)
    Backup.objects.bulk_create([made, backup_row(shop, state="failed")])
    page = page_of(superuser.get(LIST))
    assert page.badges == ["! too old"]
    assert any(each.replace("\xa0", " ") == "3 days ago" for each in page.cells())


def test_a_database_that_left_care_is_not_called_safe(superuser: Person, shop: Database):
    Backup.objects.bulk_create([backup_row(shop)])
    Database.objects.update(is_under_care=False)
    assert health_of(superuser) == ["– not under care"]


def test_the_page_of_a_database_shows_the_rows_of_its_last_verified_backup(superuser: Person, shop: Database):
    Backup.objects.bulk_create([backup_row(shop)])
    cells = page_of(superuser.get(change_page(shop))).cells()
    assert cells[cells.index("product") + 1] == "7,654,300"
    assert cells[cells.index("draft") + 1] == "0"


# Lists


def test_the_list_brings_a_new_alias_under_care(
    superuser: Person, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = build_shop(tmp_path / "alias.sqlite3")
    monkeypatch.setitem(connections.settings, "shop_alias", {**connections.settings["default"], "NAME": path})
    assert "shop_alias" in page_of(superuser.get(LIST)).text
    assert Database.objects.get(alias="shop_alias").path == str(path)


def test_the_list_asks_a_bounded_number_of_questions_and_loads_no_census(
    superuser: Person, home: Path, django_assert_max_num_queries: DjangoAssertNumQueries
):
    databases = Database.objects.bulk_create([Database(name=f"d{n}", path=f"/srv/{n}.sqlite3") for n in range(30)])
    Backup.objects.bulk_create([backup_row(database) for database in databases for _ in range(10)])
    superuser.get(LIST)
    with django_assert_max_num_queries(8, connection=connections["catalog"]):
        with CaptureQueriesContext(connections["catalog"]) as asked:
            assert superuser.get(LIST).status_code == 200
    assert not [each["sql"] for each in asked.captured_queries if "census" in each["sql"]]


@pytest.mark.parametrize(
    "query",
    ["q=shop", "q=%00", "q=%3Cb%3E", "is_under_care__exact=1", "is_under_care__exact=0", "o=1.-2.3.-4.5.6", "all="],
)
def test_search_filter_and_order_work(superuser: Person, shop: Database, query: str):
    Backup.objects.bulk_create([backup_row(shop)])
    assert superuser.get(f"{LIST}?{query}").status_code == 200


def test_search_finds_by_name_and_path(superuser: Person, shop: Database):
    assert list(superuser.get(LIST, {"q": "shop"}).context["cl"].result_list) == [shop]
    assert list(superuser.get(LIST, {"q": "elsewhere"}).context["cl"].result_list) == []


@pytest.mark.parametrize(
    "query", ["is_under_care__exact=maybe", "o=99", "p=99", "nothing=1", "backups__note=x", "id=abc"]
)
def test_a_senseless_query_never_breaks_the_list(superuser: Person, shop: Database, query: str):
    response = superuser.get(f"{LIST}?{query}", follow=True)
    assert response.status_code in (200, 400)


def test_the_live_file_is_the_same_after_every_page(superuser: Person, shop: Database):
    before = bytes_in(Path(shop.path).parent)
    for address in (LIST, change_page(shop), f"{BACK_UP}?id={shop.pk}"):
        superuser.get(address)
    assert bytes_in(Path(shop.path).parent) == before
