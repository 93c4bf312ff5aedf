"""Jobs on the screen: what waits and runs, how far it is, and *Cancel*."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.staticfiles import finders
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from backups_app.admin.display import sendable
from backups_app.core.errors import RefusedError
from backups_app.models import AuditEvent, Backup, Database, Host, Job, Restore
from tests.admin.conftest import Person, backup_row, job_row, verification_row
from tests.admin.markup import Page, page_of
from tests.admin.restores import REQUEST, ask, somebody

LIST = "/admin/backups_app/job/"
MakePerson = Callable[..., Person]
HOSTILE = '</pre><script>alert(1)</script>"><img src=x onerror=alert(1)> \u202etxt {{ x }} &lt;b&gt;'


def change_page(job: Job) -> str:
    return f"{LIST}{job.pk}/change/"


def cancel_page(job: Job) -> str:
    return f"{LIST}{job.pk}/cancel/"


def progress_page(job: Job) -> str:
    return f"{LIST}{job.pk}/progress.json"


def saved(database: Database | None, **facts: object) -> Job:
    job = job_row(database, **facts)  # type: ignore[arg-type]
    job.save()
    return job


def rows() -> list[object]:
    return [*Job.objects.order_by("pk").values(), AuditEvent.objects.count()]


# The page of a job


def hidden_parts(page: Page) -> set[str]:
    names = ("data-job-text", "data-job-bar", "data-job-trouble", "data-job-signed-out")
    return {
        each.attributes[name] or name
        for each in page.elements
        for name in names
        if {"hidden", name} <= {*each.attributes}
    }


@pytest.mark.parametrize("state", Job.State.values)
def test_the_page_says_the_state_in_words_first(person: MakePerson, shop: Database, state: str):
    job = saved(shop, state=state)
    page = page_of(person("viewer").get(change_page(job)))
    assert page.badges[0].endswith(job.get_state_display())
    (panel,) = page.all("section", "walsafe-job")
    (fields, *_) = page.all("fieldset")
    assert page.elements.index(panel) < page.elements.index(fields)
    assert ("data-job-open" in panel.attributes) is job.is_open
    assert panel.attributes["data-job"] == progress_page(job)
    assert page.inline_code == []


def test_the_page_of_a_running_job_shows_how_far_it_is(person: MakePerson, shop: Database):
    page = page_of(person("viewer").get(change_page(saved(shop, state="running", log="begun\nhalfway\n"))))
    (bar,) = page.all("progress")
    assert (bar.attributes["max"], bar.attributes["value"]) == ("100", "25")
    (label,) = [each for each in page.all("label") if each.attributes.get("for") == bar.attributes["id"]]
    assert "Checking and compressing" in label.text
    for text in ("25 %", "476.8\xa0MB of 1.9\xa0GB", "4.8\xa0MB/s", "5 min 0 s", "The backup is being made."):
        assert text in page.all("section", "walsafe-job")[0].text, text
    (log,) = page.all("pre", "walsafe-log")
    assert log.text == "begun\nhalfway"
    assert log.attributes["aria-label"]
    assert hidden_parts(page) == {"warning", "outcome", "hint", "data-job-trouble", "data-job-signed-out"}


def test_a_bar_without_a_known_end_claims_no_percent(person: MakePerson, shop: Database):
    job = saved(shop, state="running", total_bytes=0)
    (bar,) = page_of(person("viewer").get(change_page(job))).all("progress")
    assert "value" not in bar.attributes


def test_a_job_that_does_not_run_shows_no_bar(person: MakePerson, shop: Database):
    viewer = person("viewer")
    for state in ("queued", "succeeded"):
        page = page_of(viewer.get(change_page(saved(shop, state=state))))
        assert "data-job-bar" in hidden_parts(page), state


def test_without_a_worker_the_page_says_what_to_do(person: MakePerson, shop: Database):
    viewer, job = person("viewer"), saved(shop)
    page = page_of(viewer.get(change_page(job)))
    assert "No worker is running. Start it on the server with “manage.py backup serve”" in page.text
    now = timezone.now()
    Host.objects.create(name="here", seen_at=now, started_at=now)
    assert "No worker is running." not in page_of(viewer.get(change_page(job))).text


@pytest.mark.parametrize("state", Job.State.values)
def test_without_a_script_only_an_open_job_loads_again(person: MakePerson, shop: Database, state: str):
    job = saved(shop, state=state)
    source = person("viewer").get(change_page(job)).content.decode()
    reloading = '<noscript><meta http-equiv="refresh" content="3"></noscript>'
    assert (reloading in source) is job.is_open
    assert ("http-equiv" in source) is job.is_open
    assert source.index("</head>") > source.find("http-equiv")


def test_the_page_leads_to_everything_that_has_to_do_with_it(person: MakePerson, shop: Database):
    job = saved(shop, state="succeeded")
    backup = backup_row(shop, job=job)
    backup.save()
    verification = verification_row(backup, job=job)
    verification.save()
    viewer = person("viewer")
    wanted = {
        f"/admin/backups_app/database/{shop.pk}/change/",
        f"/admin/backups_app/backup/{backup.pk}/change/",
        f"/admin/backups_app/verification/{verification.pk}/change/",
        f"{LIST}?database__id__exact={shop.pk}",
    }
    assert wanted <= page_of(viewer.get(change_page(job))).links
    links = viewer.get(progress_page(job)).json()["links"]
    assert {links["database"], *links["backups"], *links["verifications"]} <= wanted
    assert links["restore"] is None


@pytest.fixture
def restoring(backup: Backup) -> Job:
    """A job that waits to run a restore."""
    restore = ask(backup, somebody("zoe", *REQUEST))
    return saved(backup.database, kind="restore", restore=restore)


def test_the_page_of_a_restoring_job_leads_to_the_restore(superuser: Person, restoring: Job):
    address = f"/admin/backups_app/restore/{restoring.restore_id}/change/"
    page = page_of(superuser.get(change_page(restoring)))
    assert address in page.links
    assert superuser.get(progress_page(restoring)).json()["links"]["restore"] == address
    assert "Accounts and sessions were part" not in page.text, "that database holds no accounts"
    Database.objects.update(alias="default")
    assert "Accounts and sessions were part" in page_of(superuser.get(change_page(restoring))).text
    assert f"/admin/login/?next={change_page(restoring)}" in page.links


def test_a_job_of_no_database_has_a_page(superuser: Person, home: Path):
    job = saved(None, kind="triage", state="running")
    assert superuser.get(change_page(job)).status_code == 200
    assert superuser.get(LIST).status_code == 200
    assert superuser.get(cancel_page(job)).status_code == 200


def test_a_hostile_log_and_hostile_names_are_inert(superuser: Person, shop: Database):
    Database.objects.update(name=HOSTILE)
    facts = {"log": f"{HOSTILE}\n\x00\udcff", "outcome": HOSTILE, "hint": HOSTILE, "requested_by_name": HOSTILE}
    facts |= {"cancelled_by_name": HOSTILE, "host": HOSTILE, "options": {HOSTILE: [HOSTILE, "\udcff"]}}
    for state in Job.State.values:
        facts["log"] = HOSTILE  # half a character cannot be stored
        job = saved(shop, state=state, phase=HOSTILE[:60] if state == "running" else "", **facts)
        for address in (LIST, change_page(job), cancel_page(job)):
            response = superuser.get(address)
            assert response.status_code == 200, address
            page = page_of(response)
            assert page.inline_code == [], address
            assert not re.search(r"<script>alert|<img src=x|<b>", response.content.decode()), address
        (log,) = page_of(superuser.get(change_page(job))).all("pre", "walsafe-log")
        assert log.text == sendable(HOSTILE)
        sent = superuser.get(progress_page(job))
        assert sent["Content-Type"] == "application/json"
        assert sent["X-Content-Type-Options"] == "nosniff"
        assert sent.json()["log"] == sendable(HOSTILE)


def test_showing_a_job_changes_nothing(superuser: Person, shop: Database):
    jobs = [saved(shop, state=state) for state in Job.State.values]
    before = rows()
    for job in jobs:
        for address in (LIST, change_page(job), cancel_page(job), progress_page(job)):
            assert superuser.get(address).status_code == 200, address
    assert rows() == before


# How far it is, as JSON


@pytest.mark.parametrize(
    ("name", "status"),
    [("anonymous", 302), ("staff", 403), ("policymaker", 200), ("viewer", 200), ("operator", 200), ("superuser", 200)],
)
def test_progress_is_for_those_who_may_see_jobs(person: MakePerson, shop: Database, name: str, status: int):
    job = saved(shop, state="running", log="secret work")
    response = person(name).get(progress_page(job))
    assert response.status_code == status
    assert (b"secret work" in response.content) is (status == 200)
    if status == 302:
        assert response["Location"].startswith("/admin/login/")


def test_the_right_to_cancel_is_no_right_to_see(shop: Database):
    job = saved(shop, state="running")
    assert somebody("zoe", "cancel_job").get(progress_page(job)).status_code == 403


def test_progress_is_kept_by_no_cache(person: MakePerson, shop: Database):
    response = person("viewer").get(progress_page(saved(shop)))
    assert "no-store" in response["Cache-Control"]


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_progress_is_only_read(superuser: Person, shop: Database, method: str):
    job = saved(shop)
    before = rows()
    assert getattr(superuser.client, method)(progress_page(job)).status_code == 405
    assert rows() == before


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("job_id", ["0", "none", "0123456789ab", "a" * 400, "%00", "..", "%F0%9F", "%ED%A0%80"])
@pytest.mark.parametrize("page", ["progress.json", "cancel/"])
def test_an_unknown_job_is_not_found(superuser: Person, job_id: str, page: str):
    assert superuser.get(f"{LIST}{job_id}/{page}").status_code == 404


def test_asking_every_second_asks_the_catalogue_little(
    person: MakePerson, shop: Database, django_assert_max_num_queries: DjangoAssertNumQueries
):
    viewer, job = person("viewer"), saved(shop)
    viewer.get(progress_page(job))
    with django_assert_max_num_queries(6, connection=connections["catalog"]):
        viewer.get(progress_page(job))


# Cancel


def test_the_page_to_cancel_says_what_will_happen(person: MakePerson, shop: Database):
    operator, job = person("operator"), saved(shop)
    page = page_of(operator.get(cancel_page(job)))
    assert "It is taken out of the queue, and nothing is done." in page.text
    (form,) = page.all("form", "walsafe-confirm")
    assert form.attributes["method"] == "post"
    Job.objects.all().delete()
    page = page_of(operator.get(cancel_page(saved(shop, state="running"))))
    assert "Nothing is published, and what was written so far is removed." in page.text


def test_a_queued_job_is_cancelled_at_once(person: MakePerson, shop: Database):
    job = saved(shop)
    response = person("operator").post(cancel_page(job), follow=True)
    assert response.redirect_chain == [(change_page(job), 302)]
    job.refresh_from_db()
    assert (job.state, job.cancelled_by_name) == ("cancelled", "operator")
    page = page_of(response)
    assert page.messages == [("success", "The job was cancelled before it began. Nothing was done.")]
    assert page.badges[0] == "– cancelled"
    assert "It was cancelled by operator." in page.text
    assert "Cancel job" not in page.buttons


def test_a_running_job_is_asked_to_stop(person: MakePerson, shop: Database):
    job = saved(shop, state="running")
    response = person("operator").post(cancel_page(job), follow=True)
    job.refresh_from_db()
    assert (job.state, job.cancelled_by_name) == ("running", "operator")
    assert job.cancel_requested_at is not None
    page = page_of(response)
    assert page.messages == [("success", "The job was asked to stop. It ends at the next safe moment.")]
    assert "It was asked to stop, and ends at the next safe moment." in page.text


@pytest.mark.parametrize("state", ["queued", "running"])
def test_cancelling_twice_cancels_once(person: MakePerson, shop: Database, state: str):
    job, operator = saved(shop, state=state), person("operator")
    operator.post(cancel_page(job))
    before = rows()
    page = page_of(operator.post(cancel_page(job), follow=True))
    assert page.messages[-1][0] in ("info", "warning")
    assert rows() == before
    asked_again = page_of(operator.get(cancel_page(job)))
    assert not asked_again.all("form", "walsafe-confirm")
    assert len(asked_again.all("p", "walsafe-blocker")) == 1


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled", "interrupted"])
def test_what_has_ended_is_not_cancelled(person: MakePerson, shop: Database, state: str):
    job = saved(shop, state=state)
    before = rows()
    page = page_of(person("operator").post(cancel_page(job), follow=True))
    assert page.messages == [("warning", f"This job is {state}. There is nothing to cancel.")]
    assert rows() == before


def test_a_job_that_ends_while_somebody_cancels_it_says_so(
    person: MakePerson, shop: Database, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_arguments: object, **_options: object) -> Job:
        raise RefusedError("It has ended.", "Nothing is left to do.")

    monkeypatch.setattr("backups_app.admin.job.cancel_job", refuse)
    page = page_of(person("operator").post(cancel_page(saved(shop)), follow=True))
    assert page.messages == [("error", "It has ended. Nothing is left to do.")]


@pytest.mark.parametrize(
    ("name", "status"), [("anonymous", 302), ("staff", 403), ("viewer", 403), ("policymaker", 403)]
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_without_the_permission_nothing_is_cancelled(
    person: MakePerson, shop: Database, name: str, status: int, method: str
):
    job = saved(shop)
    before = rows()
    someone = person(name)
    assert getattr(someone, method)(cancel_page(job)).status_code == status
    assert rows() == before
    if name in ("viewer", "policymaker"):
        assert "Cancel job" not in page_of(someone.get(change_page(job))).buttons


def test_without_a_csrf_token_nothing_is_cancelled(person: MakePerson, shop: Database):
    job = saved(shop)
    before = rows()
    superuser = person("superuser", enforce_csrf_checks=True)
    assert superuser.post(cancel_page(job)).status_code == 403
    assert rows() == before
    page = page_of(superuser.get(cancel_page(job)))
    (token,) = {each.attributes["value"] for each in page.all("input") if "csrf" in each.attributes.get("name", "")}
    assert superuser.post(cancel_page(job), {"csrfmiddlewaretoken": token}).status_code == 302
    job.refresh_from_db()
    assert job.state == "cancelled"


@pytest.mark.parametrize("method", ["head", "options", "put", "delete", "patch"])
def test_only_post_cancels(superuser: Person, shop: Database, method: str):
    job = saved(shop)
    before = rows()
    getattr(superuser.client, method)(cancel_page(job))
    assert rows() == before


def test_whoever_may_cancel_and_not_see_ends_on_the_index(shop: Database):
    job = saved(shop)
    response = somebody("zoe", "cancel_job").post(cancel_page(job), follow=True)
    assert response.redirect_chain == [("/admin/", 302)]
    assert page_of(response).messages[0][0] == "success"


def test_cancel_is_offered_while_a_job_is_open(person: MakePerson, shop: Database):
    operator = person("operator")
    for state in Job.State.values:
        job = saved(shop, state=state)
        page = page_of(operator.get(change_page(job)))
        assert ("Cancel job" in page.buttons) is job.is_open, state
        assert (cancel_page(job) in page.links) is job.is_open, state


# The list


def test_the_list_shows_what_each_job_does_and_how_far_it_is(person: MakePerson, shop: Database):
    saved(shop, state="running")
    saved(shop, kind="verify", state="failed", outcome="w" * 500)
    page = page_of(person("viewer").get(LIST))
    assert {"… running", "✗ failed"} <= set(page.badges)
    cells = page.cells()
    assert "Checking and compressing 25 %" in cells
    assert "3 min 20 s" in cells
    assert "anna (admin)" in cells
    assert "w" * 100 not in page.text, "a long outcome is cut"


@pytest.fixture
def many(shop: Database) -> list[Job]:
    old = timezone.now().replace(year=2020, month=5, day=6)
    found = [job_row(shop, state="succeeded", log="x" * 1000, outcome=f"number {number}") for number in range(120)]
    found[7].created_at = old
    return Job.objects.bulk_create([*found, job_row(shop), job_row(shop, kind="verify", trigger="schedule")])


def test_the_list_asks_a_bounded_number_of_questions_and_loads_no_log(
    superuser: Person, many: list[Job], django_assert_max_num_queries: DjangoAssertNumQueries
):
    superuser.get(LIST)
    with django_assert_max_num_queries(8, connection=connections["catalog"]):
        with CaptureQueriesContext(connections["catalog"]) as asked:
            response = superuser.get(LIST)
    assert len(response.context["cl"].result_list) == 50
    assert not [each["sql"] for each in asked.captured_queries if '"log"' in each["sql"] or '"options"' in each["sql"]]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("state__exact=queued", 2),
        ("kind__exact=verify", 1),
        ("trigger__exact=schedule", 1),
        ("q=%22number+119%22", 1),
        ("q=nothing+like+it", 0),
        ("created_at__year=2020", 1),
        ("o=1.-2.3.4.-5.6.7.8", 50),
    ],
)
def test_filters_and_search_narrow_the_list(superuser: Person, many: list[Job], query: str, count: int):
    response = superuser.get(f"{LIST}?{query}")
    assert response.status_code == 200
    assert len(response.context["cl"].result_list) == count


@pytest.mark.parametrize(
    "query", ["p=999", "state__exact=odd", "created_at__year=x", "id__in=", "id__in=a,,b", "q=%00"]
)
def test_a_senseless_query_never_breaks_the_list(superuser: Person, many: list[Job], query: str):
    assert superuser.get(f"{LIST}?{query}", follow=True).status_code in (200, 400)


# The script


def script(name: str = "job.js") -> str:
    found = finders.find(f"backups_app/{name}")
    assert isinstance(found, str)
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", Path(found).read_text(), flags=re.DOTALL)


MARKUP = r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|\.style\b|http"


def test_the_scripts_are_loaded_after_the_page_and_set_text_only(person: MakePerson, shop: Database):
    page = page_of(person("viewer").get(change_page(saved(shop))))
    names = ["poll.js", "job.js"]
    sources = [f"/static/backups_app/{name}" for name in names]
    ours = [each for each in page.all("script") if each.attributes.get("src") in sources]
    assert [each.attributes["src"] for each in ours] == sources  # the second one calls the first one
    assert all("defer" in each.attributes for each in ours)
    for name in [*names, "overview.js"]:
        assert not re.search(MARKUP, script(name)), name


def test_every_part_that_the_script_looks_for_is_on_the_page(person: MakePerson, shop: Database):
    page = page_of(person("viewer").get(change_page(saved(shop))))
    there = {name for each in page.elements for name in each.attributes if name.startswith("data-job")}
    assert set(re.findall(r"\[(data-job[a-z-]*)\]", script())) <= there
    texts = {each.attributes["data-job-text"] for each in page.elements if "data-job-text" in each.attributes}
    assert texts <= set(person("superuser").get(progress_page(Job.objects.get())).json())


def test_restores_of_old_jobs_stay_reachable(superuser: Person, restoring: Job):
    assert Restore.objects.get().jobs.get() == restoring
    page = page_of(superuser.get(f"/admin/backups_app/restore/{restoring.restore_id}/change/"))
    assert change_page(restoring) in page.links
