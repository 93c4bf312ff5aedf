"""How a job ended, and the one place that records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from ... import conf
from ...core.errors import BackupError, CancelledError
from ...jobs.claim import Claim
from ...jobs.connection import distrust_connection
from ...models import Backup, Job, Restore, Verification
from ...models.backup import Verdict
from ...redaction import redacted
from ..notifications import notify_job
from ..wording import english


@dataclass(frozen=True, kw_only=True)
class Ending:
    """A final state with its reason."""

    state: str
    outcome: str = ""
    hint: str = ""
    code: str = ""

    @classmethod
    def succeeded(cls, outcome: str = "") -> Ending:
        """All was done."""
        return cls(state=Job.State.SUCCEEDED, outcome=outcome)

    @classmethod
    def of(cls, exc: BackupError) -> Ending:
        """A failure, or a cancel."""
        state = Job.State.CANCELLED if isinstance(exc, CancelledError) else Job.State.FAILED
        return cls(state=state, outcome=exc.message, hint=exc.hint, code=exc.code)

    @classmethod
    def of_backup(cls, backup: Backup) -> Ending:
        """That of a job whose backup is in a final state."""
        if backup.state == Backup.State.VERIFIED:
            return cls.succeeded(f"Backup {backup.pk} is verified.")
        state = Job.State.CANCELLED if backup.state == Backup.State.CANCELLED else Job.State.FAILED
        return cls(state=state, outcome=backup.reason, hint=backup.hint, code=backup.failure_code)

    @classmethod
    def of_verifications(cls, found: list[Verification]) -> Ending:
        """That of a job that verified copies, in the order of the verdicts: one bad copy makes it a failure."""
        bad = [each for each in found if each.verdict != Verdict.PASSED]
        if not bad:
            return cls.succeeded(f"{len(found)} verified: passed.")
        first = bad[0]
        more = f" ({len(bad)} of {len(found)} did not pass)" if len(found) > 1 else ""
        since = found[found.index(first) + 1 :]
        if any(_is_same_look(each, first) and each.verdict == Verdict.PASSED for each in since):
            more += "; it was replaced by a good copy"
        return cls(
            state=Job.State.FAILED,
            outcome=f"{first.backup_id} at {first.destination}: {english(first, 'verdict')}: {first.reason}{more}",
            hint=first.hint,
            code="verification_failed" if first.verdict == Verdict.FAILED else first.verdict,
        )

    @classmethod
    def of_restore(cls, restore: Restore) -> Ending:
        """That of a job whose restore is in a final state."""
        if restore.state == Restore.State.SUCCEEDED:
            return cls.succeeded(f"Restore {restore.pk} succeeded.")
        state = Job.State.CANCELLED if restore.state == Restore.State.CANCELLED else Job.State.FAILED
        reason = restore.outcome or f"Restore {restore.pk} is {english(restore, 'state')}."
        return cls(state=state, outcome=reason, hint=restore.hint, code=restore.failure_code or BackupError.code)


def _is_same_look(one: Verification, other: Verification) -> bool:
    return (one.backup_id, one.destination, one.level) == (other.backup_id, other.destination, other.level)


def finish(claim: Claim, ending: Ending) -> bool:
    """Record how a claimed job ended; False when the claim was lost and somebody else decides."""
    distrust_connection()
    claim.log.add(f"{ending.state}: {ending.outcome}" if ending.outcome else str(ending.state))
    return close(claim.job, ending, heartbeat_at=timezone.now(), **claim.facts())


def close(job: Job, ending: Ending, **facts: Any) -> bool:
    """Give a running job its final state, and queue the news of it, in one transaction.

    False when its row has another owner or an end by now; nothing is written then.
    """
    now = timezone.now()
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        changed = Job.objects.filter(pk=job.pk, state=Job.State.RUNNING, token=job.token).update(
            state=ending.state,
            outcome=redacted(ending.outcome),
            hint=ending.hint,
            failure_code=ending.code,
            finished_at=now,
            **facts,
        )
        if changed:
            job.refresh_from_db()
            notify_job(job, now=now)
    return bool(changed)
