"""The public test vectors: each file ends exactly as they say, and releases exactly what they allow."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import pytest

from backups_app.core.age import (
    ArmorError,
    FileKey,
    HeaderError,
    HmacError,
    Identity,
    NoMatchError,
    PayloadError,
    ScryptIdentity,
    X25519Identity,
    armor,
    decrypt,
    unarmored,
)
from backups_app.core.age.header import header_bytes, read_header
from backups_app.core.age.source import ByteSource
from backups_app.core.age.stream import seal, unseal
from backups_app.core.errors import BackupError
from tests.age_vectors import BESIDE, PACKAGE, Vector, in_folder, in_package, needs_vectors, vectors

OUTCOMES: dict[str, type[BackupError] | None] = {
    "success": None,
    "no match": NoMatchError,
    "HMAC failure": HmacError,
    "header failure": HeaderError,
    "payload failure": PayloadError,
    "armor failure": ArmorError,
}

IN_SCOPE = {
    "success": 21,
    "no match": 8,
    "HMAC failure": 1,
    "header failure": 53,
    "payload failure": 19,
    "armor failure": 22,
}
"""How many vectors end in which way: a set that is empty or cut short must not pass for a green one."""

NOTHING_SHA256 = hashlib.sha256().hexdigest()


def each_vector(*expect: str, under_bytes: int = 1 << 40) -> pytest.MarkDecorator:
    """Run a test on each vector in scope, or on those that end in one of these ways."""
    chosen = [
        vector
        for vector in vectors().values()
        if (not expect or vector.expect in expect) and len(vector.stored) < under_bytes
    ]
    return pytest.mark.parametrize("vector", chosen, ids=lambda vector: vector.name)


def identities_of(vector: Vector) -> list[Identity]:
    return [
        *(X25519Identity.parse(text) for text in vector.identities),
        *(ScryptIdentity(text) for text in vector.passphrases),
    ]


def pieces_of(content: bytes, *, size_bytes: int) -> Iterator[bytes]:
    return (content[at : at + size_bytes] for at in range(0, len(content), size_bytes))


def outcome(plain: Iterator[bytes]) -> tuple[type[BaseException] | None, str]:
    """The exact class of the error, if any, and the digest of everything released before."""
    released = hashlib.sha256()
    try:
        for piece in plain:
            released.update(piece)
    except BackupError as exc:
        return type(exc), released.hexdigest()
    return None, released.hexdigest()


def binary_of(vector: Vector) -> Iterator[bytes]:
    pieces = pieces_of(vector.stored, size_bytes=1 << 20)
    return armor.decode(pieces) if vector.is_armored else pieces


def test_every_vector_in_scope_is_there():
    found = needs_vectors().values()
    assert Counter(vector.expect for vector in found) == IN_SCOPE
    assert len(found) == 124


def test_the_package_holds_the_same_vectors_as_the_folder():
    if not (BESIDE.is_dir() and PACKAGE.is_file()):
        pytest.skip("only one of the two sources is on this machine")
    assert in_package(PACKAGE) == in_folder(BESIDE)


@pytest.mark.parametrize("size_bytes", [1 << 20, 4099], ids=["large", "odd"])
@each_vector()
def test_a_vector_ends_as_it_must_and_releases_what_it_may(vector: Vector, size_bytes: int):
    pieces = pieces_of(vector.stored, size_bytes=size_bytes)
    pieces = armor.decode(pieces) if vector.is_armored else pieces
    kind, released = outcome(decrypt(pieces, identities=identities_of(vector)))
    assert kind is OUTCOMES[vector.expect]
    assert released == (vector.payload_sha256 or NOTHING_SHA256)


@each_vector()
def test_armor_is_recognised_without_being_told(vector: Vector):
    pieces = unarmored(pieces_of(vector.stored, size_bytes=1000))
    kind, released = outcome(decrypt(pieces, identities=identities_of(vector)))
    assert (kind is None) == (vector.expect == "success")
    assert released == (vector.payload_sha256 or NOTHING_SHA256)


@each_vector(under_bytes=200_000)
def test_single_bytes_make_no_difference(vector: Vector):
    pieces = unarmored(pieces_of(vector.stored, size_bytes=1))
    kind, released = outcome(decrypt(pieces, identities=identities_of(vector)))
    assert (kind is None) == (vector.expect == "success")
    assert released == (vector.payload_sha256 or NOTHING_SHA256)


@each_vector("success", "payload failure", "HMAC failure")
def test_the_file_key_opens_what_an_identity_opens(vector: Vector):
    kind, released = outcome(decrypt(binary_of(vector), file_key=FileKey(vector.file_key)))
    assert kind is OUTCOMES[vector.expect]
    assert released == (vector.payload_sha256 or NOTHING_SHA256)


@each_vector("success")
def test_we_would_write_a_proper_file_with_the_same_bytes(vector: Vector):
    stored = b"".join(binary_of(vector))
    source = ByteSource(iter([stored]))
    header = read_header(source)
    file_key = FileKey(vector.file_key)
    nonce = source.take(16)
    key = file_key.payload_key(nonce)
    again = header_bytes(list(header.stanzas), file_key=file_key) + nonce
    again += b"".join(seal(unseal(source.rest(), key=key), key=key))
    assert again == stored
    if vector.is_armored:
        text = b"".join(armor.encode(pieces_of(stored, size_bytes=100)))
        assert text.strip() == vector.stored.replace(b"\r\n", b"\n").strip()
