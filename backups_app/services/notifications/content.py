"""What is told: JSON documents without secrets, short enough for any receiver."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...core.errors import BackupError
from ...core.manifest import utc_text
from ...models import Database, Job, Notification
from ...redaction import redacted_document
from ..chain import head_of

logger = logging.getLogger(__name__)

_MAX_CHARACTERS = 2000

_WHAT = {
    Job.Kind.CREATE: "Backup",
    Job.Kind.VERIFY: "Verification",
    Job.Kind.RESTORE: "Restore",
    Job.Kind.PRUNE: "Pruning",
    Job.Kind.TRIAGE: "Triage",
    Job.Kind.DRILL: "Drill",
    Job.Kind.COPY: "Copying to another destination",
}
_HOW = {
    Notification.Event.SUCCEEDED: "succeeded",
    Notification.Event.FAILED: "failed",
    Notification.Event.RECOVERED: "works again",
}


def job_content(job: Job, *, event: str, now: datetime) -> dict[str, Any]:
    """The document about the end of a job."""
    backups = list(job.backups.order_by("created_at", "pk").values_list("pk", "size_bytes"))
    verified = list(job.verifications.order_by("backup_id").values_list("backup_id", flat=True).distinct())
    sizes = [size for _, size in backups if size is not None]
    database = job.database.name if job.database else None
    return document(
        event,
        subject=f"{_WHAT[Job.Kind(job.kind)]}{f' of {database}' if database else ''} {_how(job, event)}",
        content={
            "kind": job.kind,
            "database": database,
            "job": job.pk,
            "trigger": job.trigger,
            "backups": [pk for pk, _ in backups] or verified or ([job.restore.backup_id] if job.restore else []),
            "restore": job.restore_id,
            "state": job.state,
            "failure_code": job.failure_code or None,
            "outcome": job.outcome or None,
            "hint": job.hint or None,
            "started_at": _time(job.started_at),
            "finished_at": _time(job.finished_at),
            "bytes": sum(sizes) if sizes else job.done_bytes or None,
            "host": job.host or None,
            "chain_head": chain_head(job.database) if job.database else None,
        },
        now=now,
    )


def chain_head(database: Database) -> dict[str, Any] | None:
    """Where the chain of manifests ends: told to others, it shows a roll-back of everything that is here."""
    try:
        head = head_of(database)
    except BackupError as exc:  # news must not fail for want of it
        logger.warning("The head of the chain of %s cannot be told: %s", database.name, exc.message)
        return None
    if head is None:
        return None
    return {"sequence": head.sequence, "manifest_sha256": head.manifest_sha256, "backup": head.backup}


def document(event: str, *, subject: str, content: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The envelope that every message has: event, subject and time, then what it is about; without secrets."""
    envelope = {"event": str(event), "subject": " ".join(subject.split()), "at": utc_text(now)}
    found: dict[str, Any] = _storable(redacted_document({**envelope, **content, **envelope}))
    return found


def _how(job: Job, event: str) -> str:
    return "was interrupted" if job.state == Job.State.INTERRUPTED else _HOW[Notification.Event(event)]


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else utc_text(moment)


def _storable(found: Any) -> Any:
    """Texts as every database and every mail can hold them: no half characters, no NUL, not too long."""
    if isinstance(found, dict):
        return {_storable(name): _storable(value) for name, value in found.items()}
    if isinstance(found, list):
        return [_storable(each) for each in found]
    if not isinstance(found, str):
        return found
    text = found.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"
