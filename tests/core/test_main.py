"""``python -m backups_app.core``: recovery by a person who has only an archive and Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from backups_app.core import archive as archives
from backups_app.core.__main__ import main
from tests.support import (
    PROJECT,
    Stored,
    build,
    bytes_in,
    compressed,
    content_of,
    names_in,
    rows_of,
    store,
)

Run = subprocess.CompletedProcess[str]


def core(*arguments: object, **environment: str) -> Run:
    """Run the program as a person would; whatever happens, no traceback is shown."""
    finished = subprocess.run(
        [sys.executable, "-m", "backups_app.core", *map(str, arguments)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in finished.stderr
    return finished


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """The same without a new process: exit code, stdout, stderr."""
    code = main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


# Restore


def test_restore_writes_a_proven_database(stored: Stored, shop: Path, out: Path):
    finished = core("restore", stored.archive, "--to", out / "new.db")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert content_of(out / "new.db") == content_of(shop)
    assert names_in(out) == {"new.db"}
    assert f"restored to {out / 'new.db'}" in finished.stdout
    assert "database  shop" in finished.stdout
    assert "           4  sale" in finished.stdout
    assert "FAILED" not in finished.stdout


def test_restore_without_a_manifest_works_and_says_what_is_not_proven(stored: Stored, out: Path):
    stored.manifest_path.unlink()
    finished = core("restore", stored.archive, "--to", out / "new.db")
    assert finished.returncode == 0
    assert rows_of(out / "new.db") == {"product": 3, "sale": 4}
    assert "Warning: there is no manifest" in finished.stderr
    assert "no row is missing" in finished.stderr


@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
@pytest.mark.parametrize("verb", ["restore", "inspect"])
def test_json_is_one_document_and_nothing_else_on_stdout(stored: Stored, out: Path, verb: str, has_manifest: bool):
    if not has_manifest:
        stored.manifest_path.unlink()
    target = ["--to", out / "new.db"] if verb == "restore" else []
    finished = core(verb, stored.archive, "--json", *target)
    assert finished.returncode == 0
    document = json.loads(finished.stdout)
    manifest = stored.manifest
    assert document["bytes"] == manifest.size_bytes
    assert document["sha256"] == manifest.sha256
    assert (document["archive_bytes"], document["archive_sha256"]) == (manifest.archive_bytes, manifest.archive_sha256)
    assert document["census"]["tables"] == {"product": 3, "sale": 4}
    assert document["manifest"] == (json.loads(manifest.to_bytes()) if has_manifest else None)
    assert all(check["ok"] for check in document["checks"])
    assert set(document) == {
        "bytes",
        "sha256",
        "archive_bytes",
        "archive_sha256",
        "manifest",
        "census",
        "checks",
        "media",
    }


def test_an_existing_file_is_refused_and_untouched(stored: Stored, out: Path):
    (out / "live.db").write_bytes(b"precious")
    finished = core("restore", stored.archive, "--to", out / "live.db")
    assert finished.returncode == 7
    assert finished.stdout == ""
    assert finished.stderr.startswith("Error: ")
    assert "\nHint: " in finished.stderr
    assert bytes_in(out) == {"live.db": b"precious"}


def test_a_stale_wal_beside_the_target_is_refused_and_untouched(
    stored: Stored, out: Path, capsys: pytest.CaptureFixture[str]
):
    # SQLite would replay it into the restored database.
    (out / "new.db-wal").write_bytes(b"stale frames")
    code, stdout, stderr = in_process(capsys, "restore", stored.archive, "--to", out / "new.db", "--json")
    assert (code, stdout) == (7, "")
    assert "new.db-wal exists" in stderr
    assert bytes_in(out) == {"new.db-wal": b"stale frames"}


@pytest.mark.parametrize("has_manifest", [True, False], ids=["with manifest", "without manifest"])
def test_a_truncated_archive_leaves_no_file(stored: Stored, out: Path, has_manifest: bool):
    if not has_manifest:
        stored.manifest_path.unlink()
    stored.archive.write_bytes(stored.archive.read_bytes()[:-5])
    finished = core("restore", stored.archive, "--to", out / "new.db")
    assert (finished.returncode, finished.stdout) == (3, "")
    assert "truncated" in finished.stderr
    assert names_in(out) == set()


def test_a_manifest_that_was_altered_leaves_no_file(stored: Stored, out: Path, capsys: pytest.CaptureFixture[str]):
    stored.manifest_path.write_bytes(stored.manifest_path.read_bytes().replace(b'"bytes":', b'"bytes": '))
    code, stdout, stderr = in_process(capsys, "restore", stored.archive, "--to", out / "new.db")
    assert (code, stdout) == (3, "")
    assert "manifest cannot be trusted" in stderr
    assert names_in(out) == set()


@pytest.mark.parametrize("verb", ["restore", "inspect"])
def test_a_missing_archive_is_not_found(out: Path, capsys: pytest.CaptureFixture[str], verb: str):
    target = ["--to", out / "new.db"] if verb == "restore" else []
    code, stdout, stderr = in_process(capsys, verb, out / "missing.sqlite3.zst", *target)
    assert (code, stdout) == (6, "")
    assert "There is no archive at" in stderr
    assert names_in(out) == set()


def test_a_target_in_a_missing_folder_is_not_found(stored: Stored, out: Path, capsys: pytest.CaptureFixture[str]):
    code, _, stderr = in_process(capsys, "restore", stored.archive, "--to", out / "missing" / "new.db")
    assert code == 6
    assert "does not exist" in stderr
    assert names_in(out) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["restore"],
        ["restore", "a.zst"],
        ["frobnicate", "a.zst"],
        ["inspect", "a.zst", "--to", "b"],
        ["restore", ".", "--to", "never"],
        ["inspect", "/"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_two(arguments: list[str]):
    finished = core(*arguments)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr
    assert not (PROJECT / "never").exists()


def test_help_names_both_verbs():
    finished = core("--help")
    assert finished.returncode == 0
    assert "restore" in finished.stdout
    assert "inspect" in finished.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_an_orderly_cancel_and_leaves_no_file(
    large_database: Path, tmp_path: Path, out: Path, number: signal.Signals
):
    stored = store(large_database, tmp_path / "store")
    process = subprocess.Popen(
        [sys.executable, "-m", "backups_app.core", "restore", str(stored.archive), "--to", str(out / "new.db")],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    give_up_at = time.monotonic() + 20
    while not names_in(out):
        assert process.poll() is None
        assert time.monotonic() < give_up_at
        time.sleep(0.001)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout == ""
    assert "Error: The work was cancelled." in stderr
    assert "Traceback" not in stderr
    assert names_in(out) == set()


def run_in_shell(stored: Stored, rest: str) -> subprocess.CompletedProcess[str]:
    """An inspection as a shell may start it; ``rest`` says where its streams lead."""
    command = [sys.executable, "-m", "backups_app.core", "inspect", str(stored.archive)]
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$@" {rest}', "bash", *command],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("rest", "code"),
    [(">&-", 0), ("2>&-", 0), (">/dev/full", 1), (">/dev/full 2>/dev/full", 1), ("| true", 1)],
)
def test_streams_that_take_nothing_are_no_traceback(stored: Stored, rest: str, code: int):
    finished = run_in_shell(stored, rest)
    assert finished.returncode == code
    assert "Traceback" not in finished.stderr
    assert "Exception ignored" not in finished.stderr


# Inspect


def test_inspect_leaves_nothing_behind(stored: Stored, scratch: Path):
    before = bytes_in(stored.archive.parent)
    finished = core("inspect", stored.archive, "--scratch", scratch)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "ok        integrity_check: ok" in finished.stdout
    assert names_in(scratch) == set()
    assert bytes_in(stored.archive.parent) == before


def test_inspect_tells_what_is_wrong_and_exits_with_three(stored: Stored, scratch: Path):
    damaged = bytearray(stored.archive.read_bytes())
    damaged[-1] ^= 1
    stored.archive.write_bytes(damaged)
    finished = core("inspect", stored.archive, "--json", "--scratch", scratch)
    assert finished.returncode == 3
    assert [check["name"] for check in json.loads(finished.stdout)["checks"] if not check["ok"]] == [
        "stored bytes",
        "decompression",
    ]
    assert "Error: The archive is not good" in finished.stderr
    assert names_in(scratch) == set()


def test_inspect_finds_a_changed_row(stored: Stored, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert in_process(capsys, "restore", stored.archive, "--to", tmp_path / "changed.db")[0] == 0
    (tmp_path / "changed.db").write_bytes((tmp_path / "changed.db").read_bytes().replace(b"second", b"secret"))
    written = compressed(tmp_path / "changed.db", stored.archive)
    manifest = replace(stored.manifest, archive_bytes=written.archive_bytes, archive_sha256=written.archive_sha256)
    stored.manifest_path.write_bytes(manifest.to_bytes())
    code, stdout, _ = in_process(capsys, "inspect", stored.archive)
    assert code == 3
    assert "FAILED    content digest" in stdout


def test_inspect_with_a_missing_scratch_folder_is_a_readable_failure(stored: Stored, out: Path):
    finished = core("inspect", stored.archive, "--scratch", out / "missing")
    assert (finished.returncode, finished.stdout) == (6, "")
    assert finished.stderr.startswith("Error: ")
    assert names_in(out) == set()


@pytest.mark.parametrize("content", [b"", b"text\n" * 100, bytes(3000)], ids=["empty", "text", "zeros"])
def test_inspect_of_something_else_exits_with_three(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes):
    (tmp_path / "thing.sqlite3.zst").write_bytes(content)
    code, stdout, _ = in_process(capsys, "inspect", tmp_path / "thing.sqlite3.zst", "--json")
    assert code == 3
    assert not json.loads(stdout)["checks"][0]["ok"]


def test_a_bomb_is_refused_and_leaves_no_file(stored: Stored, out: Path):
    zeros = (bytes(archives.CHUNK_BYTES) for _ in range(1024))
    stored.archive.write_bytes(b"".join(archives.compress(zeros, level=1, workers=0, size_bytes=1 << 30)))
    finished = core("restore", stored.archive, "--to", out / "new.db")
    assert (finished.returncode, finished.stdout) == (3, "")
    assert names_in(out) == set()


# Terminals


def test_names_cannot_drive_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = build(tmp_path / "made.db", 'CREATE TABLE "evil\x1b[2Jtable\n" (x)')
    stored = store(source, tmp_path / "store", database="sh\x1b[31mop")
    code, stdout, stderr = in_process(capsys, "inspect", stored.archive)
    assert code == 0
    assert "\x1b" not in stdout + stderr
    assert "evil\\x1b[2Jtable\\n" in stdout


def test_a_terminal_without_unicode_is_no_obstacle(tmp_path: Path):
    stored = store(build(tmp_path / "made.db", 'CREATE TABLE "käse ☕" (x)'), tmp_path / "store")
    finished = core("inspect", stored.archive, PYTHONIOENCODING="ascii")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "k\\xe4se" in finished.stdout


def test_a_table_whose_name_is_not_utf8_is_no_obstacle(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sql = b"CREATE TABLE \xff41 (a)".hex()
    source = build(
        tmp_path / "odd.db",
        "CREATE TABLE t (a); CREATE TABLE kept (a); PRAGMA writable_schema=ON; UPDATE sqlite_schema SET "
        f"name = CAST(x'ff3431' AS TEXT), tbl_name = CAST(x'ff3431' AS TEXT), sql = CAST(x'{sql}' AS TEXT) "
        "WHERE name = 't'",
    )
    stored = store(source, tmp_path / "store")
    for arguments in (["inspect", stored.archive], ["inspect", stored.archive, "--json"]):
        code, stdout, stderr = in_process(capsys, *arguments)
        assert (code, stderr) == (0, "")
        assert "kept" in stdout
