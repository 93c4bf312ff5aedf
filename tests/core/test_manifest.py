"""A manifest is byte for byte what we would write, or it is not trusted."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backups_app.core import manifest as manifests
from backups_app.core.census import Census
from backups_app.core.errors import VerificationError
from backups_app.core.manifest import Delta, Manifest, canonical, digest, links_digest, utc_text
from backups_app.core.signature import PublicKey

KEY = PublicKey(bytes.fromhex("302a300506032b6570032100") + bytes(range(32)))

MANIFEST = Manifest(
    id="0123456789ab",
    database="shöp",
    identity="5e6f",
    created_at=datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC),
    taken_at=datetime(2026, 3, 4, 5, 6, 6, tzinfo=UTC),
    trigger="manual",
    archive_name="shop.sqlite3.zst",
    archive_bytes=1000,
    archive_sha256="a" * 64,
    size_bytes=8192,
    sha256="b" * 64,
    content_sha256="c" * 64,
    census=Census(
        tables={"sale": 4, "product": 3, "☕": 0},
        uncounted=("words",),
        schema_sha256="d" * 64,
        page_size=4096,
        page_count=2,
        encoding="UTF-8",
        user_version=1,
        application_id=-2,
        auto_vacuum=0,
        migrations=(("shop", "0001_initial"),),
        superusers=1,
    ),
    journal_mode="wal",
    method="backup api",
    required_tables=("sale",),
    failure="",
    sequence=7,
    previous="e" * 64,
    pruned=((2, 2), (4, 5)),
    public_key=KEY.text,
    software={"sqlite": "3.40.1"},
)
CONTENT = MANIFEST.to_bytes()


def with_field(path: str, value: Any) -> bytes:
    """The manifest with one field replaced, in canonical form."""
    document = json.loads(CONTENT)
    *folders, last = path.split(".")
    place = document
    for each in folders:
        place = place[each]
    place[last] = value
    return canonical(document)


def without_field(path: str) -> bytes:
    document = json.loads(CONTENT)
    *folders, last = path.split(".")
    place = document
    for each in folders:
        place = place[each]
    del place[last]
    return canonical(document)


def paths_in(document: Any, prefix: str = "") -> list[str]:
    found = []
    for key, value in document.items():
        found.append(prefix + key)
        if isinstance(value, dict) and key not in {"tables", "software"}:
            found += paths_in(value, f"{prefix}{key}.")
    return found


EVERY_FIELD = paths_in(json.loads(CONTENT))


def test_a_manifest_survives_its_file():
    assert Manifest.from_bytes(CONTENT) == MANIFEST


def test_a_manifest_without_optional_facts_survives_its_file():
    sparse = replace(
        MANIFEST,
        previous=None,
        required_tables=(),
        software={},
        encryption=None,
        census=replace(MANIFEST.census, superusers=None, migrations=(), uncounted=(), tables={}),
    )
    assert Manifest.from_bytes(sparse.to_bytes()) == sparse


UNSIGNED = replace(MANIFEST, sequence=None, public_key="", pruned=(), failure="")


def test_a_manifest_from_before_signatures_is_still_read():
    content = UNSIGNED.to_bytes()
    document = json.loads(content)
    assert document["format"] == 1
    assert not {"sequence", "pruned", "key_id", "public_key", "failure"} & set(document)
    found = Manifest.from_bytes(content)
    assert found == UNSIGNED
    assert (found.is_signed, MANIFEST.is_signed) == (False, True)


@pytest.mark.parametrize("field", ["sequence", "pruned", "key_id", "public_key", "failure"])
def test_a_manifest_of_the_old_format_with_a_new_field_is_not_trusted(field: str):
    document = json.loads(UNSIGNED.to_bytes())
    document[field] = json.loads(CONTENT)[field]
    with pytest.raises(VerificationError):
        Manifest.from_bytes(canonical(document))


def test_the_key_that_signs_is_named_by_its_digest():
    assert MANIFEST.key == KEY
    assert json.loads(CONTENT)["key_id"] == hashlib.sha256(KEY.der).hexdigest()


def test_the_file_is_canonical_json_with_a_type():
    document = json.loads(CONTENT)
    assert document["type"] == "django-walsafe/backup"
    assert document["format"] == 2
    assert json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == CONTENT


def test_times_are_utc_with_microseconds():
    moment = datetime(2026, 3, 4, 7, 6, 7, tzinfo=timezone(timedelta(hours=2)))
    assert utc_text(moment) == "2026-03-04T05:06:07.000000Z"
    assert json.loads(CONTENT)["created_at"] == "2026-03-04T05:06:07.000089Z"


def test_the_digest_is_that_of_the_exact_bytes():
    assert digest(CONTENT) == hashlib.sha256(CONTENT).hexdigest()


def test_names_that_are_not_utf8_survive_the_file():
    odd = replace(MANIFEST, census=replace(MANIFEST.census, tables={"\udcff": 1}))
    assert Manifest.from_bytes(odd.to_bytes()) == odd


def test_canonical_form_has_no_infinite_numbers():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"a": float("inf")})


@pytest.mark.parametrize("path", EVERY_FIELD)
def test_a_missing_field_is_not_trusted(path: str):
    with pytest.raises(VerificationError):
        Manifest.from_bytes(without_field(path))


def value_at(path: str) -> Any:
    place = json.loads(CONTENT)
    for each in path.split("."):
        place = place[each]
    return place


WRONG_TYPES = [
    (path, wrong)
    for path in EVERY_FIELD
    for wrong in (5, "x", [1], {"a": 1}, True, None)
    if type(value_at(path)) is not type(wrong)
    and (path, repr(wrong)) not in {("archive.encryption", "'x'"), ("previous", "None"), ("census.superusers", "None")}
]


@pytest.mark.parametrize(("path", "wrong"), WRONG_TYPES)
def test_a_field_of_another_type_is_not_trusted(path: str, wrong: object):
    with pytest.raises(VerificationError):
        Manifest.from_bytes(with_field(path, wrong))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("type", "django-walsafe/restore"),
        ("format", 0),
        ("format", 1),
        ("format", 3),
        ("sequence", 0),
        ("sequence", 1 << 62),
        ("pruned", [[0, 1]]),
        ("pruned", [[2, 1]]),
        ("pruned", [[1, 2], [3, 4]]),
        ("pruned", [[3, 4], [1, 1]]),
        ("pruned", [[1]]),
        ("pruned", [[1, 2, 3]]),
        ("pruned", [["1", "2"]]),
        ("key_id", "0" * 64),
        ("public_key", ""),
        ("public_key", KEY.text[:-4]),
        ("public_key", KEY.text + "\n"),
        ("archive.bytes", -1),
        ("snapshot.bytes", -1),
        ("archive.sha256", "a" * 63),
        ("archive.sha256", "A" * 64),
        ("snapshot.sha256", "g" * 64),
        ("snapshot.content_sha256", ""),
        ("previous", "short"),
        ("created_at", "yesterday"),
        ("created_at", "2026-03-04T05:06:07.000089"),
        ("created_at", "2026-03-04T05:06:07Z"),
        ("created_at", "2026-03-04T06:06:07.000089+01:00"),
        ("taken_at", "0001-01-01T00:00:00.000000+14:00"),
        ("taken_at", "9999-12-31T23:59:59.000000-14:00"),
        ("census.page_size", "4096"),
        ("census.superusers", "1"),
        ("census.migrations", [["one"]]),
        ("census.tables", {"sale": "4"}),
        ("required_tables", "sale"),
        ("software", {"sqlite": 3}),
        ("extra", 1),
        ("archive.extra", 1),
        ("census.extra", 1),
    ],
)
def test_a_field_with_an_impossible_value_is_not_trusted(path: str, value: object):
    with pytest.raises(VerificationError):
        Manifest.from_bytes(with_field(path, value))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"5",
        b'"text"',
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"NaN",
        b"\xef\xbb\xbf" + CONTENT,
        CONTENT + b"\n",
        b" " + CONTENT,
        CONTENT + CONTENT,
        CONTENT[:-1],
        CONTENT.replace(b'"format":2', b'"format":2,"format":1'),
        CONTENT.replace(b'"format":2', b'"format":2.0'),
        CONTENT.replace(b'"format":2', b'"format":2e0'),
        CONTENT.replace(b'"format":2', b'"format":true'),
        CONTENT.replace(b'"format":2', b'"format":NaN'),
        CONTENT.replace(b'"page_size":4096', b'"page_size":4096.0'),
        CONTENT.replace(b'"page_size":4096', b'"page_size":Infinity'),
        CONTENT.replace(b'"page_size":4096', b'"page_size":' + b"9" * 5000),
        CONTENT.replace(b'"page_size":4096', b'"page_size":' + b"[" * 50_000),
        CONTENT.replace(b'":', b'": '),
        CONTENT.replace("ö".encode(), b"\\u00f6"),
        CONTENT.replace("ö".encode(), b"\xed\xa0\x80"[:2]),
        CONTENT.replace(b'"id":"0', b'"id":"\\u0030'),
        json.dumps(json.loads(CONTENT), indent=1).encode(),
        json.dumps(dict(reversed(json.loads(CONTENT).items())), separators=(",", ":"), ensure_ascii=False).encode(),
    ],
    ids=lambda content: ascii(content[:30] + b"..." + content[-20:]),
)
def test_what_we_would_not_have_written_is_not_trusted(content: bytes):
    assert content != CONTENT
    with pytest.raises(VerificationError, match="cannot be trusted"):
        Manifest.from_bytes(content)


def test_a_huge_manifest_is_refused_before_it_is_read():
    with pytest.raises(VerificationError, match="larger than"):
        Manifest.from_bytes(b"[" * (manifests.MAX_BYTES + 1))


@settings(max_examples=400, deadline=None, database=None)
@given(st.data())
def test_mutated_bytes_are_never_trusted_as_the_same_manifest(data: st.DataObject):
    mutated = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        action = data.draw(st.sampled_from(["replace", "remove", "insert", "double"]))
        if action == "replace":
            mutated[at] = data.draw(st.integers(0, 255))
        elif action == "remove":
            del mutated[at : at + data.draw(st.integers(1, 40))]
        elif action == "insert":
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        else:
            mutated[at:at] = mutated[at : at + data.draw(st.integers(1, 60))]
        if not mutated:
            return
    try:
        manifest = Manifest.from_bytes(bytes(mutated))
    except VerificationError:
        return
    # What is trusted is canonical, so that its digest stands for its content.
    assert manifest.to_bytes() == bytes(mutated)
    assert (manifest == MANIFEST) == (bytes(mutated) == CONTENT)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None, database=None)
@given(path=st.sampled_from(EVERY_FIELD), value=JSON_VALUES)
def test_any_value_in_any_field_is_either_canonical_or_not_trusted(path: str, value: Any):
    try:
        content = with_field(path, value)
    except ValueError:  # an infinite number cannot even be written
        return
    try:
        manifest = Manifest.from_bytes(content)
    except VerificationError:
        return
    assert manifest.to_bytes() == content


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_not_trusted(content: bytes):
    with pytest.raises(VerificationError):
        Manifest.from_bytes(content)


# Format 3: archives of changed pages

DELTA = Delta(
    base="ba9876543210",
    base_name="shop-1.sqlite3.zst",
    base_archive_sha256="1" * 64,
    base_sha256="2" * 64,
    position=3,
    links_sha256="3" * 64,
    page_size=4096,
    pages=2,
    pages_sha256="4" * 64,
    bytes=12288,
    sha256="5" * 64,
)
WITH_DELTA = replace(MANIFEST, delta=DELTA)


def with_delta_field(path: str, value: object) -> bytes:
    document = json.loads(WITH_DELTA.to_bytes())
    place = document
    *parents, last = path.split(".")
    for each in parents:
        place = place[each]
    place[last] = value
    return canonical(document)


def test_a_full_archive_is_written_in_format_2_as_ever():
    document = json.loads(CONTENT)
    assert document["format"] == 2
    assert not {"delta", "media"} & set(document)
    assert MANIFEST.links_sha256 == MANIFEST.archive_sha256


def test_a_delta_is_format_3_and_reads_back():
    content = WITH_DELTA.to_bytes()
    document = json.loads(content)
    assert (document["format"], document["media"]) == (3, None)
    assert document["delta"]["base"]["id"] == DELTA.base
    assert Manifest.from_bytes(content) == WITH_DELTA
    assert WITH_DELTA.links_sha256 == DELTA.links_sha256


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("format", 2),
        ("format", 4),
        ("delta", None),
        ("delta", {}),
        ("delta", []),
        ("media", {}),
        ("delta.base", None),
        ("delta.base", "x"),
        ("delta.base.id", 1),
        ("delta.base.name", None),
        ("delta.base.sha256", "2" * 63),
        ("delta.base.archive_sha256", "X" * 64),
        ("delta.base.extra", 1),
        ("delta.position", 0),
        ("delta.position", -1),
        ("delta.position", 1001),
        ("delta.position", True),
        ("delta.position", "3"),
        ("delta.page_size", 0),
        ("delta.pages", -1),
        ("delta.pages", None),
        ("delta.pages_sha256", ""),
        ("delta.links_sha256", "3" * 65),
        ("delta.bytes", 0),
        ("delta.sha256", None),
        ("delta.extra", 1),
    ],
)
def test_a_delta_section_with_an_impossible_value_is_not_trusted(path: str, value: object):
    with pytest.raises(VerificationError):
        Manifest.from_bytes(with_delta_field(path, value))


@pytest.mark.parametrize("path", ["delta", "media", "delta.base", "delta.position", "delta.sha256", "delta.base.name"])
def test_a_delta_section_that_lacks_a_field_is_not_trusted(path: str):
    document = json.loads(WITH_DELTA.to_bytes())
    place = document
    *parents, last = path.split(".")
    for each in parents:
        place = place[each]
    del place[last]
    with pytest.raises(VerificationError):
        Manifest.from_bytes(canonical(document))


def test_one_digest_stands_for_all_archives_of_a_chain():
    assert links_digest("a" * 64) == "a" * 64
    assert links_digest("b" * 64, below="a" * 64) == hashlib.sha256(b"a" * 64 + b"b" * 64).hexdigest()
    assert links_digest("b" * 64, below="c" * 64) != links_digest("b" * 64, below="a" * 64)
