"""``/metrics``: who may read it, what it says, and what it costs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Copy, Database, Host, Job
from backups_app.services.health import check_health
from backups_app.services.health.measures import measure
from tests.monitoring.conftest import TOKEN, Samples, samples_of
from tests.services.health.rows import verified

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def status(client: Client | None = None, authorization: str = "") -> int:
    headers = {"Authorization": authorization} if authorization else {}
    return (client or Client()).get("/metrics", headers=headers).status_code


# Who may read


def test_the_token_opens_and_nothing_like_it_does(token: str):
    assert status(authorization=f"Bearer {TOKEN}") == 200
    assert status(authorization=f"bearer  {TOKEN}") == 200
    for wrong in ("", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer é☃"):
        assert status(authorization=wrong) == 403, wrong
    assert Client().get(f"/metrics?token={TOKEN}").status_code == 403


def test_without_a_token_in_the_settings_no_token_opens():
    assert status() == 403
    assert status(authorization="Bearer ") == 403
    assert status(authorization="Bearer None") == 403


def test_the_token_may_come_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    monkeypatch.setenv("BACKUPS_METRICS_TOKEN_FILE", str(tmp_path / "token"))
    assert status(authorization=f"Bearer {TOKEN}") == 200
    monkeypatch.setenv("BACKUPS_METRICS_TOKEN", "fedcba9876543210")
    assert status(authorization=f"Bearer {TOKEN}") == 403
    assert status(authorization="Bearer fedcba9876543210") == 200


def test_a_file_that_cannot_be_read_opens_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("BACKUPS_METRICS_TOKEN_FILE", str(tmp_path / "missing"))
    assert status(authorization="Bearer ") == 403
    assert status(authorization="Bearer None") == 403


def test_staff_who_may_view_databases_may_read_and_others_may_not(token: str, client_of: Callable[..., Client]):
    assert status(client_of(permission="view_database")) == 200
    assert status(client_of()) == 403
    assert status(client_of(is_staff=False, permission="view_database")) == 403
    assert status(client_of(permission="view_database"), "Bearer wrong") == 403, "a wrong token is no session"


def test_a_refusal_tells_nothing_of_the_backups(shop: Database):
    response = Client().get("/metrics")
    assert b"shop" not in response.content
    assert "no-store" in response["Cache-Control"]


def test_without_the_library_the_answer_says_what_to_install(token: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "backups_app.monitoring.prometheus", raising=False)
    response = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (response.status_code, b"django-walsafe[metrics]" in response.content) == (501, True)
    assert status() == 403, "that is told to those who may read it only"


# What it says


def test_the_numbers_of_a_real_backup(
    shop: Database, make_backup: Callable[..., Backup], scrape: Callable[[], Samples]
):
    backup = make_backup(shop)
    found = scrape()
    own = (("database", "shop"),)
    assert backup.taken_at is not None
    assert found["walsafe_last_verified_timestamp_seconds", own] == pytest.approx(backup.taken_at.timestamp())
    assert found["walsafe_freshness_limit_seconds", own] == 26 * 3600
    assert found["walsafe_backup_size_bytes", own] == backup.size_bytes
    assert found["walsafe_backup_stored_bytes", own] == backup.archive_bytes
    assert found["walsafe_backup_rows", own] == 7
    assert 0 < found["walsafe_backup_duration_seconds", own] < 60
    assert found["walsafe_database_bytes", own] == Path(shop.path).stat().st_size
    assert found["walsafe_wal_bytes", own] == 0
    assert found["walsafe_backups", (("database", "shop"), ("state", "verified"))] == 1
    assert found["walsafe_jobs", (("state", "succeeded"),)] == 1
    assert found["walsafe_notifications", (("state", "pending"),)] == 0
    assert found["walsafe_healthy", ()] == 1
    assert not [name for name, _ in found if name == "walsafe_problem"]


def test_what_is_not_known_is_absent_and_not_zero(shop: Database, scrape: Callable[[], Samples]):
    found = scrape()
    names = {name for name, labels in found if labels == (("database", "shop"),)}
    assert "walsafe_last_verified_timestamp_seconds" not in names
    assert "walsafe_last_drill_timestamp_seconds" not in names
    assert "walsafe_freshness_limit_seconds" in names
    assert found["walsafe_problem", (("code", "never_verified"), ("database", "shop"))] == 1
    assert found["walsafe_healthy", ()] == 0


def test_hosts_that_were_told_to_end_are_absent(scrape: Callable[[], Samples]):
    now = timezone.now()
    for name, seen, stopped in (("up", 0, None), ("down", 60, None), ("ended", 60, now)):
        Host.objects.create(name=name, seen_at=now - timedelta(seconds=seen), started_at=now, stopped_at=stopped)
    found = {labels[0][1]: value for (name, labels), value in scrape().items() if name == "walsafe_worker_up"}
    assert found == {"up": 1, "down": 0}


HOSTILE = 'a"b\\c\nd\re\u2028f{g="h"} 1\nwalsafe_healthy 1\t\u202e☃'


def test_hostile_names_stay_inside_their_label(shop: Database, scrape: Callable[[], Samples]):
    Database.objects.filter(pk=shop.pk).update(name=HOSTILE)
    now = timezone.now()
    Host.objects.create(name=HOSTILE, seen_at=now, started_at=now)
    found = scrape()
    assert found["walsafe_healthy", ()] == 0
    (label,) = {labels[0][1] for name, labels in found if name == "walsafe_freshness_limit_seconds"}
    assert label == 'a"b\\c\\nd\\re\\u2028f{g="h"} 1\\nwalsafe_healthy 1\\t\\u202e☃'
    assert all(name.startswith("walsafe_") for name, _ in found)


def test_nothing_is_kept_from_one_request_to_the_next(shop: Database, scrape: Callable[[], Samples]):
    before = scrape()
    Database.objects.filter(pk=shop.pk).update(name="renamed")
    assert not [labels for _, labels in scrape() if ("database", "shop") in labels]
    Database.objects.filter(pk=shop.pk).update(name="shop")
    assert set(scrape()) == set(before)


def test_a_catalogue_that_cannot_be_used_is_a_503(token: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("backups_app.services.catalog.is_ready", lambda: False)
    assert status(authorization=f"Bearer {TOKEN}") == 503


def test_the_text_is_of_the_format_that_it_says(token: str):
    response = Client().get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    assert response["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert samples_of(response.content.decode())


# What it costs


def many(databases: int, backups_each: int) -> None:
    """Rows as years of backups leave them: each with a census of its size, a copy and a job."""
    now = timezone.now()
    Database.objects.bulk_create(Database(name=f"db{n:03}", path=f"/srv/{n}.sqlite3") for n in range(databases))
    census = {"tables": {f"table_{n}": n for n in range(30)}, "schema": "x" * 500}
    made = Backup.objects.bulk_create(verified(each, census=census) for each in Database.objects.all())
    facts = {"destination": "local", "state": "verified", "stored_at": now, "checked_at": now}
    Copy.objects.bulk_create(Copy(backup=each, name=each.pk, **facts) for each in made)
    done = {"kind": "create", "trigger": "schedule", "state": "succeeded", "finished_at": now}
    Job.objects.bulk_create(Job(database=each.database, **done) for each in made)
    new_id = "lower(hex(randomblob(6)))"
    multiply(Backup, backups_each - 1, id=new_id, taken_at="datetime(taken_at, '-' || i || ' hours')")
    multiply(Job, backups_each - 1, id=new_id)
    multiply(Copy, backups_each - 1, id="NULL", name=new_id, destination="'store ' || i")


def multiply(model: type[Any], times: int, **changed: str) -> None:
    """Repeat every row of a table so many times inside SQLite; a hundred thousand through the ORM take minutes."""
    columns = [field.column for field in model._meta.concrete_fields]
    values = [changed.get(name, f'"{name}"') for name in columns]
    table = model._meta.db_table
    with connections["catalog"].cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {times}) "
            f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} FROM {table} CROSS JOIN n"
        )


def queries_of_a_look() -> int:
    with CaptureQueriesContext(connections["catalog"]) as queries:
        measure(now=timezone.now())
    return len(queries)


def test_the_number_of_queries_does_not_grow_with_backups_or_databases():
    many(2, 3)
    few = queries_of_a_look()
    many_more = 40
    Database.objects.bulk_create(Database(name=f"more{n}", path=f"/srv/more{n}") for n in range(many_more))
    Backup.objects.bulk_create(verified(each) for each in Database.objects.filter(name__startswith="more"))
    assert queries_of_a_look() == few
    assert few <= 26


@pytest.mark.slow
def test_a_look_at_200_databases_with_100_000_backups_takes_seconds_at_most(settings: Settings):
    many(200, 500)
    assert (Backup.objects.count(), Copy.objects.count(), Job.objects.count()) == (100_000,) * 3
    started = time.monotonic()
    count = queries_of_a_look()
    seconds = time.monotonic() - started
    assert count <= 30
    assert seconds < 5, f"{seconds:.1f} s in {count} queries"
    started = time.monotonic()
    check_health()
    print(f"\n{seconds:.2f} s in {count} queries; without the counts {time.monotonic() - started:.2f} s")
