"""Record how a backup went: its row, a verdict on each copy, and an audit line."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from .. import conf
from ..core.errors import BackupError, CancelledError, UnreachableError, VerificationError
from ..core.manifest import Delta
from ..core.media.pack import PackedMedia
from ..core.snapshot import Snapshot
from ..core.verify import Check, reason_of
from ..jobs.connection import distrust_connection
from ..models import AuditEvent, Backup, Copy, Verification
from ..models.backup import Verdict
from . import audit
from .audit import Actor
from .chain import Sealed
from .health.anomalies import remarks_on
from .keys.registry import note_use
from .storing import Attempt

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Made:
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


def record_outcome(
    backup: Backup,
    attempts: Sequence[Attempt],
    *,
    made: Made,
    sealed: Sealed,
    actor: Actor,
    remark: str = "",
) -> None:
    """Record a backup that is stored: ``verified``, or ``failed`` evidence when a check of its content failed.

    Row, copies, verdicts and audit line are one transaction.

    Raises:
        VerificationError: what it shares or builds on was given up meanwhile. Nothing was recorded.
    """
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


def _require_owners(made: Made) -> None:
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


def record_failure(backup: Backup, exc: BackupError, *, actor: Actor) -> None:
    """Record a backup that came to nothing: ``failed``, or ``cancelled``, with why and what to do."""
    distrust_connection()  # its loss may be why
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
