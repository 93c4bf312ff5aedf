"""What we write, others read; what others write, we read: the ``age`` program and ``pyrage``."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyrage
import pytest

from backups_app.core.age import (
    PayloadError,
    ScryptIdentity,
    ScryptRecipient,
    X25519Identity,
    X25519Recipient,
    armor,
    decrypt,
    encrypt,
    identity_file,
    parse_identities,
    unarmored,
)
from backups_app.core.age.stream import CHUNK_BYTES
from backups_app.core.errors import VerificationError
from tests.support import NOW, needs_tool

MEBIBYTE = 1 << 20

SIZES = sorted(
    {
        *(0, 1, 16, 17),
        *(edge + more for edge in (CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES, MEBIBYTE) for more in (-1, 0, 1)),
        *(2 * MEBIBYTE, 2 * MEBIBYTE + 12_345),
    }
)

PASSPHRASE = "correct horse – schön"


def noise(size_bytes: int) -> bytes:
    return random.Random(size_bytes).randbytes(size_bytes)


def cut(content: bytes) -> Iterator[bytes]:
    return (content[at : at + 100_000] for at in range(0, len(content), 100_000))


def ours(content: bytes, *recipients: X25519Recipient | ScryptRecipient) -> bytes:
    return b"".join(encrypt(cut(content), recipients=recipients))


def opened(stored: bytes, *identities: X25519Identity | ScryptIdentity) -> bytes:
    return b"".join(decrypt(cut(stored), identities=identities))


# The age program


class AgeProgram:
    """The stock program, with an identity file of ours."""

    def __init__(self, folder: Path, identity: X25519Identity) -> None:
        self.path = needs_tool("age")
        self.identity_path = folder / "identity.txt"
        self.identity_path.write_bytes(identity_file(identity, now=NOW))

    def run(self, *arguments: object, given: bytes) -> bytes:
        return subprocess.run(
            [self.path, *map(str, arguments)], input=given, capture_output=True, check=True, timeout=60
        ).stdout

    def decrypt(self, stored: bytes) -> bytes:
        return self.run("-d", "-i", self.identity_path, given=stored)

    def encrypt(self, content: bytes, *recipients: X25519Recipient, options: tuple[str, ...] = ()) -> bytes:
        return self.run(*options, *(f"-r={recipient}" for recipient in recipients), given=content)


@pytest.fixture
def identity() -> X25519Identity:
    return X25519Identity.generate()


@pytest.fixture
def age(tmp_path: Path, identity: X25519Identity) -> AgeProgram:
    return AgeProgram(tmp_path, identity)


@pytest.mark.parametrize("size_bytes", SIZES)
def test_the_age_program_reads_what_we_write(age: AgeProgram, identity: X25519Identity, size_bytes: int):
    content = noise(size_bytes)
    assert age.decrypt(ours(content, identity.recipient)) == content


@pytest.mark.parametrize("size_bytes", SIZES)
def test_we_read_what_the_age_program_writes(age: AgeProgram, identity: X25519Identity, size_bytes: int):
    content = noise(size_bytes)
    stored = age.encrypt(content, identity.recipient)
    assert opened(stored, identity) == content
    assert len(stored) == len(ours(content, identity.recipient))


def test_the_age_program_reads_a_file_for_several_recipients(age: AgeProgram, identity: X25519Identity):
    others = [X25519Identity.generate().recipient for _ in range(20)]
    assert age.decrypt(ours(b"content", *others, identity.recipient)) == b"content"
    assert opened(age.encrypt(b"content", *others, identity.recipient), identity) == b"content"


def test_armor_goes_both_ways(age: AgeProgram, identity: X25519Identity):
    for size_bytes in (0, 1, 47, 48, 49, 1000, CHUNK_BYTES + 1):
        content = noise(size_bytes)
        text = age.encrypt(content, identity.recipient, options=("-a",))
        assert opened(b"".join(unarmored(cut(text))), identity) == content
        assert b"".join(armor.encode(armor.decode(cut(text)))) == text
        assert age.decrypt(b"".join(armor.encode(iter([ours(content, identity.recipient)])))) == content


def test_the_age_program_refuses_what_an_aborted_writer_leaves(age: AgeProgram, identity: X25519Identity):
    def failing() -> Iterator[bytes]:
        yield noise(20 * CHUNK_BYTES)
        raise OSError("gone")

    stored: list[bytes] = []
    with pytest.raises(OSError, match="gone"):
        stored.extend(encrypt(failing(), recipients=[identity.recipient]))
    with pytest.raises(subprocess.CalledProcessError):
        age.decrypt(b"".join(stored))
    with pytest.raises(PayloadError):
        opened(b"".join(stored), identity)


def test_identities_of_the_key_generator_are_read(tmp_path: Path):
    keygen = needs_tool("age-keygen")
    path = tmp_path / "keys.txt"
    subprocess.run([keygen, "-o", path], check=True, capture_output=True)
    public = subprocess.run([keygen, "-y", path], check=True, capture_output=True, text=True).stdout.strip()
    assert [str(each.recipient) for each in parse_identities(path.read_bytes(), name="keys.txt")] == [public]


def test_the_key_generator_knows_the_recipient_of_our_identity(age: AgeProgram, identity: X25519Identity):
    keygen = needs_tool("age-keygen")
    found = subprocess.run([keygen, "-y", age.identity_path], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == str(identity.recipient)


# The program reads passphrases from its terminal only, so it gets one.
_AT_A_TERMINAL = """
import os, pty, sys
passphrase, command = sys.argv[1], sys.argv[2:]
child, terminal = pty.fork()
if not child:
    os.execv(command[0], command)
seen = b""
answered = 0
while True:
    try:
        more = os.read(terminal, 1000)
    except OSError:
        break
    if not more:
        break
    seen += more
    while seen.count(b"passphrase") > answered and seen.rstrip().endswith(b":"):
        os.write(terminal, passphrase.encode() + b"\\n")
        answered = seen.count(b"passphrase")
sys.stderr.write(seen.decode("utf-8", "replace"))
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def at_a_terminal(*command: object) -> None:
    subprocess.run([sys.executable, "-c", _AT_A_TERMINAL, PASSPHRASE, *map(str, command)], check=True, timeout=120)


@pytest.mark.parametrize("is_armored", [False, True])
def test_passphrases_go_both_ways(tmp_path: Path, is_armored: bool):
    age = needs_tool("age")
    content = noise(CHUNK_BYTES + 5)
    (tmp_path / "plain").write_bytes(content)
    at_a_terminal(age, "-p", *(["-a"] if is_armored else []), "-o", tmp_path / "theirs", tmp_path / "plain")
    theirs = b"".join(unarmored(cut((tmp_path / "theirs").read_bytes())))
    assert opened(theirs, ScryptIdentity(PASSPHRASE)) == content
    stored = ours(content, ScryptRecipient(PASSPHRASE, work_factor=12))
    (tmp_path / "ours").write_bytes(b"".join(armor.encode(iter([stored]))) if is_armored else stored)
    at_a_terminal(age, "-d", "-o", tmp_path / "out", tmp_path / "ours")
    assert (tmp_path / "out").read_bytes() == content


# pyrage


@pytest.mark.parametrize("size_bytes", SIZES)
def test_pyrage_reads_what_we_write(size_bytes: int):
    theirs = pyrage.x25519.Identity.generate()
    content = noise(size_bytes)
    assert pyrage.decrypt(ours(content, X25519Recipient.parse(str(theirs.to_public()))), [theirs]) == content


@pytest.mark.parametrize("size_bytes", SIZES)
def test_we_read_what_pyrage_writes(size_bytes: int, identity: X25519Identity):
    content = noise(size_bytes)
    stored = pyrage.encrypt(content, [pyrage.x25519.Recipient.from_str(str(identity.recipient))])
    assert opened(stored, identity) == content


def test_several_recipients_go_both_ways_with_pyrage(identity: X25519Identity):
    keys = [X25519Identity.generate(), identity, X25519Identity.generate()]
    theirs = [pyrage.x25519.Identity.from_str(each.secret_text()) for each in keys]
    stored = ours(b"content", *(each.recipient for each in keys))
    assert [pyrage.decrypt(stored, [each]) for each in theirs] == [b"content"] * 3
    stored = pyrage.encrypt(b"content", [each.to_public() for each in theirs])
    assert [opened(stored, each) for each in keys] == [b"content"] * 3


def test_keys_are_spelled_as_pyrage_spells_them():
    for _ in range(20):
        identity = X25519Identity.generate()
        theirs = pyrage.x25519.Identity.from_str(identity.secret_text())
        assert (str(theirs), str(theirs.to_public())) == (identity.secret_text(), str(identity.recipient))


def test_passphrases_go_both_ways_with_pyrage():
    content = noise(CHUNK_BYTES + 5)
    stored = ours(content, ScryptRecipient(PASSPHRASE, work_factor=12))
    assert pyrage.passphrase.decrypt(stored, PASSPHRASE) == content
    # It picks the work factor that takes a second on this machine.
    theirs = pyrage.passphrase.encrypt(content, PASSPHRASE)
    assert opened(theirs, ScryptIdentity(PASSPHRASE, max_work_factor=22)) == content


def test_pyrage_and_we_refuse_the_same_damage(identity: X25519Identity):
    theirs = pyrage.x25519.Identity.from_str(identity.secret_text())
    content = noise(2 * CHUNK_BYTES)
    stored = ours(content, identity.recipient)
    damage: list[Callable[[bytes], bytes]] = [
        lambda good: good[:-1],
        lambda good: good + b"x",
        lambda good: good[: -CHUNK_BYTES - 16],
        lambda good: good.replace(b"--- ", b"---  ", 1),
        lambda good: good[:-40] + bytes([good[-40] ^ 1]) + good[-39:],
    ]
    for damaged in (each(stored) for each in damage):
        with pytest.raises(pyrage.DecryptError):
            pyrage.decrypt(damaged, [theirs])
        with pytest.raises(VerificationError, match=r"age file|encrypted content"):
            opened(damaged, identity)
