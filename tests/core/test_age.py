"""age files as byte iterators: whole or refused, never more than was proven."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from backups_app.core.age import (
    FileKey,
    HeaderError,
    HmacError,
    Identity,
    NoMatchError,
    PayloadError,
    ScryptIdentity,
    ScryptRecipient,
    X25519Identity,
    decrypt,
    encoding,
    encrypt,
)
from backups_app.core.age.header import MAX_HEADER_BYTES, MAX_STANZAS, Stanza, header_bytes
from backups_app.core.age.stream import CHUNK_BYTES, seal, unseal
from backups_app.core.errors import BackupError, InputError, KeyMissingError, UnreachableError, VerificationError
from tests.support import run_python

ANNA = X25519Identity.generate()
BEN = X25519Identity.generate()
KEY = bytes(range(32))

AROUND_THE_EDGES = sorted(
    {
        *(0, 1, 15, 16, 17),
        *(chunks * CHUNK_BYTES + more for chunks in (1, 2, 3, 15, 16, 17, 32) for more in (-17, -16, -1, 0, 1, 16)),
    }
)


def noise(size_bytes: int) -> bytes:
    """Bytes without a pattern, the same in each run."""
    return random.Random(11).randbytes(size_bytes)


def cut(content: bytes, size_bytes: int) -> Iterator[bytes]:
    return (content[at : at + size_bytes] for at in range(0, len(content), size_bytes))


def encrypted(content: bytes, *identities: X25519Identity) -> bytes:
    recipients = [identity.recipient for identity in identities or (ANNA,)]
    return b"".join(encrypt([content], recipients=recipients))


def decrypted(stored: bytes, *identities: Identity) -> bytes:
    return b"".join(decrypt([stored], identities=identities or [ANNA]))


def released(pieces: Iterator[bytes]) -> tuple[bytes, Exception | None]:
    """What came out, and what ended it early."""
    done: list[bytes] = []
    try:
        done.extend(pieces)
    except Exception as exc:  # noqa: BLE001
        return b"".join(done), exc
    return b"".join(done), None


# Whole


@pytest.mark.parametrize("size_bytes", AROUND_THE_EDGES)
def test_content_of_any_size_comes_back_exactly(size_bytes: int):
    content = noise(size_bytes)
    stored = encrypted(content)
    chunks = max(1, -(-size_bytes // CHUNK_BYTES))
    assert len(stored) == len(encrypted(b"")) + size_bytes + 16 * (chunks - 1)
    assert decrypted(stored) == content


@pytest.mark.parametrize("out_bytes", [1, 1000, CHUNK_BYTES, CHUNK_BYTES + 16, 1 << 20])
@pytest.mark.parametrize("in_bytes", [1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, 1 << 20])
def test_the_sizes_of_pieces_make_no_difference(in_bytes: int, out_bytes: int):
    content = noise(2 * CHUNK_BYTES + 3)
    stored = b"".join(encrypt(cut(content, in_bytes), recipients=[ANNA.recipient]))
    assert b"".join(decrypt(cut(stored, out_bytes), identities=[ANNA])) == content


@given(pieces=st.lists(st.binary(max_size=200).map(lambda each: each * 500)), cuts=st.integers(1, 1 << 18))
@settings(max_examples=60, deadline=None)
def test_any_pieces_come_back(pieces: list[bytes], cuts: int):
    stored = b"".join(encrypt(pieces, recipients=[ANNA.recipient]))
    assert b"".join(decrypt(cut(stored, cuts), identities=[ANNA])) == b"".join(pieces)


def test_each_recipient_opens_the_file_and_nobody_else_does():
    stored = encrypted(b"content", ANNA, BEN)
    stranger = X25519Identity.generate()
    assert decrypted(stored, ANNA) == decrypted(stored, BEN) == decrypted(stored, stranger, BEN) == b"content"
    with pytest.raises(NoMatchError) as missing:
        decrypted(stored, stranger)
    assert isinstance(missing.value, KeyMissingError)
    with pytest.raises(NoMatchError):
        b"".join(decrypt([stored]))


def test_a_passphrase_opens_the_file_and_no_other_does():
    stored = b"".join(encrypt([b"content"], recipients=[ScryptRecipient("schön", work_factor=5)]))
    assert decrypted(stored, ANNA, ScryptIdentity("schön")) == b"content"
    for identity in (ScryptIdentity("schon"), ANNA):
        with pytest.raises(NoMatchError, match="passphrase"):
            decrypted(stored, identity)


def test_two_files_of_the_same_content_have_nothing_in_common_but_the_form():
    one, two = encrypted(b"x" * 1000), encrypted(b"x" * 1000)
    assert one.split(b"\n")[1:3] != two.split(b"\n")[1:3]
    assert one[-1000:] != two[-1000:]


def test_stanzas_that_we_do_not_know_are_passed_over():
    file_key = FileKey.generate()
    stanzas = [Stanza(("grease", "!~"), b""), ANNA.recipient.wrap(file_key), Stanza(("x",), noise(48))]
    nonce = bytes(16)
    stored = header_bytes(stanzas, file_key=file_key) + nonce
    stored += b"".join(seal(iter([b"content"]), key=file_key.payload_key(nonce)))
    assert decrypted(stored) == b"content"


@given(bodies=st.lists(st.binary(max_size=150), min_size=1, max_size=5))
def test_a_header_with_bodies_of_any_length_is_read_as_written(bodies: list[bytes]):
    file_key = FileKey.generate()
    stanzas = [Stanza((f"type-{at}", "a"), body) for at, body in enumerate(bodies)]
    nonce = bytes(16)
    stored = header_bytes(stanzas, file_key=file_key) + nonce
    stored += b"".join(seal(iter(()), key=file_key.payload_key(nonce)))
    assert b"".join(decrypt([stored], file_key=file_key)) == b""


# The file key


def test_the_file_key_proves_what_was_stored_without_an_identity():
    file_key = FileKey.generate()
    content = noise(3 * CHUNK_BYTES)
    stored = b"".join(encrypt([content], recipients=[ANNA.recipient], file_key=file_key))
    assert b"".join(decrypt([stored], file_key=file_key)) == content
    assert decrypted(stored) == content


def test_the_file_key_finds_a_header_that_another_key_would_not_open():
    file_key = FileKey.generate()
    stored = b"".join(encrypt([b"content"], recipients=[ANNA.recipient, BEN.recipient], file_key=file_key))
    lines = stored.split(b"\n")
    for swapped in ([0, 3, 4, 1, 2], [0, 3, 4, 3, 4], [0, 1, 2]):
        altered = b"\n".join([*(lines[at] for at in swapped), *lines[5:]])
        with pytest.raises(HmacError):
            b"".join(decrypt([altered], file_key=file_key))


def test_the_file_key_of_another_file_is_refused():
    with pytest.raises(HmacError):
        b"".join(decrypt([encrypted(b"content")], file_key=FileKey.generate()))


def test_a_file_key_writes_one_file_only():
    file_key = FileKey.generate()
    encrypt([b"one"], recipients=[ANNA.recipient], file_key=file_key)
    with pytest.raises(InputError):
        encrypt([b"two"], recipients=[ANNA.recipient], file_key=file_key)


def test_recipients_that_no_file_can_have_are_refused_at_once():
    passphrase = ScryptRecipient("word", work_factor=1)
    for recipients in ([], [passphrase, ANNA.recipient], [passphrase, passphrase], [ANNA.recipient] * 1025):
        with pytest.raises(InputError):
            encrypt(iter([b"never read"]), recipients=recipients)


# Writers that stop early


class SourceError(Exception):
    """The disk under the source broke."""


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 16 * CHUNK_BYTES, 33 * CHUNK_BYTES])
def test_a_writer_whose_source_fails_leaves_no_valid_file(size_bytes: int):
    content = noise(size_bytes)

    def failing() -> Iterator[bytes]:
        yield from cut(content, 1 << 20)
        raise SourceError

    stored: list[bytes] = []
    writer = encrypt(failing(), recipients=[ANNA.recipient])
    with pytest.raises(SourceError):
        stored.extend(writer)
    assert list(writer) == [], "reading on makes no end either"
    kept, error = released(decrypt(stored, identities=[ANNA]))
    assert isinstance(error, PayloadError)
    assert content.startswith(kept)


def test_a_writer_that_is_closed_leaves_no_valid_file():
    content = noise(40 * CHUNK_BYTES)
    writer = encrypt(cut(content, 1 << 20), recipients=[ANNA.recipient])
    stored = [next(writer), next(writer)]
    writer.close()  # type: ignore[attr-defined]
    assert list(writer) == []
    kept, error = released(decrypt(stored, identities=[ANNA]))
    assert isinstance(error, PayloadError)
    assert kept == content[: 16 * CHUNK_BYTES]


# Readers


def test_every_truncation_near_a_chunk_is_found_and_releases_whole_chunks_only():
    content = noise(3 * CHUNK_BYTES)
    stored = encrypted(content)
    payload = len(stored) - 3 * (CHUNK_BYTES + 16)
    for chunks in range(4):
        for more in (-17, -16, -1, 0, 1, 15, 16, 17):
            end = payload + chunks * (CHUNK_BYTES + 16) + more
            if end >= len(stored):
                continue
            kept, error = released(decrypt([stored[:end]], identities=[ANNA]))
            assert type(error) in (PayloadError, HeaderError), end
            assert kept == content[: max(0, end - payload) // (CHUNK_BYTES + 16) * CHUNK_BYTES]


@pytest.mark.parametrize("size_bytes", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
@pytest.mark.parametrize("more", [b"\0", b"\n", b"x" * 16, b"x" * (CHUNK_BYTES + 16)])
def test_anything_behind_the_end_is_found(size_bytes: int, more: bytes):
    stored = encrypted(noise(size_bytes))
    _, error = released(decrypt([stored + more], identities=[ANNA]))
    assert type(error) is PayloadError


def test_an_empty_last_chunk_is_legal_for_an_empty_payload_only():
    assert b"".join(unseal(seal(iter(()), key=KEY), key=KEY)) == b""
    whole = b"".join(seal(iter([noise(CHUNK_BYTES + 1)]), key=KEY))[: CHUNK_BYTES + 16]
    # What a writer makes that does not hold a full chunk back until it knows of the end.
    empty = ChaCha20Poly1305(KEY).encrypt((1).to_bytes(11, "big") + b"\x01", b"", None)
    kept, error = released(unseal(iter([whole, empty]), key=KEY))
    assert (kept, type(error)) == (noise(CHUNK_BYTES + 1)[:CHUNK_BYTES], PayloadError)


def test_a_damaged_chunk_is_never_released():
    content = noise(5 * CHUNK_BYTES)
    stored = bytearray(encrypted(content))
    stored[len(stored) - 2 * (CHUNK_BYTES + 16) - 1] ^= 1  # the tag of the third chunk
    kept, error = released(decrypt([bytes(stored)], identities=[ANNA]))
    assert type(error) is PayloadError
    assert "chunk 2 " in error.message
    assert kept == content[: 2 * CHUNK_BYTES]


def test_what_the_source_raises_passes_through():
    stored = encrypted(noise(100))

    def unreachable(at: int) -> Iterator[bytes]:
        yield stored[:at]
        raise UnreachableError("gone")

    for at in (0, 10, 150, 210, len(stored)):
        _, error = released(decrypt(unreachable(at), identities=[ANNA]))
        assert type(error) is UnreachableError


def test_a_passphrase_file_that_asks_for_too_much_work_is_refused_before_any():
    for digits in ("21", "63", "9" * 5000):
        stored = with_stanza(Stanza(("scrypt", "A" * 21 + "A", digits), bytes(32)))
        with pytest.raises(HeaderError, match="work factor"):
            decrypted(stored, ScryptIdentity("word"))
    with pytest.raises(HeaderError, match="limit of 4"):
        decrypted(
            b"".join(encrypt([b""], recipients=[ScryptRecipient("word", work_factor=5)])),
            ScryptIdentity("word", max_work_factor=4),
        )


def test_too_little_memory_for_a_passphrase_is_said_in_our_words():
    program = (
        "import resource\n"
        "from backups_app.core.age import FileKey, ScryptRecipient\n"
        "from backups_app.core.errors import BackupError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))\n"
        "try:\n"
        "    ScryptRecipient('word', work_factor=20).wrap(FileKey.generate())\n"
        "except BackupError as exc:\n"
        "    print(exc.message, exc.hint)\n"
    )
    printed = run_python(program).stdout
    assert printed == "There is too little memory for a passphrase of work factor 20. 1,024 MiB must be free.\n"


def with_stanza(*stanzas: Stanza) -> bytes:
    return header_bytes(list(stanzas), file_key=FileKey.generate()) + bytes(16)


@pytest.mark.parametrize("share", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_a_share_of_low_order_is_refused(share: bytes):
    stored = with_stanza(Stanza(("X25519", encoding.encode(share).decode()), bytes(32)))
    with pytest.raises(HeaderError):
        decrypted(stored)


def test_a_malformed_stanza_of_a_native_type_is_refused_whoever_reads():
    malformed = Stanza(("X25519", "AAAA"), bytes(32))
    file_key = FileKey.generate()
    nonce = bytes(16)
    stored = header_bytes([ANNA.recipient.wrap(file_key), malformed], file_key=file_key) + nonce
    stored += b"".join(seal(iter([b"content"]), key=file_key.payload_key(nonce)))
    for keys in ({"identities": [ANNA]}, {"file_key": file_key}):
        kept, error = released(decrypt([stored], **keys))
        assert (kept, type(error)) == (b"", HeaderError)


def test_a_body_wrapped_at_other_columns_is_refused():
    stored = with_stanza(Stanza(("x",), noise(96)))
    text = encoding.encode(noise(96))
    assert text[:64] + b"\n" + text[64:] + b"\n\n" in stored
    for columns in (1, 4, 63, 65, 128):
        lines = b"\n".join(text[at : at + columns] for at in range(0, len(text), columns))
        for end in (b"\n", b"\n\n"):
            changed = stored.replace(text[:64] + b"\n" + text[64:] + b"\n\n", lines + end)
            with pytest.raises(HeaderError):
                decrypted(changed)


def test_a_header_that_never_ends_is_given_up():
    taken_bytes = 0

    def endless(front: bytes, line: bytes) -> Iterator[bytes]:
        nonlocal taken_bytes
        yield front
        while True:
            taken_bytes += len(line)
            yield line

    front = b"age-encryption.org/v1\n-> x\n"
    for line in (b"A" * 64 + b"\n", b"A" * 64, b"-> x" * 100):
        taken_bytes = 0
        with pytest.raises(HeaderError, match="larger than"):
            b"".join(decrypt(endless(front, line), identities=[ANNA]))
        assert taken_bytes < 2 * MAX_HEADER_BYTES


def test_the_number_of_recipients_is_bounded():
    unknown = Stanza(("x",), b"")
    with pytest.raises(NoMatchError):
        decrypted(with_stanza(*[unknown] * MAX_STANZAS))
    with pytest.raises(HeaderError, match="more than 1,024"):
        decrypted(with_stanza(*[unknown] * (MAX_STANZAS + 1)))


@pytest.mark.parametrize("stored", [b"", b"\n", b"SQLite format 3\0", b"\x28\xb5\x2f\xfd", b"age-encryption.org/v1"])
def test_what_is_no_age_file_is_said_to_be_none(stored: bytes):
    with pytest.raises(HeaderError, match="not an age file"):
        decrypted(stored)


def test_another_version_is_named_as_such():
    with pytest.raises(HeaderError, match="version is not v1"):
        decrypted(encrypted(b"").replace(b"/v1\n", b"/v2\n"))


def test_errors_are_those_that_callers_know():
    for kind in (HeaderError, HmacError, PayloadError):
        assert issubclass(kind, VerificationError)
        assert kind.code == "verification_failed"
    assert NoMatchError.code == "key_missing"
    assert issubclass(NoMatchError, BackupError)
    assert not issubclass(NoMatchError, VerificationError)


# Memory


def test_memory_stays_constant_over_a_large_stream():
    piece = noise(1 << 20)
    tracemalloc.start()
    try:
        stored = encrypt((piece for _ in range(200)), recipients=[ANNA.recipient])
        size_bytes = sum(len(each) for each in decrypt(stored, identities=[ANNA]))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size_bytes == 200 << 20
    assert peak_bytes < 12 << 20
