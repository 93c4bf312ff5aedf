"""Keys as text: read strictly, shown never."""

from __future__ import annotations

import copy
import logging
import pickle
import stat
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups_app.core.age import (
    FileKey,
    NoMatchError,
    ScryptIdentity,
    ScryptRecipient,
    X25519Identity,
    X25519Recipient,
    armor,
    bech32,
    encrypt,
    identity_file,
    parse_identities,
    parse_recipients,
    read_identities,
    read_recipients,
)
from backups_app.core.errors import BackupError, InputError, KeyMissingError, NotFoundError, VerificationError

# The identity and its recipient in the format's own description, section "The X25519 recipient type".
SPEC_IDENTITY = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
SPEC_RECIPIENT = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


# Bech32


@pytest.mark.parametrize(
    ("text", "prefix", "size_bytes"),
    [
        ("A12UEL5L", "A", 0),
        ("a12uel5l", "a", 0),
        ("?1ezyfcl", "?", 0),
        ("abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw", "abcdef", 20),
        ("split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w", "split", 30),
    ],
)
def test_the_valid_strings_of_bip_173_are_read(text: str, prefix: str, size_bytes: int):
    found, content = bech32.decode(text)
    assert (found, len(content)) == (prefix, size_bytes)
    assert bech32.encode(prefix.lower(), content) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        *("pzry9x0s0muk", "1pzry9x0s0muk", "x1b4n0q5v", "li1dgmt3", "A1G7SGD8", "10a06t8", "1qzzfhee"),
        *(
            "",
            "1",
            "a1",
            "A12uEL5L",
            "\x201nwldj5",
            "\x7f1axkwrx",
            "\x801eym55h",
            "a12uel5l\n",
            " a12uel5l",
            "ä12uel5l",
        ),
    ],
)
def test_the_invalid_strings_of_bip_173_are_refused(text: str):
    with pytest.raises(ValueError):
        bech32.decode(text)


@given(prefix=st.text("abcxyz-", min_size=1, max_size=20), content=st.binary(max_size=100))
def test_bech32_brings_any_content_back(prefix: str, content: bytes):
    text = bech32.encode(prefix, content)
    assert bech32.decode(text) == (prefix, content)
    assert bech32.decode(text.upper()) == (prefix.upper(), content)


@given(st.data())
@settings(max_examples=300)
def test_one_wrong_character_is_found(data: st.DataObject):
    at = data.draw(st.integers(0, len(SPEC_RECIPIENT) - 1))
    other = data.draw(
        st.characters(min_codepoint=33, max_codepoint=126).filter(lambda each: each != SPEC_RECIPIENT[at])
    )
    with pytest.raises(InputError):
        X25519Recipient.parse(SPEC_RECIPIENT[:at] + other + SPEC_RECIPIENT[at + 1 :])


def test_bits_left_over_are_refused():
    values = [0, 1]  # ten bits: one byte, and two bits that are not zero
    remainder = bech32._polymod([*bech32._expanded("age"), *values, *[0] * 6]) ^ 1
    checksum = [(remainder >> shift) & 31 for shift in range(25, -1, -5)]
    text = "age1" + "".join(bech32._CHARACTERS[value] for value in values + checksum)
    with pytest.raises(ValueError, match="left over"):
        bech32.decode(text)


# Identities and recipients


def test_the_identity_of_the_specification_has_its_recipient():
    identity = X25519Identity.parse(SPEC_IDENTITY)
    assert str(identity.recipient) == SPEC_RECIPIENT
    assert identity.secret_text() == SPEC_IDENTITY
    assert X25519Recipient.parse(SPEC_RECIPIENT) == identity.recipient


def test_a_generated_identity_comes_back_from_its_text():
    identity = X25519Identity.generate()
    again = X25519Identity.parse(identity.secret_text())
    assert again.recipient == identity.recipient
    assert X25519Identity.generate().recipient != identity.recipient


def test_the_key_id_is_the_beginning_of_the_recipient():
    recipient = X25519Recipient.parse(SPEC_RECIPIENT)
    assert recipient.key_id == "age1zvkyg2lqzraa"
    assert recipient.key_id in repr(recipient)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "age1",
        SPEC_RECIPIENT.upper(),
        SPEC_RECIPIENT[:-1] + "J",
        SPEC_RECIPIENT[:-1],
        SPEC_RECIPIENT + "q",
        f" {SPEC_RECIPIENT}",
        f"{SPEC_RECIPIENT}\n",
        SPEC_IDENTITY,
        SPEC_IDENTITY.lower(),
        bech32.encode("age", bytes(range(31))),
        bech32.encode("age", bytes(range(33))),
        bech32.encode("age", bytes(32)),  # a point of low order
        bech32.encode("age", b"\x01" + bytes(31)),
        bech32.encode("agf", bytes(range(32))),
        bech32.encode("age1pq", bytes(range(32))),
        bech32.encode("age1tag", bytes(range(33))),
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA",
    ],
)
def test_what_is_no_recipient_is_refused_without_being_quoted(text: str):
    with pytest.raises(InputError) as refused:
        X25519Recipient.parse(text)
    assert_silent(refused.value, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        SPEC_IDENTITY.lower(),
        SPEC_IDENTITY[:-1] + "x",
        SPEC_IDENTITY[:-1] + "Z",
        SPEC_IDENTITY[:-1],
        f"{SPEC_IDENTITY} ",
        SPEC_RECIPIENT,
        bech32.encode("age-secret-key-", bytes(range(31))).upper(),
        bech32.encode("age-secret-key-", bytes(range(33))).upper(),
        bech32.encode("age-secret-key-pq-", bytes(range(32))).upper(),
        bech32.encode("age-plugin-thing-", bytes(range(32))).upper(),
    ],
)
def test_what_is_no_identity_is_refused_without_being_quoted(text: str):
    with pytest.raises(InputError) as refused:
        X25519Identity.parse(text)
    assert_silent(refused.value, text)


def assert_silent(error: BackupError, text: str) -> None:
    """Neither the error nor what caused it holds the key, whole or in its larger part."""
    shown = "".join(traceback.format_exception(error))
    assert error.hint
    for at in range(max(len(text) - 20, 0)):
        assert text[at : at + 20] not in shown


@pytest.mark.parametrize("passphrase", ["", "\udcff"])
def test_a_passphrase_must_be_text(passphrase: str):
    for kind in (ScryptIdentity, ScryptRecipient):
        with pytest.raises(InputError):
            kind(passphrase)


@pytest.mark.parametrize("work_factor", [-1, 0, 21])
def test_no_file_is_written_that_we_would_not_read(work_factor: int):
    with pytest.raises(InputError):
        ScryptRecipient("word", work_factor=work_factor)


@pytest.mark.parametrize("size_bytes", [0, 15, 17, 32])
def test_a_file_key_has_16_bytes(size_bytes: int):
    with pytest.raises(InputError):
        FileKey(bytes(size_bytes))


SECRETS: list[Callable[[], object]] = [
    lambda: X25519Identity.parse(SPEC_IDENTITY),
    lambda: ScryptIdentity("correct horse"),
    lambda: ScryptRecipient("correct horse"),
    lambda: FileKey(b"correct horse 16"),
]


@pytest.mark.parametrize("make", SECRETS)
def test_a_secret_shows_in_no_log_and_goes_into_no_pickle(make: Callable[[], object], caplog: pytest.LogCaptureFixture):
    secret = make()
    logging.getLogger("backups").warning("%s %r %s", secret, secret, [secret])
    shown = caplog.text + f"{secret} {secret!r}" + str({"it": secret})
    assert "redacted" in shown
    for word in ("horse", "1GFPYY", str(b"\x42" * 4)):
        assert word not in shown
    assert not hasattr(secret, "__dict__")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="key material"):
            pickle.dumps(secret, protocol)
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="key material"):
            duplicate(secret)


# Files of keys


def test_an_identity_file_may_hold_comments_empty_lines_and_several_keys():
    other = X25519Identity.generate()
    content = f"# mine: ü\n\n{SPEC_IDENTITY}\r\n  \n# old\n  {other.secret_text()}".encode()
    found = parse_identities(content, name="keys.txt")
    assert [str(each.recipient) for each in found] == [SPEC_RECIPIENT, str(other.recipient)]


def test_a_recipients_file_may_hold_comments_empty_lines_and_several_keys():
    other = X25519Identity.generate().recipient
    content = f"# us\n{SPEC_RECIPIENT}\n\n# them\n{other}\n".encode()
    assert parse_recipients(content, name="recipients") == [X25519Recipient.parse(SPEC_RECIPIENT), other]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# only a comment\n", b"#" + SPEC_IDENTITY.encode()])
def test_a_file_without_keys_is_refused(content: bytes):
    with pytest.raises(InputError, match=r"keys\.txt holds no identity"):
        parse_identities(content, name="keys.txt")
    with pytest.raises(InputError, match=r"keys\.txt holds no recipient"):
        parse_recipients(content, name="keys.txt")


@pytest.mark.parametrize(
    "line", [SPEC_IDENTITY[:-1], f"{SPEC_IDENTITY} # mine", SPEC_IDENTITY + SPEC_IDENTITY, "AGE-PLUGIN-X-1QQQ", "\0"]
)
def test_a_line_that_is_no_key_is_named_and_not_quoted(line: str):
    content = f"# comment\n{SPEC_IDENTITY}\n{line}\n".encode()
    with pytest.raises(InputError, match=r"^Line 3 of keys\.txt: ") as refused:
        parse_identities(content, name="keys.txt")
    assert_silent(refused.value, line)


def test_a_secret_key_among_recipients_is_refused_and_said_to_be_one():
    with pytest.raises(InputError, match="Line 1 of recipients: A secret key") as refused:
        parse_recipients(f"{SPEC_IDENTITY}\n".encode(), name="recipients")
    assert_silent(refused.value, SPEC_IDENTITY)


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(InputError, match="Line 1"):
        parse_identities(b"\xff\xfe" + SPEC_IDENTITY.encode("utf-16"), name="keys.txt")


def test_a_new_identity_file_reads_back_and_names_its_recipient():
    identity = X25519Identity.generate()
    content = identity_file(identity, now=NOW)
    assert content.startswith(f"# created: 2026-03-04T05:06:07Z\n# public key: {identity.recipient}\nAGE-S".encode())
    assert [each.recipient for each in parse_identities(content, name="new")] == [identity.recipient]


def protected(content: bytes, *, is_armored: bool, passphrase: str = "correct horse") -> bytes:
    recipient = ScryptRecipient(passphrase, work_factor=8)
    stored = encrypt([content], recipients=[recipient])
    return b"".join(armor.encode(stored) if is_armored else stored)


@pytest.mark.parametrize("is_armored", [True, False])
def test_an_identity_file_under_a_passphrase_is_opened(is_armored: bool):
    content = protected(f"# mine\n{SPEC_IDENTITY}\n".encode(), is_armored=is_armored)
    found = parse_identities(content, name="keys.age", ask_passphrase=lambda: "correct horse")
    assert [str(each.recipient) for each in found] == [SPEC_RECIPIENT]


def test_a_passphrase_is_asked_for_only_where_one_is_needed():
    def ask() -> str:
        raise AssertionError("nobody needed it")

    assert parse_identities(SPEC_IDENTITY.encode(), name="keys.txt", ask_passphrase=ask)


@pytest.mark.parametrize("ask", [None, lambda: "wrong"])
def test_without_the_passphrase_the_key_is_missing(ask: Callable[[], str] | None):
    content = protected(SPEC_IDENTITY.encode(), is_armored=False)
    with pytest.raises(NoMatchError) as missing:
        parse_identities(content, name="keys.age", ask_passphrase=ask)
    assert isinstance(missing.value, KeyMissingError)
    assert "passphrase" in missing.value.message


def test_a_damaged_identity_file_is_not_a_missing_key():
    content = protected(SPEC_IDENTITY.encode(), is_armored=False)
    for damaged in (content[:-1], content + b"x", content[:-1] + bytes([content[-1] ^ 1])):
        with pytest.raises(VerificationError):
            parse_identities(damaged, name="keys.age", ask_passphrase=lambda: "correct horse")


def test_an_identity_file_inside_another_age_file_is_not_opened_twice():
    content = protected(protected(SPEC_IDENTITY.encode(), is_armored=True), is_armored=True)
    with pytest.raises(InputError, match="Line 1"):
        parse_identities(content, name="keys.age", ask_passphrase=lambda: "correct horse")


def test_files_of_keys_are_read_from_disk(tmp_path: Path):
    (tmp_path / "keys.txt").write_text(f"{SPEC_IDENTITY}\n")
    (tmp_path / "recipients.txt").write_text(f"{SPEC_RECIPIENT}\n")
    identity = read_identities(tmp_path / "keys.txt")[0]
    assert read_recipients(tmp_path / "recipients.txt") == [identity.recipient]


def test_a_file_of_keys_that_cannot_be_read_is_told_in_our_words(tmp_path: Path):
    with pytest.raises(NotFoundError):
        read_identities(tmp_path / "absent")
    with pytest.raises(BackupError):
        read_recipients(tmp_path)
    large = tmp_path / "large"
    with open(large, "wb") as file:
        file.truncate(1 << 30)
    assert stat.S_ISREG(large.stat().st_mode)
    with pytest.raises(InputError, match="too large"):
        read_identities(large)
