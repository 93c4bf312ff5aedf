"""The stored copies of a backup, the likeliest to be good first."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from django.db.models import QuerySet

from ..core.errors import BackupError, NotFoundError, RefusedError, VerificationError
from ..destinations import LOCAL
from ..models import Backup, Copy
from .hosts import is_here

Result = TypeVar("Result")

FIRST_PAUSE = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(hours=6)
"""Between attempts at a destination that fails: each pause is twice the one before."""


def from_first_good_copy(backup: Backup, use: Callable[[Copy], Result]) -> Result:
    """What ``use`` gives for the first stored copy that it can trust: verified ones first, the nearest before others.

    Raises:
        NotFoundError: there is no stored copy. RefusedError: it was pruned. VerificationError: what
            ``use`` said of the first copy, when it trusts none. Whatever else ``use`` raises.
    """
    refuse_pruned(backup)
    copies = sorted(stored_copies(backup), key=nearest_first)
    if not copies:
        raise NotFoundError(f"Backup {backup.pk} has no stored copy.", "Choose another backup.")
    if not is_here(backup.database):
        copies = [copy for copy in copies if copy.destination != LOCAL]
    if not copies:
        raise NotFoundError(
            f"The only copy of backup {backup.pk} is on the host {backup.database.host!r} itself.",
            "Run the command there, or keep copies at a destination that both hosts reach.",
        )
    problems: list[VerificationError] = []
    for copy in copies:
        try:
            return use(copy)
        except VerificationError as exc:
            problems.append(exc)
    raise problems[0]


def nearest_first(copy: Copy) -> tuple[bool, bool]:
    """Sorts verified copies before others, and of those the one on this host before others."""
    return copy.state != Copy.State.VERIFIED, copy.destination != LOCAL


def require_copies(backup: Backup) -> list[Copy]:
    """The stored copies of a backup.

    Raises:
        NotFoundError: there is none. RefusedError: they were pruned.
    """
    refuse_pruned(backup)
    copies = list(stored_copies(backup))
    if not copies:
        raise NotFoundError(f"Backup {backup.pk} has no stored copy.", "It failed before an archive was stored.")
    return copies


def stored_copies(backup: Backup) -> QuerySet[Copy]:
    """The copies that can be looked at."""
    return backup.copies.filter(state__in=Copy.STORED_STATES)


def refuse_pruned(backup: Backup) -> None:
    """Refuse a backup whose files were removed by retention, or are being removed.

    Raises:
        RefusedError: with the day and the reason.
    """
    if not backup.is_gone:
        return
    day = f" on {backup.pruning_at:%Y-%m-%d}" if backup.pruning_at else ""
    raise RefusedError(
        f"Backup {backup.pk} was pruned{day} ({backup.prune_reason}): its archive is gone.",
        "Choose another backup: `manage.py backup list`.",
    )


def note_failed_attempt(copy: Copy, exc: BackupError, *, now: datetime) -> None:
    """Note on ``copy``, without saving it, that its destination failed, and when to try again."""
    copy.attempts += 1
    copy.reason = exc.message
    copy.retry_at = now + min(FIRST_PAUSE * 2 ** min(copy.attempts - 1, 20), LONGEST_PAUSE)


def note_success(copy: Copy) -> None:
    """Note on ``copy``, without saving it, that its destination did what was asked."""
    copy.attempts, copy.retry_at = 0, None
