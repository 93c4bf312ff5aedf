"""The append-only record of who did what, in the catalogue and as JSON lines in ``state/``."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from dataclasses import dataclass
from typing import Any

from .. import conf
from ..core.files import create_private_folder
from ..core.manifest import utc_text
from ..inert_text import fitting, inert
from ..models import AuditEvent

logger = logging.getLogger(__name__)

_ID_LENGTH, _NAME_LENGTH = 64, 200


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A person or the system account, as plain text: no key crosses into another database.

    Both parts are as the catalogue holds them, so that an actor equals the one that is read back.
    """

    id: str
    name: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", fitting(self.id, _ID_LENGTH))
        object.__setattr__(self, "name", fitting(self.name, _NAME_LENGTH))

    @classmethod
    def system(cls) -> Actor:
        """The account of the command line and of schedules."""
        return cls(id="", name="system")

    @classmethod
    def of(cls, user: Any) -> Actor:
        """The actor for a signed-in user."""
        return cls(id=str(user.pk), name=user.get_username())


def record(
    action: str,
    *,
    actor: Actor,
    outcome: str = AuditEvent.Outcome.DONE,
    database_name: str = "",
    subject: str = "",
    detail: str = "",
) -> AuditEvent:
    """Append one event. ``detail`` must hold no secret and no row content.

    The line in ``state/audit.jsonl`` is a copy for readers without the catalogue; when it cannot
    be written that is logged, and the event stands.
    """
    event = AuditEvent.objects.create(
        actor_id=actor.id,
        actor_name=actor.name,
        action=action,
        outcome=outcome,
        database_name=fitting(database_name, _NAME_LENGTH),
        subject=fitting(subject, 255),
        detail=inert(detail),
    )
    _append_line(event)
    return event


def _append_line(event: AuditEvent) -> None:
    line = json.dumps(
        {
            "id": event.pk,
            "at": utc_text(event.at),
            "actor_id": event.actor_id,
            "actor": event.actor_name,
            "action": event.action,
            "outcome": event.outcome,
            "database": event.database_name,
            "subject": event.subject,
            "detail": event.detail,
        },
        ensure_ascii=True,
    )
    path = conf.state_folder() / "audit.jsonl"
    try:
        create_private_folder(path.parent)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _append(descriptor, line.encode("ascii") + b"\n")
        finally:
            os.close(descriptor)
    except OSError as exc:
        logger.error("The audit line could not be written to %s: %s", path, exc)  # noqa: TRY400 - no traceback


def _append(descriptor: int, line: bytes) -> None:
    """Append a whole line or nothing, also when the disk takes only a part; lines of two processes never mix."""
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # let go when the descriptor is closed
    before_bytes = os.fstat(descriptor).st_size
    try:
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]
    except OSError:
        os.ftruncate(descriptor, before_bytes)
        raise
