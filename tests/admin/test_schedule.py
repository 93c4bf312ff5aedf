"""Schedules on the screen: in words and in times, saved through the service, runs beside them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from backups_app.jobs.cron import describe, find_zone, next_times, parse
from backups_app.models import AuditEvent, Database, Job, Schedule, ScheduledRun
from backups_app.services.schedules import fire_due, save_schedule
from tests.admin.conftest import Person
from tests.admin.markup import Page, page_of
from tests.conftest import ACTOR

LIST = "/admin/backups_app/schedule/"
ADD = f"{LIST}add/"
RUNS = "/admin/backups_app/scheduledrun/"
SCRIPT = "<script>alert(1)</script>"
MakePerson = Callable[..., Person]


def change_page(schedule: Schedule) -> str:
    return f"{LIST}{schedule.pk}/change/"


def delete_page(schedule: Schedule) -> str:
    return f"{LIST}{schedule.pk}/delete/"


def form(database: Database | None = None, **facts: Any) -> dict[str, Any]:
    """What a browser sends."""
    given = {"cron": "15 3 * * *", "time_zone": "Europe/Athens", "jitter_seconds": 0, "is_enabled": "on", **facts}
    return {**given, "database": database.pk, "kind": facts.get("kind", "create")} if database else given


def time_titles(page: Page) -> list[str]:
    """What its times say on hover."""
    return [each.attributes["title"] for each in page.all("time")]


def audited(action: str) -> int:
    return AuditEvent.objects.filter(action=action).count()


@pytest.fixture
def schedule(shop: Database) -> Schedule:
    """Every day at 03:15 in Athens."""
    schedule = Schedule(database=shop, kind="create", cron="15 3 * * *", time_zone="Europe/Athens")
    save_schedule(schedule, actor=ACTOR, now=timezone.now())
    return schedule


@pytest.fixture
def scheduler(person: MakePerson) -> Person:
    """Somebody who may do everything with schedules and nothing else."""
    return person("scheduler")


# Adding, changing, deleting


def test_a_schedule_is_added_and_recorded(scheduler: Person, shop: Database):
    before = timezone.now()
    response = scheduler.post(ADD, form(shop, jitter_seconds=60), follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    schedule = Schedule.objects.get()
    assert (schedule.database, schedule.kind, schedule.cron) == (shop, "create", "15 3 * * *")
    assert (schedule.time_zone, schedule.jitter_seconds, schedule.is_enabled) == ("Europe/Athens", 60, True)
    assert before <= schedule.handled_until <= timezone.now()
    event = AuditEvent.objects.get(action="add-schedule")
    assert (event.actor_name, event.database_name) == ("scheduler", "shop")
    assert not Job.objects.exists(), "nothing is due yet"


def test_a_changed_time_counts_from_now(scheduler: Person, schedule: Schedule):
    Schedule.objects.update(handled_until=timezone.now() - timedelta(days=9))
    response = scheduler.post(change_page(schedule), form(cron="0 4 * * *", time_zone="Asia/Kathmandu"), follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    stored = Schedule.objects.get()
    assert (stored.cron, stored.time_zone) == ("0 4 * * *", "Asia/Kathmandu")
    assert timezone.now() - stored.handled_until < timedelta(minutes=1)
    assert (audited("change-schedule"), audited("add-schedule")) == (1, 1)
    assert fire_due(now=timezone.now()).runs == []


def test_a_schedule_is_switched_off(scheduler: Person, schedule: Schedule):
    given = form()
    del given["is_enabled"]
    scheduler.post(change_page(schedule), given)
    assert not Schedule.objects.get().is_enabled
    page = page_of(scheduler.get(LIST))
    assert page.badges == ["– off"]
    assert time_titles(page) == [], "it has no next times"


def test_database_and_kind_cannot_be_changed(scheduler: Person, schedule: Schedule):
    page = page_of(scheduler.get(change_page(schedule)))
    assert {each.attributes.get("name") for each in page.all("select")} == {"time_zone"}
    scheduler.post(change_page(schedule), form(kind="prune", database=None) | {"kind": "prune", "database": "999"})
    stored = Schedule.objects.get()
    assert (stored.kind, stored.database_id) == ("create", schedule.database_id)


def test_a_schedule_is_deleted_with_its_runs_and_its_jobs_stay(scheduler: Person, schedule: Schedule):
    fire_due(now=timezone.now() + timedelta(days=1))
    page = page_of(scheduler.get(delete_page(schedule)))
    assert "Yes, I’m sure" in page.buttons
    assert ScheduledRun.objects.count() == 1
    response = scheduler.post(delete_page(schedule), {"post": "yes"}, follow=True)
    assert response.redirect_chain == [(LIST, 302)]
    assert not Schedule.objects.exists()
    assert not ScheduledRun.objects.exists()
    assert (Job.objects.count(), audited("delete-schedule")) == (1, 1)


def test_chosen_schedules_are_deleted_through_the_service(scheduler: Person, schedule: Schedule, shop: Database):
    save_schedule(Schedule(database=shop, kind="prune", cron="@daily"), actor=ACTOR, now=timezone.now())
    fire_due(now=timezone.now() + timedelta(days=1))
    chosen = list(Schedule.objects.values_list("pk", flat=True))
    asked = {"action": "delete_selected", "_selected_action": chosen}
    assert "Yes, I’m sure" in page_of(scheduler.post(LIST, asked)).buttons
    assert Schedule.objects.count() == 2
    scheduler.post(LIST, {**asked, "post": "yes"})
    assert not Schedule.objects.exists()
    assert audited("delete-schedule") == 2


def test_a_second_schedule_of_the_same_kind_is_refused(scheduler: Person, schedule: Schedule, shop: Database):
    response = scheduler.post(ADD, form(shop, cron="0 5 * * *"))
    assert response.status_code == 200
    assert "already exists" in page_of(response).errors
    assert Schedule.objects.get().cron == "15 3 * * *"
    assert audited("add-schedule") == 1


def test_what_the_form_could_not_foresee_is_a_message_and_stores_nothing(
    scheduler: Person, schedule: Schedule, shop: Database, monkeypatch: pytest.MonkeyPatch
):
    """Somebody else adds the same one between the check and the saving."""
    monkeypatch.setattr(Schedule, "validate_unique", lambda *_args, **_options: None)
    monkeypatch.setattr(Schedule, "validate_constraints", lambda *_args, **_options: None)
    response = scheduler.post(ADD, form(shop, cron="0 5 * * *"), follow=True)
    ((kind, text),) = page_of(response).messages
    assert (kind, "There is a schedule to back up 'shop' already." in text) == ("error", True)
    assert Schedule.objects.get().cron == "15 3 * * *"


# What is refused


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"cron": "nonsense"}, "five"),
        ({"cron": "0 0 30 2 *"}, "never comes"),
        ({"cron": "* * * * * *"}, "6 fields"),
        ({"cron": SCRIPT}, "fields"),
        ({"cron": f"{SCRIPT} * * * *"}, "minute"),
        ({"cron": ""}, "required"),
        ({"cron": "1" * 101}, "100 characters"),
        ({"cron": "1\x00 * * * *"}, "Null characters"),
        ({"time_zone": "Europe/Nowhere"}, "no time zone"),
        ({"time_zone": "../../etc/passwd"}, "no time zone"),
        ({"time_zone": SCRIPT}, "no time zone"),
        ({"time_zone": ""}, "required"),
        ({"jitter_seconds": -1}, "greater than or equal to 0"),
        ({"jitter_seconds": 99_999}, "jitter"),
        ({"jitter_seconds": "9" * 40}, "jitter cannot be longer"),
        ({"jitter_seconds": "x"}, "whole number"),
        ({"cron": "* * * * *", "jitter_seconds": 60}, "shorter than the time between two runs"),
        ({"kind": "restore"}, "not one of the available choices"),
    ],
)
def test_what_cannot_work_is_refused_on_the_form(
    scheduler: Person, shop: Database, wrong: dict[str, Any], complaint: str
):
    response = scheduler.post(ADD, form(shop, **wrong))
    assert response.status_code == 200
    page = page_of(response)
    assert complaint in page.errors
    assert page.inline_code == []
    assert SCRIPT not in response.content.decode()
    assert not Schedule.objects.exists()
    assert audited("add-schedule") == 0


def test_a_database_that_left_care_is_not_offered(scheduler: Person, shop: Database):
    Database.objects.update(is_under_care=False)
    assert "shop" not in page_of(scheduler.get(ADD)).buttons
    assert "not one of the available choices" in page_of(scheduler.post(ADD, form(shop))).errors
    assert not Schedule.objects.exists()


# Words and times


def test_the_list_says_in_words_and_in_five_times_when_it_is_due(scheduler: Person, schedule: Schedule):
    page = page_of(scheduler.get(LIST))
    assert "15 3 * * * At 03:15" in page.text
    assert page.badges == ["✓ on"]
    coming = next_times(parse(schedule.cron), find_zone("Europe/Athens"), after=timezone.now())
    assert time_titles(page) == [f"{each:%a %Y-%m-%d %H:%M} UTC" for each in coming]
    assert [each.text for each in page.all("time")] == [
        f"{local:%a %Y-%m-%d %H:%M} {local.tzname()}"
        for local in (each.astimezone(find_zone("Europe/Athens")) for each in coming)
    ]
    assert len(coming) == 5


def test_the_form_shows_them_after_saving(scheduler: Person, schedule: Schedule):
    page = page_of(scheduler.get(change_page(schedule)))
    assert "15 3 * * * At 03:15" in page.text
    assert len(page.all("time")) == 5
    assert len(page.all("ol", "walsafe-times")) == 1
    (zone,) = page.all("select")
    chosen = [each for each in page.all("option") if "selected" in each.attributes]
    assert [each.text for each in chosen] == ["Europe/Athens"]
    assert "Asia/Kathmandu" in zone.text


def test_an_empty_form_promises_them(scheduler: Person, shop: Database):
    page = page_of(scheduler.get(ADD))
    assert "Shown when the schedule is saved." in page.text
    assert page.all("time") == []


def test_a_form_with_an_error_elsewhere_shows_what_was_submitted(scheduler: Person, schedule: Schedule):
    given = form(cron="*/20 * * * *", time_zone="Asia/Kathmandu", jitter_seconds="x")
    page = page_of(scheduler.post(change_page(schedule), given))
    assert "whole number" in page.errors
    assert f"*/20 * * * * {describe(parse('*/20 * * * *'))}" in page.text
    assert all("+0545" in each.text for each in page.all("time"))
    assert len(page.all("time")) == 5
    assert Schedule.objects.get().cron == "15 3 * * *"
    fresh = page_of(scheduler.post(ADD, form(schedule.database, cron="@hourly", kind="prune", jitter_seconds="x")))
    assert "@hourly Every hour" in fresh.text
    assert len(fresh.all("time")) == 5


def test_a_stored_row_that_cannot_be_read_is_shown_and_can_be_mended(scheduler: Person, schedule: Schedule):
    Schedule.objects.update(cron=SCRIPT, time_zone=f"Old/{SCRIPT}")
    for address in (LIST, change_page(schedule)):
        response = scheduler.get(address)
        assert response.status_code == 200
        assert SCRIPT not in response.content.decode()
        assert page_of(response).all("time") == []
        assert SCRIPT in page_of(response).text
    scheduler.post(change_page(schedule), form())
    assert Schedule.objects.get().cron == "15 3 * * *"


def test_no_page_of_schedules_holds_inline_code(scheduler: Person, schedule: Schedule):
    fire_due(now=timezone.now() + timedelta(days=3))
    run = ScheduledRun.objects.get()
    for address in (LIST, ADD, change_page(schedule), delete_page(schedule), RUNS, f"{RUNS}{run.pk}/change/"):
        response = scheduler.get(address)
        assert response.status_code == 200, address
        assert page_of(response).inline_code == [], address


# Runs


def test_the_form_lists_its_runs_with_what_became_of_them(scheduler: Person, schedule: Schedule):
    assert "All its runs" not in page_of(scheduler.get(change_page(schedule))).text
    fire_due(now=timezone.now() + timedelta(days=3))
    run, job = ScheduledRun.objects.get(), Job.objects.get()
    page = page_of(scheduler.get(change_page(schedule)))
    assert page.badges == ["! late" if run.is_late else "✓ on time", "○ queued"]
    assert str(run.missed) in page.cells()
    assert f"/admin/backups_app/job/{job.pk}/change/" in page.links
    assert f"{RUNS}?schedule__id__exact={schedule.pk}" in page.links
    assert f"{run.due_at.astimezone(find_zone('Europe/Athens')):%a %Y-%m-%d %H:%M}" in page.text


def test_the_list_of_runs_tells_late_from_punctual(person: MakePerson, schedule: Schedule):
    due = datetime(2026, 3, 29, 1, tzinfo=UTC)
    ScheduledRun.objects.create(schedule=schedule, due_at=due, fired_at=due)
    ScheduledRun.objects.create(
        schedule=schedule, due_at=due + timedelta(days=1), fired_at=due + timedelta(days=2), is_late=True, missed=4
    )
    viewer = person("schedule viewer")
    page = page_of(viewer.get(RUNS))
    assert page.badges == ["! late", "✓ on time"]
    assert "Sun 2026-03-29 04:00 EEST" in page.text
    assert time_titles(page).count("Sun 2026-03-29 01:00 UTC") == 1
    assert page_of(viewer.get(RUNS, {"is_late__exact": 1})).badges == ["! late"]
    assert page_of(viewer.get(RUNS, {"schedule__id__exact": schedule.pk})).badges == page.badges
    assert page_of(viewer.get(RUNS, {"schedule__id__exact": schedule.pk + 1})).badges == []


def test_the_list_needs_no_query_per_row(scheduler: Person, schedule: Schedule, shop: Database):
    fire_due(now=timezone.now() + timedelta(days=3))
    with CaptureQueriesContext(connections["catalog"]) as one:
        assert len(page_of(scheduler.get(LIST)).badges) == 1
    for kind in ("verify", "drill", "prune"):
        save_schedule(Schedule(database=shop, kind=kind, cron="@daily"), actor=ACTOR, now=timezone.now())
    with CaptureQueriesContext(connections["catalog"]) as four:
        assert len(page_of(scheduler.get(LIST)).badges) == 4
    assert len(four) == len(one)


# Permissions


@pytest.mark.parametrize(
    ("name", "reads", "writes"),
    [
        ("anonymous", 302, 302),
        ("staff", 403, 403),
        ("operator", 403, 403),
        ("schedule viewer", 200, 403),
        ("scheduler", 200, 200),
        ("superuser", 200, 200),
    ],
)
def test_who_may_see_and_do_what(person: MakePerson, schedule: Schedule, name: str, reads: int, writes: int):
    someone = person(name)
    for address in (LIST, change_page(schedule), RUNS):
        assert someone.get(address).status_code == reads, address
    for address in (ADD, delete_page(schedule)):
        assert someone.get(address).status_code == writes, address


@pytest.mark.parametrize("name", ["anonymous", "staff", "operator", "schedule viewer"])
def test_without_the_permission_nothing_changes(person: MakePerson, schedule: Schedule, shop: Database, name: str):
    someone, before = person(name), list(Schedule.objects.values_list())
    someone.post(ADD, form(shop, kind="prune"))
    someone.post(change_page(schedule), form(cron="0 5 * * *"))
    someone.post(delete_page(schedule), {"post": "yes"})
    someone.post(LIST, {"action": "delete_selected", "_selected_action": [schedule.pk], "post": "yes"})
    assert list(Schedule.objects.values_list()) == before
    assert audited("change-schedule") == audited("delete-schedule") == 0


def test_without_a_csrf_token_nothing_changes(person: MakePerson, schedule: Schedule):
    superuser = person("superuser", enforce_csrf_checks=True)
    assert superuser.post(change_page(schedule), form(cron="0 5 * * *")).status_code == 403
    assert superuser.post(delete_page(schedule), {"post": "yes"}).status_code == 403
    assert Schedule.objects.get().cron == "15 3 * * *"


def test_nobody_can_add_change_or_delete_a_run(superuser: Person, schedule: Schedule):
    fire_due(now=timezone.now() + timedelta(days=3))
    run = ScheduledRun.objects.get()
    for address in (f"{RUNS}add/", f"{RUNS}{run.pk}/delete/"):
        assert superuser.get(address).status_code == 403
        assert superuser.post(address, {"post": "yes"}).status_code == 403
    assert superuser.post(f"{RUNS}{run.pk}/change/", {"missed": 9}).status_code == 403
    assert ScheduledRun.objects.get().missed == run.missed
