"""``prove`` on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from backups_app.models import Recipient
from tests.console import Finished
from tests.keys import Key, age_decrypt

Run = Callable[..., Finished]


@pytest.fixture
def set_key(encrypting: Callable[..., None], key: Key) -> Key:
    encrypting(key)
    return key


def test_a_key_is_proven_with_the_stock_program(run: Run, set_key: Key, tmp_path: Path):
    assert run("prove", "--out", tmp_path / "challenge.age").code == 0
    word = age_decrypt(set_key, tmp_path / "challenge.age", tmp_path / "word").read_text().strip()
    finished = run("prove", "--answer", word, "--json")
    assert finished.code == 0
    assert finished.document["keys"][0]["proven"] is True
    assert word not in finished.stdout + finished.stderr


def test_without_a_file_the_challenge_is_printed_and_nothing_else(run: Run, set_key: Key, tmp_path: Path):
    finished = run("prove")
    assert finished.stdout.startswith("-----BEGIN AGE ENCRYPTED FILE-----\n")
    (tmp_path / "challenge.age").write_text(finished.stdout)
    word = age_decrypt(set_key, tmp_path / "challenge.age", tmp_path / "word").read_text().strip()
    assert run("prove", "--recipient", set_key.recipient[:16], "--answer", word).code == 0


def test_the_document_holds_the_challenge(run: Run, set_key: Key):
    found = run("prove", "--json").document["challenge"]
    assert (found["recipient"], found["file"]) == (set_key.recipient, None)
    assert found["armored"].startswith("-----BEGIN AGE")


def test_a_challenge_that_cannot_be_written_leaves_the_one_before_open(run: Run, set_key: Key, tmp_path: Path):
    assert run("prove", "--out", tmp_path / "challenge.age").code == 0
    before = (tmp_path / "challenge.age").read_bytes()
    assert run("prove", "--out", tmp_path / "challenge.age").code == 7
    assert run("prove", "--out", tmp_path / "missing" / "challenge.age").code == 6
    assert (tmp_path / "challenge.age").read_bytes() == before
    assert not (tmp_path / "missing").exists()
    word = age_decrypt(set_key, tmp_path / "challenge.age", tmp_path / "word").read_text().strip()
    assert run("prove", "--answer", word).code == 0


def test_exit_codes(run: Run, set_key: Key, tmp_path: Path):
    assert run("prove", "--answer", "x").code == 7, "no challenge"
    run("prove")
    assert run("prove", "--answer", "x").code == 5
    assert run("prove", "--recipient", "age1unknown").code == 6
    (tmp_path / "taken").write_text("precious")
    assert run("prove", "--out", tmp_path / "taken").code == 7
    assert (tmp_path / "taken").read_text() == "precious"
    assert Recipient.objects.get().proven_at is None


def test_without_recipients_there_is_nothing_to_prove(run: Run):
    assert run("prove").code == 6


def test_a_person_needs_the_permission(run: Run, set_key: Key, people: None):
    assert run("prove", "--user", "dora").code == 7
    assert run("prove", "--user", "anna").code == 0
