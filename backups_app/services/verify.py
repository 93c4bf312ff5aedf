"""Verify stored copies again, and record the verdicts."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from .. import conf
from ..core import manifest as manifests
from ..core.archive import read_at_most
from ..core.errors import KeyMissingError, VerificationError
from ..core.files import scratch_folder
from ..core.manifest import Manifest
from ..core.progress import ProgressCallback, Watch
from ..core.verify import STORED_BYTES, Check, failures, reason_of, verdict_for, verify_full, verify_quick
from ..destinations import get_destination
from ..jobs.claim import Claim
from ..models import AuditEvent, Backup, Copy, Job, Verification
from ..models.backup import Verdict
from . import audit
from .audit import Actor
from .copies import require_copies
from .databases import required_tables
from .heal import heal_interrupted
from .jobs.ending import Ending
from .jobs.inline import run_inline
from .names import manifest_name

_DEEP_LEVELS = (Verification.Level.CREATION, Verification.Level.FULL)


def verify_backup(
    backup: Backup,
    *,
    level: str,
    actor: Actor,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> list[Verification]:
    """Verify each stored copy of ``backup`` at ``level`` and record one verdict per copy.

    An unreachable store is recorded as ``unreachable``, never as ``failed``. The states of copy
    and backup follow the evidence: see :func:`_settle`.

    Raises:
        NotFoundError: the backup has no stored copy. BusyError: its turn did not come.
            CancelledError, DeadlineError, DiskFullError and the like: the copy could not be judged;
            nothing is recorded about it.
    """
    heal_interrupted()
    require_copies(backup)

    def work(claim: Claim) -> list[Verification]:
        watch = claim.watch(on_progress=on_progress, is_cancelled=is_cancelled)
        return verify_claimed_backup(backup, level=level, actor=actor, job=claim.job, watch=watch)

    return run_inline(
        Job.Kind.VERIFY,
        backup.database,
        actor=actor,
        trigger=Job.Trigger.COMMAND,
        options={"backups": [backup.pk], "level": level},
        work=work,
        ending_of=Ending.of_verifications,
        is_cancelled=is_cancelled,
    )


def verify_claimed_backup(
    backup: Backup, *, level: str, actor: Actor, job: Job | None, watch: Watch
) -> list[Verification]:
    """:func:`verify_backup` for the owner of ``job``."""
    copies = require_copies(backup)
    return [_verify_copy(backup, copy, level=level, actor=actor, job=job, watch=watch) for copy in copies]


def read_manifest(copy: Copy, *, expected_sha256: str) -> Manifest:
    """The manifest stored beside a copy, when it is the one that the catalogue knows.

    Raises:
        UnreachableError: it cannot be read. VerificationError: it was altered.
    """
    destination = get_destination(copy.destination)
    with destination.open(manifest_name(copy.name)) as stream:
        content = read_at_most(stream, manifests.MAX_BYTES + 1)
    if manifests.digest(content) != expected_sha256:
        raise VerificationError(
            "The stored manifest is not the one that was written with this backup.",
            "It was altered or replaced. Use another copy.",
        )
    return Manifest.from_bytes(content)


def _verify_copy(
    backup: Backup, copy: Copy, *, level: str, actor: Actor, job: Job | None, watch: Watch
) -> Verification:
    started_at = timezone.now()
    checks: list[Check] = []
    verdict, reason, hint = str(Verdict.PASSED), "", ""
    try:
        with scratch_folder(conf.scratch_folder(), f"verify-{uuid.uuid4().hex}") as scratch:
            _check_copy(backup, copy, checks, level=level, scratch=scratch, watch=watch)
        if failures(checks):
            verdict, reason = Verdict.FAILED, reason_of(checks)
            hint = "Use another copy, or an older verified backup; then look at the disk of this destination."
    except (VerificationError, KeyMissingError) as exc:
        verdict, reason, hint = verdict_for(exc), exc.message, exc.hint
    verification = Verification(
        backup=backup,
        destination=copy.destination,
        level=level,
        verdict=verdict,
        reason=reason,
        hint=hint,
        checks=[check.as_dict() for check in checks],
        started_at=started_at,
        finished_at=timezone.now(),
        requested_by_id=actor.id,
        requested_by_name=actor.name,
        job=job,
    )
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        verification.save()
        _settle(backup, copy, verification)
        audit.record(
            "verify",
            actor=actor,
            outcome=AuditEvent.Outcome.DONE if verdict == Verdict.PASSED else AuditEvent.Outcome.FAILED,
            database_name=backup.database.name,
            subject=backup.pk,
            detail=f"{level} at {copy.destination}: {verdict}" + (f": {reason}" if reason else ""),
        )
    return verification


def _check_copy(backup: Backup, copy: Copy, checks: list[Check], *, level: str, scratch: Path, watch: Watch) -> None:
    """Append the checks made; those made before an error stay as evidence."""
    manifest = read_manifest(copy, expected_sha256=backup.manifest_sha256)
    checks.append(Check(name="manifest", ok=True, evidence=f"SHA-256 {backup.manifest_sha256}"))
    destination = get_destination(copy.destination)

    open_stored = partial(destination.open, copy.name)
    if level == Verification.Level.QUICK:
        checks += verify_quick(open_stored, manifest, watch=watch)
        return
    checks += verify_full(
        open_stored, manifest, required_tables=required_tables(backup.database), scratch=scratch, watch=watch
    )


def _settle(backup: Backup, copy: Copy, verification: Verification) -> None:
    """Let the states of copy and backup follow a new verdict.

    A passed ``full`` proves a copy. A passed ``quick`` shows that the bytes are those that were
    written, so it proves a copy only when the last deep look at those bytes had passed. A backup is ``verified`` while
    one copy is, ``failed`` when all are known to be bad, and stays as it is otherwise.
    """
    copy.checked_at = verification.finished_at
    copy.reason = verification.reason
    if verification.verdict != Verdict.PASSED:
        copy.state = Copy.State(verification.verdict)
    elif verification.level == Verification.Level.FULL or _passed_deep_proof(backup, copy):
        copy.state = Copy.State.VERIFIED
    copy.save()
    backup.refresh_from_db()
    backup.verdict = verification.verdict
    states = set(backup.copies.values_list("state", flat=True))
    if Copy.State.VERIFIED in states:
        backup.state = Backup.State.VERIFIED
        backup.failure_code = backup.reason = backup.hint = ""
        if copy.state == Copy.State.VERIFIED:
            backup.verified_at = verification.finished_at
    elif states == {Copy.State.FAILED}:
        backup.state = Backup.State.FAILED
        backup.failure_code = VerificationError.code
        backup.reason = verification.reason or backup.reason
        backup.hint = verification.hint or backup.hint
    backup.save()


def _passed_deep_proof(backup: Backup, copy: Copy) -> bool:
    deep = backup.verifications.filter(destination=copy.destination, level__in=_DEEP_LEVELS)
    last = next((each for each in deep.order_by("-finished_at", "-pk") if _read_what_was_written(each)), None)
    return last is not None and last.verdict == Verdict.PASSED


def _read_what_was_written(verification: Verification) -> bool:
    # What was found in altered or missing bytes says nothing about the right ones.
    return any(check["name"] == STORED_BYTES and check["ok"] for check in verification.checks)
