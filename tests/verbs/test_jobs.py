"""``jobs``, ``cancel`` and ``--enqueue`` on the command line."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backups_app.models import Backup, Database, Job
from tests.console import Finished

Run = Callable[..., Finished]

KEYS = {"id", "kind", "database", "state", "trigger", "requested_by", "attempts", "outcome", "hint", "failure"}


@pytest.fixture
def waiting(run: Run, shop: Database) -> str:
    """A job that waits."""
    return str(run("create", "shop", "--enqueue", "--json").document["jobs"][0]["id"])


def test_create_asks_and_makes_nothing(run: Run, shop: Database):
    finished = run("create", "shop", "--enqueue", "--note", "soon", "--json")
    assert finished.code == 0
    assert set(finished.document) == {"jobs"}
    (job,) = finished.document["jobs"]
    assert job.keys() >= KEYS
    assert (job["kind"], job["state"], job["database"], job["options"]) == (
        "create",
        "queued",
        "shop",
        {"note": "soon"},
    )
    assert not Backup.objects.exists()


def test_people_read_how_to_watch_it(run: Run, shop: Database):
    finished = run("create", "shop", "--enqueue")
    assert Job.objects.get().pk in finished.stdout
    assert "backup jobs" in finished.stdout


def test_a_name_that_is_not_under_care_does_not_stop_the_others(run: Run, shop: Database):
    finished = run("create", "nothing", "shop", "--enqueue", "--json")
    assert finished.code == 6
    assert [each["database"] for each in finished.document["jobs"]] == ["shop"]
    assert [each["code"] for each in finished.document["errors"]] == ["not_found"]


def test_verify_asks_once_per_database(run: Run, shop: Database, make_backup: Callable[..., Backup]):
    ids = {make_backup(shop).pk, make_backup(shop).pk}
    finished = run("verify", "--all", "--enqueue", "--level", "quick", "--json")
    (job,) = finished.document["jobs"]
    assert (job["kind"], set(Job.objects.get(pk=job["id"]).options["backups"])) == ("verify", ids)


def test_open_jobs_are_listed_and_all_on_request(run: Run, shop: Database, waiting: str):
    run("cancel", waiting)
    again = run("create", "shop", "--enqueue", "--json").document["jobs"][0]["id"]
    assert [each["id"] for each in run("jobs", "--json").document["jobs"]] == [again]
    assert {each["id"] for each in run("jobs", "--all", "--json").document["jobs"]} == {waiting, again}
    assert again in run("jobs").stdout


def test_nothing_to_list_is_said(run: Run, shop: Database):
    assert "No job waits or runs." in run("jobs").stdout


def test_a_waiting_job_is_cancelled(run: Run, waiting: str):
    finished = run("cancel", waiting[:6], "--json")
    assert finished.code == 0
    assert finished.document["jobs"][0]["state"] == "cancelled"


def test_what_is_over_cannot_be_cancelled(run: Run, waiting: str):
    run("cancel", waiting)
    assert run("cancel", waiting).code == 7


def test_a_job_that_does_not_exist_is_not_found(run: Run, shop: Database):
    assert run("cancel", "0123456789ab").code == 6
