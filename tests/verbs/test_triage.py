"""``backup triage``: 400 old archives in one run of the real command, imports, deletion, and what it refuses."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django.fixtures import Settings

from backups_app.core.age import FileKey, X25519Identity, encrypt, identity_file
from backups_app.models import AuditEvent, Backup, Database
from backups_app.services.databases import change_policy
from tests.conftest import ACTOR
from tests.console import Console, environment, finish, wait_until
from tests.foreign import DATA, MIGRATED, SITE, good_copy, legacy_container, naive_copy, open_site, remove_live
from tests.site import Site, digest
from tests.support import build, bytes_in, connected, content_of, names_in, rows_of

CURRENT, ROTATED, LOST = os.urandom(32), os.urandom(32), os.urandom(32)
CONTRACT = {
    "path",
    "verdict",
    "format",
    "tables",
    "rows",
    "bytes",
    "reason",
    "newest_row_at",
    "sha256",
    "imported",
    "member",
    "judged",
    "useless",
    "deleted",
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The folder of the old archives."""
    folder = tmp_path / "old"
    folder.mkdir()
    return folder


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The folder with the current key and a rotated one."""
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "master.key").write_bytes(CURRENT)
    (folder / "master.key.bak.20260101").write_bytes(ROTATED)
    return folder


def zipped(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


# The folder of the report


class OldSystem:
    """Archives as the old system made them, beside an open connection, day after day."""

    def __init__(self, folder: Path, old: Path) -> None:
        self.old = old
        self.expected: dict[str, str] = {}
        self.good: dict[str, Path] = {}
        self._originals = folder / "originals"
        self._originals.mkdir()
        self._live = folder / "live.db"

    def build(self, count: int) -> None:
        """Make ``count`` archives of eleven kinds."""
        with open_site(
            self._live, checkpointed=f"{SITE} CREATE TABLE filler AS SELECT randomblob(300000) AS x;"
        ) as site:
            site.executescript("DELETE FROM filler; PRAGMA wal_checkpoint(TRUNCATE);")
            site.executescript(MIGRATED + DATA)
            for number in range(count):
                site.execute("INSERT INTO shop_sale (amount) VALUES (?)", (number,))
                self._archive(number, site)

    def _archive(self, number: int, site: Any) -> None:
        naive, true = self._naive, lambda: self._true(number, site)
        kinds: list[tuple[str, str, Callable[[], bytes]]] = [
            ("naive.db", "schema only", naive),
            ("good.db", "holds data", true),
            ("naive.db.enc", "schema only", lambda: legacy_container(naive(), CURRENT)),
            ("good.db.enc", "holds data", lambda: legacy_container(true(), CURRENT)),
            ("rotated.db.enc", "holds data", lambda: legacy_container(true(), ROTATED)),
            ("lost.db.enc", "key missing", lambda: legacy_container(true(), LOST)),
            ("cut.db.enc", "corrupt", lambda: legacy_container(naive(), CURRENT)[:-1000]),
            ("cut.db", "corrupt", lambda: true()[:5000]),
            ("zero.db", "empty", lambda: b""),
            ("site.dump", "not a database", lambda: b"PGDMP" + os.urandom(5000)),
            ("log.txt", "not a database", lambda: b"backup finished\n" * 100),
        ]
        name, verdict, content = kinds[number % len(kinds)]
        path = self.old / f"{number:03}-{name}"
        path.write_bytes(content())
        self.expected[str(path)] = verdict
        if verdict == "holds data":
            self.good[str(path)] = self._originals / f"{number}.db"

    def _naive(self) -> bytes:
        copy = self._originals / "naive"
        shutil.copy2(self._live, copy)
        return copy.read_bytes()

    def _true(self, number: int, site: Any) -> bytes:
        target = self._originals / f"{number}.db"
        target.unlink(missing_ok=True)
        with connected(target) as destination:
            site.backup(destination)
        return target.read_bytes()


# The peak that the system tells of a process begins with that of its parent: a small one starts it.
_MEASURE = """
import resource, subprocess, sys
with open(sys.argv[1], "wb") as stdout:
    code = subprocess.call(sys.argv[2:], stdout=stdout)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def measured(console: Console, *arguments: object, output: Path) -> tuple[dict[str, Any], float, float]:
    """Run the command; returns the document, its peak memory in MiB, and its seconds."""
    started = time.monotonic()
    finished = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(output), *console.command(*arguments)],
        env=environment(console.home, **console.extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(output.read_text()), int(finished.stdout) / 1024, time.monotonic() - started


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_four_hundred_old_archives_from_judging_to_restoring_and_deleting(
    console: Console, tmp_path: Path, old: Path, keys: Path, capsys: pytest.CaptureFixture[str]
):
    system = OldSystem(tmp_path, old)
    system.build(400)
    before = bytes_in(old)

    # Judge: one file, then all.
    one = next(iter(system.good))
    _, small, _ = measured(console, "triage", one, "--json", output=tmp_path / "one.json")
    found, peak, seconds = measured(console, "triage", old, "--key", keys, "--json", output=tmp_path / "all.json")
    assert {each["path"]: each["verdict"] for each in found["files"]} == system.expected
    assert all(set(each) >= CONTRACT for each in found["files"])
    counted = Counter(system.expected.values())
    assert {name: each["files"] for name, each in found["totals"]["verdicts"].items()} == counted
    useless = {path for path, verdict in system.expected.items() if verdict in ("schema only", "empty")}
    assert found["totals"]["reclaimable_files"] == len(useless)
    assert found["totals"]["reclaimable_bytes"] == sum(Path(path).stat().st_size for path in useless)
    assert peak - small < 32, "memory is that of one file, not of all"
    assert bytes_in(old) == before
    assert console.scratch() == set()

    # Import, twice.
    arguments = ("triage", old, "--key", keys, "--import", "--json")
    found, import_peak, import_seconds = measured(console, *arguments, output=tmp_path / "import.json")
    imported = {each["path"]: each["imported"] for each in found["files"] if each["imported"]}
    assert set(imported) == set(system.good)
    assert len(set(imported.values())) == len(system.good)
    again, _, _ = measured(console, *arguments, output=tmp_path / "again.json")
    assert {each["path"]: each["imported"] for each in again["files"] if each["imported"]} == imported
    assert console.query("SELECT count(*) FROM backups_app_backup") == [(len(system.good),)]
    assert console.query("SELECT DISTINCT state, trigger, is_held FROM backups_app_backup") == [
        ("verified", "import", 1)
    ]

    # Restore: every kind of good archive gives back its rows.
    for path, original in list(system.good.items())[:6]:
        target = tmp_path / f"restored-{imported[path]}.db"
        console.ok("restore", imported[path], "--to", target)
        assert content_of(target) == content_of(original)

    # Delete the useless ones, and only them.
    finished = console.run("triage", old, "--key", keys, "--delete-useless")
    assert (finished.code, bytes_in(old)) == (7, before)
    found, _, _ = measured(
        console, "triage", old, "--key", keys, "--delete-useless", "--yes", "--json", output=tmp_path / "deleted.json"
    )
    assert {each["path"] for each in found["files"] if each["deleted"]} == useless
    kept = {name: content for name, content in before.items() if str(old / name) not in useless}
    assert bytes_in(old) == kept
    events = console.query(
        "SELECT count(*) FROM backups_app_auditevent WHERE action='delete-foreign' AND outcome='done'"
    )
    assert events == [(len(useless),)]
    with capsys.disabled():
        print(
            f"\n400 archives: judged in {seconds:.1f} s at {peak:.0f} MiB ({peak - small:.0f} more than for one); "
            f"{len(system.good)} imported in {import_seconds:.1f} s at {import_peak:.0f} MiB; {len(useless)} deleted"
        )


def test_identities_and_old_keys_are_tried_together_with_that_of_the_host(
    run, tmp_path: Path, old: Path, settings: Settings
):
    ours, theirs = X25519Identity.generate(), X25519Identity.generate()
    for name, identity in (("ours", ours), ("theirs", theirs), ("wrong", X25519Identity.generate())):
        (tmp_path / name).write_bytes(identity_file(identity, now=datetime.now(UTC)))
    good, key = good_copy(tmp_path, tmp_path / "good").read_bytes(), os.urandom(32)
    (tmp_path / "master.key").write_bytes(key)
    for name, identity in (("ours", ours), ("theirs", theirs)):
        (old / f"{name}.age").write_bytes(b"".join(encrypt([good], recipients=[identity.recipient])))
    (old / "legacy.enc").write_bytes(legacy_container(good, key))
    settings.BACKUPS = {**settings.BACKUPS, "AGE_IDENTITY_FILE": str(tmp_path / "ours")}
    given = [argument for name in ("master.key", "theirs", "wrong") for argument in ("--identity", tmp_path / name)]
    found = run("triage", old, *given, "--json").document["files"]
    assert {Path(each["path"]).name: each["verdict"] for each in found} == dict.fromkeys(
        ("ours.age", "theirs.age", "legacy.enc"), "holds data"
    )


def test_an_identity_of_the_host_that_cannot_be_read_stops_nothing(run, tmp_path: Path, old: Path, settings: Settings):
    good_copy(tmp_path, old / "good.db")
    settings.BACKUPS = {**settings.BACKUPS, "AGE_IDENTITY_FILE": str(tmp_path / "gone")}
    assert run("triage", old, "--json").document["files"][0]["verdict"] == "holds data"


# One run


def test_people_see_a_table_with_totals(run, tmp_path: Path, old: Path):
    good_copy(tmp_path, old / "good.db")
    naive_copy(tmp_path, old / "bare.db", checkpointed=SITE)
    finished = run("triage", old)
    assert finished.code == 0
    for text in ("good.db", "holds data", "2026-02-03", "bare.db", "schema only", "2 files, ", "can be reclaimed"):
        assert text in finished.stdout
    assert finished.stderr == ""


def test_members_of_a_zip_have_rows_of_their_own_and_are_imported(run, tmp_path: Path, old: Path):
    good = good_copy(tmp_path, tmp_path / "good").read_bytes()
    (old / "a.zip").write_bytes(zipped({"x/shop_20260101.db": good, "notes.txt": b"hello"}))
    document = run("triage", old, "--import", "--json").document
    assert [(Path(each["path"]).name, each["member"], bool(each["imported"])) for each in document["files"]] == [
        ("a.zip", None, False),
        ("shop_20260101.db", "x/shop_20260101.db", True),
        ("a.zip!notes.txt", "notes.txt", False),
    ]
    assert document["totals"]["files"] == 1
    assert Backup.objects.get().database.name == "shop"


def test_age_files_need_the_identity(run, tmp_path: Path, old: Path):
    identity = X25519Identity.generate()
    (tmp_path / "identity.txt").write_bytes(identity_file(identity, now=datetime.now(UTC)))
    content = gzip.compress(good_copy(tmp_path, tmp_path / "good").read_bytes())
    sealed = encrypt([content], recipients=[identity.recipient], file_key=FileKey.generate())
    (old / "a.db.gz.age").write_bytes(b"".join(sealed))
    assert run("triage", old, "--json").document["files"][0]["verdict"] == "key missing"
    finished = run("triage", old, "--identity", tmp_path / "identity.txt", "--import", "--json")
    (found,) = finished.document["files"]
    assert (found["verdict"], found["format"]) == ("holds data", "age+gzip+sqlite")
    assert Backup.objects.get().pk == found["imported"]


def test_a_key_may_be_one_file_and_is_never_made(run, tmp_path: Path, old: Path, keys: Path):
    good = good_copy(tmp_path, tmp_path / "good").read_bytes()
    (old / "a.enc").write_bytes(legacy_container(good, ROTATED))
    key = keys / "master.key.bak.20260101"
    assert run("triage", old, "--key", key, "--json").document["totals"]["verdicts"]["holds data"]["files"] == 1
    assert run("triage", old, "--key", keys / "master.key", "--json").document["files"][0]["verdict"] == "key missing"
    assert run("triage", old, "--key", tmp_path / "none.key", "--json").code == 6
    assert run("triage", old, "--key", tmp_path / "good", "--json").code == 2
    assert not (tmp_path / "none.key").exists()


def test_keys_of_the_setting_are_tried_too(run, tmp_path: Path, old: Path, keys: Path, settings):
    identity = X25519Identity.generate()
    (tmp_path / "identity.txt").write_bytes(identity_file(identity, now=datetime.now(UTC)))
    settings.BACKUPS = {**settings.BACKUPS, "TRIAGE_KEY_FILES": [keys, str(tmp_path / "identity.txt")]}
    good = good_copy(tmp_path, tmp_path / "good").read_bytes()
    (old / "a.enc").write_bytes(legacy_container(good, CURRENT))
    (old / "b.age").write_bytes(b"".join(encrypt([good], recipients=[identity.recipient])))
    assert {each["verdict"] for each in run("triage", old, "--json").document["files"]} == {"holds data"}


def test_a_path_that_is_missing_is_6_and_the_others_are_judged(run, tmp_path: Path, old: Path):
    good_copy(tmp_path, old / "good.db")
    finished = run("triage", tmp_path / "none", old, tmp_path / "nor-this", "--json")
    assert finished.code == 6
    assert [each["verdict"] for each in finished.document["files"]] == ["holds data"]
    assert [(each["about"], each["code"]) for each in finished.document["errors"]] == [
        (str(tmp_path / "none"), "not_found"),
        (str(tmp_path / "nor-this"), "not_found"),
    ]


def test_a_file_that_is_named_twice_is_judged_once(run, tmp_path: Path, old: Path):
    good_copy(tmp_path, old / "good.db")
    assert run("triage", old, old / "good.db", old, "--json").document["totals"]["files"] == 1


@pytest.mark.parametrize(
    "arguments",
    [["--into", "shop"], ["--limit-seconds", "0"], ["--import", "--into", ""]],
)
def test_a_wrong_use_is_refused_before_anything_is_judged(run, old: Path, arguments: list[str]):
    assert run("triage", old, *arguments).code in (2, 6)


def test_deleting_without_a_terminal_needs_yes(run, tmp_path: Path, old: Path):
    naive_copy(tmp_path, old / "bare.db", checkpointed=SITE)
    finished = run("triage", old, "--delete-useless")
    assert finished.code == 7
    assert "--yes" in finished.stderr
    assert names_in(old) == {"bare.db"}


def test_deletion_keeps_data_links_and_what_is_ours(run, tmp_path: Path, home: Path, old: Path, shop: Database):
    naive_copy(tmp_path, old / "bare.db", checkpointed=SITE)
    good_copy(tmp_path, old / "good.db")
    (old / "link.db").symlink_to("bare.db")
    (old / "__init__.py").touch()
    empty = build(tmp_path / "empty.db", "CREATE TABLE t (x)")
    assert run("create", "shop").code == 0
    ours = home / "archives" / "ours.db"
    shutil.move(empty, ours)
    before = bytes_in(home / "archives")
    finished = run("triage", old, home / "archives", "--delete-useless", "--yes", "--json")
    assert finished.code == 7
    assert names_in(old) == {"good.db", "link.db", "__init__.py"}
    assert bytes_in(home / "archives") == before
    (error,) = finished.document["errors"]
    assert (error["about"], error["code"]) == (str(ours), "refused")
    assert "below BACKUPS['HOME']" in error["message"]
    outcomes = AuditEvent.objects.filter(action="delete-foreign").values_list("outcome", flat=True)
    assert sorted(outcomes) == ["done", "refused"]


def test_imports_into_a_database_under_care(run, tmp_path: Path, old: Path, shop: Database):
    good_copy(tmp_path, old / "good.db")
    assert run("triage", old, "--import", "--into", "shop").code == 0
    assert Backup.objects.get().database == shop
    assert run("triage", old, "--import", "--into", "none").code == 6


def test_one_import_that_fails_does_not_stop_the_others(run, tmp_path: Path, old: Path, shop: Database):
    change_policy(shop, required_tables=["product"], freshness_hours=None, actor=ACTOR)
    good_copy(tmp_path, old / "a.db")
    build(old / "b.db", "CREATE TABLE product (x); INSERT INTO product VALUES (1);")
    finished = run("triage", old, "--import", "--into", "shop", "--json")
    assert finished.code == 3
    assert [bool(each["imported"]) for each in finished.document["files"]] == [False, True]
    assert finished.document["errors"][0]["about"] == str(old / "a.db")


def test_people_need_the_permissions(run, tmp_path: Path, old: Path):
    User.objects.create_user("staff", is_staff=True)
    User.objects.create_superuser("anna")
    good_copy(tmp_path, old / "good.db")
    naive_copy(tmp_path, old / "bare.db", checkpointed=SITE)
    for arguments in (["--import"], ["--delete-useless", "--yes"]):
        assert run("triage", old, *arguments, "--user", "staff").code == 7
    assert names_in(old) == {"good.db", "bare.db"}
    assert not Backup.objects.exists()
    assert run("triage", old, "--import", "--delete-useless", "--yes", "--user", "anna").code == 0
    assert Backup.objects.get().requested_by_name == "anna"
    assert AuditEvent.objects.get(action="delete-foreign").actor_name == "anna"


# Restore


def test_an_imported_archive_is_restored_into_the_live_site_like_any_backup(
    people_site: Site, tmp_path: Path, old: Path
):
    people_site.execute("INSERT INTO events (what) VALUES ('of the archive')")
    with connected(people_site.path) as live, connected(tmp_path / "copy.db") as target:
        live.backup(target)
    (old / "site_20260220.db.enc").write_bytes(legacy_container((tmp_path / "copy.db").read_bytes(), CURRENT))
    (tmp_path / "master.key").write_bytes(CURRENT)
    archived = digest(people_site.path)
    people_site.execute("DELETE FROM events")
    console, key = people_site.console, tmp_path / "master.key"
    (found,) = console.ok("triage", old, "--key", key, "--import", "--into", "default", "--json").document["files"]
    restore = people_site.asked(found["imported"])
    assert people_site.approve(restore).code == 0
    assert people_site.row(restore)["state"] == "succeeded"
    assert digest(people_site.path) == archived


def test_an_old_archive_meets_the_guards(people_site: Site, tmp_path: Path, old: Path):
    good_copy(tmp_path, old / "good.db")
    (found,) = people_site.console.ok("triage", old, "--import", "--into", "default", "--json").document["files"]
    refused = people_site.request(found["imported"])
    assert refused.code == 7
    for guard in ("lock_out", "migration"):
        assert guard in refused.stderr
    elsewhere = tmp_path / "restored.db"
    people_site.console.ok("restore", found["imported"], "--to", elsewhere)
    assert content_of(elsewhere) == content_of(old / "good.db")


def test_an_archive_without_a_database_is_not_of_the_live_one(people_site: Site, tmp_path: Path, old: Path):
    with connected(people_site.path) as live, connected(old / "site.db") as target:
        live.backup(target)
    (found,) = people_site.console.ok("triage", old, "--import", "--json").document["files"]
    assert people_site.request(found["imported"]).code == 6, "its own database has no file"
    refused = people_site.request(found["imported"], "--into", "default")
    assert refused.code == 7
    assert "wrong_database" in refused.stderr
    assert people_site.console.run("create", "site").code == 6


def test_our_own_archives_are_judged_and_not_imported(run, home: Path, shop: Database):
    assert run("create", "shop").code == 0
    finished = run("triage", home / "archives", "--import", "--json")
    assert finished.code == 7
    assert sorted(each["format"] for each in finished.document["files"]) == ["manifest", "manifest", "zstd+sqlite"]
    assert Backup.objects.count() == 1


# Live databases


def test_a_live_database_is_refused_and_untouched(run, tmp_path: Path, shop: Database, shop_file: Path):
    with connected(shop_file) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO product (name) VALUES ('open')")
        before = {each: each.stat() for each in tmp_path.glob("shop.sqlite3*")}
        assert len(before) == 3
        finished = run("triage", *before, "--import", "--delete-useless", "--yes", "--json")
        assert {each: each.stat() for each in before} == before
        connection.execute("COMMIT")  # this process holds its lock still
    assert finished.code == 7
    assert {each["format"] for each in finished.document["files"]} <= {"live database", "sqlite shm"}
    assert not [each for each in finished.document["files"] if each["judged"]]
    assert not Backup.objects.exists()
    assert rows_of(shop_file)["product"] == 4


def test_a_link_to_a_live_database_is_not_followed_and_a_hard_link_is_refused(
    run, old: Path, shop: Database, shop_file: Path
):
    (old / "link.db").symlink_to(shop_file)
    os.link(shop_file, old / "hard.db")
    finished = run("triage", old, "--json")
    assert finished.code == 0, "nobody named it"
    assert [each["format"] for each in finished.document["files"]] == ["live database", "symbolic link"]


def test_the_catalogue_is_refused(console: Console):
    finished = console.run("triage", console.catalog, "--json")
    assert finished.code == 7
    assert finished.document["files"][0]["format"] == "live database"
    assert console.run("triage", console.home, "--key", console.catalog).code == 7


# Names and signals


def test_hostile_names_print_as_text(run, tmp_path: Path, old: Path):
    good = good_copy(tmp_path, tmp_path / "good").read_bytes()
    for name in ("\x1b[2J\x1b]0;owned\x07.db", "\udcff.db", "a\nb.db", "[bold]x.db", "-rf"):
        (old / name).write_bytes(good)
    finished = run("triage", old, "--import")
    assert finished.code == 0
    assert "\x1b" not in finished.stdout + finished.stderr
    assert "[bold]" in finished.stdout
    document = run("triage", old, "--json").document
    assert len(document["files"]) == 5
    assert Backup.objects.count() == 1


def test_a_cancel_in_the_middle_is_130_and_tells_what_was_judged(console: Console, tmp_path: Path, old: Path):
    content = naive_copy(tmp_path, tmp_path / "bare", checkpointed=SITE).read_bytes()
    packed = gzip.compress(content + bytes(30 << 20), 1)
    for number in range(60):
        (old / f"{number:03}.db.gz").write_bytes(packed)
    before = names_in(old)
    process = console.start("triage", old, "--delete-useless", "--yes", "--json")
    wait_until(lambda: any(each.startswith("triage-") for each in console.scratch()))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    finished = finish(process)
    assert finished.code == 130, finished.stderr
    assert len(finished.document["files"]) < 60
    assert finished.document["errors"][0]["code"] == "cancelled"
    assert names_in(old) == before
    assert console.scratch() == set()


def test_the_scratch_of_a_killed_run_is_swept(console: Console, tmp_path: Path, old: Path):
    packed = gzip.compress(bytes(60 << 20), 1)
    for number in range(20):
        (old / f"{number:03}.db.gz").write_bytes(packed)
    process = console.start("triage", old)
    wait_until(lambda: any(each.startswith("triage-") for each in console.scratch()))
    process.kill()
    process.communicate()
    build(console.site, "CREATE TABLE t (x); INSERT INTO t VALUES (1);")
    console.ok("create", "default")
    assert console.scratch() == set()
    remove_live(tmp_path)
