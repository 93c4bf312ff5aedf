"""Signatures that stock ``openssl`` checks, and keys that no two processes make twice."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from backups_app.core.errors import BackupError, InputError, NotFoundError
from backups_app.core.signature import (
    SIGNATURE_BYTES,
    PublicKey,
    SigningKey,
    open_signing_key,
    read_public_key,
    trust_key,
    trusted_keys,
)
from tests.support import PROJECT, names_in, needs_tool

CONTENT = b'{"type":"django-walsafe/backup"}'


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def key(state: Path) -> SigningKey:
    return open_signing_key(state).key


def test_a_signature_is_64_raw_bytes_over_the_exact_content(key: SigningKey):
    signature = key.sign(CONTENT)
    assert len(signature) == SIGNATURE_BYTES == 64
    assert key.public.has_signed(CONTENT, signature)
    assert not key.public.has_signed(CONTENT + b" ", signature)
    assert not key.public.has_signed(CONTENT, signature + b"\0")
    assert not key.public.has_signed(CONTENT, signature[:-1])
    assert not key.public.has_signed(CONTENT, b"")
    for position in range(64):
        flipped = bytearray(signature)
        flipped[position] ^= 1
        assert not key.public.has_signed(CONTENT, bytes(flipped))


def openssl(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [needs_tool("openssl"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def test_openssl_checks_a_signature_as_documented(key: SigningKey, state: Path, tmp_path: Path):
    manifest, signature = tmp_path / "X.manifest.json", tmp_path / "X.manifest.sig"
    manifest.write_bytes(CONTENT)
    signature.write_bytes(key.sign(CONTENT))
    page = (PROJECT / "docs" / "manifests.md").read_text().replace("\\\n   ", "")
    found = re.search(r"openssl (pkeyutl -verify .* -in )(\S+)( -sigfile )(\S+)\n", page)
    assert found is not None
    command = f"{found[1]}{manifest.name}{found[3]}{signature.name}"
    names = {"signing.pub": state / "signing.pub", manifest.name: manifest, signature.name: signature}
    arguments = [names.get(each, each) for each in command.split()]
    good = openssl(*arguments)
    assert (good.returncode, good.stdout) == (0, "Signature Verified Successfully\n"), good.stderr
    manifest.write_bytes(CONTENT + b"\n")
    assert openssl(*arguments).returncode != 0


def test_openssl_signs_what_we_check(key: SigningKey, state: Path, tmp_path: Path):
    (tmp_path / "content").write_bytes(CONTENT)
    done = openssl(
        *["pkeyutl", "-sign", "-inkey", state / "signing.key", "-rawin"],
        *["-in", tmp_path / "content", "-out", tmp_path / "signature"],
    )
    assert done.returncode == 0, done.stderr
    assert key.public.has_signed(CONTENT, (tmp_path / "signature").read_bytes())


def test_the_id_of_a_key_is_the_documented_digest(key: SigningKey, state: Path):
    der = subprocess.run(
        [needs_tool("openssl"), "pkey", "-pubin", "-in", str(state / "signing.pub"), "-outform", "DER"],
        capture_output=True,
        check=True,
    ).stdout
    assert der == key.public.der
    assert subprocess.run(["sha256sum"], input=der, capture_output=True, check=True).stdout.split()[0].decode() == (
        key.public.key_id
    )


def test_the_key_is_made_once_and_private(state: Path):
    first, second = open_signing_key(state), open_signing_key(state)
    assert (first.is_new, first.is_replacement, second.is_new) == (True, False, False)
    assert first.key.public == second.key.public
    assert names_in(state) == {"signing.key", "signing.pub", "signing-keys", "signing.lock"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in state.rglob("*") if path.is_file()} == {0o600}
    assert names_in(state / "signing-keys") == {f"{first.key.public.key_id}.pub"}


def test_processes_that_start_together_get_one_key(state: Path):
    program = (
        "import sys; from pathlib import Path; from backups_app.core.signature import open_signing_key\n"
        "opened = open_signing_key(Path(sys.argv[1])); print(opened.key.public.key_id, opened.is_new)"
    )
    command = [sys.executable, "-c", program, str(state)]
    processes = [subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    found = [each.communicate(timeout=60)[0].split() for each in processes]
    assert len({key_id for key_id, _ in found}) == 1
    assert [is_new for _, is_new in found].count("True") == 1


def test_a_lost_key_is_replaced_and_the_old_public_key_is_kept(key: SigningKey, state: Path):
    (state / "signing.key").unlink()
    again = open_signing_key(state)
    assert (again.is_new, again.is_replacement) == (True, True)
    assert set(trusted_keys(state)) == {key.public.key_id, again.key.public.key_id}
    assert read_public_key(state / "signing.pub") == again.key.public


@pytest.mark.parametrize("content", [b"", b"no key", b"x" * 100_000])
def test_a_damaged_key_is_an_error_and_is_not_replaced(key: SigningKey, state: Path, content: bytes):
    (state / "signing.key").write_bytes(content)
    with pytest.raises(BackupError):
        open_signing_key(state)
    assert (state / "signing.key").read_bytes() == content


def test_what_a_dead_process_left_half_made_is_completed(key: SigningKey, state: Path):
    (state / "signing.key.draft").write_bytes(b"half")
    (state / "signing.pub").unlink()
    (state / "signing-keys" / f"{key.public.key_id}.pub").write_bytes(b"half")
    assert open_signing_key(state).key.public == key.public
    assert read_public_key(state / "signing.pub") == key.public
    assert set(trusted_keys(state)) == {key.public.key_id}


def test_a_public_key_survives_its_spellings(key: SigningKey):
    assert PublicKey.from_pem(key.public.pem) == PublicKey.from_text(key.public.text) == key.public
    assert key.public.text.encode() in key.public.pem


@pytest.mark.parametrize("text", ["", "AAAA", "not base64", "MCowBQYDK2VwAyEA"])
def test_what_is_no_public_key_is_refused(text: str):
    with pytest.raises(InputError):
        PublicKey.from_text(text)
    with pytest.raises(InputError):
        PublicKey.from_pem(text.encode())


def test_a_key_of_another_machine_can_be_trusted(key: SigningKey, state: Path):
    other = SigningKey(Ed25519PrivateKey.generate()).public
    assert trust_key(state, other)
    assert not trust_key(state, other)
    assert set(trusted_keys(state)) == {key.public.key_id, other.key_id}


def test_a_trusted_key_that_cannot_be_read_is_named_and_left_out(
    key: SigningKey, state: Path, caplog: pytest.LogCaptureFixture
):
    (state / "signing-keys" / "odd.pub").write_text("no key")
    assert set(trusted_keys(state)) == {key.public.key_id}
    assert "odd.pub" in caplog.text


def test_nothing_is_trusted_where_there_is_no_key(state: Path):
    assert trusted_keys(state) == {}
    assert not state.exists()
    with pytest.raises(NotFoundError):
        read_public_key(state / "signing.pub")
