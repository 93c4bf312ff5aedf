"""Create a verified backup: whose turn it is, its row, what is made, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from django.utils import timezone

from .. import conf
from ..core.age import FileKey, X25519Recipient
from ..core.create import CreatedArchive, CreateOptions, Unchanged, create_archive, create_unless_unchanged
from ..core.errors import BackupError, CancelledError, VerificationError, translated
from ..core.files import scratch_folder
from ..core.progress import ProgressCallback, Watch
from ..jobs.claim import Claim
from ..models import Backup, Copy, Database, Job, Recipient, Verification
from ..models.backup import new_backup_id
from .audit import Actor
from .databases import database_files, live_path, required_tables
from .heal import heal_interrupted
from .hosts import require_here
from .jobs.ending import Ending
from .jobs.inline import run_inline
from .keys.registry import sync_recipients
from .keys.safety import unproven_remark
from .media import media_folders
from .names import archive_name
from .outcome import record_failure
from .previous import Owner, longest_chain, owner_for
from .publish import Terms, archive_name_of, store_created, store_shared
from .storing import plan_places
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
        record_failure(backup, exc, actor=actor)
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
            backup.archive_name = archive_name_of(backup, is_encrypted=bool(recipients))
            with translated("preparing the scratch folder"):
                folder = stack.enter_context(scratch_folder(conf.scratch_folder(), backup.pk))
        except BackupError as exc:
            record_failure(backup, exc, actor=actor)
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
        record_failure(backup, exc, actor=actor)
    except Exception as exc:
        logger.exception("An unexpected error ended backup %s", backup.pk)
        unexpected = BackupError(
            f"An unexpected error ended the backup: {type(exc).__name__}: {exc}", "See the log; please report it."
        )
        record_failure(backup, unexpected, actor=actor)
    except BaseException:
        # What was stored and recorded before the signal came stays what it is.
        if Backup.objects.filter(pk=backup.pk, state=Backup.State.RUNNING).exists():
            ended = CancelledError("The process was told to end.", "Nothing was published. Run the backup again.")
            record_failure(backup, ended, actor=actor)
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
    terms = Terms(places=places, folder=folder, tables=tables, actor=actor, watch=watch, remark=remark)
    if origin and isinstance(created, CreatedArchive):
        created = replace(created, snapshot=replace(created.snapshot, taken_at=origin.taken_at))
    if owner is not None and (isinstance(created, Unchanged) or created.delta is not None):
        try:
            _store(backup, created, owner, terms)
        except VerificationError as exc:
            # What it was to refer to is not what it was: the new backup must not depend on it.
            logger.error("Backup %s is stored whole: %s", backup.pk, exc)  # noqa: TRY400 - no traceback
            _judge(owner.backup, actor=actor, job=backup.job, watch=watch)
            if created.media is not None:  # it is made anew, from after the new snapshot
                created.media.stream.path.unlink()
            created = _make_alone(backup, source, folder, options=options, watch=watch)
            terms = replace(terms, folder=folder / _ALONE)
        else:
            return
    _store(backup, created, None, terms)
    if on_file_key is not None and isinstance(created, CreatedArchive) and created.archive.file_key is not None:
        on_file_key(created.archive.file_key)


def _store(backup: Backup, created: CreatedArchive | Unchanged, owner: Owner | None, terms: Terms) -> None:
    if isinstance(created, CreatedArchive):
        store_created(backup, created, terms)
    elif owner is not None:
        store_shared(backup, created, owner, terms)


_ALONE = "alone"


def _make_alone(backup: Backup, source: Path, folder: Path, *, options: CreateOptions, watch: Watch) -> CreatedArchive:
    """A new snapshot in a full archive, after an attempt that left nothing but its name on the row."""
    backup.archive_name = archive_name_of(backup, is_encrypted=bool(options.recipients))
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
