"""With 100,000 backups over 200 databases every page stays quick, and none loads a whole table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import Group, User
from django.db import connections
from django.db.backends.utils import CursorWrapper
from django.test import Client

from backups_app.models import Backup, Database
from backups_app.services.groups import setup_groups
from benchmarks.catalogue import fill
from tests.conftest import ACTOR

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]

MOST_ROWS = 500
MODELS = (
    "auditevent",
    "backup",
    "database",
    "job",
    "notification",
    "restore",
    "schedule",
    "scheduledrun",
    "verification",
)
LISTS = [f"/admin/backups_app/{model}/" for model in MODELS]
SEARCHES = [f"{each}?q=tenant-007" for each in LISTS]
OVERVIEW = "/admin/backups_app/overview/"


class Counting:
    """Counts the queries of all databases, and the rows that each returned."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int]] = []

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
        self.rows.append((sql, 0))
        return execute(sql, params, many, context)

    def returned(self, number: int) -> None:
        """The last query gave rows."""
        sql, before = self.rows[-1]
        self.rows[-1] = (sql, before + number)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    """Counts from here on."""
    counted = Counting()

    def fetch(name: str) -> Any:
        original = getattr(CursorWrapper, name, None)

        def fetched(self: CursorWrapper, *args: Any) -> Any:
            result = original(self, *args) if original else getattr(self.cursor, name)(*args)
            counted.returned(len(result) if name != "fetchone" else int(result is not None))
            return result

        return fetched

    for name in ("fetchmany", "fetchall", "fetchone"):
        monkeypatch.setattr(CursorWrapper, name, fetch(name), raising=False)
    with connections["default"].execute_wrapper(counted), connections["catalog"].execute_wrapper(counted):
        yield counted


def test_no_page_needs_many_queries_or_rows(db_catalog: None, counting: Counting):
    fill(databases=200, backups=100_000)
    assert (Database.objects.count(), Backup.objects.count()) == (200, 100_000)
    setup_groups(actor=ACTOR)
    auditor = User.objects.create_user("auditor", is_staff=True)
    auditor.groups.set(Group.objects.filter(name__in=["Backup auditor", "Backup operator"]))
    client = Client()
    client.force_login(auditor)
    client.get(OVERVIEW)  # what is remembered once per process does not count
    wrong = []
    pages = [(each, 13, MOST_ROWS) for each in [*LISTS, *SEARCHES]]
    # The overview asks the whole health: the newest backups of each database are compared there.
    pages += [(OVERVIEW, 34, 1000), (f"{OVERVIEW}?p=5", 34, 1000)]
    for page, most_queries, most_rows in pages:
        counting.rows.clear()
        assert client.get(page).status_code == 200, page
        queries, most = len(counting.rows), max(rows for _sql, rows in counting.rows)
        if queries > most_queries or most > most_rows:
            wrong.append((page, queries, most))
    assert wrong == []
