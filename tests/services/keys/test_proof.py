"""Only who opens a challenge proves a key: once, in time, and not by guessing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from backups_app.core.errors import InputError, KeyMissingError, NotFoundError, RefusedError
from backups_app.models import AuditEvent, Recipient
from backups_app.services.keys.proof import (
    LIFETIME,
    MAX_ATTEMPTS,
    Challenge,
    answer_challenge,
    find_recipient,
    make_challenge,
)
from backups_app.services.keys.registry import is_proven, proof_state, sync_recipients
from tests.conftest import ACTOR
from tests.keys import Key
from tests.support import needs_tool

pytestmark = pytest.mark.usefixtures("home", "db_catalog")

NOW = timezone.now()


@pytest.fixture
def recipient(encrypting: Callable[..., None], key: Key) -> Recipient:
    encrypting(key)
    (found,) = sync_recipients(now=NOW)
    return found


def word_in(challenge: Challenge, key: Key, tmp_path: Path) -> str:
    """What the stock program prints."""
    path = tmp_path / "challenge.age"
    path.unlink(missing_ok=True)
    path.write_text(challenge.armored)
    opened = subprocess.run([needs_tool("age"), "-d", "-i", key.path, path], capture_output=True, check=True, text=True)
    return opened.stdout


def test_the_stock_program_opens_a_challenge_and_its_word_is_the_proof(recipient: Recipient, key: Key, tmp_path: Path):
    challenge = make_challenge(recipient, actor=ACTOR, now=NOW)
    assert proof_state(recipient, now=NOW) == "never proven"
    word = word_in(challenge, key, tmp_path)
    proven = answer_challenge(recipient, f" {word.upper()} ", actor=ACTOR, now=NOW)
    assert is_proven(proven, now=NOW)
    assert proven.proven_by_name == ACTOR.name


def test_the_word_is_kept_nowhere(recipient: Recipient, key: Key, tmp_path: Path, home: Path):
    word = word_in(make_challenge(recipient, actor=ACTOR, now=NOW), key, tmp_path).strip()
    rows = repr([*Recipient.objects.values_list(), *AuditEvent.objects.values_list()])
    assert word not in rows
    assert word.replace("-", "") not in rows
    answer_challenge(recipient, word, actor=ACTOR, now=NOW)
    assert word not in repr([*AuditEvent.objects.values_list()])
    assert word not in (home / "state" / "audit.jsonl").read_text()


def test_another_key_does_not_open_it(recipient: Recipient, other: Key, tmp_path: Path):
    make_challenge(recipient, actor=ACTOR, now=NOW, path=tmp_path / "challenge.age")
    command = [needs_tool("age"), "-d", "-i", other.path, tmp_path / "challenge.age"]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_challenge_counts_once(recipient: Recipient, key: Key, tmp_path: Path):
    word = word_in(make_challenge(recipient, actor=ACTOR, now=NOW), key, tmp_path)
    answer_challenge(recipient, word, actor=ACTOR, now=NOW)
    with pytest.raises(RefusedError):
        answer_challenge(recipient, word, actor=ACTOR, now=NOW)


def test_a_challenge_expires(recipient: Recipient, key: Key, tmp_path: Path):
    word = word_in(make_challenge(recipient, actor=ACTOR, now=NOW), key, tmp_path)
    with pytest.raises(RefusedError):
        answer_challenge(recipient, word, actor=ACTOR, now=NOW + LIFETIME)
    recipient.refresh_from_db()
    assert recipient.proven_at is None


def test_a_newer_challenge_takes_the_place_of_the_older(recipient: Recipient, key: Key, tmp_path: Path):
    older = word_in(make_challenge(recipient, actor=ACTOR, now=NOW), key, tmp_path)
    make_challenge(recipient, actor=ACTOR, now=NOW)
    with pytest.raises(KeyMissingError):
        answer_challenge(recipient, older, actor=ACTOR, now=NOW)


def test_guessing_ends_after_a_few_answers(recipient: Recipient, key: Key, tmp_path: Path):
    word = word_in(make_challenge(recipient, actor=ACTOR, now=NOW), key, tmp_path)
    for guess in range(MAX_ATTEMPTS):
        with pytest.raises(KeyMissingError):
            answer_challenge(recipient, f"guess-{guess}", actor=ACTOR, now=NOW)
    with pytest.raises(RefusedError):
        answer_challenge(recipient, word, actor=ACTOR, now=NOW)
    outcomes = list(AuditEvent.objects.filter(action="prove-key").order_by("pk").values_list("outcome", flat=True))
    assert outcomes == ["failed"] * MAX_ATTEMPTS + ["refused"]


@pytest.mark.parametrize("answer", ["", " ", "-", "\0"])
def test_an_empty_answer_proves_nothing(recipient: Recipient, answer: str):
    with pytest.raises(RefusedError):
        answer_challenge(recipient, answer, actor=ACTOR, now=NOW)
    make_challenge(recipient, actor=ACTOR, now=NOW)
    with pytest.raises(KeyMissingError):
        answer_challenge(recipient, answer, actor=ACTOR, now=NOW)


def test_a_proof_is_asked_for_again(recipient: Recipient, key: Key, tmp_path: Path):
    word = word_in(make_challenge(recipient, actor=ACTOR, now=NOW), key, tmp_path)
    proven = answer_challenge(recipient, word, actor=ACTOR, now=NOW)
    assert is_proven(proven, now=NOW + timedelta(days=182))
    assert not is_proven(proven, now=NOW + timedelta(days=184))
    assert proof_state(proven, now=NOW + timedelta(days=184)) == "proof too old"


def test_the_recipient_to_prove_is_found(
    recipient: Recipient, encrypting: Callable[..., None], key: Key, other: Key, tmp_path: Path
):
    assert find_recipient(None, now=NOW) == recipient
    encrypting(key, other)
    with pytest.raises(InputError, match="several"):
        find_recipient(None, now=NOW)
    assert find_recipient(other.recipient[:12], now=NOW).public == other.recipient
    word = word_in(make_challenge(recipient, actor=ACTOR, now=NOW), key, tmp_path)
    assert find_recipient(None, now=NOW, is_answer=True) == recipient
    answer_challenge(recipient, word, actor=ACTOR, now=NOW)
    assert find_recipient(None, now=NOW).public == other.recipient
    for unknown in ("age1zzzzzzzz", "age1"):
        with pytest.raises(NotFoundError):
            find_recipient(unknown, now=NOW)


def test_without_recipients_there_is_nothing_to_prove():
    with pytest.raises(NotFoundError):
        find_recipient(None, now=NOW)
