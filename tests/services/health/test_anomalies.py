"""A backup that is much smaller than usual draws attention, and stays good."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pytest_django.fixtures import Settings

from backups_app.models import Backup, Database
from backups_app.services.health import check_health
from backups_app.services.health.anomalies import drops
from tests.services.health.rows import verified
from tests.support import connected

pytestmark = pytest.mark.usefixtures("home", "db_catalog")


def codes() -> list[str]:
    return [problem.code for problem in check_health().problems]


def test_lost_rows_are_a_remark_and_a_problem_until_a_normal_backup_comes(
    shop: Database, shop_file: Path, make_backup: Callable[..., Backup]
):
    with connected(shop_file) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) "
            "INSERT INTO sale (product, note) SELECT 1, 'many' FROM n"
        )
    for _ in range(3):
        assert make_backup(shop).remarks == []
    assert check_health().is_ok
    with connected(shop_file) as connection:
        connection.execute("CREATE TABLE aside AS SELECT * FROM sale WHERE note = 'many'")
        connection.execute("DELETE FROM sale WHERE note = 'many'")
        connection.execute("DROP TABLE aside")
    emptied = make_backup(shop)
    assert (emptied.state, emptied.verdict) == ("verified", "passed"), "the backup is a true copy"
    assert emptied.remarks == ["Unusual: 7 rows where 107 are usual (93 % fewer)."]
    (problem,) = check_health().problems
    assert (problem.code, problem.database) == ("anomaly", "shop")
    assert emptied.pk in problem.hint
    with connected(shop_file) as connection:
        connection.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) "
            "INSERT INTO sale (product, note) SELECT 1, 'back' FROM n"
        )
    assert make_backup(shop).remarks == []
    assert check_health().is_ok


def test_the_median_of_five_decides_so_that_the_new_size_becomes_usual(shop: Database):
    for age in range(10, 5, -1):
        verified(shop, age=timedelta(hours=age)).save()
    seen = []
    for age in range(5, 1, -1):
        verified(shop, age=timedelta(hours=age), row_count=10).save()
        seen.append(codes())
    assert seen == [["anomaly"]] * 3 + [[]]


@pytest.mark.parametrize(
    ("rows", "size", "expected"),
    [
        (500, 500_000, []),
        (499, 1_000_000, ["rows"]),
        (1000, 499_999, ["bytes"]),
        (0, 0, ["rows", "bytes"]),
        (2000, 2_000_000, []),
        (None, 10, ["bytes"]),
    ],
)
def test_a_drop_of_more_than_half_counts_and_growth_does_not(
    shop: Database, rows: int | None, size: int, expected: list[str]
):
    earlier = [verified(shop) for _ in range(3)]
    found = drops(verified(shop, row_count=rows, size_bytes=size), earlier)
    assert [each.what for each in found] == expected


def test_the_share_is_a_setting_and_one_odd_backup_among_those_before_does_not_count(
    shop: Database, settings: Settings
):
    earlier = [verified(shop), verified(shop, row_count=1), verified(shop)]
    assert drops(verified(shop, row_count=800), earlier) == []
    settings.BACKUPS = {**settings.BACKUPS, "ANOMALY_PERCENT": 10}
    (drop,) = drops(verified(shop, row_count=800), earlier)
    assert "1,000 are usual (20 % fewer)" in str(drop)


def test_the_first_backup_has_nothing_to_be_compared_with(shop: Database, make_backup: Callable[..., Backup]):
    assert make_backup(shop).remarks == []
    assert codes() == []


def test_failed_backups_and_those_of_other_databases_are_not_compared_with(shop: Database):
    other = Database.objects.create(name="other", path=shop.path)
    verified(other, row_count=10**6).save()
    verified(shop, age=timedelta(hours=3), row_count=10**6, state="failed", reason="damaged").save()
    verified(shop, age=timedelta(hours=1)).save()
    assert "anomaly" not in codes()
