"""The manifest of a backup with folders is format 3; one without is byte for byte what it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from backups_app.core.errors import VerificationError
from backups_app.core.manifest import Manifest, Media, canonical
from tests.core.test_manifest import CONTENT, MANIFEST

MEDIA = Media(
    name="shop.media.tar.zst",
    archive_bytes=900,
    archive_sha256="1" * 64,
    tar_bytes=10240,
    tar_sha256="2" * 64,
    index_sha256="3" * 64,
    files=2,
    folders=1,
    links=0,
    content_bytes=700,
    labels=("media", "שלום"),
    read_from=datetime(2026, 3, 4, 5, 6, 6, 1, tzinfo=UTC),
    read_until=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
)
EXTENDED = replace(MANIFEST, media=MEDIA)
FIELDS = sorted(json.loads(EXTENDED.to_bytes())["media"])


def changed(**media: Any) -> bytes:
    document = json.loads(EXTENDED.to_bytes())
    document["media"] |= media
    return canonical(document)


def test_a_manifest_with_media_survives_its_file():
    assert Manifest.from_bytes(EXTENDED.to_bytes()) == EXTENDED
    assert EXTENDED.is_signed


def test_its_format_is_3_and_both_new_keys_are_there():
    document = json.loads(EXTENDED.to_bytes())
    assert document["format"] == 3
    assert document["media"]["name"] == "shop.media.tar.zst"
    assert document["delta"] is None
    rest = {key: value for key, value in document.items() if key not in ("format", "media", "delta")}
    assert rest == {key: value for key, value in json.loads(CONTENT).items() if key != "format"}


def test_a_plain_manifest_is_byte_for_byte_what_it_was_before_there_was_media():
    """Changing this digest breaks every chain that exists."""
    assert json.loads(CONTENT)["format"] == 2
    assert hashlib.sha256(CONTENT).hexdigest() == "1669055ef8c8a7386f69ee818f40f9d252cd843b5cc74bb64007153e26e05313"


def test_format_3_without_anything_new_is_not_canonical():
    document = json.loads(EXTENDED.to_bytes()) | {"media": None}
    with pytest.raises(VerificationError, match="not in canonical form"):
        Manifest.from_bytes(canonical(document))


def test_media_in_format_2_is_not_canonical():
    document = json.loads(EXTENDED.to_bytes()) | {"format": 2}
    with pytest.raises(VerificationError, match="not in canonical form"):
        Manifest.from_bytes(canonical(document))


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_missing_is_not_trusted(name: str):
    document = json.loads(EXTENDED.to_bytes())
    del document["media"][name]
    with pytest.raises(VerificationError):
        Manifest.from_bytes(canonical(document))


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, -1, True, {}, [1], "x"], ids=repr)
def test_a_field_of_another_kind_is_not_trusted(name: str, value: Any):
    if (name, value) == ("name", "x"):
        value = 7
    with pytest.raises(VerificationError):
        Manifest.from_bytes(changed(**{name: value}))


def test_an_additional_field_is_not_trusted():
    with pytest.raises(VerificationError, match="not in canonical form"):
        Manifest.from_bytes(changed(more=1))


@pytest.mark.parametrize("value", [7, [], "media", {}])
def test_media_that_is_no_object_of_ours_is_not_trusted(value: Any):
    document = json.loads(EXTENDED.to_bytes()) | {"media": value}
    with pytest.raises(VerificationError):
        Manifest.from_bytes(canonical(document))


def test_media_needs_a_signed_manifest():
    with pytest.raises(ValueError, match="signed"):
        replace(EXTENDED, sequence=None, public_key="").to_bytes()
