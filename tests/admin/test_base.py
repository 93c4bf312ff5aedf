"""What holds on every screen: who may see and do what, nothing editable, no catalogue, no 500."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Verification
from tests.admin.conftest import Person, job_row
from tests.admin.markup import page_of
from tests.support import PROJECT, bytes_in

MODELS = ("database", "backup", "verification", "auditevent", "job")
MakePerson = Callable[..., Person]


@pytest.fixture
def ids(backup: Backup) -> dict[str, Any]:
    """The id of one row of each kind."""
    event = AuditEvent.objects.first()
    verification = backup.verifications.first()
    job = job_row(backup.database)
    job.save()
    assert event is not None
    assert verification is not None
    return {
        "database": backup.database_id,
        "backup": backup.pk,
        "verification": verification.pk,
        "auditevent": event.pk,
        "job": job.pk,
    }


def reading(ids: dict[str, Any]) -> list[str]:
    """The pages that only show."""
    pages = [f"/admin/backups_app/{model}/" for model in MODELS]
    pages += [f"/admin/backups_app/{model}/{pk}/change/" for model, pk in ids.items()]
    pages += [f"/admin/backups_app/{model}/{pk}/history/" for model, pk in ids.items()]
    return [*pages, f"/admin/backups_app/job/{ids['job']}/progress.json", "/admin/backups_app/"]


def acting(ids: dict[str, Any]) -> list[str]:
    """The pages that lead to a deed."""
    return [
        f"/admin/backups_app/database/back-up-now/?id={ids['database']}",
        f"/admin/backups_app/backup/{ids['backup']}/verify/",
        f"/admin/backups_app/job/{ids['job']}/cancel/",
    ]


def forbidden(ids: dict[str, Any]) -> list[str]:
    """The pages that nobody may use."""
    return [f"/admin/backups_app/{model}/add/" for model in MODELS] + [
        f"/admin/backups_app/{model}/{pk}/delete/" for model, pk in ids.items()
    ]


def statuses(person: Person, pages: list[str]) -> dict[str, int]:
    """What each page answers."""
    return {page: person.get(page).status_code for page in pages}


def all_with(status: int, pages: list[str]) -> dict[str, int]:
    """The same answer for each page."""
    return dict.fromkeys(pages, status)


def everything(home: Path) -> object:
    """All rows of the catalogue and all files of the home."""
    rows = [
        sorted(model._default_manager.values_list(), key=repr)
        for model in (Database, Backup, Copy, Verification, AuditEvent, Job)
    ]
    return rows, bytes_in(home)


# Who may see what


def test_an_anonymous_visitor_is_sent_to_the_login_from_every_page(person: MakePerson, ids: dict[str, Any]):
    visitor = person("anonymous")
    for page in reading(ids) + acting(ids) + forbidden(ids):
        for response in (visitor.get(page), visitor.post(page)):
            assert response.status_code == 302, page
            assert response["Location"].startswith("/admin/login/?next=/admin/backups_app/"), page


def test_staff_without_permissions_see_nothing_of_the_app(person: MakePerson, ids: dict[str, Any]):
    staff = person("staff")
    pages = reading(ids) + acting(ids) + forbidden(ids)
    expected = all_with(403, pages) | {"/admin/backups_app/": 404}
    assert statuses(staff, pages) == expected
    index = staff.get("/admin/")
    assert index.status_code == 200
    assert "backups_app" not in index.content.decode()


def test_a_viewer_reads_every_page_and_reaches_no_deed(person: MakePerson, ids: dict[str, Any]):
    viewer = person("viewer")
    assert statuses(viewer, reading(ids)) == all_with(200, reading(ids))
    assert statuses(viewer, acting(ids) + forbidden(ids)) == all_with(403, acting(ids) + forbidden(ids))


def test_an_operator_reads_every_page_and_reaches_all_deeds(person: MakePerson, ids: dict[str, Any]):
    operator = person("operator")
    assert statuses(operator, reading(ids) + acting(ids)) == all_with(200, reading(ids) + acting(ids))
    assert statuses(operator, forbidden(ids)) == all_with(403, forbidden(ids))


def test_a_superuser_too_can_add_and_delete_nothing(superuser: Person, ids: dict[str, Any]):
    assert statuses(superuser, reading(ids) + acting(ids)) == all_with(200, reading(ids) + acting(ids))
    assert statuses(superuser, forbidden(ids)) == all_with(403, forbidden(ids))


@pytest.mark.parametrize("name", ["viewer", "operator"])
def test_a_model_is_hidden_from_those_who_may_not_view_it(person: MakePerson, ids: dict[str, Any], name: str):
    someone = person(name)
    assert someone.user is not None
    kept = someone.user.user_permissions.exclude(codename="view_auditevent")
    someone.user.user_permissions.set(kept)
    assert someone.get("/admin/backups_app/auditevent/").status_code == 403
    assert someone.get(f"/admin/backups_app/auditevent/{ids['auditevent']}/change/").status_code == 403
    assert "/admin/backups_app/auditevent/" not in page_of(someone.get("/admin/")).links
    assert "/admin/backups_app/backup/" in page_of(someone.get("/admin/")).links


# Nothing that is evidence can be changed


@pytest.mark.parametrize("name", ["viewer", "operator", "superuser"])
def test_posting_to_evidence_is_refused_and_changes_nothing(
    person: MakePerson, ids: dict[str, Any], home: Path, name: str
):
    someone, before = person(name), everything(home)
    fields = {"state": "verified", "verdict": "passed", "note": "changed", "reason": "", "detail": "changed"}
    for model in ("backup", "verification", "auditevent", "job"):
        page = f"/admin/backups_app/{model}/{ids[model]}/change/"
        assert someone.post(page, fields).status_code == 403, page
    for page in forbidden(ids):
        assert someone.post(page, {"post": "yes", **fields}).status_code == 403, page
    assert everything(home) == before


@pytest.mark.parametrize("model", MODELS)
def test_no_list_offers_or_accepts_to_delete(superuser: Person, ids: dict[str, Any], home: Path, model: str):
    page, before = f"/admin/backups_app/{model}/", everything(home)
    found = page_of(superuser.get(page))
    # Our own page to delete one backup is another thing: it asks for a reason and the password.
    assert "delete_selected" not in {each.attributes.get("value") for each in found.all("option")}
    assert not [each for each in found.links if each.endswith("/delete/")]
    response = superuser.post(
        page, {"action": "delete_selected", "_selected_action": [ids[model]], "post": "yes"}, follow=True
    )
    assert response.status_code == 200
    assert everything(home) == before


@pytest.mark.parametrize("model", ["backup", "verification", "auditevent", "job"])
def test_the_detail_page_of_evidence_has_no_field_and_no_save_button(
    superuser: Person, ids: dict[str, Any], model: str
):
    page = page_of(superuser.get(f"/admin/backups_app/{model}/{ids[model]}/change/"))
    form_fields = [
        each.attributes["name"]
        for each in page.elements
        if each.tag in ("input", "textarea", "select") and "name" in each.attributes
    ]
    form_fields = [name for name in form_fields if name != "csrfmiddlewaretoken"]
    assert form_fields == []
    assert not [each for each in page.buttons if each.startswith("Save")]
    assert not [each for each in page.links if each.endswith("/delete/")]


@pytest.mark.parametrize("model", MODELS)
def test_no_list_can_be_edited_in_place(superuser: Person, ids: dict[str, Any], home: Path, model: str):
    before = everything(home)
    fields = {"form-TOTAL_FORMS": "1", "form-INITIAL_FORMS": "1", "form-0-id": ids[model], "form-0-note": "x"}
    response = superuser.post(f"/admin/backups_app/{model}/", {**fields, "_save": "Save"})
    assert response.status_code in (200, 302)
    assert everything(home) == before


# Unknown rows


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("page", ["change", "history"])
def test_an_unknown_row_leads_to_the_index_with_a_message(superuser: Person, model: str, page: str):
    for pk in ("0", "999999", "none", "9" * 30, "-1", "%00", "%F0%9F%98%80", "a" * 300, "_5F", "%ED%A0%80"):
        response = superuser.get(f"/admin/backups_app/{model}/{pk}/{page}/", follow=True)
        assert response.redirect_chain == [("/admin/", 302)], pk
        ((kind, text),) = page_of(response).messages
        assert kind == "warning", pk
        assert "doesn’t exist" in text, pk


# The catalogue is not there, or does not fit


def drop_catalog() -> None:
    """Take the app's tables away, inside the transaction of the test."""
    with connections["catalog"].cursor() as cursor:
        for table in ("verification", "copy", "auditevent", "backup", "job", "database"):
            cursor.execute(f"DROP TABLE backups_app_{table}")


LAST_MIGRATION = max(path.stem for path in (PROJECT / "backups_app" / "migrations").glob("0*.py"))


def make_catalog_older() -> None:
    """Forget the last migration, inside the transaction of the test."""
    with connections["catalog"].cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'backups_app' AND name = %s", [LAST_MIGRATION])


@pytest.mark.usefixtures("unready")
@pytest.mark.parametrize("spoil", [drop_catalog, make_catalog_older])
def test_without_a_fitting_catalogue_each_page_says_what_to_run(
    superuser: Person, ids: dict[str, Any], spoil: Callable[[], None]
):
    spoil()
    pages = [page for page in reading(ids) + acting(ids) + forbidden(ids) if page != "/admin/backups_app/"]
    for page in pages:
        response = superuser.get(page)
        assert response.status_code == 503, page
        commands = [each.text for each in page_of(response).all("code")]
        assert commands == ["python manage.py migrate --database catalog"], page


@pytest.mark.usefixtures("unready")
@pytest.mark.parametrize("spoil", [drop_catalog, make_catalog_older])
def test_without_a_fitting_catalogue_posting_does_nothing(
    superuser: Person, ids: dict[str, Any], home: Path, spoil: Callable[[], None]
):
    spoil()
    before = bytes_in(home)
    for page in [*acting(ids), f"/admin/backups_app/database/{ids['database']}/change/"]:
        response = superuser.post(page, {"id": ids["database"], "level": "quick", "required_tables": "[]"})
        assert response.status_code == 503, page
    assert bytes_in(home) == before


@pytest.mark.usefixtures("unready", "home")
@pytest.mark.parametrize("spoil", [drop_catalog, make_catalog_older])
def test_without_a_fitting_catalogue_the_rest_of_the_admin_works(superuser: Person, spoil: Callable[[], None]):
    spoil()
    for page in ("/admin/", "/admin/backups_app/", "/admin/auth/user/", "/admin/password_change/"):
        assert superuser.get(page).status_code == 200, page


@pytest.mark.usefixtures("unready", "home")
def test_without_a_catalogue_a_visitor_learns_nothing(person: MakePerson):
    drop_catalog()
    response = person("anonymous").get("/admin/backups_app/backup/")
    assert response.status_code == 302
    assert b"migrate" not in response.content


@pytest.mark.usefixtures("unready")
def test_the_pages_work_again_once_the_catalogue_fits(superuser: Person, ids: dict[str, Any]):
    make_catalog_older()
    assert superuser.get("/admin/backups_app/backup/").status_code == 503
    with connections["catalog"].cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_migrations (app, name, applied) VALUES ('backups_app', %s, '2026-01-01')",
            [LAST_MIGRATION],
        )
    assert superuser.get("/admin/backups_app/backup/").status_code == 200
