"""Names of stored objects: readable, unique, and safe on any destination."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime

from ..core import age
from ..core import archive as archives
from ..core import manifest as manifests
from ..core import signature as signatures
from ..core.manifest import Manifest

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def safe_name(database: str) -> str:
    """The database's name as a file name part.

    A plain name is kept. Any other becomes a readable rest with a digest of the full name, so
    that two databases never share one.
    """
    if _PLAIN.fullmatch(database):
        return database
    rest = _UNSAFE.sub("-", database).strip("-.")[:40] or "database"
    return f"{rest}-{hashlib.sha256(database.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def archive_name(
    database: str, *, created_at: datetime, backup_id: str, is_encrypted: bool = False, is_delta: bool = False
) -> str:
    """``<database>/<YYYY>/<database>-<UTC yyyymmddThhmmssZ>-<id>.sqlite3.zst``, with ``.age`` when encrypted.

    An archive of changed pages has ``.delta`` before ``.zst``.
    """
    moment, name = created_at.astimezone(UTC), safe_name(database)
    suffix = archives.DELTA_SUFFIX if is_delta else archives.SUFFIX
    if is_encrypted:
        suffix += age.SUFFIX
    return f"{name}/{moment:%Y}/{name}-{moment:%Y%m%dT%H%M%SZ}-{backup_id}{suffix}"


def own_stem(manifest: Manifest) -> str:
    """The stem at which the manifest of a backup is stored, also when it shares the archive of another one."""
    name = archive_name(manifest.database, created_at=manifest.created_at, backup_id=manifest.id)
    return archives.stem_of(name)


def manifest_name(archive: str) -> str:
    """The manifest stored beside an archive."""
    return archives.stem_of(archive) + manifests.SUFFIX


def signature_name(archive: str) -> str:
    """The signature of that manifest."""
    return manifest_name(archive).removesuffix(manifests.SUFFIX) + signatures.SUFFIX


def media_name(archive: str) -> str:
    """The archive of folders stored beside an archive, where there is one."""
    return archives.media_beside(archive)


def stored_names(archive: str, *, has_media: bool = False) -> tuple[str, ...]:
    """Every object that belongs to an archive, in the order of publication."""
    media = (media_name(archive),) if has_media else ()
    return archive, *media, manifest_name(archive), signature_name(archive)
