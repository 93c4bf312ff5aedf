"""Page by role by method: every page of the app, for everybody. A new page without a line here fails."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin import AdminSite
from django.contrib.auth.models import Group, User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.models import (
    AuditEvent,
    Backup,
    Copy,
    Database,
    Finding,
    HealthProblem,
    Host,
    Job,
    Notification,
    Recipient,
    Restore,
    Schedule,
    ScheduledRun,
    TriageFile,
    TriageRun,
)
from backups_app.services.groups import setup_groups
from backups_app.services.jobs.run import run_job
from backups_app.services.quarantine import receive
from backups_app.services.triage.runs import ask_upload_triage
from tests.admin.conftest import job_row
from tests.admin.markup import Page, page_of
from tests.admin.restores import PASSWORD, ask, somebody, turn
from tests.conftest import ACTOR


@dataclass(frozen=True)
class Rule:
    """Who may GET and who may POST: V viewer, O operator, P approver, A auditor, S superuser.

    N is staff without a group. Who may not is refused with 403, or 405 where nobody may POST.
    """

    get: str = ""
    post: str = ""


ROLES = {
    "V": "Backup viewer",
    "O": "Backup operator",
    "P": "Backup approver",
    "A": "Backup auditor",
    "N": "",
    "S": "superuser",
}
ALL = "VOPAS"
NOBODY = Rule()


def stock(model: str, *, view: str = ALL, **others: Rule) -> dict[str, Rule]:
    """The pages that Django gives every model. A list answers a POST without an action as a GET."""
    rules = {
        "changelist": Rule(view, view),
        "add": NOBODY,
        "delete": NOBODY,
        "change": Rule(view),
        "history": Rule(view, view),
    }
    return {f"backups_app_{model}_{page}": rule for page, rule in (rules | others).items()}


MATRIX: dict[str, Rule] = {
    "backups_app_overview_changelist": Rule(ALL),
    "backups_app_overview_jobs": Rule(ALL),
    "backups_app_health": Rule(ALL, ALL),
    **stock("auditevent", view="AS"),
    **stock(
        "backup",
        verify=Rule("OS", "OS"),
        verify_chosen=Rule("OS", "OS"),
        restore=Rule("OS", "OS"),
        hold=Rule("OS", "OS"),
        hold_chosen=Rule("OS", "OS"),
        download=Rule("S", "S"),
        manifest=Rule(ALL, ALL),
        delete_archive=Rule("S", "S"),
    ),
    **stock("copy"),
    **stock(
        "database",
        change=Rule(ALL, "S"),
        back_up=Rule("OS", "OS"),
        drill=Rule("OS", "OS"),
        retention=Rule("S"),
        prune=Rule("S", "S"),
    ),
    **stock("finding"),
    **stock("healthproblem"),
    **stock("host"),
    **stock("job", cancel=Rule("OS", "OS"), progress=Rule(ALL)),
    **stock("notification", test=Rule("S", "S")),
    **stock("recipient", kit=Rule(ALL, ALL), prove=Rule("S", "S")),
    **stock("restore", approve=Rule("PS", "PS"), reject=Rule("PS", "PS"), undo=Rule("OS", "OS")),
    **stock("schedule", add=Rule("OS", "OS"), change=Rule(ALL, "OS"), delete=Rule("OS", "OS")),
    **stock("scheduledrun"),
    **stock("triagefile"),
    **stock(
        "triagerun",
        start=Rule("OS", "OS"),
        upload=Rule("OS", "OS"),
        remove_upload=Rule("OS", "OS"),
        **{"import": Rule("OS", "OS")},
        delete_useless=Rule("S", "S"),
    ),
    **stock("verification", report=Rule(ALL, ALL), report_json=Rule(ALL, ALL)),
}

WITHOUT_ROW = {"", "changelist", "add", "jobs", "test", "kit", "start", "upload"}
OF_SEVERAL = {"back_up", "drill", "verify_chosen", "hold_chosen"}
"""Their rows are named in the address."""

READ_BY_POST = {"changelist", "history", "health", "kit", "report", "json", "manifest"}
"""Pages that answer a POST as a GET."""


def names(patterns: list[Any]) -> Iterator[str]:
    """The names of all pages of the app in these patterns."""
    for each in patterns:
        if isinstance(each, URLResolver):
            yield from names(each.url_patterns)
        elif isinstance(each, URLPattern) and (each.name or "").startswith("backups_app_"):
            yield str(each.name)


def test_every_page_has_a_line_in_the_matrix():
    found = list(names(admin.site.get_urls()))
    assert len(found) > 40
    assert sorted(found) == sorted(MATRIX)


MACHINES = {"backups:healthz": "", "backups:readyz": "", "backups:metrics": ALL}
"""What monitors ask: who may, of those without a token; empty: everybody, signed in or not."""

NOT_OURS = {
    "": "the way to the admin",
    "static/": "files of the packages, served by WhiteNoise or by nobody",
}
"""What else the console answers at, and why it needs no line."""


def places(patterns: list[Any], prefix: str = "", space: str = "") -> Iterator[tuple[str, str]]:
    """Address and name of everything that is answered, whatever it is called."""
    for each in patterns:
        where = prefix + str(each.pattern)
        if isinstance(each, URLResolver):
            inner = f"{space}{each.namespace}:" if each.namespace else space
            yield from places(each.url_patterns, where, inner)
        else:
            yield where, space + (each.name or "")


def test_nothing_is_answered_that_has_no_line():
    """Also what has no name, or another prefix, or hangs outside of the admin."""
    stock = {name for _, name in places(AdminSite(name="admin").get_urls(), space="admin:")} | {"admin:app_list"}
    others = {
        f"admin:{model._meta.app_label}_{model._meta.model_name}_"
        for model in admin.site._registry
        if model._meta.app_label != "backups_app"
    }
    lines = {f"admin:{name}" for name in MATRIX} | set(MACHINES)
    without = [
        (where, name)
        for where, name in places(get_resolver("project.urls").url_patterns)
        if name not in lines | stock and where not in NOT_OURS and not _is_way_to_change(where, name)
        if not name.startswith(tuple(others)) and name != "admin:auth_user_password_change"
    ]
    assert without == []


def _is_way_to_change(where: str, name: str) -> bool:
    """The admin sends ``model/ID/`` on to the page for changing; it asks for nothing itself."""
    return name == "admin:" and re.fullmatch(r"admin/\w+/\w+/<path:object_id>/", where) is not None


@pytest.mark.parametrize("role", ROLES)
def test_what_monitors_ask_is_open_to_exactly_those_who_may(rows: dict[str, Any], role: str):
    pytest.importorskip("prometheus_client")
    setup_groups(actor=ACTOR)
    client = somebody_in(role)
    for name, allowed in MACHINES.items():
        answer = client.get(reverse(name))
        assert answer.status_code == (200 if not allowed or role in allowed else 403), name
        assert client.post(reverse(name)).status_code in (403, 405), name


@pytest.mark.usefixtures("db_catalog")
def test_a_visitor_reads_that_it_lives_and_nothing_else():
    visitor = Client()
    assert {visitor.get(reverse(name)).status_code for name in ("backups:healthz", "backups:readyz")} == {200}
    assert visitor.get(reverse("backups:metrics")).status_code == 403


@pytest.fixture
def rows(backup: Backup, settings: Settings, tmp_path: Path) -> dict[str, Any]:
    """One row of each model, in the state in which its deeds make sense."""
    settings.BACKUPS = {**settings.BACKUPS, "TRIAGE_ROOTS": [tmp_path], "RETENTION": {"keep_last": 1}}
    triage = TriageRun.objects.create(requested_by_name="anna", paths=[str(tmp_path)], finished_at=timezone.now())
    file = {"run": triage, "location": b"/x", "format": "sqlite", "size_bytes": 1, "is_judged": True}
    TriageFile.objects.create(**file, path="/x", verdict="holds data", is_useless=False, is_importable=True)
    useless = TriageFile.objects.create(**file, path="/y", verdict="empty", is_useless=True)
    drill = backup.verifications.create(
        destination="local",
        level="drill",
        verdict="passed",
        started_at=timezone.now(),
        finished_at=timezone.now(),
        recovery_seconds=1,
        data_age_seconds=1,
    )
    anna = somebody("anna", "request_restore")
    restore, job = ask(backup, anna), job_row(backup.database, kind="drill")
    job.save()
    schedule = Schedule.objects.create(database=backup.database, kind="verify", cron="15 3 * * *")
    run = ScheduledRun.objects.create(schedule=schedule, due_at=timezone.now())
    return {
        "auditevent": AuditEvent.objects.first(),
        "backup": backup,
        "copy": backup.copies.get(),
        "database": backup.database,
        "drill": drill,
        "finding": Finding.objects.create(
            destination="local", code="missing", message="It is gone.", about=backup.pk, found_at=timezone.now()
        ),
        "healthproblem": HealthProblem.objects.create(
            code="too_old", message="x", first_seen=timezone.now(), last_seen=timezone.now()
        ),
        "host": Host.objects.create(name="alpha", seen_at=timezone.now(), started_at=timezone.now()),
        "recipient": Recipient.objects.create(
            public="age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
            key_id="age1ql3z7hjy54pw",
            first_seen_at=timezone.now(),
        ),
        "triagefile": useless,
        "triagerun": triage,
        "upload": uploaded(),
        "job": job,
        "notification": Notification.objects.create(channel="mail", event="test"),
        "restore": restore,
        "schedule": schedule,
        "scheduledrun": run,
        "verification": backup.verifications.get(level="creation"),
    }


def uploaded() -> TriageRun:
    """An archive of somebody else that was uploaded and judged."""
    receiving = receive()
    receiving.write(b"anything")
    asked = ask_upload_triage(receiving.finish(), name="old.db", actor=ACTOR, trigger="admin")
    assert asked.job is not None
    run_job(asked.job.pk)
    return asked


def address(name: str, rows: dict[str, Any]) -> str:
    """Where a page is."""
    model, _, page = name.removeprefix("backups_app_").partition("_")
    query = f"?id={rows[model].pk}" if page in OF_SEVERAL else ""
    row = {"report": "drill", "report_json": "drill", "remove_upload": "upload"}.get(page, model)
    args = [] if page in WITHOUT_ROW | OF_SEVERAL else [rows[row].pk]
    return reverse(f"admin:{name}", args=args) + query


def somebody_in(role: str) -> Client:
    """A signed-in member of staff in one group."""
    user = User.objects.create_user(f"user-{role}", is_staff=True, is_superuser=role == "S", password=PASSWORD)
    if ROLES[role] and role != "S":
        user.groups.add(Group.objects.get(name=ROLES[role]))
    client = Client()
    client.force_login(user)
    return client


def refused(rule: str) -> set[int]:
    return {403} if rule else {403, 405}


@pytest.mark.parametrize("role", ROLES)
def test_each_page_is_open_to_exactly_those_who_may(rows: dict[str, Any], role: str):
    setup_groups(actor=ACTOR)
    client = somebody_in(role)
    wrong = []
    for name, rule in MATRIX.items():
        where = address(name, rows)
        for method, allowed in (("get", rule.get), ("post", rule.post)):
            status = getattr(client, method)(where).status_code
            expected = {200, 302} if role in allowed else refused(allowed)
            if status not in expected:
                wrong.append((name, method, status))
    assert wrong == []


def test_a_visitor_is_sent_to_the_login_from_every_page(rows: dict[str, Any]):
    visitor = Client()
    for name in MATRIX:
        where = address(name, rows)
        for response in (visitor.get(where), visitor.post(where)):
            assert response.status_code == 302, name
            assert response["Location"].startswith("/admin/login/?next="), name


@pytest.mark.parametrize("role", [each for each in ROLES if each != "N"])
def test_no_page_of_a_list_or_row_leads_where_the_person_may_not_go(rows: dict[str, Any], role: str):
    setup_groups(actor=ACTOR)
    client = somebody_in(role)
    pages = [address(name, rows) for name, rule in MATRIX.items() if role in rule.get and not name.endswith("s_jobs")]
    leads: dict[str, str] = {}  # link → the first page that has it: most are in the frame of every page
    for where in pages:
        response = client.get(where)
        if response.status_code != 200 or "html" not in response["Content-Type"]:
            continue
        for link in page_of(response).links:
            if link.startswith("/admin/backups_app/"):
                leads.setdefault(link, where)
    assert len(leads) > 10
    assert [(where, link) for link, where in leads.items() if client.get(link).status_code == 403] == []


# Deeds

FORMS: dict[str, dict[str, Any]] = {
    "backups_app_backup_verify": {"level": "quick"},
    "backups_app_backup_restore": {"reason": "the prices were wrong"},
    "backups_app_database_change": {"required_tables": '["product"]', "freshness_hours": "3"},
    "backups_app_database_back_up": {"note": "before the sale"},
    "backups_app_backup_verify_chosen": {"level": "quick"},
    "backups_app_backup_hold": {"verb": "hold", "reason": "an audit"},
    "backups_app_backup_hold_chosen": {"verb": "hold"},
    "backups_app_backup_download": {"what": "archive", "password": PASSWORD},
    "backups_app_backup_delete_archive": {"reason": "too many", "typed_name": "shop", "password": PASSWORD},
    "backups_app_database_drill": {},
    "backups_app_database_prune": {},
    "backups_app_job_cancel": {},
    "backups_app_recipient_prove": {},
    "backups_app_triagerun_start": {},
    "backups_app_triagerun_import": {},
    "backups_app_triagerun_upload": {},
    "backups_app_triagerun_remove_upload": {},
    "backups_app_triagerun_delete_useless": {"password": PASSWORD},
    "backups_app_notification_test": {},
    "backups_app_restore_approve": {"password": PASSWORD},
    "backups_app_restore_reject": {"password": PASSWORD, "reason": "not now"},
    "backups_app_restore_undo": {"password": PASSWORD},
    "backups_app_schedule_add": {"kind": "create", "cron": "5 4 * * *", "time_zone": "UTC", "jitter_seconds": "0"},
    "backups_app_schedule_change": {"cron": "5 4 * * *", "time_zone": "UTC", "jitter_seconds": "0"},
    "backups_app_schedule_delete": {"post": "yes"},
}
"""What a person sends on each page that does something."""

CHANGES_NO_ROW = {"backups_app_notification_test"}
"""It sends a message to every receiver, and once more when it is sent again: that is what is asked for."""


def test_every_page_that_takes_a_form_is_among_the_deeds():
    taking = {name for name, rule in MATRIX.items() if rule.post and name.rpartition("_")[2] not in READ_BY_POST}
    assert taking == set(FORMS)


def everything() -> list[Any]:
    """All rows that a deed may change, without the sessions and clocks around them."""
    models = (AuditEvent, Backup, Copy, Database, Job, Notification, Restore, Schedule, TriageRun)
    found = [sorted(model._default_manager.values_list(), key=repr) for model in models]
    return [*found, sorted(Job.objects.values_list("pk", "kind", "state", "cancelled_by_name"), key=repr)]


def ready(name: str, rows: dict[str, Any]) -> str:
    """The page, with its row in the state in which the deed is possible."""
    if name == "backups_app_restore_undo":
        turn(rows["restore"], "succeeded")
    if name == "backups_app_backup_delete_archive":
        turn(rows["restore"], "rejected", rejected_by_name="ben")
    if name == "backups_app_database_drill":
        Job.objects.filter(kind="drill").delete()
    return address(name, rows)


def filled(page: Page, name: str, rows: dict[str, Any]) -> dict[str, Any]:
    """The form as a browser sends it: with its hidden fields."""
    hidden = {
        each.attributes["name"]: each.attributes.get("value", "")
        for each in page.all("input")
        if each.attributes.get("type") == "hidden" and each.attributes.get("name", "csrf")[:4] != "csrf"
    }
    if name.endswith("triagerun_start"):
        hidden["paths"] = "\n".join(rows["triagerun"].paths)
    if name.endswith("triagerun_upload"):
        hidden["archive"] = SimpleUploadedFile("old.db", b"something else")
    database = {"database": str(rows["database"].pk)} if name.endswith(("backup_restore", "schedule_add")) else {}
    return {**hidden, **database, **FORMS[name]}


@pytest.mark.parametrize("name", FORMS)
def test_to_open_a_form_changes_nothing(rows: dict[str, Any], name: str):
    client, where = somebody_in("S"), ready(name, rows)
    before = everything()
    assert client.get(where).status_code in (200, 302)
    assert client.head(where).status_code in (200, 302)
    assert everything() == before


@pytest.mark.parametrize("name", FORMS)
def test_a_form_without_its_token_changes_nothing(rows: dict[str, Any], name: str):
    client, where = somebody_in("S"), ready(name, rows)
    form = filled(page_of(client.get(where, follow=True)), name, rows)
    before = everything()
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(username="user-S"))
    assert strict.post(where, form).status_code == 403
    assert everything() == before


@pytest.mark.parametrize("name", FORMS)
def test_a_form_from_somebody_who_may_not_changes_nothing(rows: dict[str, Any], name: str):
    setup_groups(actor=ACTOR)
    where = ready(name, rows)
    form = filled(page_of(somebody_in("S").get(where, follow=True)), name, rows)
    before = everything()
    for role in sorted(set(ROLES) - set(MATRIX[name].post)):
        assert somebody_in(role).post(where, form).status_code == 403, role
    assert everything() == before


def send(client: Client, where: str, form: dict[str, Any]) -> None:
    """Send the form as often as it is called, and take whatever comes back to its end."""
    for each in form.values():
        if isinstance(each, SimpleUploadedFile):
            each.seek(0)
    response = client.post(where, form)
    assert response.status_code in (200, 302)
    response.getvalue()


@pytest.mark.parametrize("name", [each for each in FORMS if each not in CHANGES_NO_ROW])
def test_a_form_that_is_sent_twice_does_it_once(rows: dict[str, Any], name: str):
    client, where = somebody_in("S"), ready(name, rows)
    form = filled(page_of(client.get(where)), name, rows)
    before = everything()
    send(client, where, form)
    once = everything()
    assert once != before, "it did something"
    send(client, where, form)
    # A refusal may be recorded; what was asked for is not there twice.
    assert everything()[1:] == once[1:]
