"""The stored copies of a backup, the likeliest to be good first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..core.errors import NotFoundError, VerificationError
from ..models import Backup, Copy

Result = TypeVar("Result")


def from_first_good_copy(backup: Backup, use: Callable[[Copy], Result]) -> Result:
    """What ``use`` gives for the first stored copy that it can trust; verified copies are tried first.

    Raises:
        NotFoundError: there is no stored copy. VerificationError: what ``use`` said of the first
            copy, when it trusts none. Whatever else ``use`` raises.
    """
    copies = sorted(backup.copies.exclude(state=Copy.State.PENDING), key=lambda copy: copy.state != Copy.State.VERIFIED)
    if not copies:
        raise NotFoundError(f"Backup {backup.pk} has no stored copy.", "Choose another backup.")
    problems: list[VerificationError] = []
    for copy in copies:
        try:
            return use(copy)
        except VerificationError as exc:
            problems.append(exc)
    raise problems[0]


def require_copies(backup: Backup) -> list[Copy]:
    """The stored copies of a backup.

    Raises:
        NotFoundError: there is none.
    """
    copies = list(backup.copies.exclude(state=Copy.State.PENDING))
    if not copies:
        raise NotFoundError(f"Backup {backup.pk} has no stored copy.", "It failed before an archive was stored.")
    return copies
