"""The text form: one spelling of each file, and white space around it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups_app.core.age import ArmorError, X25519Identity, armor, decrypt, encrypt, unarmored
from backups_app.core.errors import BackupError

BEGIN = "-----BEGIN AGE ENCRYPTED FILE-----"
END = "-----END AGE ENCRYPTED FILE-----"


def encode(content: bytes, *, cut_bytes: int = 1 << 20) -> bytes:
    return b"".join(armor.encode(content[at : at + cut_bytes] for at in range(0, len(content), cut_bytes)))


def decode(text: bytes | str, *, cut_bytes: int = 1 << 20) -> bytes:
    stored = text.encode() if isinstance(text, str) else text
    return b"".join(armor.decode(stored[at : at + cut_bytes] for at in range(0, len(stored), cut_bytes)))


@given(content=st.binary(max_size=300), cut_bytes=st.integers(1, 100))
def test_any_content_comes_back(content: bytes, cut_bytes: int):
    text = encode(content, cut_bytes=cut_bytes)
    assert text == encode(content)
    assert max(len(line) for line in text.split(b"\n")[1:-2] or [b""]) <= 64
    assert decode(text, cut_bytes=cut_bytes) == content
    assert decode(text.replace(b"\n", b"\r\n"), cut_bytes=cut_bytes) == content


def test_long_content_comes_back():
    content = random.Random(3).randbytes(200_000)
    assert decode(encode(content), cut_bytes=999) == content


@pytest.mark.parametrize("before", ["", "\n", "\r\n  \t\n", "\n" * 1023])
@pytest.mark.parametrize("after", ["", "\n", "\r\n  \t\n", " ", "\n" * 1023])
def test_white_space_around_it_is_passed_over(before: str, after: str):
    assert decode(f"{before}{BEGIN}\nAAAA\n{END}\n{after}") == bytes(3)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        BEGIN,
        f"{BEGIN}\nAAAA\n",
        f" {BEGIN}\nAAAA\n{END}\n",
        f"{BEGIN} \nAAAA\n{END}\n",
        f"{BEGIN}\nAAAA\n{END} \n",
        f"{BEGIN}\nAAAA\n {END}\n",
        f"{BEGIN}\n\nAAAA\n{END}\n",
        f"{BEGIN}\nAAAA\n\n{END}\n",
        f"{BEGIN}\nAAAA\nAAAA\n{END}\n",
        f"{BEGIN}\nAAA\n{END}\n",
        f"{BEGIN}\nAAAB=\n{END}\n",
        f"{BEGIN}\nAB==\n{END}\n",
        f"{BEGIN}\nAA=\n{END}\n",
        f"{BEGIN}\nA A=\n{END}\n",
        f"{BEGIN}\n{'A' * 62}==\nAAAA\n{END}\n",
        f"{BEGIN}\n{'A' * 68}\n{END}\n",
        f"{BEGIN}\nAAAA\n{END}\nmore",
        f"{BEGIN}\nAAAA\n{END}{END}\n",
        f"{BEGIN}\rAAAA\r{END}\r",
        f"{BEGIN}\nAAAA\r\r\n{END}\n",
        f"{BEGIN}\nAAAA\n{END}\n{BEGIN}\nAAAA\n{END}\n",
        f"{BEGIN.lower()}\nAAAA\n{END}\n",
        f"{BEGIN}\nVersion: 1\n\nAAAA\n{END}\n",
        f"{BEGIN}\nAA_-\n{END}\n",
        "\n" * 1025 + f"{BEGIN}\nAAAA\n{END}\n",
        f"{BEGIN}\nAAAA\n{END}\n" + "\n" * 1025,
        f"{BEGIN}\nAAAA\n{END}\n" + " " * 1025,
        "x" * 3000,
    ],
)
@pytest.mark.parametrize("cut_bytes", [1, 1 << 20])
def test_any_other_spelling_is_refused(text: str, cut_bytes: int):
    with pytest.raises(ArmorError):
        decode(text, cut_bytes=cut_bytes)


@pytest.mark.parametrize("full_lines", [0, 1, 1022, 1023, 1024, 2047])
def test_padding_ends_the_content_wherever_it_stands(full_lines: int):
    lines = ["A" * 64] * full_lines + ["A" * 63 + "="]
    assert decode("\n".join([BEGIN, *lines, END])) == bytes(48 * full_lines + 47)
    with pytest.raises(ArmorError):
        decode("\n".join([BEGIN, *lines, "AAAA", END]))


def test_armor_that_never_ends_is_given_up():
    for text in (b" ", b"\n", b"A", f"{BEGIN}\n\n".encode()):
        with pytest.raises(ArmorError):
            b"".join(armor.decode(itertools.repeat(text)))
    with pytest.raises(ArmorError):
        b"".join(armor.decode(itertools.chain([f"{BEGIN}\n{END}\n".encode()], itertools.repeat(b"\n"))))


def test_a_writer_whose_source_fails_leaves_no_valid_armor():
    def failing() -> Iterator[bytes]:
        yield bytes(100)
        raise OSError("gone")

    written: list[bytes] = []
    with pytest.raises(OSError, match="gone"):
        written.extend(armor.encode(failing()))
    with pytest.raises(ArmorError):
        decode(b"".join(written))


@pytest.mark.parametrize("white_space", [b"", b"\n \r\n", b"\n" * 1000])
@pytest.mark.parametrize("cut_bytes", [1, 7, 1 << 20])
def test_armor_is_recognised_and_binary_passes_unchanged(white_space: bytes, cut_bytes: int):
    identity = X25519Identity.generate()
    binary = b"".join(encrypt([b"content"], recipients=[identity.recipient]))
    for stored in (binary, white_space + encode(binary)):
        pieces = (stored[at : at + cut_bytes] for at in range(0, len(stored), cut_bytes))
        assert b"".join(unarmored(pieces)) == binary
    assert b"".join(unarmored(iter([white_space + binary]))) == white_space + binary


def test_1000_changes_of_an_armored_file_are_found():
    """Only line ends and white space around it may change: the content is the same then."""
    identity = X25519Identity.generate()
    content = random.Random(1).randbytes(2000)
    text = encode(b"".join(encrypt([content], recipients=[identity.recipient])))
    chance = random.Random(2)
    survived = 0
    for _ in range(1000):
        at = chance.randrange(len(text))
        other = chance.choice([b"", b"\n", b"\r", b" ", b"=", b"A", b"-", chance.randbytes(1), text[at : at + 1] * 2])
        changed = text[:at] + other + text[at + 1 :]
        try:
            plain = b"".join(decrypt(unarmored(iter([changed])), identities=[identity]))
        except BackupError:
            continue
        assert plain == content
        assert changed.replace(b"\r\n", b"\n").strip() == text.strip()
        survived += 1
    assert survived < 50
