"""Reading a destination: what lies there, and one manifest at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...core import age
from ...core import archive as archives
from ...core import manifest as manifests
from ...core import signature as signatures
from ...core.archive import read_at_most
from ...core.errors import InputError, UnreachableError, VerificationError
from ...core.manifest import Manifest
from ...core.signature import SIGNATURE_BYTES, PublicKey
from ...destinations import Destination

ARCHIVE_SUFFIXES = tuple(
    suffix + encrypted for suffix in (archives.SUFFIX, archives.DELTA_SUFFIX) for encrypted in ("", age.SUFFIX)
)
MEDIA_SUFFIXES = (archives.MEDIA_SUFFIX, archives.MEDIA_SUFFIX + age.SUFFIX)


@dataclass(slots=True)
class Objects:
    """What lies at a destination under one stem."""

    archive: str = ""
    archive_bytes: int = 0
    media: str = ""
    media_bytes: int = 0
    has_manifest: bool = False
    has_signature: bool = False
    odd: list[str] = field(default_factory=list)
    """Names at which something else than a plain object lies."""


@dataclass(kw_only=True)
class Listing:
    """Everything that lies at a destination."""

    stems: dict[str, Objects] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    objects: int = 0


def list_store(destination: Destination) -> Listing:
    """Read the names at a destination.

    Raises:
        UnreachableError: it cannot be listed to its end.
    """
    listing = Listing()
    for found in destination.list():
        listing.objects += 1
        stem, suffix = _split(found.name)
        if not suffix or any(part.startswith(".") for part in found.name.split("/")):
            listing.unknown.append(found.name)
            continue
        objects = listing.stems.setdefault(stem, Objects())
        if not found.is_plain:
            objects.odd.append(found.name)
        elif suffix == manifests.SUFFIX:
            objects.has_manifest = True
        elif suffix == signatures.SUFFIX:
            objects.has_signature = True
        elif suffix in MEDIA_SUFFIXES:
            objects.media, objects.media_bytes = found.name, found.size_bytes
        else:
            objects.archive, objects.archive_bytes = found.name, found.size_bytes
    return listing


def _split(name: str) -> tuple[str, str]:
    for suffix in (manifests.SUFFIX, signatures.SUFFIX, *reversed(ARCHIVE_SUFFIXES), *reversed(MEDIA_SUFFIXES)):
        if name.endswith(suffix) and len(name) > len(suffix):
            return name.removesuffix(suffix), suffix
    return name, ""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One stored manifest with its signature."""

    content: bytes
    signature: bytes | None
    manifest: Manifest | None
    """None when it is not one that we would have written."""
    problem: str = ""

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest."""
        return manifests.digest(self.content)

    def is_signed_by(self, key: PublicKey | None) -> bool:
        """Whether the signature is one of ``key`` over exactly these bytes."""
        return key is not None and self.signature is not None and key.has_signed(self.content, self.signature)

    @property
    def own_key(self) -> PublicKey | None:
        """The key that the manifest names."""
        try:
            return self.manifest.key if self.manifest is not None else None
        except InputError:
            return None


def read_manifest(destination: Destination, stem: str) -> Reading:
    """The manifest of a stem and its signature, read up to a bound.

    Raises:
        UnreachableError: the manifest cannot be read.
    """
    with destination.open(stem + manifests.SUFFIX) as stream:
        content = read_at_most(stream, manifests.MAX_BYTES + 1)
    try:
        with destination.open(stem + signatures.SUFFIX) as stream:
            signature: bytes | None = read_at_most(stream, SIGNATURE_BYTES + 1)
    except UnreachableError:
        signature = None
    try:
        return Reading(content=content, signature=signature, manifest=Manifest.from_bytes(content))
    except VerificationError as exc:
        return Reading(content=content, signature=signature, manifest=None, problem=exc.message)
