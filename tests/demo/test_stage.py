"""The steps of the demonstration: a home of its own, and honest judgement."""

from __future__ import annotations

import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connections

from backups_app.core.errors import BusyError, RefusedError
from backups_app.demo import shop, stage
from backups_app.demo.stage import MARKER, Judged, Report, claim_home, free_port, fresh_home
from tests.support import build, bytes_in, names_in

# Claiming a home


@pytest.mark.parametrize("exists", [False, True])
def test_a_missing_or_empty_folder_becomes_a_demo_home(tmp_path: Path, exists: bool):
    home = tmp_path / "a" / "demo"
    if exists:
        home.mkdir(parents=True)
    claim_home(home)
    claim_home(home)
    assert names_in(home) == {MARKER}


def test_a_claimed_home_is_private(tmp_path: Path):
    claim_home(tmp_path / "demo")
    assert (tmp_path / "demo").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["site.sqlite3", ".hidden", "state"])
def test_a_folder_that_holds_something_else_is_refused_and_untouched(tmp_path: Path, name: str):
    home = tmp_path / "demo"
    home.mkdir()
    (home / name).write_bytes(b"precious")
    with pytest.raises(RefusedError, match="not a demo folder"):
        claim_home(home)
    assert bytes_in(tmp_path) == {f"demo/{name}": b"precious"}


def test_a_link_to_a_folder_that_holds_something_is_refused_and_untouched(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "site.sqlite3").write_bytes(b"precious")
    (tmp_path / "demo").symlink_to(tmp_path / "real")
    with pytest.raises(RefusedError):
        claim_home(tmp_path / "demo")
    assert bytes_in(tmp_path / "real") == {"site.sqlite3": b"precious"}


# A fresh home


@pytest.fixture
def demo_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A claimed home that the settings of this test follow."""
    home = tmp_path / "demo"
    claim_home(home)
    (home / "state").mkdir()
    for alias, name in (("default", "site.sqlite3"), ("catalog", "catalog.sqlite3")):
        monkeypatch.setitem(connections[alias].settings_dict, "NAME", home / name)
    return home


def test_a_fresh_home_keeps_the_marker_and_the_secret_key_only(demo_home: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"precious")
    (demo_home / "site.sqlite3").write_bytes(b"old")
    (demo_home / "archives" / "default").mkdir(parents=True)
    (demo_home / "archives" / "default" / "a.zst").write_bytes(b"old")
    (demo_home / "link").symlink_to(tmp_path / "elsewhere")
    (demo_home / "dangling").symlink_to(tmp_path / "nowhere")
    (demo_home / "state" / "secret_key").write_bytes(b"key")
    (demo_home / "state" / "audit.jsonl").write_bytes(b"old")
    with fresh_home(demo_home):
        assert bytes_in(demo_home) == {MARKER: b"", "state/secret_key": b"key"}
        assert names_in(demo_home) == {MARKER, "state"}
    assert bytes_in(tmp_path / "elsewhere") == {"file": b"precious"}


def test_a_second_demo_in_the_same_home_is_refused_and_does_no_harm(demo_home: Path):
    with fresh_home(demo_home):
        (demo_home / "site.sqlite3").write_bytes(b"of the first")
        with pytest.raises(BusyError), fresh_home(demo_home):
            pytest.fail("the second one must not begin")
        assert (demo_home / "site.sqlite3").read_bytes() == b"of the first"
    with fresh_home(demo_home):
        assert not (demo_home / "site.sqlite3").exists()


@pytest.mark.parametrize("alias", ["default", "catalog"])
def test_settings_that_keep_data_elsewhere_are_refused(
    demo_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alias: str
):
    monkeypatch.setitem(connections[alias].settings_dict, "NAME", tmp_path / "other" / "real.sqlite3")
    (demo_home / "kept").write_bytes(b"kept")
    with pytest.raises(RefusedError, match="outside"), fresh_home(demo_home):
        pytest.fail("it must not begin")
    assert (demo_home / "kept").exists()


def test_a_home_without_the_marker_is_never_emptied(demo_home: Path):
    (demo_home / MARKER).unlink()
    (demo_home / "site.sqlite3").write_bytes(b"precious")
    with pytest.raises(RefusedError, match="not a demo folder"), fresh_home(demo_home):
        pytest.fail("it must not begin")
    assert (demo_home / "site.sqlite3").read_bytes() == b"precious"


# Judging


def judged(rows: int) -> Judged:
    return Judged(title="", rows=rows, administrators=0, integrity="ok", verdict="")


@pytest.mark.parametrize(
    ("live", "naive", "ours", "state", "is_convincing"),
    [
        (10, 0, 10, "verified", True),
        (10, 9, 10, "verified", True),
        (10, 10, 10, "verified", False),
        (10, 0, 9, "verified", False),
        (10, 0, 0, "verified", False),
        (10, 0, 10, "failed", False),
        (0, 0, 0, "verified", False),
    ],
)
def test_the_report_convinces_only_when_the_old_way_lost_rows_and_ours_none(
    live: int, naive: int, ours: int, state: str, is_convincing: bool
):
    backup: Any = SimpleNamespace(state=state)
    report = Report(live=judged(live), naive=judged(naive), ours=judged(ours), backup=backup)
    assert report.is_convincing is is_convincing


def test_a_copy_is_judged_by_the_rows_that_people_entered(tmp_path: Path):
    path = tmp_path / "copy.sqlite3"
    shop.create_schema(path)
    build(path, "CREATE TABLE django_migrations (app, name); INSERT INTO django_migrations VALUES ('a', 'b');")
    empty = stage._judge("copy", path, truth=5)
    assert (empty.rows, empty.integrity, empty.verdict) == (0, "ok", "holds the schema only")
    build(path, "INSERT INTO shop_customer (name, city) VALUES ('Ada', 'Oslo'), ('Eleni', 'Athens');")
    assert stage._judge("copy", path, truth=5).verdict == "lost 3 rows"
    assert stage._judge("copy", path, truth=2).verdict == "complete, this time"


def test_a_copy_that_is_no_database_is_unreadable(tmp_path: Path):
    (tmp_path / "copy.sqlite3").write_bytes(b"no database " * 500)
    found = stage._judge("copy", tmp_path / "copy.sqlite3", truth=5)
    assert (found.rows, found.verdict) == (0, "unreadable")
    assert found.integrity != "ok"


def test_a_copy_that_is_not_there_has_no_rows_and_no_integrity(tmp_path: Path):
    found = stage._judge("copy", tmp_path / "copy.sqlite3", truth=5, verdict="failed")
    assert (found.rows, found.administrators, found.integrity, found.verdict) == (0, 0, "–", "failed")
    assert names_in(tmp_path) == set()


def test_the_old_way_takes_the_main_file_alone(tmp_path: Path):
    path = tmp_path / "shop.sqlite3"
    shop.create_schema(path)
    with closing(sqlite3.connect(path)) as connection:
        shop.fill(connection)
        stage._copy_the_old_way(path, tmp_path / "copy.sqlite3")
    assert stage._judge("copy", tmp_path / "copy.sqlite3", truth=3460).rows == 0
    assert not (tmp_path / "copy.sqlite3-wal").exists()


# Ports


def test_the_wanted_port_is_used_when_it_is_free():
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert free_port(port) == port


def test_the_next_port_is_used_when_the_wanted_one_is_taken():
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        assert port < free_port(port) < port + 100


def test_no_port_is_left_at_the_end_of_the_range(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BusyError, match="70000"):
        free_port(70000)
