"""``keygen`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backups_app.core.age import read_identities
from tests.console import Console, Finished
from tests.support import names_in

Run = Callable[..., Finished]


def test_only_the_recipient_is_printed(run: Run, tmp_path: Path):
    finished = run("keygen", "--out", tmp_path / "key.txt")
    (identity,) = read_identities(tmp_path / "key.txt")
    assert finished.code == 0
    assert finished.stdout == f"{identity.recipient}\n"
    assert identity.secret_text() not in finished.stdout + finished.stderr


def test_the_document_tells_where_it_is(run: Run, tmp_path: Path):
    finished = run("keygen", "--out", tmp_path / "key.txt", "--json")
    (identity,) = read_identities(tmp_path / "key.txt")
    found = finished.document["key"]
    assert (found["recipient"], found["file"]) == (str(identity.recipient), str(tmp_path / "key.txt"))
    assert set(found) == {"recipient", "key_id", "file", "created_at"}
    assert identity.secret_text() not in finished.stdout + finished.stderr


def test_refusals_have_their_exit_codes(run: Run, tmp_path: Path, home: Path):
    (tmp_path / "key.txt").write_text("precious")
    assert run("keygen", "--out", tmp_path / "key.txt").code == 7
    assert run("keygen", "--out", tmp_path / "missing" / "key.txt").code == 6
    (home / "archives").mkdir(parents=True)
    assert run("keygen", "--out", home / "archives" / "key.txt").code == 7
    assert names_in(home / "archives") == set()
    assert (tmp_path / "key.txt").read_text() == "precious"


def test_a_person_needs_the_permission(run: Run, people: None, tmp_path: Path):
    assert run("keygen", "--out", tmp_path / "key.txt", "--user", "dora").code == 7
    assert not (tmp_path / "key.txt").exists()
    assert run("keygen", "--out", tmp_path / "key.txt", "--user", "anna").code == 0


def test_the_real_command_makes_a_key_and_no_other_verb_ever_does(console: Console, site: Path, tmp_path: Path):
    console.ok("keygen", "--out", tmp_path / "key.txt")
    console.ok("create", "--all")
    everything = [each for each in console.home.rglob("*") if each.is_file() and "sqlite3" not in each.name]
    assert not [each for each in everything if b"AGE-SECRET-KEY" in each.read_bytes()]
