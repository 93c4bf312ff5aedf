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
from ..core.archive import ENCRYPTION, OpenStored, WrittenStream
from ..core.create import CreatedArchive, CreateOptions, create_archive, prove_stored
from ..core.errors import BackupError, CancelledError, UnreachableError, VerificationError, translated
from ..core.files import scratch_folder
from ..core.manifest import Manifest
from ..core.media.unpack import PREFIX as MEDIA_PREFIX
from ..core.progress import ProgressCallback, Watch
from ..core.verify import Check, failures, reason_of
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
from .media import media_folders
from .names import archive_name, manifest_name, media_name, signature_name
from .storing import Attempt, Part, Place, discard, plan_places, small_part, store_everywhere

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
    created = create_archive(
        origin.path if origin else live_path(database),
        folder,
        options=CreateOptions(
            required_tables=tables,
            integrity_check_max_bytes=conf.get("INTEGRITY_CHECK_MAX_BYTES"),
            busy_timeout_seconds=conf.get("BUSY_TIMEOUT_SECONDS"),
            compression_level=conf.get("ZSTD_LEVEL"),
            compression_workers=conf.get("ZSTD_WORKERS"),
            recipients=[X25519Recipient.parse(each.public) for each in recipients],
            # What a restore in place does not touch, a safety backup need not hold.
            media=() if origin or backup.trigger == Backup.Trigger.SAFETY else media_folders(database),
            databases=database_files(),
        ),
        watch=watch,
        now=timezone.now,
    )
    if origin:
        created = replace(created, snapshot=replace(created.snapshot, taken_at=origin.taken_at))
    remark = unproven_remark(recipients, now=timezone.now())
    store_created(backup, created, tables, folder, places=places, actor=actor, watch=watch, remark=remark)
    if on_file_key is not None and created.archive.file_key is not None:
        on_file_key(created.archive.file_key)


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
    database = backup.database
    sealed = seal_manifest(_manifest(backup, created, tables), database=database, actor=actor)
    if sealed.manifest.media is not None:
        # Before anything is stored: whoever cleans up after a killed process removes what the row names.
        backup.media = sealed.manifest.media.as_dict()
        backup.media_bytes = sealed.manifest.media.archive_bytes
        backup.save(update_fields=["media", "media_bytes"])
    parts = _parts(backup.archive_name, created, sealed, folder, watch=watch)
    attempts = store_everywhere(backup, places, parts, watch=watch)
    try:
        _record_outcome(backup, attempts, created=created, sealed=sealed, actor=actor, remark=remark)
    except BaseException:
        discard(attempts)
        backup.refresh_from_db()  # a half-recorded outcome must not show on the failed row
        raise
    advance_head(sealed, database=database)


def _manifest(backup: Backup, created: CreatedArchive, tables: tuple[str, ...]) -> Manifest:
    snapshot, archive = created.snapshot, created.archive
    return Manifest(
        id=backup.pk,
        database=backup.database.name,
        identity=backup.database.identity,
        created_at=backup.created_at,
        taken_at=snapshot.taken_at,
        trigger=backup.trigger,
        archive_name=backup.archive_name,
        archive_bytes=archive.archive_bytes,
        archive_sha256=archive.archive_sha256,
        encryption=ENCRYPTION if archive.recipients else None,
        size_bytes=archive.content_bytes,
        sha256=archive.sha256,
        content_sha256=archive.content_sha256,
        census=snapshot.census,
        journal_mode=snapshot.journal_mode,
        method=snapshot.method,
        required_tables=tables,
        failure=reason_of(created.checks),
        software={"django-walsafe": __version__, "sqlite": sqlite3.sqlite_version},
        media=None if created.media is None else created.media.facts(media_name(backup.archive_name)),
    )


def _parts(name: str, created: CreatedArchive, sealed: Sealed, folder: Path, *, watch: Watch) -> list[Part]:
    """The objects of a backup, in the order of publication: those that :func:`.names.stored_names` names."""

    def prove(open_stored: OpenStored, *, written: WrittenStream, prefix: str = "") -> list[Check]:
        checks = prove_stored(open_stored, written, watch=watch, prefix=prefix)
        if failures(checks):
            raise VerificationError(
                f"The stored archive does not give back what was written ({reason_of(checks)}).",
                "It was removed. Check the disk of the archives folder, or the store.",
            )
        return checks

    parts = [Part(name=name, path=created.archive.path, prove=partial(prove, written=created.archive))]
    if created.media is not None:
        stream = created.media.stream
        prove_media = partial(prove, written=stream, prefix=MEDIA_PREFIX)
        parts.append(Part(name=media_name(name), path=stream.path, prove=prove_media))
    manifest_checks = [Check(name="manifest", ok=True, evidence=f"SHA-256 {sealed.digest}")]
    signature_checks = [
        Check(name="signature", ok=True, evidence=f"Ed25519, key {sealed.key_id}"),
        Check(name="chain", ok=True, evidence=f"number {sealed.manifest.sequence}"),
    ]
    return [
        *parts,
        small_part(manifest_name(name), sealed.content, folder, what="manifest", checks=manifest_checks),
        small_part(signature_name(name), sealed.signature, folder, what="signature", checks=signature_checks),
    ]


def _record_outcome(
    backup: Backup,
    attempts: Sequence[Attempt],
    *,
    created: CreatedArchive,
    sealed: Sealed,
    actor: Actor,
    remark: str = "",
) -> None:
    snapshot, archive, now = created.snapshot, created.archive, timezone.now()
    reason = reason_of(created.checks)
    backup.taken_at = snapshot.taken_at
    backup.finished_at = now
    backup.size_bytes, backup.archive_bytes = archive.content_bytes, archive.archive_bytes
    backup.sha256, backup.archive_sha256 = archive.sha256, archive.archive_sha256
    backup.content_sha256, backup.manifest_sha256 = archive.content_sha256, sealed.digest
    backup.sequence, backup.signing_key_id = sealed.manifest.sequence, sealed.key_id
    backup.census, backup.row_count = snapshot.census.as_dict(), snapshot.census.rows
    backup.remarks = [
        *snapshot.notes,
        *(f"Media: {each}." for each in (created.media.remarks if created.media else ())),
        *remarks_on(backup),
        *([remark] if remark else []),
        *_missing_at(attempts),
    ]
    backup.is_encrypted, backup.key_ids = bool(archive.recipients), list(archive.recipients)
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
        backup.save()
        note_use(archive.recipients, now=now)
        for each in attempts:
            if each.is_proven:
                _record_proof(backup, each, created.checks, actor=actor, now=now)
            else:
                _record_missing(backup, each, actor=actor)
        _audit(backup, actor=actor)


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
