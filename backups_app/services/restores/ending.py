"""How a restore ended, and the one place that records it."""

from __future__ import annotations

from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from ... import conf
from ...core.errors import BackupError, CancelledError
from ...models import AuditEvent, Restore
from .. import audit
from ..audit import Actor
from ..wording import english


@dataclass(frozen=True, kw_only=True)
class RestoreEnding:
    """How a run ended."""

    state: str
    outcome: str = ""
    hint: str = ""
    code: str = ""

    @classmethod
    def of(cls, exc: BackupError) -> RestoreEnding:
        """A failure, or a cancel."""
        state = Restore.State.CANCELLED if isinstance(exc, CancelledError) else Restore.State.FAILED
        return cls(state=state, outcome=exc.message, hint=exc.hint, code=exc.code)


def finish_restore(restore: Restore, ending: RestoreEnding, *, actor: Actor) -> bool:
    """Record how a running restore ended; False when somebody else has done so already."""
    restore.state = Restore.State(ending.state)
    restore.outcome, restore.hint, restore.failure_code = ending.outcome, ending.hint, ending.code
    restore.finished_at = timezone.now()
    is_good = ending.state == Restore.State.SUCCEEDED
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        changed = Restore.objects.filter(pk=restore.pk, state=Restore.State.RUNNING).update(
            state=restore.state,
            outcome=restore.outcome,
            hint=restore.hint,
            failure_code=restore.failure_code,
            finished_at=restore.finished_at,
            report=restore.report,
            safety_backup=restore.safety_backup,
        )
        if changed:
            shown = english(restore, "state")
            audit.record(
                "restore",
                actor=actor,
                outcome=AuditEvent.Outcome.DONE if is_good else AuditEvent.Outcome.FAILED,
                database_name=restore.database.name,
                subject=restore.pk,
                detail=f"{shown}: {ending.outcome}" if ending.outcome else shown,
            )
    return bool(changed)
