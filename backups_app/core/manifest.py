"""The small file beside each archive that says what the archive must hold.

Canonical JSON: UTF-8, keys sorted, no spaces, no floats, one object with a mandatory ``type``.
Reading is strict: a manifest that is not byte for byte what we would write is refused, so its
digest can stand for its content.

Manifests are a chain per database: each has a number, names the digest of the one before, and is
signed (``core/signature.py``). Those of format 1 come from before that: they are read, and unsigned.
Format 3 is format 2 with the keys ``media`` and ``delta``, of which one at least is not null; what needs
neither is written in format 2.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from .archive import media_at, media_beside
from .census import Census
from .errors import InputError, VerificationError
from .ranges import Range, merged
from .signature import PublicKey

SUFFIX = ".manifest.json"
TYPE = "django-walsafe/backup"
FORMAT = 3
PLAIN_FORMAT = 2
UNSIGNED_FORMAT = 1
MAX_BYTES = 32 << 20
"""Largest manifest that is read: a census of 65,000 tables fits many times."""


def canonical(document: Any) -> bytes:
    """The one spelling of a JSON document.

    Raises:
        ValueError: it holds a float that is not finite.
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def utc_text(moment: datetime) -> str:
    """ISO 8601 in UTC with microseconds and a ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


MAX_POSITION = 1000
"""Longest chain of deltas that is read or written."""


@dataclass(frozen=True, kw_only=True)
class Delta:
    """What an archive that holds only changed pages builds on, and what it gives (``core/delta.py``)."""

    base: str
    """Id of the backup whose archive it builds on."""
    base_name: str
    base_archive_sha256: str
    base_sha256: str
    """SHA-256 of the database file that the pages are put into."""
    position: int
    """How many deltas there are from the full archive up to this one, which is counted."""
    links_sha256: str
    """One digest for all archives from the full one up to this one: :func:`links_digest`."""
    page_size: int
    pages: int
    """How many pages it holds."""
    pages_sha256: str
    """Root of the page digests of the database file that comes out."""
    bytes: int
    """Size of the tar inside."""
    sha256: str
    """Its SHA-256."""

    def as_dict(self) -> dict[str, Any]:
        """The section as JSON types."""
        return {
            "base": {
                "id": self.base,
                "name": self.base_name,
                "archive_sha256": self.base_archive_sha256,
                "sha256": self.base_sha256,
            },
            "position": self.position,
            "links_sha256": self.links_sha256,
            "page_size": self.page_size,
            "pages": self.pages,
            "pages_sha256": self.pages_sha256,
            "bytes": self.bytes,
            "sha256": self.sha256,
        }

    @classmethod
    def from_dict(cls, found: Any) -> Delta:
        """Read what :meth:`as_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError: it is malformed.
        """
        base = found["base"]
        delta = cls(
            base=_text(base["id"]),
            base_name=_text(base["name"]),
            base_archive_sha256=_digest(base["archive_sha256"]),
            base_sha256=_digest(base["sha256"]),
            position=_number(found["position"]),
            links_sha256=_digest(found["links_sha256"]),
            page_size=_number(found["page_size"]),
            pages=_size(found["pages"]),
            pages_sha256=_digest(found["pages_sha256"]),
            bytes=_number(found["bytes"]),
            sha256=_digest(found["sha256"]),
        )
        if delta.position > MAX_POSITION:
            raise ValueError("a chain that long is not read")
        return delta


def links_digest(archive_sha256: str, *, below: str = "") -> str:
    """One digest for a chain of archives: of a full one its own, else that of the chain below and its own."""
    return hashlib.sha256(f"{below}{archive_sha256}".encode()).hexdigest() if below else archive_sha256


@dataclass(frozen=True, kw_only=True)
class Media:
    """The archive of folders that belongs to a backup, stored beside the database's."""

    name: str
    archive_bytes: int
    archive_sha256: str
    tar_bytes: int
    tar_sha256: str
    index_sha256: str
    """SHA-256 of the list of all digests, which is the last file in the tar."""
    files: int
    folders: int
    """Folders of any depth, those under care included."""
    links: int
    content_bytes: int
    """Sum of the sizes of all files."""
    labels: tuple[str, ...]
    """Names of the folders under care, as in the tar."""
    read_from: datetime
    read_until: datetime
    """When reading began and ended: after the moment of the snapshot."""

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return {
            "name": self.name,
            "bytes": self.archive_bytes,
            "sha256": self.archive_sha256,
            "tar_bytes": self.tar_bytes,
            "tar_sha256": self.tar_sha256,
            "index_sha256": self.index_sha256,
            "files": self.files,
            "folders": self.folders,
            "links": self.links,
            "content_bytes": self.content_bytes,
            "labels": list(self.labels),
            "read_from": utc_text(self.read_from),
            "read_until": utc_text(self.read_until),
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Media:
        """The facts as JSON holds them.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or malformed.
        """
        return cls(
            name=_text(found["name"]),
            archive_bytes=_size(found["bytes"]),
            archive_sha256=_digest(found["sha256"]),
            tar_bytes=_size(found["tar_bytes"]),
            tar_sha256=_digest(found["tar_sha256"]),
            index_sha256=_digest(found["index_sha256"]),
            files=_size(found["files"]),
            folders=_size(found["folders"]),
            links=_size(found["links"]),
            content_bytes=_size(found["content_bytes"]),
            labels=tuple(_text(each) for each in found["labels"]),
            read_from=_moment(found["read_from"]),
            read_until=_moment(found["read_until"]),
        )


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything needed to prove an archive and to rebuild its catalogue row."""

    id: str
    database: str
    identity: str
    """Identity of the database under care: survives renames and moves."""
    created_at: datetime
    taken_at: datetime
    trigger: str
    archive_name: str
    archive_bytes: int
    archive_sha256: str
    compression: str = "zstd"
    encryption: str | None = None
    size_bytes: int
    sha256: str
    content_sha256: str
    census: Census
    journal_mode: str
    method: str
    required_tables: tuple[str, ...] = ()
    failure: str = ""
    """Why the proof at creation failed; empty when it passed. Not in format 1."""
    sequence: int | None = None
    """Number in the chain of its database, from 1; None in format 1, which is unsigned."""
    previous: str | None = None
    """SHA-256 of the previous manifest of the chain; None for the first."""
    pruned: tuple[Range, ...] = ()
    """Numbers of the chain that were deleted on purpose, up to now: all of them, as merged ranges."""
    public_key: str = ""
    """The key that signs it, as :attr:`PublicKey.text`; empty in format 1."""
    software: dict[str, str] = field(default_factory=dict)
    media: Media | None = None
    """The folders stored beside the database; None when there are none."""
    delta: Delta | None = None
    """The archive holds only pages that changed; None for a full one."""

    @property
    def format(self) -> int:
        """The format that it is written in."""
        if not self.is_signed:
            return UNSIGNED_FORMAT
        return PLAIN_FORMAT if self.media is None and self.delta is None else FORMAT

    @property
    def links_sha256(self) -> str:
        """What an approval is bound to: one digest for every archive that a restore reads."""
        return self.archive_sha256 if self.delta is None else self.delta.links_sha256

    @property
    def is_signed(self) -> bool:
        """Whether a signature belongs to it."""
        return self.sequence is not None

    @property
    def key(self) -> PublicKey:
        """The key that it says it is signed with.

        Raises:
            InputError: it names none.
        """
        return PublicKey.from_text(self.public_key)

    def to_bytes(self) -> bytes:
        """The canonical file content.

        Raises:
            ValueError: it has media or a delta, and no number in a chain, which format 1 cannot say.
        """
        if not self.is_signed and (self.media is not None or self.delta is not None):
            raise ValueError("a manifest with media, or of a delta, must be signed")
        chain: dict[str, Any] = {}
        if self.sequence is not None:
            chain = {
                "failure": self.failure,
                "sequence": self.sequence,
                "pruned": [list(each) for each in self.pruned],
                "key_id": self.key.key_id,
                "public_key": self.public_key,
            }
        extended: dict[str, Any] = {}
        if self.format == FORMAT:
            extended = {
                "media": None if self.media is None else self.media.as_dict(),
                "delta": None if self.delta is None else self.delta.as_dict(),
            }
        return canonical(
            {
                "type": TYPE,
                "format": self.format,
                **chain,
                **extended,
                "id": self.id,
                "database": self.database,
                "identity": self.identity,
                "created_at": utc_text(self.created_at),
                "taken_at": utc_text(self.taken_at),
                "trigger": self.trigger,
                "archive": {
                    "name": self.archive_name,
                    "bytes": self.archive_bytes,
                    "sha256": self.archive_sha256,
                    "compression": self.compression,
                    "encryption": self.encryption,
                },
                "snapshot": {
                    "bytes": self.size_bytes,
                    "sha256": self.sha256,
                    "content_sha256": self.content_sha256,
                    "journal_mode": self.journal_mode,
                    "method": self.method,
                },
                "census": self.census.as_dict(),
                "required_tables": list(self.required_tables),
                "previous": self.previous,
                "software": self.software,
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Manifest:
        """Read a manifest file strictly.

        Raises:
            VerificationError: it is too large, not canonical JSON, of another type or format, or
                lacks a field.
        """
        document = _parse(content)
        if document.get("type") != TYPE:
            raise _unreadable(f"its type is not {TYPE}")
        if document.get("format") not in (FORMAT, PLAIN_FORMAT, UNSIGNED_FORMAT):
            raise _unreadable(f"its format is {document.get('format')!r}, this version reads up to {FORMAT}")
        try:
            archive, snapshot = document["archive"], document["snapshot"]
            manifest = cls(
                id=_short(document["id"], 32),
                database=_text(document["database"]),
                identity=_short(document["identity"], 32),
                created_at=_moment(document["created_at"]),
                taken_at=_moment(document["taken_at"]),
                trigger=_text(document["trigger"]),
                archive_name=_short(archive["name"], 255),
                archive_bytes=_size(archive["bytes"]),
                archive_sha256=_digest(archive["sha256"]),
                compression=_text(archive["compression"]),
                encryption=None if archive["encryption"] is None else _text(archive["encryption"]),
                size_bytes=_size(snapshot["bytes"]),
                sha256=_digest(snapshot["sha256"]),
                content_sha256=_digest(snapshot["content_sha256"]),
                census=Census.from_dict(document["census"]),
                journal_mode=_text(snapshot["journal_mode"]),
                method=_text(snapshot["method"]),
                required_tables=tuple(_text(name) for name in document["required_tables"]),
                previous=None if document["previous"] is None else _digest(document["previous"]),
                software={_text(key): _text(value) for key, value in document["software"].items()},
                **(_chain_fields(document) if document["format"] != UNSIGNED_FORMAT else {}),
                **(_extended_fields(document) if document["format"] == FORMAT else {}),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, InputError) as exc:
            raise _unreadable(f"a field is missing or malformed ({exc})") from exc
        if manifest.media is not None and not _is_own(manifest.media, manifest):
            raise _unreadable("its media has the name of another backup")
        if manifest.to_bytes() != content:
            raise _unreadable("it is not in canonical form")
        return manifest


def _is_own(media: Media, manifest: Manifest) -> bool:
    """Whether the folders' archive lies beside that of the database, or is named by the backup's own id.

    The second is so where the archive of the database is that of an earlier backup, which has another name.
    """
    own_end = media_at(f"-{manifest.id}", is_encrypted=manifest.encryption is not None)
    return media.name == media_beside(manifest.archive_name) or media.name.endswith(own_end)


def digest(content: bytes) -> str:
    """SHA-256 of a manifest's exact bytes, as 64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def _chain_fields(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "failure": _text(document["failure"]),
        "sequence": _number(document["sequence"]),
        "pruned": ranges_from(document["pruned"]),
        "public_key": PublicKey.from_text(_text(document["public_key"])).text,
    }


def _extended_fields(document: dict[str, Any]) -> dict[str, Any]:
    media, delta = document["media"], document["delta"]
    return {
        "media": None if media is None else Media.from_dict(media),
        "delta": None if delta is None else Delta.from_dict(delta),
    }


def ranges_from(found: Any) -> tuple[Range, ...]:
    """Ranges of numbers as JSON holds them.

    Raises:
        TypeError, ValueError: they are not ranges in their one spelling.
    """
    ranges = tuple((_number(first), _number(last)) for first, last in found)
    if any(first > last for first, last in ranges) or merged(ranges) != ranges:
        raise ValueError("ranges in order were expected")
    return ranges


def _unreadable(why: str) -> VerificationError:
    return VerificationError(f"The manifest cannot be trusted: {why}.", "Treat it as altered.")


def _parse(content: bytes) -> dict[str, Any]:
    if len(content) > MAX_BYTES:
        raise _unreadable(f"it is larger than {MAX_BYTES:,} bytes")
    try:
        document = json.loads(content.decode("utf-8", "surrogatepass"), parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as exc:
        raise _unreadable("it is not JSON") from exc
    if not isinstance(document, dict):
        raise _unreadable("it is not a JSON object")
    return cast("dict[str, Any]", document)


def _no_float(text: str) -> float:
    raise ValueError(f"unexpected number {text}")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text was expected")
    return value


def _short(value: object, limit: int) -> str:
    """A name that the catalogue looks things up by: it can hold it whole."""
    text = _text(value)
    if len(text) > limit or not text.isprintable():
        raise ValueError(f"a name of at most {limit} plain characters was expected")
    return text


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("a size was expected")
    return value


def _number(value: object) -> int:
    number = _size(value)
    if not 1 <= number < 1 << 62:
        raise ValueError("a number from 1 was expected")
    return number


def _digest(value: object) -> str:
    text = _text(value)
    if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
        raise ValueError("a SHA-256 digest was expected")
    return text


def _moment(value: object) -> datetime:
    moment = datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError("a time with its zone was expected")
    return moment.astimezone(UTC)
