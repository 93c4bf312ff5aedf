"""What may speak against a restore. Each objection can be overridden, with a reason of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.db import router
from django.utils.translation import gettext_noop

from ...core.census import Census
from ...core.compare import holds_data
from ...core.errors import RefusedError
from ...models import Backup, Database
from ..wording import english

GUARDS = {
    "lock_out": gettext_noop("nobody could log in afterwards"),
    "empty": gettext_noop("the backup holds a schema without data"),
    "migration": gettext_noop("the backup and the code have different migrations"),
    "free_space": gettext_noop("the disk may run full"),
    "wrong_database": gettext_noop("the backup is of another database"),
    "unverified": gettext_noop("the backup is not verified"),
    "undo_key_missing": gettext_noop("the restore could not be undone here: its safety backup would stay locked"),
    "unsigned": gettext_noop("nothing proves who made the archive"),
}
"""Code of each guard → what it stands for; screens translate it."""


@dataclass(frozen=True, kw_only=True)
class Objection:
    """A guard that speaks against a restore."""

    code: str
    message: str


class GuardError(RefusedError):
    """Guards object to a restore."""

    def __init__(self, message: str, hint: str, *, objections: tuple[Objection, ...]) -> None:
        super().__init__(message, hint)
        self.objections = objections


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the guards look at."""

    backup: Backup
    database: Database
    now: Census | None
    """Census of the live database; None when it is missing or cannot be read."""
    after: Census
    free_bytes: int
    needed_bytes: int
    unknown_migrations: tuple[str, ...]
    """Applied in the backup, not known to the code."""
    missing_migrations: tuple[str, ...]
    """Known to the code, not applied in the backup."""
    safety_recipients: tuple[str, ...] = ()
    """Key ids that the safety backup will be encrypted for."""
    can_open_safety: bool = True
    """Whether an identity at hand will open the safety backup."""
    unsigned: str = ""
    """Why its manifest does not count as signed; empty when it does."""


def objections(facts: Facts) -> list[Objection]:
    """Every guard that objects, in a fixed order."""
    found = {
        "wrong_database": _wrong_database(facts),
        "unverified": _unverified(facts),
        "unsigned": facts.unsigned,
        "empty": _empty(facts),
        "lock_out": _lock_out(facts),
        "migration": _migration(facts),
        "free_space": _free_space(facts),
        "undo_key_missing": _undo_key_missing(facts),
    }
    return [Objection(code=code, message=message) for code, message in found.items() if message]


def require_reasons(overrides: dict[str, str]) -> None:
    """Refuse overrides that name no guard or give no reason.

    Raises:
        RefusedError: naming the first one.
    """
    for code, reason in overrides.items():
        if code not in GUARDS:
            raise RefusedError(f"There is no guard {code!r}.", f"Guards: {', '.join(GUARDS)}.")
        if not reason.strip():
            raise RefusedError(f"Overriding the guard {code!r} needs a reason.", f"Give it: --override {code}=REASON.")


def refuse_objections(found: list[Objection], overrides: dict[str, str]) -> None:
    """Refuse a restore that a guard objects to without an override.

    Raises:
        GuardError: with every open objection.
    """
    open_ones = [each for each in found if each.code not in overrides]
    if open_ones:
        text = "; ".join(f"{each.code}: {each.message}" for each in open_ones)
        raise GuardError(
            f"The restore was refused ({text}).",
            "Choose another backup, or override each guard with a reason: "
            + " ".join(f"--override {each.code}=REASON" for each in open_ones),
            objections=tuple(open_ones),
        )


def _wrong_database(facts: Facts) -> str:
    if facts.backup.database_id == facts.database.pk:
        return ""
    return f"the backup is of {facts.backup.database.name!r}, the target is {facts.database.name!r}"


def _unverified(facts: Facts) -> str:
    if facts.backup.state == Backup.State.VERIFIED:
        return ""
    return f"the backup is {english(facts.backup, 'state')}: {facts.backup.reason}"


def _empty(facts: Facts) -> str:
    return "" if holds_data(facts.after) else "the backup holds a schema without data"


def _lock_out(facts: Facts) -> str:
    is_where_users_live = facts.database.alias == (router.db_for_read(get_user_model()) or "default")
    has_users_now = facts.now is not None and facts.now.superusers is not None
    has_users_after = facts.after.superusers is not None
    if not (is_where_users_live or has_users_now or has_users_after) or facts.after.superusers:
        return ""
    return "the backup holds no active superuser with a usable password: nobody could log in as administrator"


def _migration(facts: Facts) -> str:
    parts: list[str] = []
    if facts.unknown_migrations:
        parts.append(f"the code does not know {_few(facts.unknown_migrations)}")
    if facts.missing_migrations:
        parts.append(f"the backup lacks {_few(facts.missing_migrations)}")
    return "; ".join(parts)


def _free_space(facts: Facts) -> str:
    if facts.free_bytes >= facts.needed_bytes:
        return ""
    return f"{facts.needed_bytes:,} bytes are needed on the disk, {facts.free_bytes:,} are free"


def _undo_key_missing(facts: Facts) -> str:
    if facts.can_open_safety:
        return ""
    return (
        f"the safety backup will be encrypted for {_few(facts.safety_recipients)}, and no identity at hand opens that: "
        "an undo needs an identity file that is not here"
    )


def _few(names: tuple[str, ...]) -> str:
    shown: Any = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
