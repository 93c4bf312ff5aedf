"""The contract of ``manage.py backup``: real processes, a home of their own, nothing inherited."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backups_app import __version__
from backups_app.management.commands.backup import VERBS
from backups_app.services.names import stored_names
from tests.console import Console, Finished, environment, finish, wait_until
from tests.services.test_names import HARD_NAMES
from tests.support import (
    PROJECT,
    build,
    build_ledger,
    build_shop,
    bytes_in,
    connected,
    content_of,
    holding,
    mounted_tmpfs,
    names_in,
    needs_tool,
    rows_of,
    writing,
)
from tests.test_documents import BACKUP_CONTRACT, RESTORE_CONTRACT, UTC_TIME

# Shape


def test_every_verb_is_named_in_the_help(console: Console):
    printed = console.ok("--help").stdout
    for verb in VERBS:
        assert re.search(rf"^ +{verb} ", printed, re.MULTILINE), verb
    assert "130 cancelled" in printed


def test_the_version_is_ours(console: Console):
    assert console.ok("--version").stdout.strip() == __version__


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["create", "--frobnicate"],
        ["verify", "--level", "deep", "abcd"],
        ["restore"],
        ["restore", "abcd", "--to", "~nobody-has-this-name/x"],
        ["list", "--limit", "-1"],
        ["list", "--limit", "many"],
        ["add-database", "only-a-name"],
        ["show"],
        ["create", "-v", "9"],
    ],
)
def test_a_wrong_use_is_exit_code_2_on_stderr_and_does_nothing(console: Console, arguments: list[str]):
    before = bytes_in(console.home)
    finished = console.run(*arguments)
    assert finished.code == 2
    assert finished.stdout == ""
    assert "usage:" in finished.stderr
    assert bytes_in(console.home) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["frobnicate"],
        ["create", "--frobnicate"],
        ["restore", "abcd", "--to", ""],
        ["triage", ""],
        ["list", "--limit", "9" * 30],
        ["reject", "abcd"],
    ],
)
def test_a_wrong_use_is_one_document_where_that_was_asked_for(console: Console, arguments: list[str]):
    before = bytes_in(console.home)
    finished = console.run(*arguments, "--json")
    assert finished.code == 2
    (error,) = finished.document["errors"]
    assert error["code"] == "usage"
    assert error["message"] in finished.stderr
    assert bytes_in(console.home) == before


@pytest.mark.parametrize(
    ("rest", "code"),
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2>/dev/full", 0),
        (">/dev/full", 1),
        (">/dev/full 2>/dev/full", 1),
        ("| true", 1),
    ],
)
@pytest.mark.parametrize("is_json", [False, True])
def test_streams_that_take_nothing_are_no_traceback(console: Console, rest: str, code: int, is_json: bool):
    command = console.command("databases", *(["--json"] if is_json else []))
    finished = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$@" {rest}', "bash", *command],
        env=environment(console.home),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == code
    assert "Traceback" not in finished.stderr
    assert "Exception ignored" not in finished.stderr


_STOPPED = """
import os, signal, sys, time
os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
import django
from django.core.management import execute_from_command_line
django.setup()
from backups_app.verbs import databases

def run(options, output):
    os.kill(os.getpid(), getattr(signal, sys.argv.pop()))
    time.sleep(60)

databases.run = run
execute_from_command_line(["manage.py", "backup", "databases", "--json"])
"""


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_stop_is_exit_code_130_also_where_a_verb_does_not_expect_it(console: Console, number: str):
    finished = subprocess.run(
        [sys.executable, "-c", _STOPPED, number],
        env=environment(console.home),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert finished.returncode == 130
    assert json.loads(finished.stdout)["errors"][0]["code"] == "cancelled"
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("options", [["-v", "0"], ["--traceback"], ["--no-color"], ["--settings", "project.settings"]])
def test_the_common_options_work_after_the_verb(console: Console, options: list[str]):
    assert console.ok("list", *options, "--json").document == {"backups": []}


def test_traceback_shows_where(console: Console):
    finished = subprocess.run(
        console.command("show", "nothing", "--traceback"),
        env=environment(console.home),
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 1
    assert b"NotFoundError" in finished.stderr


def test_bytes_that_are_no_text_are_refused_in_words(console: Console):
    for arguments in (["create", "\udcff"], ["show", "\udcff"], ["create", "--all", "--note", "\udcff"]):
        finished = console.run(*arguments, "--json")
        assert finished.code == 2
        assert finished.document["errors"][0]["code"] == "usage"
        assert "UTF-8" in finished.stderr


def test_a_terminal_without_unicode_breaks_nothing(console: Console, shop_file: Path):
    ascii_console = Console(console.home, {**console.extra, "PYTHONIOENCODING": "ascii"})
    ascii_console.ok("add-database", "bücher", shop_file)
    shop_file.unlink()
    assert ascii_console.run("create", "bücher").code == 6
    assert "\\xfc" in ascii_console.ok("list").stdout


def test_a_reader_that_leaves_is_no_traceback(console: Console):
    process = console.start("list", "--json")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr as stderr:
        assert b"Traceback" not in stderr.read()
    process.wait(timeout=60)


# The way of a backup


def test_a_backup_has_the_document_of_the_contract(console: Console, site: Path):
    finished = console.ok("create", "--all", "--note", "weekly", "--json")
    assert set(finished.document) == {"backups"}
    backup = finished.backup()
    assert set(backup) >= BACKUP_CONTRACT
    assert (backup["database"], backup["trigger"], backup["state"]) == ("default", "command", "verified")
    assert (backup["verdict"], backup["note"], backup["held"], backup["encrypted"]) == (
        "passed",
        "weekly",
        False,
        False,
    )
    assert backup["tables"] == {"product": 3, "sale": 4}
    assert UTC_TIME.fullmatch(backup["created_at"])
    assert finished.stderr == ""


def test_list_show_verify_restore_and_status_follow(console: Console, site: Path, tmp_path: Path):
    backup = console.ok("create", "default", "--json").backup()
    listed = console.ok("list", "--json").document
    assert set(listed) == {"backups"}
    assert listed["backups"] == [backup]
    shown = console.ok("show", backup["id"], "--json").backup()
    assert {name: shown[name] for name in backup} == backup
    verified = console.ok("verify", backup["id"], "--json").document
    assert set(verified) == {"verifications"}
    restored = console.ok("restore", backup["id"], "--to", tmp_path / "new.sqlite3", "--reason", "x", "--json").document
    assert set(restored) == {"restore"}
    assert set(restored["restore"]) == RESTORE_CONTRACT
    assert content_of(tmp_path / "new.sqlite3") == content_of(site)
    health = console.ok("status", "--json").document
    assert set(health) == {"health"}
    assert health["health"]["ok"] is True


def test_the_stock_tools_read_the_archive(console: Console, site: Path, tmp_path: Path):
    backup = console.ok("create", "--all", "--json").backup()
    target = tmp_path / "stock.sqlite3"
    subprocess.run([needs_tool("zstd"), "-dq", str(console.archive(backup)), "-o", str(target)], check=True)
    asked = [needs_tool("sqlite3"), str(target), "PRAGMA integrity_check; SELECT count(*) FROM sale;"]
    assert subprocess.run(asked, capture_output=True, check=True).stdout == b"ok\n4\n"


def test_the_layout_of_the_archives_is_the_documented_one(console: Console, site: Path):
    backup = console.ok("create", "--all", "--json").backup()
    name = backup["copies"][0]["name"]
    stamp = re.sub(r"[-:]", "", backup["created_at"])[:15] + "Z"
    assert name == f"default/{stamp[:4]}/default-{stamp}-{backup['id']}.sqlite3.zst"
    assert console.archived() == set(stored_names(name))


def test_what_is_written_is_private(console: Console, site: Path):
    backup = console.ok("create", "--all", "--json").backup()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [console.home, *console.home.rglob("*")]}
    for folder in (console.home, *(console.home / name for name in ("archives", "scratch", "state"))):
        assert modes[folder] == 0o700, folder
    for file in (
        console.archive(backup),
        console.home / "state" / "secret_key",
        console.home / "state" / "audit.jsonl",
    ):
        assert modes[file] == 0o600, file


def test_the_audit_lines_are_the_audit_events(console: Console, site: Path, tmp_path: Path):
    backup = console.ok("create", "--all", "--json").backup()
    console.ok("verify", backup["id"])
    console.run("restore", backup["id"], "--to", site)
    lines = [json.loads(line) for line in (console.home / "state" / "audit.jsonl").read_text().splitlines()]
    rows = console.query("SELECT id, action, outcome, subject, actor_name FROM backups_app_auditevent ORDER BY id")
    assert [(line["id"], line["action"], line["outcome"], line["subject"], line["actor"]) for line in lines] == rows
    assert [(row[1], row[2]) for row in rows] == [
        ("make-signing-key", "done"),
        ("create", "done"),
        ("verify", "done"),
        ("extract", "refused"),
    ]


def test_the_site_is_not_touched(console: Console, site: Path):
    with connected(site) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = site.read_bytes(), site.stat().st_mtime_ns
    console.ok("create", "--all")
    console.ok("status")
    assert (site.read_bytes(), site.stat().st_mtime_ns) == before
    assert {name for name in names_in(console.home) if name.startswith("site")} == {"site.sqlite3"}


def test_beside_a_writer_every_table_is_of_one_instant_and_no_commit_is_refused(console: Console, tmp_path: Path):
    build_ledger(console.site, filler_bytes=30 << 20)
    with writing(console.site, per_second=200) as writer:
        at_least = writer.wait_for(100)
        finished = console.ok("create", "--all", "--json")
        at_most = writer.acknowledged + 1
        writer.wait_for(at_most + 20)
        assert writer.refusals == []
    backup = finished.backup()
    assert backup["state"] == "verified"
    console.ok("restore", backup["id"], "--to", tmp_path / "new.sqlite3")
    assert rows_of(tmp_path / "new.sqlite3") == backup["tables"]
    with closing(sqlite3.connect(tmp_path / "new.sqlite3")) as connection:
        (value,) = connection.execute("SELECT value FROM counter").fetchone()
    assert backup["tables"]["events"] == value
    assert at_least <= value <= at_most


def test_rows_that_only_the_wal_holds_are_in_the_backup(console: Console, site: Path):
    statements = ("PRAGMA wal_autocheckpoint=0", "INSERT INTO sale (note) VALUES ('new')")
    with holding(site, *statements):
        assert rows_of(site)["sale"] == 4
        assert console.ok("create", "--all", "--json").backup()["tables"]["sale"] == 5


def test_an_unknown_name_is_exit_code_6_beside_a_verified_backup(console: Console, site: Path):
    finished = console.run("create", "nobody", "default", "--json")
    assert finished.code == 6
    assert finished.backup()["state"] == "verified"


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", 'מסד "נתונים"', "../x", "🦄" * 50])
def test_a_hard_name_goes_all_the_way(console: Console, shop_file: Path, name: str):
    before = names_in(console.home.parent)
    console.ok("add-database", name, shop_file)
    backup = console.ok("create", name, "--json").backup()
    assert (backup["database"], backup["state"]) == (name, "verified")
    assert console.archive(backup).resolve().is_relative_to(console.home / "archives")
    assert names_in(console.home.parent) == before
    assert name in HARD_NAMES or name.startswith("מ")


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _letter(path: Path) -> None:
    path.write_text("Dear reader, this is not what you think it is. " * 50)


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("make", "code"),
    [(Path.mkdir, 2), (_fifo, 2), (_socket, 2), (_letter, 2), (lambda path: path.symlink_to(path), 2), (None, 6)],
)
def test_what_is_no_database_cannot_be_added(
    console: Console, tmp_path: Path, make: Callable[[Path], object] | None, code: int
):
    if make is not None:
        make(tmp_path / "thing")
    finished = console.run("add-database", "thing", tmp_path / "thing", "--json")
    assert finished.code == code
    assert finished.document["errors"][0]["message"]
    assert console.archived() == set()
    assert console.scratch() == set()
    assert console.query("SELECT count(*) FROM backups_app_database WHERE name = 'thing'") == [(0,)]


def test_the_catalogue_cannot_be_added(console: Console):
    finished = console.run("add-database", "records", console.catalog)
    assert finished.code == 7
    assert "catalogue" in finished.stderr


# Many at once


def test_eight_runs_at_once_make_eight_backups(console: Console, site: Path):
    finished = [finish(each) for each in [console.start("create", "--all", "--json") for _ in range(8)]]
    assert [each.code for each in finished] == [0] * 8, [each.stderr for each in finished]
    backups = [each.backup() for each in finished]
    assert {backup["state"] for backup in backups} == {"verified"}
    names = [backup["copies"][0]["name"] for backup in backups]
    assert len(set(names)) == 8
    assert console.archived() == {each for name in names for each in stored_names(name)}
    assert console.query("SELECT state, count(*) FROM backups_app_backup") == [("verified", 8)]
    assert console.scratch() == set()


@contextmanager
def held_up(console: Console, *, megabytes: int = 60):  # type: ignore[no-untyped-def]
    """A running backup of a large site, caught while it works."""
    if not console.site.exists():
        build_ledger(console.site, filler_bytes=megabytes << 20)
    process = console.start("create", "default", "--json")
    try:
        wait_until(lambda: any((console.home / "scratch").glob("*/*")) or process.poll() is not None)
        assert process.poll() is None, "it was over too early for this test"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_second_run_leaves_the_first_alone(console: Console, shop_file: Path):
    console.ok("add-database", "shop", shop_file)
    with held_up(console) as first:
        os.kill(first.pid, signal.SIGSTOP)
        in_work = console.scratch()
        assert console.ok("create", "shop", "--json").backup()["state"] == "verified"
        console.run("status")
        assert console.query("SELECT count(*) FROM backups_app_backup WHERE state = 'running'") == [(1,)]
        assert console.scratch() == in_work
        os.kill(first.pid, signal.SIGCONT)
        finished = finish(first)
    assert finished.code == 0
    assert finished.backup()["state"] == "verified"
    assert console.ok("verify", finished.backup()["id"], "--json").document["verifications"][0]["verdict"] == "passed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_exit_code_130_and_leaves_nothing(console: Console, number: signal.Signals):
    with held_up(console) as process:
        process.send_signal(number)
        finished = finish(process)
    assert finished.code == 130
    assert "Traceback" not in finished.stderr
    backup = finished.backup()
    assert (backup["state"], backup["failure"], backup["copies"]) == ("cancelled", "cancelled", [])
    assert console.archived() == set()
    assert console.scratch() == set()
    assert console.ok("create", "--all", "--json").backup()["state"] == "verified"


@pytest.mark.slow
def test_a_kill_at_any_moment_is_healed_by_the_next_run(console: Console):
    build_ledger(console.site, filler_bytes=60 << 20)
    before = rows_of(console.site)
    first = console.ok("create", "--all", "--json").backup()
    kept = {first["id"]: console.archive(first).stat().st_size}
    chance = random.Random(7)
    killed: list[str] = []
    for _ in range(20):
        process = console.start("create", "--all", "--json")
        known = set(kept) | set(killed)
        rows: list[tuple[str]] = []

        def has_begun(known: set[str] = known, rows: list[tuple[str]] = rows) -> bool:
            rows[:] = [row for row in console.query("SELECT id FROM backups_app_backup") if row[0] not in known]
            return bool(rows)

        wait_until(has_begun)
        # This run has healed what the one before left.
        for backup_id in killed:
            assert_healed(console, backup_id)
        ((whole_seconds,),) = console.query(
            "SELECT min(julianday(finished_at) - julianday(created_at)) * 86400 "
            "FROM backups_app_backup WHERE state = 'verified'"
        )
        time.sleep(chance.uniform(0, whole_seconds))
        process.kill()
        process.communicate()
        ((backup_id,),) = rows
        ((state,),) = console.query("SELECT state FROM backups_app_backup WHERE id = ?", backup_id)
        assert state in ("running", "verified")
        if state == "running":
            killed.append(backup_id)
        else:
            kept[backup_id] = first["archive_bytes"]
    assert len(killed) >= 5, "too few kills met a running backup"
    last = console.ok("create", "--all", "--json").backup()
    kept[last["id"]] = last["archive_bytes"]
    for backup_id in killed:
        assert_healed(console, backup_id)
    assert console.scratch() == set()
    assert len(console.archived()) == 3 * len(kept)
    assert console.query("SELECT count(*) FROM backups_app_copy") == [(len(kept),)]
    assert rows_of(console.site) == before
    console.ok("verify", "--all", "--level", "quick")


def assert_healed(console: Console, backup_id: str) -> None:
    """A killed backup is failed as interrupted and nothing of it is left."""
    found = console.query("SELECT state, failure_code, reason <> '' FROM backups_app_backup WHERE id = ?", backup_id)
    assert found == [("failed", "interrupted", 1)]
    assert not [name for name in console.archived() if backup_id in name]
    assert not [name for name in console.scratch() if backup_id in name]


# Faults of the place


def test_a_full_disk_is_a_failed_backup_that_leaves_nothing(console: Console, tmp_path: Path):
    with mounted_tmpfs(tmp_path / "disk", size_bytes=8 << 20) as disk:
        small = Console(disk / "home", console.extra)
        shutil.copytree(console.home, small.home)
        small.ok("add-database", "ledger", build_ledger(tmp_path / "ledger.sqlite3", filler_bytes=2 << 20))
        (disk / "filling").write_bytes(b"x" * (6 << 20))
        finished = small.run("create", "ledger", "--json")
        assert finished.code == 1
        assert finished.backup()["failure"] == "disk_full"
        assert "full" in finished.stderr or "free" in finished.stderr
        assert small.archived() == set()
        assert small.scratch() == set()
        (disk / "filling").unlink()
        assert small.ok("create", "ledger", "--json").backup()["state"] == "verified"


def fill_up(path: Path) -> None:
    """Write until nothing more fits."""
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as exc:
            assert exc.errno == errno.ENOSPC  # noqa: PT017 - this is no test


def test_a_disk_without_one_free_byte_is_a_message(console: Console, tmp_path: Path, shop_file: Path):
    with mounted_tmpfs(tmp_path / "disk", size_bytes=2 << 20) as disk:
        small = Console(disk / "home", console.extra)
        shutil.copytree(console.home, small.home)
        small.ok("add-database", "shop", shop_file)
        fill_up(disk / "filling")
        finished = small.run("create", "shop", "--json")
        assert finished.code == 1
        assert "Error:" in finished.stderr
        assert small.archived() == set()
        (disk / "filling").unlink()
        assert small.ok("create", "shop", "--json").backup()["state"] == "verified"


def test_a_file_size_limit_is_a_failed_backup_that_leaves_nothing(console: Console):
    build_ledger(console.site, filler_bytes=4 << 20)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    finished = console.run("create", "--all", "--json", preexec_fn=limit)
    assert finished.code == 1
    assert finished.backup()["state"] == "failed"
    assert console.archived() == set()
    assert console.scratch() == set()


def test_a_read_only_home_is_a_message(console: Console, tmp_path: Path):
    with mounted_tmpfs(tmp_path / "disk", size_bytes=8 << 20) as disk:
        small = Console(disk / "home", console.extra)
        shutil.copytree(console.home, small.home)
        build_shop(small.site, journal_mode="delete")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        finished = small.run("create", "--all", "--json")
        assert finished.code == 1
        assert "Error:" in finished.stderr
        assert finished.document["errors"]


@pytest.mark.parametrize("spelling", ["file", "file/below"])
def test_a_file_in_place_of_the_home_is_a_message(tmp_path: Path, spelling: str):
    (tmp_path / "file").write_text("in the way")
    finished = Console(tmp_path / spelling).run("list", cwd=tmp_path)
    assert finished.code == 1
    assert "BACKUPS_HOME" in finished.stderr
    assert finished.stdout == ""


def test_a_damaged_secret_key_is_a_message(console: Console):
    (console.home / "state" / "secret_key").write_text("short")
    finished = console.run("list")
    assert finished.code == 1
    assert "secret key" in finished.stderr


@pytest.mark.parametrize("name", ["archives", "scratch"])
def test_a_file_in_place_of_a_folder_is_a_failed_backup(console: Console, site: Path, name: str):
    (console.home / name).write_text("in the way")
    finished = console.run("create", "--all", "--json")
    assert finished.code == 1
    assert finished.backup()["state"] == "failed"
    assert (console.home / name).read_text() == "in the way"


# Other settings


@pytest.fixture
def with_settings(console: Console, tmp_path: Path) -> Callable[[str], Console]:
    """A function that gives a console whose settings are ours with some lines after them."""
    folder = tmp_path / "settings"
    folder.mkdir()

    def make(lines: str) -> Console:
        name = f"changed_{len(names_in(folder))}"
        (folder / f"{name}.py").write_text(f"from project.settings import *\n{lines}\n")
        extra = {"DJANGO_SETTINGS_MODULE": name, "PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}"}
        return Console(console.home, {**console.extra, **extra})

    return make


SQLITE = "django.db.backends.sqlite3"


def test_a_further_alias_comes_and_goes_and_keeps_its_backups(
    with_settings: Callable[[str], Console], console: Console, site: Path, tmp_path: Path
):
    old, new = build_shop(tmp_path / "old.sqlite3"), build_shop(tmp_path / "new.sqlite3")
    alias = "DATABASES['extra'] = {{'ENGINE': {!r}, 'NAME': {!r}}}"
    finished = with_settings(alias.format(SQLITE, str(old))).ok("create", "--all", "--json")
    backups = {each["database"]: each for each in finished.document["backups"]}
    assert {each["state"] for each in backups.values()} == {"verified"}
    assert set(backups) == {"default", "extra"}

    def known(finished: Finished) -> dict[str, tuple[str, str]]:
        return {each["name"]: (each["identity"], each["path"]) for each in finished.document["databases"]}

    before = known(with_settings(alias.format(SQLITE, str(old))).ok("databases", "--json"))
    moved = known(with_settings(alias.format(SQLITE, str(new))).ok("databases", "--json"))
    assert moved["extra"] == (before["extra"][0], str(new))
    assert set(known(console.ok("databases", "--json"))) == {"default"}
    listed = console.ok("list", "--json").document["backups"]
    assert {each["id"] for each in listed} == {each["id"] for each in backups.values()}
    console.ok("verify", backups["extra"]["id"])
    assert console.run("create", "extra").code == 6


def test_servers_and_memory_are_left_out_with_a_note(with_settings: Callable[[str], Console], site: Path):
    changed = with_settings(
        "DATABASES['warehouse'] = {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'w', 'HOST': 'db.invalid'}\n"
        "DATABASES['legacy'] = {'ENGINE': 'django.db.backends.mysql', 'NAME': 'l', 'HOST': 'db.invalid'}\n"
        f"DATABASES['cache'] = {{'ENGINE': {SQLITE!r}, 'NAME': ':memory:'}}"
    )
    finished = changed.ok("create", "--all", "--json")
    assert finished.backup()["database"] == "default"
    for alias, reason in (("warehouse", "postgresql"), ("legacy", "mysql"), ("cache", "memory")):
        assert re.search(rf"'{alias}' is not under care: .*{reason}", finished.stderr), finished.stderr
    document = changed.ok("databases", "--json").document
    assert {each["alias"] for each in document["skipped"]} == {"warehouse", "legacy", "cache"}
    assert [each["name"] for each in document["databases"]] == ["default"]


def test_a_required_table_of_the_settings_counts(with_settings: Callable[[str], Console], site: Path):
    with connected(site) as connection:
        connection.execute("DELETE FROM sale")
    strict = with_settings("BACKUPS['REQUIRED_TABLES'] = {'default': ['sale']}")
    finished = strict.run("create", "--all", "--json")
    assert finished.code == 3
    backup = finished.backup()
    assert (backup["state"], backup["verdict"], backup["copies"][0]["state"]) == ("failed", "failed", "failed")
    assert "sale" in backup["reason"]
    assert strict.archive(backup).exists()
    assert strict.run("verify", backup["id"]).code == 3
    lax = with_settings("")
    lax.ok("verify", backup["id"])
    assert lax.ok("show", backup["id"], "--json").backup()["state"] == "verified"


def test_a_root_that_is_withdrawn_refuses(console: Console, shop_file: Path):
    console.ok("add-database", "shop", shop_file)
    finished = Console(console.home).run("create", "shop", "--json")
    assert (finished.code, finished.backup()["failure"]) == (7, "refused")
    assert "BACKUPS['ROOTS']" in finished.stderr
    assert console.archived() == set()


@pytest.mark.parametrize(
    ("lines", "check"),
    [
        ("BACKUPS = []", "backups.E004"),
        ("BACKUPS['ZSTD_LEVEL'] = 99", "backups.E005"),
        ("del DATABASES['catalog']", "backups.E001"),
        ("DATABASES['catalog']['NAME'] = DATABASES['default']['NAME']", "backups.E002"),
        ("DATABASE_ROUTERS = []", "backups.E003"),
        ("MEDIA_ROOT = HOME", "backups.E007"),
    ],
)
def test_unsound_settings_stop_every_verb(with_settings: Callable[[str], Console], site: Path, lines: str, check: str):
    before = site.read_bytes()
    finished = with_settings(lines).run("create", "--all", "--json")
    assert finished.code == 1
    assert check in finished.stderr
    assert set(finished.document) == {"errors"}
    assert site.read_bytes() == before


def test_the_check_command_shows_our_findings(with_settings: Callable[[str], Console], console: Console):
    changed = with_settings("BACKUPS['FRESHNES_HOURS'] = 5")
    command = [sys.executable, str(PROJECT / "manage.py"), "check"]
    finished = subprocess.run(
        command, env=environment(console.home, **changed.extra), capture_output=True, check=True, text=True
    )
    assert "backups.W003" in finished.stderr
    assert "Did you mean 'FRESHNESS_HOURS'?" in finished.stderr


def test_the_migrations_fit_the_models(console: Console):
    command = [sys.executable, str(PROJECT / "manage.py"), "makemigrations", "--check", "--dry-run", "backups_app"]
    subprocess.run(command, env=environment(console.home), capture_output=True, check=True)


def test_a_table_named_to_do_harm_is_data(console: Console):
    build(console.site, 'CREATE TABLE "\'; DROP TABLE x; --" (y); INSERT INTO "\'; DROP TABLE x; --" VALUES (1);')
    assert console.ok("create", "--all", "--json").backup()["tables"] == {"'; DROP TABLE x; --": 1}
