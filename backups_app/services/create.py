"""Create a verified backup, and record how it went."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from .. import __version__, conf
from ..core.age import FileKey, X25519Recipient
from ..core.archive import ENCRYPTION, OpenStored
from ..core.create import (
    CreatedArchive,
    CreateOptions,
    PagesDraft,
    Unchanged,
    create_archive,
    create_unless_unchanged,
    prove_stored,
)
from ..core.errors import (
    BackupError,
    CancelledError,
    KeyMissingError,
    UnreachableError,
    VerificationError,
    translated,
)
from ..core.files import scratch_folder
from ..core.manifest import Delta, Manifest, Media
from ..core.media.pack import PackedMedia
from ..core.media.unpack import PREFIX as MEDIA_PREFIX
from ..core.progress import ProgressCallback, Watch
from ..core.snapshot import Snapshot
from ..core.verify import NO_KEYS, Check, check_below, check_packed, check_stored, failures, reason_of
from ..encryption import Keyring
from ..jobs.claim import Claim
from ..models import AuditEvent, Backup, Copy, Database, Job, Recipient, Verification
from ..models.backup import Verdict, new_backup_id
from . import audit
from .audit import Actor
from .chain import Sealed, advance_head, seal_manifest
from .databases import database_files, live_path, required_tables
from .heal import heal_interrupted
from .health.anomalies import remarks_on
from .hosts import require_here
from .jobs.ending import Ending
from .jobs.inline import run_inline
from .keys.registry import note_use, sync_recipients
from .keys.safety import unproven_remark
from .links import links_under
from .media import media_folders
from .names import archive_name, manifest_name, media_name, signature_name
from .previous import Owner, longest_chain, manifest_of_owner, owner_for
from .storing import Attempt, Part, Place, discard, plan_places, small_part, store_everywhere
from .verify import verify_copy

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a backup's content comes from, when that is no live database under care."""

    path: Path
    """A private database file that nobody else has open."""
    sha256: str
    """Its SHA-256."""
    taken_at: datetime
    """How old the content is, as far as can be told."""


def create_backup(
    database: Database,
    *,
    actor: Actor,
    trigger: str,
    note: str = "",
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Backup:
    """Back up ``database`` now, prove the stored copy, and record the outcome.

    Always returns a row in a final state: ``verified`` only when every proof held, else
    ``failed`` or ``cancelled`` with ``failure_code``, ``reason`` and ``hint``. An archive whose
    content is not as it must be (damaged source, empty required table) is kept as ``failed``
    evidence; an archive that cannot be proven is removed.

    Raises:
        RefusedError: the database is on another host. No row is made.
    """
    require_here(database)
    heal_interrupted()

    def work(claim: Claim) -> Backup:
        watch = claim.watch(on_progress=on_progress, is_cancelled=is_cancelled)
        return create_claimed_backup(database, actor=actor, trigger=trigger, note=note, job=claim.job, watch=watch)

    try:
        return run_inline(
            Job.Kind.CREATE,
            database,
            actor=actor,
            trigger=trigger,
            options={"note": note} if note else {},
            work=work,
            ending_of=Ending.of_backup,
            is_cancelled=is_cancelled,
        )
    except BackupError as exc:  # its turn did not come
        backup = new_row(database, actor=actor, trigger=trigger, note=note)
        _record_failure(backup, exc, actor=actor)
        return backup


def create_claimed_backup(
    database: Database,
    *,
    actor: Actor,
    trigger: str,
    note: str = "",
    is_held: bool = False,
    origin: Origin | None = None,
    job: Job | None,
    watch: Watch,
    on_file_key: Callable[[FileKey], object] | None = None,
) -> Backup:
    """:func:`create_backup` for the owner of ``job``, who holds the lock of ``database``.

    ``on_file_key`` is given the key that opens this one archive, when it is encrypted, for a caller
    who may need to read it back without an identity. It must be kept in memory only. With ``origin``
    the content is taken from there, and the live database is not touched.
    """
    backup = new_row(database, actor=actor, trigger=trigger, note=note)
    backup.is_held, backup.job = is_held, job
    backup.origin_sha256 = origin.sha256 if origin else ""

    def work(folder: Path, recipients: list[Recipient]) -> None:
        _create_and_prove(backup, folder, recipients, origin=origin, actor=actor, watch=watch, on_file_key=on_file_key)

    return record_run(backup, work, actor=actor)


def record_run(backup: Backup, work: Callable[[Path, list[Recipient]], None], *, actor: Actor) -> Backup:
    """Let ``work`` make the new ``backup`` in a private folder for the recipients set now; returns the row.

    It is in a final state then, whatever happened; nothing but what was proven is left.
    """
    with ExitStack() as stack:
        try:
            # Before the row: its name says whether the archive is encrypted. Keys that cannot be
            # used must end the backup, never make a plain one.
            recipients = sync_recipients(now=timezone.now())
            backup.archive_name = archive_name(
                backup.database.name,
                created_at=backup.created_at,
                backup_id=backup.pk,
                is_encrypted=bool(recipients),
            )
            with translated("preparing the scratch folder"):
                folder = stack.enter_context(scratch_folder(conf.scratch_folder(), backup.pk))
        except BackupError as exc:
            _record_failure(backup, exc, actor=actor)
            return backup
        # The row appears while the lock of the scratch folder is held, so no other process can
        # take it for one whose owner died.
        backup.save(force_insert=True)
        _run(backup, lambda: work(folder, recipients), actor=actor)
    return backup


def new_row(database: Database, *, actor: Actor, trigger: str, note: str) -> Backup:
    """A backup that has just been asked for, not yet saved."""
    backup_id, created_at = new_backup_id(), timezone.now()
    return Backup(
        pk=backup_id,
        database=database,
        trigger=trigger,
        requested_by_id=actor.id,
        requested_by_name=actor.name,
        note=note,
        created_at=created_at,
        archive_name=archive_name(database.name, created_at=created_at, backup_id=backup_id),
    )


def _run(backup: Backup, work: Callable[[], None], *, actor: Actor) -> None:
    try:
        work()
    except BackupError as exc:
        _record_failure(backup, exc, actor=actor)
    except Exception as exc:
        logger.exception("An unexpected error ended backup %s", backup.pk)
        unexpected = BackupError(
            f"An unexpected error ended the backup: {type(exc).__name__}: {exc}", "See the log; please report it."
        )
        _record_failure(backup, unexpected, actor=actor)
    except BaseException:
        ended = CancelledError("The process was told to end.", "Nothing was published. Run the backup again.")
        _record_failure(backup, ended, actor=actor)
        raise


def _create_and_prove(
    backup: Backup,
    folder: Path,
    recipients: list[Recipient],
    *,
    origin: Origin | None,
    actor: Actor,
    watch: Watch,
    on_file_key: Callable[[FileKey], object] | None,
) -> None:
    database = backup.database
    places = plan_places(database, recipients, now=timezone.now())  # before any work
    # A safety backup must be had of whatever is there: that may be why somebody restores.
    tables = () if backup.trigger == Backup.Trigger.SAFETY else required_tables(database)
    owner = None if _stands_alone(backup, origin) else owner_for(database, recipients, places)
    options = CreateOptions(
        required_tables=tables,
        integrity_check_max_bytes=conf.get("INTEGRITY_CHECK_MAX_BYTES"),
        busy_timeout_seconds=conf.get("BUSY_TIMEOUT_SECONDS"),
        compression_level=conf.get("ZSTD_LEVEL"),
        compression_workers=conf.get("ZSTD_WORKERS"),
        recipients=[X25519Recipient.parse(each.public) for each in recipients],
        # What a restore in place does not touch, a safety backup need not hold.
        media=() if _stands_alone(backup, origin) else media_folders(database),
        databases=database_files(),
        previous=owner.previous if owner else None,
        is_reusing=bool(conf.get("REUSE_UNCHANGED")),
        longest_chain=0 if _stands_alone(backup, origin) else longest_chain(database),
        kept_digests=conf.page_digests(database.identity),
    )
    remark = unproven_remark(recipients, now=timezone.now())
    source = origin.path if origin else live_path(database)
    created = create_unless_unchanged(source, folder, options=options, watch=watch, now=timezone.now)
    store = partial(_store, backup, tables=tables, places=places, actor=actor, watch=watch, remark=remark)
    if origin and isinstance(created, CreatedArchive):
        created = replace(created, snapshot=replace(created.snapshot, taken_at=origin.taken_at))
    if owner is not None and (isinstance(created, Unchanged) or created.delta is not None):
        try:
            store(created, folder=folder, owner=owner)
        except VerificationError as exc:
            # What it was to refer to is not what it was: the new backup must not depend on it.
            logger.error("Backup %s is stored whole: %s", backup.pk, exc)  # noqa: TRY400 - no traceback
            _judge(owner.backup, actor=actor, job=backup.job, watch=watch)
            if created.media is not None:  # it is made anew, from after the new snapshot
                created.media.stream.path.unlink()
            created = _make_alone(backup, source, folder, options=options, watch=watch)
            folder = folder / _ALONE
        else:
            return
    store(created, folder=folder)
    if on_file_key is not None and isinstance(created, CreatedArchive) and created.archive.file_key is not None:
        on_file_key(created.archive.file_key)


def _store(
    backup: Backup,
    created: CreatedArchive | Unchanged,
    *,
    folder: Path,
    owner: Owner | None = None,
    tables: tuple[str, ...],
    places: Sequence[Place],
    actor: Actor,
    watch: Watch,
    remark: str,
) -> None:
    if isinstance(created, CreatedArchive):
        store_created(backup, created, tables, folder, places=places, actor=actor, watch=watch, remark=remark)
    elif owner is not None:
        _share(backup, created, owner, tables, folder, places=places, actor=actor, watch=watch, remark=remark)


_ALONE = "alone"


def _make_alone(backup: Backup, source: Path, folder: Path, *, options: CreateOptions, watch: Watch) -> CreatedArchive:
    """A new snapshot in a full archive, after an attempt that left nothing but its name on the row."""
    backup.archive_name = archive_name(
        backup.database.name,
        created_at=backup.created_at,
        backup_id=backup.pk,
        is_encrypted=bool(options.recipients),
    )
    backup.save(update_fields=["archive_name"])
    alone = folder / _ALONE
    alone.mkdir(mode=0o700)
    return create_archive(source, alone, options=replace(options, previous=None), watch=watch, now=timezone.now)


def _judge(owner: Backup, *, actor: Actor, job: Job | None, watch: Watch) -> None:
    """Record what is wrong with an archive that could not be proven again."""
    for copy in owner.copies.filter(state=Copy.State.VERIFIED):
        verify_copy(owner, copy, level=Verification.Level.QUICK, actor=actor, job=job, watch=watch)


def _stands_alone(backup: Backup, origin: Origin | None) -> bool:
    """Whether the backup has an archive of its own, and a full one.

    A safety backup has: whoever rolls back opens it with the key that was kept in memory since it was made.
    """
    return origin is not None or backup.trigger == Backup.Trigger.SAFETY


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What a backup consists of: its snapshot, and the archive that a restore reads."""

    snapshot: Snapshot
    checks: list[Check]
    archive_name: str
    archive_bytes: int
    archive_sha256: str
    size_bytes: int
    sha256: str
    content_sha256: str
    recipients: tuple[str, ...]
    media: PackedMedia | None = None
    delta: Delta | None = None
    shares_with: str = ""


def store_created(
    backup: Backup,
    created: CreatedArchive,
    tables: tuple[str, ...],
    folder: Path,
    *,
    places: Sequence[Place],
    actor: Actor,
    watch: Watch,
    remark: str = "",
) -> None:
    """Store an archive just made with its signed manifest, prove what is stored, and record the outcome.

    It is sealed once and stored at each of ``places``; one proven copy is enough. For the owner of
    the database's job: the manifest is the next one of its chain.

    Raises:
        VerificationError: what is stored is not what was made. BackupError: from the stores.
        Nothing of it is left then.
    """
    archive = created.archive
    if created.delta is not None:
        backup.archive_name = archive_name(
            backup.database.name,
            created_at=backup.created_at,
            backup_id=backup.pk,
            is_encrypted=bool(archive.recipients),
            is_delta=True,
        )
        backup.save(update_fields=["archive_name"])  # whoever cleans up after a killed process looks there
    made = _Made(
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
    part = _archive_part(backup, created, watch=watch)
    _store_made(backup, made, part, tables, folder, places=places, actor=actor, watch=watch, remark=remark)
    if created.pages is not None and backup.state == Backup.State.VERIFIED:
        _keep_digests(backup, created.pages, archive_sha256=archive.archive_sha256)


def _keep_digests(backup: Backup, pages: PagesDraft, *, archive_sha256: str) -> None:
    path = conf.page_digests(backup.database.identity)
    try:
        pages.keep(path, backup=backup.pk, archive_sha256=archive_sha256)
    except BackupError as exc:  # the backup is good without; the next archive is a full one
        logger.error("The next archive of %s will be a full one: %s", backup.database.name, exc)  # noqa: TRY400


def _share(
    backup: Backup,
    unchanged: Unchanged,
    owner: Owner,
    tables: tuple[str, ...],
    folder: Path,
    *,
    places: Sequence[Place],
    actor: Actor,
    watch: Watch,
    remark: str,
) -> None:
    """Record a backup whose content lies in the archive of ``owner``; that archive is proven again at each place.

    Raises:
        VerificationError: at none of them is it what it was. BackupError: from the stores. Nothing of
            the new backup is left then.
    """
    manifest = manifest_of_owner(owner, places)
    made = _Made(
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
    part = _shared_part(manifest, watch=watch)
    shared = [f"Nothing has changed: it shares the archive of backup {owner.backup.pk}.", *([remark] if remark else [])]
    _store_made(backup, made, part, tables, folder, places=places, actor=actor, watch=watch, remark=" ".join(shared))


def _store_made(
    backup: Backup,
    made: _Made,
    part: Part,
    tables: tuple[str, ...],
    folder: Path,
    *,
    places: Sequence[Place],
    actor: Actor,
    watch: Watch,
    remark: str,
) -> None:
    database, own_media = backup.database, media_name(backup.archive_name)  # also where the archive is another's
    media = None if made.media is None else made.media.facts(own_media)
    sealed = seal_manifest(_manifest(backup, made, tables, media=media), database=database, actor=actor)
    if media is not None:
        # Before anything is stored: whoever cleans up after a killed process removes what the row names.
        backup.media, backup.media_bytes = media.as_dict(), media.archive_bytes
        backup.save(update_fields=["media", "media_bytes"])
    parts = [part, *_media_parts(own_media, made.media, watch=watch)]
    parts += _small_parts(backup.archive_name, sealed, folder)
    attempts = store_everywhere(backup, places, parts, watch=watch)
    try:
        _record_outcome(backup, attempts, made=made, sealed=sealed, actor=actor, remark=remark)
    except BaseException:
        discard(attempts)
        backup.refresh_from_db()  # a half-recorded outcome must not show on the failed row
        raise
    advance_head(sealed, database=database)


def _manifest(backup: Backup, made: _Made, tables: tuple[str, ...], *, media: Media | None) -> Manifest:
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


def _record_outcome(
    backup: Backup,
    attempts: Sequence[Attempt],
    *,
    made: _Made,
    sealed: Sealed,
    actor: Actor,
    remark: str = "",
) -> None:
    snapshot, now = made.snapshot, timezone.now()
    reason = reason_of(made.checks)
    backup.taken_at = snapshot.taken_at
    backup.finished_at = now
    backup.archive_name, backup.shares_with = made.archive_name, made.shares_with
    backup.builds_on = made.delta.base if made.delta else ""
    backup.links_sha256 = made.delta.links_sha256 if made.delta else ""
    backup.size_bytes, backup.archive_bytes = made.size_bytes, made.archive_bytes
    backup.sha256, backup.archive_sha256 = made.sha256, made.archive_sha256
    backup.content_sha256, backup.manifest_sha256 = made.content_sha256, sealed.digest
    backup.sequence, backup.signing_key_id = sealed.manifest.sequence, sealed.key_id
    backup.census, backup.row_count = snapshot.census.as_dict(), snapshot.census.rows
    backup.remarks = [
        *snapshot.notes,
        *(f"Media: {each}." for each in (made.media.remarks if made.media else ())),
        *remarks_on(backup),
        *([remark] if remark else []),
        *_missing_at(attempts),
    ]
    backup.is_encrypted, backup.key_ids = bool(made.recipients), list(made.recipients)
    backup.pinned_seconds = snapshot.pinned_seconds
    if reason:
        backup.state, backup.verdict = Backup.State.FAILED, Verdict.FAILED
        backup.failure_code = VerificationError.code
        backup.reason = reason
        backup.hint = "The archive is a true copy and was kept, but it is not proven good. Look at the source."
    else:
        backup.state, backup.verdict = Backup.State.VERIFIED, Verdict.PASSED
        backup.verified_at = now
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        if made.delta is not None or made.shares_with:
            _require_owners(made)
        backup.save()
        note_use(made.recipients, now=now)
        for each in attempts:
            if each.is_proven:
                _record_proof(backup, each, made.checks, actor=actor, now=now)
            else:
                _record_missing(backup, each, actor=actor)
        _audit(backup, actor=actor)


def _require_owners(made: _Made) -> None:
    """In the transaction that records a backup: nobody has given up what it shares or builds on.

    Raises:
        VerificationError: somebody has, meanwhile.
    """
    ids = [each for each in (made.shares_with, made.delta.base if made.delta else "") if each]
    rows = Backup.objects.select_for_update().filter(pk__in=ids, state=Backup.State.VERIFIED)
    if len(rows) < len(set(ids)):
        raise VerificationError("The backup that this one refers to is not there any more.", "Run the backup again.")


def _record_proof(backup: Backup, attempt: Attempt, checks: list[Check], *, actor: Actor, now: datetime) -> None:
    copy = attempt.copy
    copy.stored_at = copy.checked_at = now
    copy.state = Copy.State.FAILED if backup.verdict == Verdict.FAILED else Copy.State.VERIFIED
    copy.reason = backup.reason
    copy.save()
    Verification.objects.create(
        backup=backup,
        destination=copy.destination,
        level=Verification.Level.CREATION,
        verdict=backup.verdict,
        reason=backup.reason,
        hint=backup.hint,
        checks=[check.as_dict() for check in [*checks, *attempt.checks]],
        started_at=attempt.started_at,
        finished_at=now,
        requested_by_id=actor.id,
        requested_by_name=actor.name,
        job=backup.job,
    )


def _record_missing(backup: Backup, attempt: Attempt, *, actor: Actor) -> None:
    """A destination that has no copy, which is no verdict: there is nothing to judge."""
    copy = attempt.copy
    copy.save()
    logger.error("Backup %s is not at %s: %s", backup.pk, copy.destination, copy.reason)
    audit.record(
        "store",
        actor=actor,
        outcome=AuditEvent.Outcome.REFUSED if copy.state == Copy.State.REFUSED else AuditEvent.Outcome.FAILED,
        database_name=backup.database.name,
        subject=backup.pk,
        detail=f"{copy.destination}: {copy.reason}",
    )


def _missing_at(attempts: Sequence[Attempt]) -> list[str]:
    return [f"It was not stored at {each.copy.destination}: {each.copy.reason}" for each in attempts if each.error]


def _record_failure(backup: Backup, exc: BackupError, *, actor: Actor) -> None:
    is_cancelled = isinstance(exc, CancelledError)
    backup.state = Backup.State.CANCELLED if is_cancelled else Backup.State.FAILED
    backup.finished_at = timezone.now()
    backup.failure_code = exc.code
    backup.reason, backup.hint = exc.message, exc.hint
    if isinstance(exc, UnreachableError):
        backup.verdict = Verdict.UNREACHABLE
    elif isinstance(exc, VerificationError):
        backup.verdict = Verdict.FAILED
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        backup.save()
        _audit(backup, actor=actor)


def _audit(backup: Backup, *, actor: Actor) -> None:
    is_good = backup.state == Backup.State.VERIFIED
    audit.record(
        "import" if backup.trigger == Backup.Trigger.IMPORT else "create",
        actor=actor,
        outcome=AuditEvent.Outcome.DONE if is_good else AuditEvent.Outcome.FAILED,
        database_name=backup.database.name,
        subject=backup.pk,
        detail=backup.reason or (backup.note if backup.trigger == Backup.Trigger.IMPORT else ""),
    )
