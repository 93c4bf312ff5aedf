"""An archive back into a new database file: whole and proven, or not there at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from . import archive as archives
from . import signature as signatures
from .age import MAGICS, SUFFIX
from .archive import Keys, OpenStored, OverLimitError, unpack_archive
from .beside import archive_beside, links_beside, manifest_beside, open_archive_file, stem_beside
from .census import Census, take_census
from .errors import DiskFullError, InputError, NotFoundError, VerificationError, translated
from .files import publish_new_file, refuse_existing
from .links import Link
from .manifest import Manifest
from .media.index import Counts
from .media.unpack import PREFIX, Unpacked, extracting_media, read_media
from .partial import partial_beside
from .progress import Watch
from .sqlite import SIDECAR_SUFFIXES, open_snapshot, sidecar
from .verify import NO_KEYS, STORED_BYTES, Check, check_database, failures, reason_of, unpack, verify_full

Extracted = TypeVar("Extracted")


def extract_archive(
    open_stored: OpenStored,
    manifest: Manifest,
    target: Path,
    *,
    watch: Watch,
    keys: Keys = NO_KEYS,
    below: Sequence[Link] = (),
) -> list[Check]:
    """Write the database of a stored archive to the new file ``target`` (mode 0600).

    The content goes to a temporary file beside the target, all digests are compared and the
    structure is checked; only then does it get its name. Returns the checks, all ok.

    Raises:
        RefusedError: the target, or a sidecar file of it, exists. It is not touched.
        VerificationError: the archive is not what the manifest says. Nothing is left behind.
        KeyMissingError: it is encrypted, and no key opens it. Likewise.
        UnreachableError, DiskFullError, BackupError, CancelledError, DeadlineError: likewise.
    """
    with partial_beside(target) as temporary:
        refuse_existing(target)
        checks = unpack(open_stored, manifest, temporary, watch=watch, keys=keys, below=below)
        if not failures(checks):
            checks += check_database(temporary, expected=manifest.census, is_thorough=False, watch=watch)
        _refuse_failures(checks)
        publish_new_file(temporary, target)
    return checks


def _refuse_failures(checks: list[Check]) -> None:
    if failures(checks):
        raise VerificationError(
            f"The archive cannot be trusted ({reason_of(checks)}).",
            "Nothing was written. Use another copy, or an older verified backup.",
        )


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What an archive file holds, read without a catalogue."""

    archive_bytes: int
    archive_sha256: str
    size_bytes: int
    sha256: str
    manifest: Manifest | None
    """The manifest beside the archive; ``None`` when there is none."""
    census: Census | None
    checks: list[Check]
    media: Unpacked | None = None
    """The folders beside the database, as far as they were read."""

    def with_media(self, media: Unpacked | None) -> Inspection:
        """The same with what was found of the folders."""
        if media is None:
            return self
        return replace(self, media=media, checks=[*self.checks, *media.checks])


def extract_file(
    archive: Path, target: Path, *, media_target: Path | None = None, watch: Watch, keys: Keys = NO_KEYS
) -> Inspection:
    """Restore an archive file to the new file ``target`` without any catalogue.

    With a manifest beside the archive, everything in it is proven; ``archive`` may be the manifest itself.
    Archives that it builds on, or shares, are looked for beside it. Without one, the archive must
    be whole (zstd checksum) and hold a sound database; that it is complete and who made it are
    then not proven, and the caller should say so. With ``media_target`` the folders stored beside
    the database are restored to that new folder: both are there afterwards, or neither.

    Raises: as :func:`extract_archive`, and InputError when there are no folders.
    """
    manifest = manifest_beside(archive)

    def extract() -> Inspection:
        return _extract_database(archive, manifest, target, watch=watch, keys=keys)

    if media_target is None:
        return extract()
    refuse_one_name(target.absolute(), media_target.absolute())
    extracting = _extracting_media(archive, manifest, media_target, watch=watch, keys=keys)
    inspection, media = extract_together(extract, target, extracting)
    return inspection.with_media(media)


def refuse_one_name(target: Path, media_target: Path) -> None:
    """Refuse a folder in the place of a new database, or of what SQLite will keep beside it.

    Raises:
        InputError: they would be in each other's way.
    """
    if media_target in (target, *(sidecar(target, suffix) for suffix in SIDECAR_SUFFIXES)):
        raise InputError("The database and the folder cannot have one name.", "Choose two.")


def extract_together(
    extract: Callable[[], Extracted], target: Path, media: AbstractContextManager[Unpacked]
) -> tuple[Extracted, Unpacked]:
    """Let ``extract`` make the new file ``target``, and ``media`` its folder: both are there then, or neither.

    Raises: whatever they raise.
    """
    is_made = False
    try:
        with media as unpacked:
            extracted = extract()
            is_made = True
    except BaseException:
        if is_made:
            with suppress(OSError):
                target.unlink()
        raise
    return extracted, unpacked


def _extract_database(
    archive: Path, manifest: Manifest | None, target: Path, *, watch: Watch, keys: Keys
) -> Inspection:
    if manifest is not None:
        path = archive_beside(archive, manifest)
        signed = _check_signature(archive, manifest)
        _refuse_failures(signed)
        checks = extract_archive(
            lambda: open_archive_file(path),
            manifest,
            target,
            watch=watch,
            keys=keys,
            below=links_beside(path, manifest, keys=keys),
        )
        return _inspected(manifest, [*signed, *checks])
    _refuse_lonely_delta(archive)
    with partial_beside(target) as temporary:
        refuse_existing(target)
        inspection = _unpack_foreign(archive, temporary, watch=watch, keys=keys)
        _refuse_failures(inspection.checks)
        publish_new_file(temporary, target)
    return inspection


def _check_signature(archive: Path, manifest: Manifest) -> list[Check]:
    """Whether the signature beside the manifest is one over it; nothing when none is there, or none belongs to it.

    That the key is the right one cannot be known here: its id is to be compared with what was noted.
    """
    path = archive.with_name(stem_beside(archive) + signatures.SUFFIX)
    if not manifest.is_signed or not path.exists():
        return []
    with open_archive_file(path) as stream:
        signature = archives.read_at_most(stream, signatures.SIGNATURE_BYTES + 1)
    if not manifest.key.has_signed(manifest.to_bytes(), signature):
        return [Check(name="signature", ok=False, evidence="the signature beside it is not one over this manifest")]
    return [Check(name="signature", ok=True, evidence=f"Ed25519, key {manifest.key.key_id}")]


def _extracting_media(
    archive: Path, manifest: Manifest | None, target: Path, *, watch: Watch, keys: Keys
) -> AbstractContextManager[Unpacked]:
    path = media_file_beside(archive, manifest)
    if manifest is not None and manifest.media is None:
        raise InputError("This backup holds no folders of media.", "Leave --media-to away.")
    if manifest is None and not path.exists():
        raise NotFoundError(f"There is no archive of media at {path}.", "Put it beside the archive of the database.")
    return extracting_media(
        lambda: open_archive_file(path),
        manifest.media if manifest else None,
        target,
        encryption=manifest.encryption if manifest else _encryption_of(path),
        watch=watch,
        keys=keys,
    )


def media_file_beside(archive: Path, manifest: Manifest | None) -> Path:
    """Where the folders' archive lies that belongs to an archive file, or to the manifest at that path."""
    if manifest is None:
        return archive.with_name(archives.media_beside(archive.name))
    return archive.with_name(archives.media_at(stem_beside(archive), is_encrypted=manifest.encryption is not None))


def _encryption_of(path: Path) -> str | None:
    with open_archive_file(path) as stored:
        return archives.ENCRYPTION if stored.read(max(map(len, MAGICS))).startswith(MAGICS) else None


def inspect_file(archive: Path, *, scratch: Path, watch: Watch, keys: Keys = NO_KEYS) -> Inspection:
    """Unpack an archive file into ``scratch`` (a private folder), check it, and remove it again.

    The folders of media that belong to it are read too; they are not unpacked.

    Raises: as :func:`extract_archive`, but for what the checks find.
    """
    manifest = manifest_beside(archive)
    media = _inspect_media(archive, manifest, scratch=scratch, watch=watch, keys=keys)
    if manifest is not None:
        path = archive_beside(archive, manifest)
        checks = verify_full(
            lambda: open_archive_file(path),
            manifest,
            required_tables=manifest.required_tables,
            scratch=scratch,
            watch=watch,
            keys=keys,
            below=links_beside(path, manifest, keys=keys),
        )
        return _inspected(manifest, [*_check_signature(archive, manifest), *checks]).with_media(media)
    _refuse_lonely_delta(archive)
    unpacked = scratch / "inspect.sqlite3"
    try:
        return _unpack_foreign(archive, unpacked, watch=watch, keys=keys).with_media(media)
    finally:
        unpacked.unlink(missing_ok=True)


def _inspect_media(
    archive: Path, manifest: Manifest | None, *, scratch: Path, watch: Watch, keys: Keys
) -> Unpacked | None:
    path = media_file_beside(archive, manifest)
    is_expected = manifest is not None and manifest.media is not None
    if not is_expected and (manifest is not None or not path.exists()):
        return None
    if not path.exists():
        missing = Check(name=f"{PREFIX}{STORED_BYTES}", ok=False, evidence=f"there is no file {path.name}")
        return Unpacked(checks=[missing], counts=Counts())
    return read_media(
        lambda: open_archive_file(path),
        manifest.media if manifest else None,
        encryption=manifest.encryption if manifest else _encryption_of(path),
        scratch=scratch,
        watch=watch,
        keys=keys,
    )


def _refuse_lonely_delta(archive: Path) -> None:
    if archive.name.removesuffix(SUFFIX).endswith(archives.DELTA_SUFFIX):
        raise VerificationError(
            "The archive holds only the pages that changed since another one, and its manifest is missing.",
            "Put its manifest beside it, and the archives that it builds on.",
        )


def _inspected(manifest: Manifest, checks: list[Check]) -> Inspection:
    return Inspection(
        archive_bytes=manifest.archive_bytes,
        archive_sha256=manifest.archive_sha256,
        size_bytes=manifest.size_bytes,
        sha256=manifest.sha256,
        manifest=manifest,
        census=manifest.census,
        checks=checks,
    )


def _unpack_foreign(archive: Path, target: Path, *, watch: Watch, keys: Keys) -> Inspection:
    """Unpack an archive that has no manifest; its size is bounded by the free disk space."""
    with open_archive_file(archive) as stored:
        total_bytes = os.fstat(stored.fileno()).st_size
    is_encrypted = _encryption_of(archive) is not None
    with translated("unpacking the archive"):
        limit_bytes = shutil.disk_usage(target.parent).free
    read = unpack_archive(
        lambda: open_archive_file(archive),
        target,
        limit_bytes=limit_bytes,
        total_bytes=total_bytes,
        watch=watch,
        keys=keys if is_encrypted else None,
    )
    if read.locked is not None:
        raise read.locked
    if isinstance(read.damage, OverLimitError):
        raise DiskFullError(
            f"The archive holds more than the {limit_bytes:,} bytes that are free.",
            "Give a folder with more free space.",
        )
    census = None
    if read.damage is not None:
        checks = [Check(name="decompression", ok=False, evidence=read.damage.message)]
    else:
        whole = "one whole zstd stream, checksum correct"
        evidence = f"every byte of the age file authenticated; {whole}" if is_encrypted else whole
        checks = [Check(name="decompression", ok=True, evidence=evidence)]
        checks += check_database(target, expected=None, is_thorough=True, watch=watch)
        if not failures(checks) and read.content_bytes:
            with translated("reading the unpacked database"), open_snapshot(target) as connection:
                census = take_census(connection, watch=watch)
    return Inspection(
        archive_bytes=read.archive_bytes,
        archive_sha256=read.archive_sha256,
        size_bytes=read.content_bytes,
        sha256=read.sha256,
        manifest=None,
        census=census,
        checks=checks,
    )
