"""Names of stored objects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups_app.services.names import archive_name, manifest_name, safe_name

NOON = datetime(2026, 3, 4, 12, 30, 59, tzinfo=UTC)

HARD_NAMES = [
    "two words",
    'it\'s "quoted"',
    "<script>alert(1)</script>",
    "מסד נתונים",
    "\u202egnp.exe",
    "n" * 200,
    "🦄" * 50,
    "../x",
    "a/b",
    "..",
    ".hidden",
    "%2e%2e",
    "ümlaut",
    "~root",
    "$HOME",
    "a\\b",
    "con:1",
]


def test_an_archive_name_has_the_documented_layout():
    name = archive_name("shop", created_at=NOON, backup_id="0123456789ab")
    assert name == "shop/2026/shop-20260304T123059Z-0123456789ab.sqlite3.zst"


def test_a_manifest_lies_beside_its_archive():
    name = archive_name("shop", created_at=NOON, backup_id="0123456789ab")
    assert manifest_name(name) == "shop/2026/shop-20260304T123059Z-0123456789ab.manifest.json"


def test_the_stamp_and_the_year_are_utc():
    new_year_in_tokyo = datetime(2026, 1, 1, 3, 0, tzinfo=timezone(timedelta(hours=9)))
    assert archive_name("shop", created_at=new_year_in_tokyo, backup_id="1").startswith(
        "shop/2025/shop-20251231T180000Z-"
    )


@pytest.mark.parametrize("name", ["shop", "Shop_2.eu-west", "a", "x" * 60])
def test_a_plain_name_is_kept(name: str):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_hard_name_becomes_one_harmless_part(name: str):
    found = safe_name(name)
    assert found != name
    assert found.replace("-", "").replace("_", "").replace(".", "").isascii()
    assert not set(found) & set("/\\ '\"<>$%~:\u202e")
    assert not found.startswith((".", "-"))
    assert len(found) <= 60


@given(st.text(min_size=1, max_size=200))
def test_every_name_stays_inside_the_archives(name: str):
    stored = PurePosixPath(archive_name(name, created_at=NOON, backup_id="0123456789ab"))
    assert len(stored.parts) == 3
    assert not stored.is_absolute()
    assert not any(part.startswith(".") for part in stored.parts)
    assert len(str(stored)) <= 255


@given(st.sets(st.text(min_size=1, max_size=30), min_size=2, max_size=20))
def test_two_databases_never_share_a_folder(names: set[str]):
    assert len({safe_name(name) for name in names}) == len(names)


def test_names_that_differ_only_in_what_is_unsafe_stay_apart():
    assert len({safe_name(name) for name in ("a b", "a/b", "a?b", "a-b", "a  b")}) == 5
