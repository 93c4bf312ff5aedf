"""5,000 random changes to age files: none is accepted, none releases a byte that was not proven."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

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
    encrypt,
)

CHUNK = 64 << 10
SEALED = CHUNK + 16
CHANGES = 5000


@dataclass(frozen=True)
class Case:
    """A good file, and what opens it."""

    content: bytes
    stored: bytes
    header_bytes: int
    identity: Identity
    file_key: FileKey


def make_cases(chance: random.Random) -> list[Case]:
    anna, ben, carl = (X25519Identity.generate() for _ in range(3))
    passphrase = ScryptRecipient("word", work_factor=1)
    cases = []
    for size_bytes in (0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 1000, 17 * CHUNK):
        for recipients, identity in (
            ([anna.recipient], anna),
            ([anna.recipient, ben.recipient, carl.recipient], ben),
            ([passphrase], ScryptIdentity("word")),
        ):
            content, file_key = chance.randbytes(size_bytes), FileKey.generate()
            front, *rest = encrypt([content], recipients=recipients, file_key=file_key)
            cases.append(Case(content, b"".join([front, *rest]), len(front) - 16, identity, file_key))
    return cases


Change = Callable[[random.Random, bytes, Case], bytes]


def flip_a_bit(chance: random.Random, stored: bytes, case: Case) -> bytes:
    at = chance.randrange(len(stored))
    return stored[:at] + bytes([stored[at] ^ 1 << chance.randrange(8)]) + stored[at + 1 :]


def flip_a_bit_of_the_header(chance: random.Random, stored: bytes, case: Case) -> bytes:
    at = chance.randrange(case.header_bytes + 16)
    return stored[:at] + bytes([stored[at] ^ 1 << chance.randrange(8)]) + stored[at + 1 :]


def truncate(chance: random.Random, stored: bytes, case: Case) -> bytes:
    return stored[: chance.randrange(len(stored))]


def truncate_at_a_chunk(chance: random.Random, stored: bytes, case: Case) -> bytes:
    first = case.header_bytes + 16
    return stored[: first + chance.randrange(len(stored) // SEALED + 1) * SEALED]


def insert(chance: random.Random, stored: bytes, case: Case) -> bytes:
    at = chance.randrange(len(stored) + 1)
    return stored[:at] + chance.randbytes(chance.choice([1, 2, 16, 17, SEALED])) + stored[at:]


def insert_into_the_header(chance: random.Random, stored: bytes, case: Case) -> bytes:
    at = chance.randrange(case.header_bytes + 1)
    more = chance.choice([b"\n", b"\r", b" ", b"=", b"A", b"->", b"-> x\n\n", b"--- ", b"\0", chance.randbytes(1)])
    return stored[:at] + more + stored[at:]


def delete(chance: random.Random, stored: bytes, case: Case) -> bytes:
    at = chance.randrange(len(stored))
    return stored[:at] + stored[at + chance.choice([1, 2, 16, 17, SEALED]) :]


def append(chance: random.Random, stored: bytes, case: Case) -> bytes:
    return stored + chance.choice([b"\0", b"\n", chance.randbytes(16), chance.randbytes(SEALED), stored])


def _chunks(stored: bytes, case: Case) -> tuple[bytes, list[bytes]]:
    first = case.header_bytes + 16
    return stored[:first], [stored[at : at + SEALED] for at in range(first, len(stored), SEALED)]


def swap_chunks(chance: random.Random, stored: bytes, case: Case) -> bytes:
    front, chunks = _chunks(stored, case)
    chance.shuffle(chunks)
    return front + b"".join(chunks)


def drop_a_chunk(chance: random.Random, stored: bytes, case: Case) -> bytes:
    front, chunks = _chunks(stored, case)
    del chunks[chance.randrange(len(chunks))]
    return front + b"".join(chunks)


def repeat_a_chunk(chance: random.Random, stored: bytes, case: Case) -> bytes:
    front, chunks = _chunks(stored, case)
    chunks.insert(chance.randrange(len(chunks) + 1), chance.choice(chunks))
    return front + b"".join(chunks)


def edit_a_line_of_the_header(chance: random.Random, stored: bytes, case: Case) -> bytes:
    header, payload = stored[: case.header_bytes], stored[case.header_bytes :]
    lines = header.split(b"\n")[:-1]
    at, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    line = lines[at]
    match chance.randrange(8):
        case 0:
            lines[at], lines[other] = lines[other], line
        case 1:
            lines.insert(other, line)
        case 2:
            del lines[at]
        case 3:
            lines[at] = chance.choice([line.upper(), line.lower(), line.swapcase()])
        case 4:
            lines[at] = line + chance.choice([b" ", b"\r", b"=", b"==", b"A", b"\t"])
        case 5:
            lines[at] = line.replace(b" ", chance.choice([b"  ", b"\t", b""]))
        case 6:
            lines[at] = line[:-1] + bytes([line[-1] ^ 1])  # the bits that a lax base64 decoder drops
        case 7:
            cut = chance.randrange(len(line) + 1)
            lines[at : at + 1] = [line[:cut], line[cut:]]
    return b"\n".join([*lines, payload]) if lines else payload


CHANGES_BY_KIND: list[Change] = [
    flip_a_bit,
    flip_a_bit_of_the_header,
    truncate,
    truncate_at_a_chunk,
    insert,
    insert_into_the_header,
    delete,
    append,
    swap_chunks,
    drop_a_chunk,
    repeat_a_chunk,
    edit_a_line_of_the_header,
    edit_a_line_of_the_header,
]


def judge(case: Case, changed: bytes, *, with_file_key: bool) -> type[BaseException] | None:
    """The error that a changed file ends in, after a look at what it released."""
    keys = {"file_key": case.file_key} if with_file_key else {"identities": [case.identity]}
    done: list[bytes] = []
    kind: type[BaseException] | None = None
    try:
        done.extend(decrypt([changed], **keys))
    except (HeaderError, HmacError, PayloadError, NoMatchError) as exc:
        kind = type(exc)
    assert case.content.startswith(b"".join(done)), "more than a true beginning was released"
    return kind


def test_5000_changes_are_all_refused():
    chance = random.Random(20260304)
    cases = make_cases(chance)
    seen: Counter[tuple[str, bool]] = Counter()
    done = 0
    while done < CHANGES:
        case = chance.choice(cases)
        change = chance.choice(CHANGES_BY_KIND)
        changed = change(chance, case.stored, case)
        if changed == case.stored:
            continue
        with_file_key = chance.random() < 0.3
        kind = judge(case, changed, with_file_key=with_file_key)
        assert kind is not None, f"{change.__name__} of {len(case.content)} bytes was accepted"
        seen[kind.__name__, with_file_key] += 1
        done += 1
    assert {name for name, _ in seen} == {"HeaderError", "HmacError", "PayloadError", "NoMatchError"}
    assert seen["NoMatchError", True] == 0, "the file key needs no match"


@pytest.mark.parametrize("other_header", [True, False])
def test_parts_of_two_files_for_the_same_people_do_not_join(other_header: bool):
    anna = X25519Identity.generate()
    one, two = (list(encrypt([letter * 3 * CHUNK], recipients=[anna.recipient])) for letter in (b"1", b"2"))
    first, second = b"".join(one), b"".join(two)
    at = len(one[0]) if other_header else len(one[0]) + SEALED
    done: list[bytes] = []
    with pytest.raises(PayloadError):
        done.extend(decrypt([first[:at] + second[at:]], identities=[anna]))
    assert (b"1" * 3 * CHUNK).startswith(b"".join(done))
