"""Store what was made with its signed manifest at every destination, prove what is stored, or leave nothing."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import __version__, conf
from ..core.archive import ENCRYPTION, OpenStored
from ..core.create import CreatedArchive, PagesDraft, Unchanged, prove_stored
from ..core.errors import BackupError, KeyMissingError, VerificationError
from ..core.manifest import Manifest, Media
from ..core.media.pack import PackedMedia
from ..core.media.unpack import PREFIX as MEDIA_PREFIX
from ..core.progress import Watch
from ..core.verify import NO_KEYS, Check, check_below, check_packed, check_stored, failures, reason_of
from ..encryption import Keyring
from ..models import Backup, Copy
from .audit import Actor
from .chain import Sealed, advance_head, seal_manifest
from .links import links_under
from .names import archive_name, manifest_name, media_name, signature_name
from .outcome import Made, record_outcome
from .previous import Owner, manifest_of_owner
from .storing import Part, Place, discard, small_part, store_everywhere

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What holds for the storing of a backup, whatever it turns out to consist of."""

    places: Sequence[Place]
    folder: Path
    """Private to the backup, for what is written before it is stored."""
    tables: tuple[str, ...]
    """Those that must have rows."""
    actor: Actor
    watch: Watch
    remark: str = ""


def archive_name_of(backup: Backup, *, is_encrypted: bool, is_delta: bool = False) -> str:
    """The name of the archive of a backup, once it is known what kind it is."""
    return archive_name(
        backup.database.name,
        created_at=backup.created_at,
        backup_id=backup.pk,
        is_encrypted=is_encrypted,
        is_delta=is_delta,
    )


def store_created(backup: Backup, created: CreatedArchive, terms: Terms) -> None:
    """Store an archive just made with its signed manifest, prove what is stored, and record the outcome.

    It is sealed once and stored at each of its places; one proven copy is enough. For the owner of
    the database's job: the manifest is the next one of its chain.

    Raises:
        VerificationError: what is stored is not what was made. BackupError: from the stores.
        Nothing of it is left then.
    """
    archive = created.archive
    if created.delta is not None:
        backup.archive_name = archive_name_of(backup, is_encrypted=bool(archive.recipients), is_delta=True)
        backup.save(update_fields=["archive_name"])  # whoever cleans up after a killed process looks there
    made = Made(
        snapshot=created.snapshot,
        checks=created.checks,
        archive_name=backup.archive_name,
        archive_bytes=archive.archive_bytes,
        archive_sha256=archive.archive_sha256,
        size_bytes=archive.content_bytes,
        sha256=archive.sha256,
        content_sha256=archive.content_sha256,
        recipients=archive.recipients,
        media=created.media,
        delta=created.delta,
    )
    part = _archive_part(backup, created, watch=terms.watch)
    _store_made(backup, made, part, terms)
    if created.pages is not None and backup.state == Backup.State.VERIFIED:
        _keep_digests(backup, created.pages, archive_sha256=archive.archive_sha256)


def _keep_digests(backup: Backup, pages: PagesDraft, *, archive_sha256: str) -> None:
    path = conf.page_digests(backup.database.identity)
    try:
        pages.keep(path, backup=backup.pk, archive_sha256=archive_sha256)
    except BackupError as exc:  # the backup is good without; the next archive is a full one
        logger.error("The next archive of %s will be a full one: %s", backup.database.name, exc)  # noqa: TRY400


def store_shared(backup: Backup, unchanged: Unchanged, owner: Owner, terms: Terms) -> None:
    """Record a backup whose content lies in the archive of ``owner``; that archive is proven again at each place.

    Raises:
        VerificationError: at none of them is it what it was. BackupError: from the stores. Nothing of
            the new backup is left then.
    """
    manifest = manifest_of_owner(owner, terms.places)
    made = Made(
        snapshot=unchanged.snapshot,
        checks=unchanged.checks,
        archive_name=manifest.archive_name,
        archive_bytes=manifest.archive_bytes,
        archive_sha256=manifest.archive_sha256,
        size_bytes=manifest.size_bytes,
        sha256=manifest.sha256,
        content_sha256=manifest.content_sha256,
        recipients=tuple(owner.backup.key_ids),
        media=unchanged.media,
        delta=manifest.delta,
        shares_with=owner.backup.pk,
    )
    part = _shared_part(manifest, watch=terms.watch)
    remarks = [f"Nothing has changed: it shares the archive of backup {owner.backup.pk}."]
    remarks += [terms.remark] if terms.remark else []
    _store_made(backup, made, part, replace(terms, remark=" ".join(remarks)))


def _store_made(backup: Backup, made: Made, part: Part, terms: Terms) -> None:
    database, own_media = backup.database, media_name(backup.archive_name)  # also where the archive is another's
    media = None if made.media is None else made.media.facts(own_media)
    sealed = seal_manifest(_manifest(backup, made, terms.tables, media=media), database=database, actor=terms.actor)
    if media is not None:
        # Before anything is stored: whoever cleans up after a killed process removes what the row names.
        backup.media, backup.media_bytes = media.as_dict(), media.archive_bytes
        backup.save(update_fields=["media", "media_bytes"])
    parts = [part, *_media_parts(own_media, made.media, watch=terms.watch)]
    parts += _small_parts(backup.archive_name, sealed, terms.folder)
    attempts = store_everywhere(backup, terms.places, parts, watch=terms.watch)
    try:
        record_outcome(backup, attempts, made=made, sealed=sealed, actor=terms.actor, remark=terms.remark)
    except BaseException:
        discard(attempts)
        backup.refresh_from_db()  # a half-recorded outcome must not show on the failed row
        raise
    advance_head(sealed, database=database)


def _manifest(backup: Backup, made: Made, tables: tuple[str, ...], *, media: Media | None) -> Manifest:
    snapshot = made.snapshot
    return Manifest(
        id=backup.pk,
        database=backup.database.name,
        identity=backup.database.identity,
        created_at=backup.created_at,
        taken_at=snapshot.taken_at,
        trigger=backup.trigger,
        archive_name=made.archive_name,
        archive_bytes=made.archive_bytes,
        archive_sha256=made.archive_sha256,
        encryption=ENCRYPTION if made.recipients else None,
        size_bytes=made.size_bytes,
        sha256=made.sha256,
        content_sha256=made.content_sha256,
        census=snapshot.census,
        journal_mode=snapshot.journal_mode,
        method=snapshot.method,
        required_tables=tables,
        failure=reason_of(made.checks),
        software={"django-walsafe": __version__, "sqlite": sqlite3.sqlite_version},
        media=media,
        delta=made.delta,
    )


def _archive_part(backup: Backup, created: CreatedArchive, *, watch: Watch) -> Part:
    """The archive just made; below a delta, the stored bytes of what it builds on are read again as well."""

    def prove(open_stored: OpenStored, copy: Copy) -> list[Check]:
        checks = prove_stored(open_stored, created.archive, watch=watch, made=created)
        if created.delta is not None and not failures(checks):
            checks += check_below(links_under(copy, created.delta), watch=watch)
        _refuse_failures(checks)
        return checks

    return Part(name=backup.archive_name, path=created.archive.path, prove=prove)


def _shared_part(manifest: Manifest, *, watch: Watch) -> Part:
    """An archive that is stored already: read back to its last byte, and to its content when a key is at hand."""

    def prove(open_stored: OpenStored, copy: Copy) -> list[Check]:
        try:
            keys = Keyring.configured().keys_for(manifest) if manifest.encryption else NO_KEYS
            checks = check_packed(open_stored, manifest, watch=watch, keys=keys)
        except KeyMissingError:  # the stored bytes are those that were proven to hold the content
            checks = [check_stored(open_stored, manifest, watch=watch)]
        if manifest.delta is not None and not failures(checks):
            checks += check_below(links_under(copy, manifest.delta), watch=watch)
        if failures(checks):
            raise VerificationError(
                f"The archive of the backup before is not what it was ({reason_of(checks)}).",
                "Run `manage.py backup verify` on that backup.",
            )
        return checks

    return Part(name=manifest.archive_name, path=None, prove=prove)


def _media_parts(name: str, media: PackedMedia | None, *, watch: Watch) -> list[Part]:
    """The archive of the folders just made, when there is one; it is the backup's own, whatever it shares."""
    if media is None:
        return []

    def prove(open_stored: OpenStored, _copy: Copy) -> list[Check]:
        checks = prove_stored(open_stored, media.stream, watch=watch, prefix=MEDIA_PREFIX)
        _refuse_failures(checks)
        return checks

    return [Part(name=name, path=media.stream.path, prove=prove)]


def _refuse_failures(checks: list[Check]) -> None:
    if failures(checks):
        raise VerificationError(
            f"The stored archive does not give back what was written ({reason_of(checks)}).",
            "It was removed. Check the disk of the archives folder, or the store.",
        )


def _small_parts(name: str, sealed: Sealed, folder: Path) -> list[Part]:
    """Manifest and signature, in the order of publication: those that :func:`.names.stored_names` names."""
    manifest_checks = [Check(name="manifest", ok=True, evidence=f"SHA-256 {sealed.digest}")]
    signature_checks = [
        Check(name="signature", ok=True, evidence=f"Ed25519, key {sealed.key_id}"),
        Check(name="chain", ok=True, evidence=f"number {sealed.manifest.sequence}"),
    ]
    return [
        small_part(manifest_name(name), sealed.content, folder, what="manifest", checks=manifest_checks),
        small_part(signature_name(name), sealed.signature, folder, what="signature", checks=signature_checks),
    ]
