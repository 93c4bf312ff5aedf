"""The console's admin as a whole, and what the app does to a host project: nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.template.loader import get_template
from django.test import Client
from django.urls import path

from backups_app.models import AuditEvent, Backup, Copy, Database, Job, Verification
from tests.admin.conftest import Person
from tests.admin.markup import page_of
from tests.support import PROJECT

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

# A second admin site, as a host project may have one.
staff_site = admin.AdminSite(name="staff")
staff_site.register(Group)
urlpatterns = [path("staff/", staff_site.urls), path("admin/", admin.site.urls)]


def test_the_root_leads_to_the_admin():
    response = Client().get("/")
    assert (response.status_code, response["Location"]) == (302, "/admin/")


def test_a_person_can_sign_in_at_the_real_address():
    User.objects.create_superuser("anna", password="correct horse")
    client = Client(enforce_csrf_checks=True)
    page = page_of(client.get("/admin/login/?next=/admin/backups_app/backup/"))
    (token,) = {each.attributes["value"] for each in page.all("input") if "csrf" in each.attributes.get("name", "")}
    fields = {"username": "anna", "csrfmiddlewaretoken": token, "next": "/admin/backups_app/backup/"}
    wrong = client.post("/admin/login/", {**fields, "password": "wrong"})
    assert wrong.status_code == 200
    assert "_auth_user_id" not in client.session
    right = client.post("/admin/login/", {**fields, "password": "correct horse"})
    assert (right.status_code, right["Location"]) == (302, "/admin/backups_app/backup/")
    assert client.get("/admin/backups_app/backup/").status_code == 200


def test_the_models_of_the_queue_are_not_in_the_admin(superuser: Person):
    models = list(apps.get_app_config("django_q").get_models())
    assert {"Success", "Failure", "Schedule", "OrmQ"} <= {model.__name__ for model in models}
    assert not [model for model in models if admin.site.is_registered(model)]
    assert "django_q" not in superuser.get("/admin/").content.decode()
    for model in models:
        assert superuser.get(f"/admin/django_q/{model._meta.model_name}/").status_code == 404


def test_our_screens_are_in_the_admin():
    assert all(admin.site.is_registered(model) for model in (Database, Backup, Copy, Job, Verification, AuditEvent))


def test_the_index_names_our_screens_and_offers_to_add_schedules_only(superuser: Person):
    links = page_of(superuser.get("/admin/")).links
    assert {
        f"/admin/backups_app/{each}/" for each in ("database", "backup", "job", "verification", "auditevent")
    } <= links
    offered = [each for each in links if each.startswith("/admin/backups_app/") and each.endswith("/add/")]
    assert offered == ["/admin/backups_app/schedule/add/"]


@pytest.mark.urls("tests.admin.test_site")
def test_another_admin_site_works_and_does_not_show_us(person: Callable[..., Person]):
    superuser = person("superuser")
    index = superuser.get("/staff/")
    assert index.status_code == 200
    assert "backups_app" not in index.content.decode()
    assert superuser.get("/staff/backups_app/backup/").status_code == 404
    assert superuser.get("/staff/auth/group/").status_code == 200
    assert superuser.post("/staff/auth/group/add/", {"name": "readers"}).status_code == 302
    assert Group.objects.get().name == "readers"


def test_the_package_replaces_no_template_of_the_stock_admin():
    stock = PROJECT / "backups_app" / "templates"
    for name in ("change_form", "change_list", "index", "base", "login", "delete_confirmation", "object_history"):
        origin: SimpleNamespace = get_template(f"admin/{name}.html").origin  # type: ignore[assignment]
        assert not str(origin.name).startswith(str(stock)), name


def test_deleting_a_user_leaves_what_they_did(superuser: Person, backup: Backup):
    policy = {"required_tables": "[]", "freshness_hours": "3"}
    superuser.post(f"/admin/backups_app/database/{backup.database_id}/change/", policy)
    superuser.post("/admin/backups_app/database/back-up-now/", {"id": backup.database_id})
    anna = User.objects.create_superuser("anna")
    client = Client()
    client.force_login(anna)
    assert superuser.user is not None
    response = client.post(f"/admin/auth/user/{superuser.user.pk}/delete/", {"post": "yes"})
    assert response.status_code == 302
    assert not User.objects.filter(username="superuser").exists()
    assert AuditEvent.objects.filter(actor_name="superuser", action="change-policy").count() == 1
    assert Job.objects.filter(requested_by_name="superuser").count() == 1
