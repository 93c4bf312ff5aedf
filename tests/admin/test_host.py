"""The page Hosts, and what a console shows of the databases of others."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from backups_app.models import Backup, Database, HealthProblem, Host, Job
from backups_app.services.databases import add_database
from tests.admin.conftest import Person
from tests.admin.markup import page_of
from tests.conftest import ACTOR
from tests.support import build_shop

LIST = "/admin/backups_app/host/"
HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def beta(as_host: Callable[[str], None], db_catalog: None, tmp_path: Path) -> Host:
    """A host that was silent for a minute, with a database, a problem and a job; this process is alpha."""
    now = timezone.now()
    as_host("beta")
    add_database("far", build_shop(tmp_path / "far.sqlite3"), actor=ACTOR)
    as_host("alpha")
    Host.objects.create(name="alpha", seen_at=now, started_at=now)
    HealthProblem.objects.create(code="wal_large", host="beta", message=HOSTILE, first_seen=now, last_seen=now)
    return Host.objects.create(
        name="beta", seen_at=now - timedelta(minutes=1), started_at=now, worker_restarts=3, worker_problem=HOSTILE
    )


def test_the_list_says_who_works_and_what_waits_for_whom(superuser: Person, beta: Host):
    text = page_of(superuser.get(LIST)).text
    assert "silent" in text
    assert "works" in text
    assert text.index("alpha") < text.index("beta")


def test_the_page_of_a_host_names_its_databases_problems_and_jobs(superuser: Person, beta: Host):
    Job.objects.create(kind="create", database=Database.objects.get(), host="beta", trigger="admin")
    response = superuser.get(f"{LIST}{beta.pk}/change/")
    page = page_of(response)
    for each in ("far", HOSTILE, "All jobs of this host"):
        assert each in page.text
    assert HOSTILE not in response.content.decode()
    assert "/admin/backups_app/job/?host=beta" in page.links
    assert superuser.get("/admin/backups_app/job/?host=beta").status_code == 200


def test_nothing_of_a_host_can_be_changed(superuser: Person, beta: Host):
    assert superuser.post(f"{LIST}{beta.pk}/change/", {"name": "x"}).status_code == 403
    assert superuser.post(f"{LIST}{beta.pk}/delete/").status_code == 403
    assert superuser.get(f"{LIST}add/").status_code == 403
    assert Host.objects.get(pk=beta.pk).name == "beta"


def test_more_hosts_cost_no_more_queries(superuser: Person, beta: Host):
    def queries() -> int:
        with CaptureQueriesContext(connections["catalog"]) as captured:
            superuser.get(LIST)
        return len(captured)

    before = queries()
    for number in range(20):
        Host.objects.create(name=f"host-{number}", seen_at=timezone.now(), started_at=timezone.now())
    assert queries() == before


def test_databases_have_a_column_for_hosts_where_there_are_several(superuser: Person, beta: Host):
    text = page_of(superuser.get("/admin/backups_app/database/")).text
    assert "Host" in text
    assert "beta" in text


def test_back_up_now_of_another_hosts_database_is_queued_for_it(superuser: Person, beta: Host):
    far = Database.objects.get(name="far")
    response = superuser.post("/admin/backups_app/database/back-up-now/", {"id": far.pk})
    assert response.status_code == 302
    job = Job.objects.get()
    assert (job.state, job.host, job.database) == ("queued", "beta", far)
    assert not Backup.objects.exists()
    assert "No worker is running" in page_of(superuser.get(response["Location"])).text
