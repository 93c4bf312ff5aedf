"""Delete a useless archive of somebody else, and record it."""

from __future__ import annotations

from ... import conf
from ...core.errors import BackupError, RefusedError
from ...core.progress import Watch
from ...core.triage import Judged, remove_unchanged
from ...models import AuditEvent
from .. import audit
from ..audit import Actor
from ..databases import live_files
from ..places import is_below, own_folders

ACTION = "delete-foreign"


def delete_useless(judged: Judged, *, actor: Actor, watch: Watch) -> None:
    """Delete a file that was judged useless and is exactly as it was then. This cannot be undone.

    Never deleted: what holds data or could not be judged, anything below ``BACKUPS["HOME"]``, a
    live database, a link, a member of a ZIP, a file that was changed since. Each attempt is
    recorded in the audit trail.

    Raises:
        RefusedError: it was not deleted. CancelledError, DeadlineError, BackupError: likewise.
    """
    try:
        _refuse_ours(judged)
        remove_unchanged(judged, watch=watch)
    except RefusedError as exc:
        _record(judged, f"{judged.path}: {exc.message}", actor=actor, outcome=AuditEvent.Outcome.REFUSED)
        raise
    except BackupError as exc:
        _record(judged, f"{judged.path}: {exc.message}", actor=actor, outcome=AuditEvent.Outcome.FAILED)
        raise
    said = f"{judged.path} ({judged.size_bytes:,} bytes, {judged.format}) was {judged.verdict}: {judged.reason}"
    _record(judged, said, actor=actor, outcome=AuditEvent.Outcome.DONE)


def _refuse_ours(judged: Judged) -> None:
    if any(is_below(judged.file, folder) for folder in (conf.home(), *own_folders())):  # a link, perhaps
        raise RefusedError(
            "It was not deleted: it lies below BACKUPS['HOME'].", "Archives of ours go by retention only."
        )
    if judged.identity in live_files():
        raise RefusedError("It was not deleted: it is a live database.", "Leave it.")


def _record(judged: Judged, detail: str, *, actor: Actor, outcome: str) -> None:
    audit.record(ACTION, actor=actor, outcome=outcome, subject=judged.sha256 or "", detail=detail)
