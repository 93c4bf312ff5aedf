"""The queue, the page of a request, and the decisions on it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.core.errors import BusyError
from backups_app.models import AuditEvent, Backup, Database, Job, Restore
from backups_app.services.jobs import ask_restore
from tests.admin.conftest import Person
from tests.admin.markup import page_of
from tests.admin.restores import (
    APPROVE,
    PASSWORD,
    QUEUE,
    REQUEST,
    VIEW,
    actor_of,
    ask,
    change_prices,
    decision_page,
    job_page,
    outside,
    prices,
    request_page,
    somebody,
    trace,
    turn,
    work,
)
from tests.support import bytes_in, content_of

__all__ = ["outside"]

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

VERBS = ("approve", "reject", "undo")
RIGHT = {"password": PASSWORD, "reason": "too old"}


@pytest.fixture
def anna(db_catalog: None) -> Person:
    """She asks."""
    return somebody("anna", *REQUEST)


@pytest.fixture
def ben(db_catalog: None) -> Person:
    """He decides."""
    return somebody("ben", *APPROVE)


@pytest.fixture
def asked(anna: Person, backup: Backup, shop_file: Path) -> Restore:
    """A request of anna, after prices changed."""
    change_prices(shop_file)
    return ask(backup, anna)


@pytest.fixture
def done(asked: Restore, ben: Person, outside: None) -> Restore:
    """The request of anna, approved by ben on the screen and run by a worker."""
    assert ben.post(decision_page(asked, "approve"), RIGHT).status_code == 302
    work()
    asked.refresh_from_db()
    assert asked.state == "succeeded", asked.outcome
    return asked


# Addresses and roles

ROLES: dict[str, tuple[str, ...]] = {
    "staff": (),
    "viewer": VIEW,
    "requester": REQUEST,
    "bare requester": ("request_restore",),
    "approver": APPROVE,
    "bare approver": ("approve_restore",),
    "superuser": (),
}
ALLOWED: dict[str, set[str]] = {
    "staff": set(),
    "viewer": {"list", "change"},
    "requester": {"list", "change", "undo"},
    "bare requester": {"list", "change", "undo"},
    "approver": {"list", "change", "approve", "reject"},
    "bare approver": {"list", "change", "approve", "reject"},
    "superuser": {"list", "change", "approve", "reject", "undo"},
}


def addresses(restore: Restore) -> dict[str, str]:
    """Every page of a request by what it does."""
    return {"list": QUEUE, "change": request_page(restore), **{verb: decision_page(restore, verb) for verb in VERBS}}


@pytest.mark.parametrize("state", ["requested", "succeeded"])
@pytest.mark.parametrize("role", ROLES)
def test_each_page_opens_for_those_who_may_and_changes_nothing(asked: Restore, role: str, state: str):
    turn(asked, state)
    person = somebody("zoe", *ROLES[role], is_superuser=role == "superuser")
    before = trace()
    for what, address in addresses(asked).items():
        response = person.get(address, {"password": PASSWORD, "reason": "x"} if what in VERBS else None)
        assert response.status_code == (200 if what in ALLOWED[role] else 403), what
    assert trace() == before


@pytest.mark.parametrize("role", ["staff", "viewer", "requester", "bare requester"])
def test_posting_without_the_permission_changes_nothing(asked: Restore, role: str):
    person = somebody("zoe", *ROLES[role])
    before = trace()
    for verb in ("approve", "reject"):
        assert person.post(decision_page(asked, verb), RIGHT).status_code == 403, verb
    assert trace() == before


@pytest.mark.parametrize("role", ["staff", "viewer", "approver", "bare approver"])
def test_undoing_without_the_permission_changes_nothing(done: Restore, shop_file: Path, role: str):
    person = somebody("zoe", *ROLES[role])
    before = trace()
    assert person.post(decision_page(done, "undo"), RIGHT).status_code == 403
    assert trace() == before
    assert prices(shop_file) == ["apple", "pear", "plum"]


@pytest.mark.parametrize("method", ["get", "post"])
def test_visitors_are_asked_to_sign_in(person: Callable[..., Person], asked: Restore, method: str):
    visitor, before = person("anonymous"), trace()
    for address in addresses(asked).values():
        response = getattr(visitor, method)(address, RIGHT)
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/")
    assert trace() == before


@pytest.mark.parametrize("restore_id", ["0", "none", "0123456789ab", "a" * 400, "%00", "..", "%F0%9F", "%ED%A0%80"])
@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_request_is_not_found(superuser: Person, restore_id: str, method: str, verb: str):
    assert getattr(superuser, method)(f"{QUEUE}{restore_id}/{verb}/", RIGHT).status_code == 404


def test_nobody_adds_changes_or_deletes_a_restore(superuser: Person, asked: Restore):
    before = trace()
    assert superuser.get(f"{QUEUE}add/").status_code == 403
    assert superuser.post(request_page(asked), {"state": "approved"}).status_code == 403
    assert superuser.post(f"{QUEUE}{asked.pk}/delete/", {"post": "yes"}).status_code == 403
    assert trace() == before


@pytest.mark.parametrize("method", ["head", "options", "put", "delete", "patch"])
def test_only_post_decides(ben: Person, asked: Restore, method: str):
    before = trace()
    for verb in ("approve", "reject"):
        getattr(ben.client, method)(decision_page(asked, verb), RIGHT)
    assert trace() == before


def test_without_a_csrf_token_nothing_is_decided(asked: Restore, outside: None):
    ben, before = somebody("ben", is_superuser=True, enforce_csrf_checks=True), trace()
    for verb in VERBS:
        assert ben.post(decision_page(asked, verb), RIGHT).status_code == 403
    assert trace() == before


@pytest.mark.parametrize("verb", ["approve", "reject"])
@pytest.mark.parametrize(
    ("password", "complaint"),
    [
        ("no such thing", "This is not your password."),
        (PASSWORD.upper(), "This is not your password."),
        (f" {PASSWORD}", "This is not your password."),
        ("", "This field is required."),
        ("\x00", "Null characters are not allowed."),
    ],
)
def test_with_a_wrong_password_nothing_is_decided(
    ben: Person, asked: Restore, shop_file: Path, outside: None, verb: str, password: str, complaint: str
):
    before, live = trace(), content_of(shop_file)
    response = ben.post(decision_page(asked, verb), {"password": password, "reason": "too old"})
    assert response.status_code == 200
    assert page_of(response).errors.strip() == complaint
    if password.strip("\x00"):
        assert password not in response.content.decode(), "it is not sent back"
    assert trace() == before
    assert content_of(shop_file) == live


def test_with_a_wrong_password_nothing_is_undone(anna: Person, done: Restore, shop_file: Path):
    before = trace()
    assert "not your password" in page_of(anna.post(decision_page(done, "undo"), {"password": "wrong"})).errors
    assert trace() == before
    assert prices(shop_file) == ["apple", "pear", "plum"]


def test_the_password_of_somebody_else_does_not_count(ben: Person, anna: Person, asked: Restore):
    assert anna.user is not None
    anna.user.set_password("another one")
    anna.user.save()
    response = ben.post(decision_page(asked, "approve"), {"password": "another one"})
    assert "not your password" in page_of(response).errors


# Approve


def test_the_page_to_approve_shows_what_will_happen(ben: Person, asked: Restore):
    page = page_of(ben.get(decision_page(asked, "approve")))
    cells = page.cells()
    assert cells[cells.index("product") :][:5] == ["product", "5", "3", "0", "2"]
    assert "anna, just now" in page.text
    assert "the prices were wrong" in page.text
    assert asked.database.path in page.text
    (form,) = page.all("form", "walsafe-confirm")
    assert form.attributes["method"] == "post"
    (field,) = [each for each in page.all("input") if each.attributes.get("name") == "password"]
    assert (field.attributes["type"], field.attributes["autocomplete"]) == ("password", "current-password")
    assert page.inline_code == []


def test_approving_asks_for_one_job_and_runs_nothing(ben: Person, asked: Restore, shop_file: Path):
    live = content_of(shop_file)
    response = ben.post(decision_page(asked, "approve"), RIGHT, follow=True)
    job = Job.objects.get(kind="restore")
    assert response.redirect_chain == [(job_page(job), 302)]
    assert page_of(response).messages == [("success", "1 job was queued.")]
    assert (job.kind, job.state, job.restore, job.database) == ("restore", "queued", asked, asked.database)
    assert (job.requested_by_id, job.requested_by_name, job.trigger) == (actor_of(ben).id, "ben", "admin")
    asked.refresh_from_db()
    assert (asked.state, asked.approved_by_name, asked.safety_backup) == ("approved", "ben", None)
    assert content_of(shop_file) == live
    assert request_page(asked) in page_of(response).links


def test_the_page_of_a_request_leads_to_its_job_and_offers_no_second_one(ben: Person, asked: Restore):
    ben.post(decision_page(asked, "approve"), RIGHT)
    response = ben.get(request_page(asked))
    page = page_of(response)
    assert job_page(Job.objects.get(kind="restore")) in page.links
    assert "A job waits to run it; nothing was changed yet." in page.text
    assert "Run the approved restore" not in page.buttons
    assert response["Refresh"] == "3"
    form = page_of(ben.get(decision_page(asked, "approve")))
    assert "A job waits to run it, or runs it now." in form.text
    assert job_page(Job.objects.get(kind="restore")) in form.links
    assert not form.all("form", "walsafe-confirm")


def test_when_the_job_has_ended_the_page_of_the_request_says_how(
    ben: Person, asked: Restore, shop_file: Path, outside: None
):
    assert prices(shop_file) == ["apple", "pear", "plum", "quince", "grape"]
    ben.post(decision_page(asked, "approve"), RIGHT)
    work()
    assert prices(shop_file) == ["apple", "pear", "plum"]
    response = ben.get(request_page(asked))
    assert "Refresh" not in response
    page = page_of(response)
    assert "The live database holds the content of the backup, and was checked." in page.text
    assert page.badges[0] == "✓ succeeded"
    assert "asked for by anna, approved by ben" in page.text
    cells = page.cells()
    assert cells[cells.index("quick_check") + 1] == "✓ ok"
    asked.refresh_from_db()
    assert f"/admin/backups_app/backup/{asked.safety_backup_id}/change/" in page.links
    assert AuditEvent.objects.filter(action="restore", outcome="done", actor_name="ben", subject=asked.pk).count() == 1


@pytest.mark.parametrize("state", ["queued", "running"])
def test_approving_twice_asks_once(ben: Person, asked: Restore, state: str):
    ben.post(decision_page(asked, "approve"), RIGHT)
    if state == "running":
        now = timezone.now()
        Job.objects.filter(kind="restore").update(state="running", started_at=now, heartbeat_at=now, token=1, owner="w")
    before = trace()
    response = ben.post(decision_page(asked, "approve"), RIGHT, follow=True)
    assert response.redirect_chain == [(job_page(Job.objects.get(kind="restore")), 302)]
    assert page_of(response).messages[-1] == ("info", "1 job was asked for already: nothing is done twice.")
    assert trace() == before


def test_of_two_approvals_at_the_same_moment_one_asks(ben: Person, asked: Restore, monkeypatch: pytest.MonkeyPatch):
    def ask_twice(restore: Restore, **options: Any) -> Job:
        ask_restore(restore, **options)  # the other request was a moment faster
        return ask_restore(restore, **options)

    monkeypatch.setattr("backups_app.admin.restore.ask_restore", ask_twice)
    response = ben.post(decision_page(asked, "approve"), RIGHT, follow=True)
    assert response.redirect_chain == [(job_page(Job.objects.get(kind="restore")), 302)]
    assert "error" not in {kind for kind, _text in page_of(response).messages}


def test_approving_what_has_run_is_refused(ben: Person, done: Restore, shop_file: Path):
    change_prices(shop_file)
    before, rows = prices(shop_file), trace()[2]
    response = ben.post(decision_page(done, "approve"), RIGHT, follow=True)
    kind, text = page_of(response).messages[-1]
    assert kind == "error"
    assert "is succeeded, not waiting for a decision" in text
    assert prices(shop_file) == before
    assert trace()[2] == rows


def test_without_the_right_to_see_jobs_one_stays_with_the_request(asked: Restore):
    zoe = somebody("zoe", "view_restore", "approve_restore")
    response = zoe.post(decision_page(asked, "approve"), RIGHT, follow=True)
    assert response.redirect_chain == [(request_page(asked), 302)]
    page = page_of(response)
    assert [kind for kind, _text in page.messages] == ["success", "warning"]
    assert "No worker is running." in page.messages[1][1]
    assert not [link for link in page.links if "/job/" in link]
    assert Job.objects.filter(kind="restore").count() == 1


@pytest.mark.parametrize("is_superuser", [False, True])
def test_whoever_asked_cannot_approve_and_reads_why(backup: Backup, shop_file: Path, outside: None, is_superuser: bool):
    zoe = somebody("zoe", *{*REQUEST, *APPROVE}, is_superuser=is_superuser)
    change_prices(shop_file)
    restore, live = ask(backup, zoe), prices(shop_file)
    page = page_of(zoe.get(decision_page(restore, "approve")))
    assert "You asked for this restore yourself. Another person has to approve it." in page.text
    assert not page.all("form", "walsafe-confirm")
    assert decision_page(restore, "approve") not in page_of(zoe.get(request_page(restore))).links
    refused = page_of(zoe.post(decision_page(restore, "approve"), RIGHT, follow=True))
    assert refused.messages[0][0] == "error"
    assert "Zoe asked for this restore; somebody else must approve it." in refused.messages[0][1]
    restore.refresh_from_db()
    assert (restore.state, restore.approved_by_name) == ("requested", "")
    assert prices(shop_file) == live
    assert AuditEvent.objects.filter(action="approve-restore", outcome="refused", actor_name="zoe").count() == 1


def test_a_single_person_may_approve_where_four_eyes_are_switched_off(
    backup: Backup, shop_file: Path, settings: Settings, outside: None
):
    settings.BACKUPS = {**settings.BACKUPS, "FOUR_EYES": False}
    zoe = somebody("zoe", is_superuser=True)
    restore = ask(backup, zoe)
    page = page_of(zoe.get(request_page(restore)))
    assert decision_page(restore, "approve") in page.links
    assert "another person" not in page.text
    zoe.post(decision_page(restore, "approve"), RIGHT)
    work()
    done = page_of(zoe.get(request_page(restore)))
    assert done.badges[0] == "✓ succeeded"
    assert "the same person: the four-eyes rule is off" in done.text


@pytest.fixture
def kept_back(ben: Person, asked: Restore, monkeypatch: pytest.MonkeyPatch) -> Restore:
    """An approval by ben whose job was refused, because something else of this database waits."""
    with monkeypatch.context() as patch:

        def refuse(*_arguments: object, **_options: object) -> Job:
            raise BusyError("Another restore waits.", "Wait for it.")

        patch.setattr("backups_app.admin.restore.ask_restore", refuse)
        page = page_of(ben.post(decision_page(asked, "approve"), RIGHT, follow=True))
    assert page.messages == [("error", "Another restore waits. Wait for it.")]
    assert "Run the approved restore" in page.buttons
    asked.refresh_from_db()
    assert asked.state == "approved"
    assert not Job.objects.filter(kind="restore").exists()
    return asked


def test_an_approval_that_was_kept_from_running_can_be_run_later(ben: Person, kept_back: Restore):
    ben.post(decision_page(kept_back, "approve"), RIGHT)
    assert Job.objects.get(kind="restore").restore == kept_back
    assert AuditEvent.objects.filter(action="approve-restore").count() == 1


def test_another_approver_may_run_what_was_approved_and_is_named_as_the_one_who_ran_it(
    kept_back: Restore, shop_file: Path, outside: None
):
    zoe = somebody("zoe", *APPROVE)
    zoe.post(decision_page(kept_back, "approve"), RIGHT)
    assert Job.objects.get(kind="restore").requested_by_name == "zoe"
    work()
    assert "approved by ben" in page_of(zoe.get(request_page(kept_back))).text
    assert AuditEvent.objects.get(action="restore", outcome="done").actor_name == "zoe"
    assert prices(shop_file) == ["apple", "pear", "plum"]


def test_a_cancelled_job_leaves_an_approval_that_can_be_run(ben: Person, asked: Restore, superuser: Person):
    ben.post(decision_page(asked, "approve"), RIGHT)
    first = Job.objects.get(kind="restore")
    superuser.post(f"/admin/backups_app/job/{first.pk}/cancel/")
    assert "Run the approved restore" in page_of(ben.get(request_page(asked))).buttons
    ben.post(decision_page(asked, "approve"), RIGHT)
    assert sorted(Job.objects.filter(kind="restore").values_list("state", flat=True)) == ["cancelled", "queued"]


def test_a_restore_that_fails_says_why_and_changes_nothing(
    ben: Person, asked: Restore, shop_file: Path, archive_of: Callable[[Backup], Path], outside: None
):
    archive_of(asked.backup).unlink()
    live = content_of(shop_file)
    ben.post(decision_page(asked, "approve"), RIGHT)
    work()
    page = page_of(ben.get(request_page(asked)))
    assert page.badges[0] == "✗ failed"
    asked.refresh_from_db()
    assert asked.outcome in page.text
    assert "Undo this restore" not in page.buttons
    assert content_of(shop_file) == live


# Reject


def test_rejecting_closes_the_request_with_its_reason(ben: Person, asked: Restore, shop_file: Path):
    live = content_of(shop_file)
    page = page_of(ben.post(decision_page(asked, "reject"), RIGHT, follow=True))
    assert page.messages == [("success", "The request is closed. Nothing was changed.")]
    assert page.badges[0] == "– rejected"
    assert "too old" in page.text
    assert "rejected by ben" in page.text
    assert content_of(shop_file) == live
    assert "Approve and restore" not in page.buttons


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_rejection_needs_a_reason(ben: Person, asked: Restore, reason: str):
    before = trace()
    response = ben.post(decision_page(asked, "reject"), {"password": PASSWORD, "reason": reason})
    assert page_of(response).errors.strip() == "This field is required."
    assert trace() == before


def test_a_rejected_request_cannot_be_approved(ben: Person, asked: Restore, shop_file: Path, outside: None):
    ben.post(decision_page(asked, "reject"), RIGHT)
    kind, text = page_of(ben.post(decision_page(asked, "approve"), RIGHT, follow=True)).messages[-1]
    assert (kind, "is rejected" in text) == ("error", True)
    assert len(prices(shop_file)) == 5


def test_whoever_asked_may_withdraw_without_the_permission_to_approve(anna: Person, asked: Restore):
    page = page_of(anna.get(request_page(asked)))
    assert "Withdraw request" in page.buttons
    assert "Approve and restore" not in page.buttons
    withdrawn = page_of(anna.post(decision_page(asked, "reject"), RIGHT, follow=True))
    assert withdrawn.badges[0] == "– cancelled"
    assert "withdrawn by anna" in withdrawn.text


# Undo


def test_undo_asks_for_one_job_that_puts_back_what_was_there(anna: Person, done: Restore, shop_file: Path):
    page = page_of(anna.get(decision_page(done, "undo")))
    assert "A job is queued at once" in page.text
    assert str(done.safety_backup_id) in page.text
    response = anna.post(decision_page(done, "undo"), RIGHT, follow=True)
    undo = Restore.objects.get(undo_of=done)
    job = Job.objects.get(restore=undo)
    assert response.redirect_chain == [(job_page(job), 302)]
    assert (undo.state, job.state, job.requested_by_name) == ("approved", "queued", "anna")
    assert prices(shop_file) == ["apple", "pear", "plum"], "nothing ran"
    work()
    assert prices(shop_file) == ["apple", "pear", "plum", "quince", "grape"]


def test_the_approver_may_undo_without_the_permission_to_request(ben: Person, done: Restore, shop_file: Path):
    assert "Undo this restore" in page_of(ben.get(request_page(done))).buttons
    ben.post(decision_page(done, "undo"), RIGHT)
    work()
    assert len(prices(shop_file)) == 5


def test_undoing_twice_asks_once(anna: Person, done: Restore, shop_file: Path):
    anna.post(decision_page(done, "undo"), RIGHT)
    twice = anna.post(decision_page(done, "undo"), RIGHT, follow=True)
    assert twice.redirect_chain == [(job_page(Job.objects.get(restore__undo_of=done)), 302)]
    work()
    once = prices(shop_file)
    change_prices(shop_file)
    page = page_of(anna.post(decision_page(done, "undo"), RIGHT, follow=True))
    assert page.messages[-1][0] == "error"
    assert work() == []
    assert len(prices(shop_file)) == len(once) + 2, "the second one ran nothing"
    assert Restore.objects.filter(undo_of=done).count() == 1


def test_a_restore_that_was_undone_leads_to_its_undo(anna: Person, done: Restore):
    anna.post(decision_page(done, "undo"), RIGHT)
    work()
    undo = Restore.objects.get(undo_of=done)
    page = page_of(anna.get(request_page(done)))
    assert request_page(undo) in page.links
    assert "Undo this restore" not in page.buttons
    assert "Undo this restore" in page_of(anna.get(request_page(undo))).buttons
    asked_again = page_of(anna.get(decision_page(done, "undo")))
    assert "It was undone already" in asked_again.text
    assert not asked_again.all("form", "walsafe-confirm")


def test_a_third_person_only_files_a_request_to_undo(done: Restore, shop_file: Path):
    zoe = somebody("zoe", *REQUEST)
    assert "another person has to approve it" in page_of(zoe.get(decision_page(done, "undo"))).text
    page = page_of(zoe.post(decision_page(done, "undo"), RIGHT, follow=True))
    assert page.messages == [("warning", "A request was filed. It runs when it is approved.")]
    assert page.badges[0] == "… requested"
    assert not Job.objects.filter(restore__undo_of=done).exists()
    assert prices(shop_file) == ["apple", "pear", "plum"]


def test_after_the_approval_window_an_undo_is_a_request(anna: Person, done: Restore, shop_file: Path):
    Restore.objects.filter(pk=done.pk).update(expires_at=timezone.now() - timedelta(hours=1))
    page = page_of(anna.post(decision_page(done, "undo"), RIGHT, follow=True))
    assert page.messages[0][0] == "warning"
    assert prices(shop_file) == ["apple", "pear", "plum"]


# Buttons

BUTTONS = {"Approve and restore", "Run the approved restore", "Reject request", "Withdraw request", "Undo this restore"}


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        ("requested", {"Approve and restore", "Reject request"}),
        ("approved", {"Run the approved restore", "Reject request"}),
        ("running", set()),
        ("succeeded", {"Undo this restore"}),
        ("failed", set()),
        ("rolled_back", set()),
        ("rejected", set()),
        ("expired", set()),
        ("cancelled", set()),
    ],
)
def test_a_superuser_is_offered_what_makes_sense(
    superuser: Person, asked: Restore, monkeypatch: pytest.MonkeyPatch, state: str, offered: set[str]
):
    monkeypatch.setattr("backups_app.admin.restore.bring_up_to_date", list)
    turn(asked, state)
    assert page_of(superuser.get(request_page(asked))).buttons & BUTTONS == offered
    for verb, button in (("approve", "Approve and restore"), ("undo", "Undo this restore")):
        page = page_of(superuser.get(decision_page(asked, verb)))
        is_open = button in offered or (verb == "approve" and "Run the approved restore" in offered)
        assert bool(page.all("form", "walsafe-confirm")) is is_open, verb


@pytest.mark.parametrize("state", ["requested", "approved", "succeeded"])
def test_a_viewer_is_offered_nothing(asked: Restore, state: str):
    turn(asked, state)
    page = page_of(somebody("zoe", *VIEW).get(request_page(asked)))
    assert page.buttons & BUTTONS == set()
    assert not {decision_page(asked, verb) for verb in VERBS} & page.links


def test_a_request_whose_time_is_over_is_closed_before_it_is_shown(ben: Person, asked: Restore, outside: None):
    Restore.objects.filter(pk=asked.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    page = page_of(ben.get(request_page(asked)))
    assert page.badges[0] == "– expired"
    assert page.buttons & BUTTONS == set()
    assert "is expired" in page_of(ben.post(decision_page(asked, "approve"), RIGHT, follow=True)).messages[0][1]


def test_a_restore_whose_process_died_is_not_called_running(ben: Person, asked: Restore):
    turn(asked, "running", started_at=timezone.now())
    page = page_of(ben.get(request_page(asked)))
    assert page.badges[0] == "✗ failed"


def test_the_page_of_a_running_restore_loads_again_by_itself(
    ben: Person, asked: Restore, monkeypatch: pytest.MonkeyPatch
):
    assert "Refresh" not in ben.get(request_page(asked))
    monkeypatch.setattr("backups_app.admin.restore.bring_up_to_date", list)
    turn(asked, "running", started_at=timezone.now())
    response = ben.get(request_page(asked))
    assert response["Refresh"] == "3"
    assert "It runs now." in page_of(response).text


def test_a_restore_that_was_not_checked_is_not_called_checked(ben: Person, asked: Restore):
    turn(asked, "succeeded", report={"notes": ["The process ended after the copy; the check was not made."]})
    page = page_of(ben.get(request_page(asked)))
    assert "The live database holds the content of the backup." in page.text
    assert "the check was not made" in page.text
    assert "and was checked" not in page.text


def test_the_report_shows_what_an_operator_has_to_do(ben: Person, asked: Restore):
    report = {
        "notes": ["<b>note</b> \udcff"],
        "checks": [{"name": "census", "ok": False, "advisory": True, "evidence": "others wrote \udcff"}],
        "pending_migrations": ["shop.0007_more"],
        "moved_aside": ["site.sqlite3.damaged"],
        "blocked_seconds": 0.321,
        "others_wrote": True,
    }
    turn(asked, "succeeded", report=report)
    page = page_of(ben.get(request_page(asked)))
    for text in ("shop.0007_more", "site.sqlite3.damaged", "0.321 s", "others have written already", "<b>note</b>"):
        assert text in page.text, text
    assert not page.all("b")
    cells = page.cells()
    assert cells[cells.index("census") + 1] == "! note"


# The queue


def test_the_queue_lists_requests_and_leads_to_them(ben: Person, asked: Restore):
    Restore.objects.filter(pk=asked.pk).update(reason="because " + "w" * 500)
    page = page_of(ben.get(QUEUE))
    assert request_page(asked) in page.links
    assert "… requested" in page.badges
    assert "anna" in page.cells()
    assert "w" * 100 not in page.text, "a long reason is cut"


def test_the_queue_asks_a_bounded_number_of_questions_and_loads_no_preview(ben: Person, asked: Restore):
    for _ in range(30):
        asked.pk = None
        Restore.objects.create(
            **{
                field.attname: getattr(asked, field.attname)
                for field in Restore._meta.concrete_fields
                if field.attname != "id"
            }
        )
    ben.get(QUEUE)
    with CaptureQueriesContext(connections["catalog"]) as questions:
        response = ben.get(QUEUE)
    assert len(response.context["cl"].result_list) == 31
    assert len(questions) <= 10
    for row in response.context["cl"].result_list:
        assert {"preview", "report"} <= row.get_deferred_fields()


@pytest.mark.parametrize(
    ("query", "count"), [("state__exact=requested", 1), ("state__exact=failed", 0), ("q=prices", 1), ("q=nothing", 0)]
)
def test_filters_and_search_narrow_the_queue(ben: Person, asked: Restore, query: str, count: int):
    assert len(ben.get(f"{QUEUE}?{query}").context["cl"].result_list) == count


def test_reading_every_page_leaves_every_file_alone(ben: Person, asked: Restore, home: Path, shop_file: Path):
    before, live = bytes_in(home), content_of(shop_file)
    for address in addresses(asked).values():
        ben.get(address)
    assert bytes_in(home) == before
    assert content_of(shop_file) == live
    assert Database.objects.count() == 1


def test_the_actor_of_a_decision_is_the_person_who_signed_in(ben: Person, done: Restore, anna: Person):
    assert (done.approved_by_id, done.approved_by_name) == (actor_of(ben).id, "ben")
    assert (done.requested_by_id, done.requested_by_name) == (actor_of(anna).id, "anna")
    assert done.is_self_approved is False
