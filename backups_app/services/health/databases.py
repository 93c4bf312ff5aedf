"""Each database by itself: is its file there, and is there a proven backup, young enough?"""

from __future__ import annotations

from collections.abc import Iterator

from ...models import Backup
from ...models.backup import Verdict
from ..wording import english
from .facts import DatabaseHealth, Look, Problem

_CREATE = "Run `manage.py backup create`, or use Back up now in the admin."


def find_nothing_under_care(look: Look) -> Iterator[Problem]:
    """Is there anything to look after?"""
    if not look.databases:
        yield Problem(
            code="nothing_under_care",
            database="",
            message="No database is under care.",
            hint="Add one with `manage.py backup add-database NAME PATH`.",
        )


def find_missing_files(look: Look) -> Iterator[Problem]:
    """Is the database there?"""
    for each in look.databases:
        if each.is_here and each.size_bytes is None:
            yield Problem(
                code="database_missing",
                database=each.database.name,
                message=f"The file {each.database.path} does not exist, or cannot be reached.",
                hint="Restore it, or correct the path.",
                is_severe=True,
            )


def find_stale_backups(look: Look) -> Iterator[Problem]:
    """Is there a verified backup, and is it young enough?"""
    for each in look.databases:
        age = each.age(now=look.now)
        if each.last_verified is None:
            yield Problem(
                code="never_verified",
                database=each.database.name,
                message="There is no verified backup.",
                hint=_CREATE,
            )
        elif age is not None and age > each.limit:
            hours, allowed = (length.total_seconds() / 3600 for length in (age, each.limit))
            yield Problem(
                code="too_old",
                database=each.database.name,
                message=f"The last verified backup is {hours:.1f} h old; the limit is {allowed:g} h.",
                hint=_CREATE,
            )


def find_unproven_backups(look: Look) -> Iterator[Problem]:
    """Did the newest verified backup pass its last verification too?"""
    for each in look.databases:
        backup = each.last_verified
        if backup is not None and backup.verdict != Verdict.PASSED:
            yield Problem(
                code="not_proven_again",
                database=each.database.name,
                message="The last verification of the newest verified backup says "
                f"{english(backup, 'verdict') or 'nothing'}.",
                hint=f"See `manage.py backup show {backup.pk}`, and make a new backup.",
            )


def find_failed_backups(look: Look) -> Iterator[Problem]:
    """Did the last attempt end well?"""
    for each in look.databases:
        if _has_failed(each):
            attempt = each.last_attempt
            yield Problem(
                code="last_run_failed",
                database=each.database.name,
                message=f"The last backup failed: {attempt.reason if attempt else ''}",
                hint=(attempt.hint if attempt else "") or _CREATE,
            )


def _has_failed(each: DatabaseHealth) -> bool:
    return each.last_attempt is not None and each.last_attempt.state == Backup.State.FAILED
