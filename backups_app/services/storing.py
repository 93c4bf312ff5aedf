"""Storing a backup at its destinations: each object there is read back before the next one follows.

A backup is a few objects (archive, manifest, signature), made and sealed once. Every destination gets
all of them and a copy row of its own. One that fails keeps none of them, stops no other one, and
waits to be tried again from a good copy: see :mod:`.recopy`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

from django.utils import timezone

from .. import conf
from ..core.archive import OpenStored, read_at_most
from ..core.errors import BackupError, CancelledError, RefusedError, VerificationError
from ..core.files import write_synced
from ..core.progress import Watch
from ..core.verify import Check
from ..destinations import LOCAL, Destination, get_destination
from ..models import Backup, Copy, Database, Recipient
from .copies import note_failed_attempt
from .keys.safety import require_safe_for

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One object of a backup, ready in private scratch."""

    name: str
    path: Path | None
    """None for what is stored already, and is only proven again."""
    prove: Callable[[OpenStored, Copy], list[Check]]
    """Reads the stored object of a copy back. Raises VerificationError when it is not what was stored."""


def small_part(name: str, content: bytes, folder: Path, *, what: str, checks: Sequence[Check]) -> Part:
    """A manifest or a signature, drafted in ``folder``; ``checks`` is what its reading back shows.

    Raises:
        DiskFullError, BackupError: from the disk.
    """
    draft = folder / what
    write_synced(draft, content)

    def prove(open_stored: OpenStored, _copy: Copy) -> list[Check]:
        with open_stored() as stream:
            is_same = read_at_most(stream, len(content) + 1) == content
        if not is_same:
            raise VerificationError(f"The stored {what} differs from what was written.", "Check the disk.")
        return list(checks)

    return Part(name=name, path=draft, prove=prove)


# Where


@dataclass(frozen=True, kw_only=True)
class Place:
    """A destination that a backup is to be stored at, or why it cannot be."""

    name: str
    destination: Destination | None
    problem: BackupError | None = None
    is_refused: bool = False
    """A guard said no: what leaves this host must be encrypted for proven keys."""


def destination_names(database: Database) -> list[str]:
    """Where backups of ``database`` are stored by its policy, in order."""
    return list(dict.fromkeys(map(str, database.destinations))) or conf.destinations()


def plan_places(database: Database, recipients: list[Recipient], *, now: datetime) -> list[Place]:
    """The destinations for a backup of ``database`` for ``recipients``.

    Raises:
        RefusedError: none of them may be used.
    """
    places = [_place(name, recipients, now=now) for name in destination_names(database) or [LOCAL]]
    problems = [each.problem for each in places if each.problem is not None]
    if len(problems) == len(places):
        raise _all_of(problems)
    return places


def _place(name: str, recipients: list[Recipient], *, now: datetime) -> Place:
    try:
        destination = get_destination(name)
    except RefusedError as exc:
        return Place(name=name, destination=None, problem=exc)
    try:
        require_safe_for(destination, recipients, now=now)
    except RefusedError as exc:
        return Place(name=name, destination=None, problem=exc, is_refused=True)
    return Place(name=name, destination=destination)


# Storing


@dataclass(kw_only=True)
class Attempt:
    """How storing at one destination went."""

    copy: Copy
    destination: Destination | None
    checks: list[Check] = field(default_factory=list)
    error: BackupError | None = None
    started_at: datetime = field(default_factory=lambda: timezone.now())  # noqa: PLW0108 - looked up then
    written: list[str] = field(default_factory=list)
    """Objects of ours that may lie there."""

    @property
    def is_proven(self) -> bool:
        """Whether each object came back as it was stored."""
        return self.error is None

    def store(self, parts: Sequence[Part], *, watch: Watch) -> None:
        """Store and prove every part.

        Raises:
            BackupError: one of them was not stored, or did not come back. See :meth:`remove`.
        """
        if self.destination is None:
            return
        for part in parts:
            watch.check()
            if part.path is not None:
                self._store_object(self.destination, part.path, part.name, watch=watch)
            self.checks += part.prove(partial(self.destination.open, part.name), self.copy)

    def _store_object(self, destination: Destination, path: Path, name: str, *, watch: Watch) -> None:
        self.written.append(name)
        try:
            destination.store(path, name, watch=watch)
        except RefusedError:
            self.written.remove(name)  # the name is taken: that object is not ours
            raise

    def remove(self) -> None:
        """Take back what was stored; what cannot be removed now stays in :attr:`written`, and is logged."""
        if self.destination is None:
            return
        for name in list(self.written):
            try:
                self.destination.remove(name)
            except BackupError as exc:
                logger.error("An unproven file could not be removed: %s", exc)  # noqa: TRY400 - no traceback
            else:
                self.written.remove(name)


def store_everywhere(backup: Backup, places: Sequence[Place], parts: Sequence[Part], *, watch: Watch) -> list[Attempt]:
    """Store all ``parts`` of ``backup`` at each of ``places``; returns how it went, in order.

    At least one attempt is proven. Those that are not have left nothing there, or what they left is
    noted on their row (``pending``, or ``refused``), which is saved by the caller.

    Raises:
        BackupError: no destination took the backup. CancelledError: somebody asked to stop. After any
            error nothing is left, but for what could not be removed: see :func:`discard`.
    """
    attempts: list[Attempt] = []
    try:
        for place in places:
            # The row comes first: whoever cleans up after a killed process looks there.
            copy = Copy.objects.create(backup=backup, destination=place.name, name=backup.archive_name)
            attempts.append(Attempt(copy=copy, destination=place.destination, error=place.problem))
            _try(attempts[-1], place, parts, watch=watch)
        problems = [each.error for each in attempts if each.error is not None]
        if len(problems) == len(attempts):
            raise _all_of(problems)
    except BaseException:
        discard(attempts)
        raise
    return attempts


def _try(attempt: Attempt, place: Place, parts: Sequence[Part], *, watch: Watch) -> None:
    copy = attempt.copy
    if place.is_refused and place.problem is not None:
        copy.state, copy.reason = Copy.State.REFUSED, place.problem.message
        return
    try:
        if place.problem is not None:
            raise place.problem
        attempt.store(parts, watch=watch)
    except CancelledError:
        raise
    except BackupError as exc:
        attempt.error = exc
        attempt.remove()
        note_failed_attempt(copy, exc, now=timezone.now())


def discard(attempts: Sequence[Attempt]) -> None:
    """Remove what the attempts stored. A row stays where that cannot be done now: healing tries again."""
    for each in attempts:
        each.remove()
        if each.written:
            note_failed_attempt(each.copy, BackupError("Unproven files could not be removed."), now=timezone.now())
            each.copy.state = Copy.State.PENDING
            each.copy.save()
        else:
            Copy.objects.filter(pk=each.copy.pk).delete()


def _all_of(problems: Sequence[BackupError]) -> BackupError:
    """One error for several: what no destination took. A refusal counts only when all refuse."""
    others = [each for each in problems if not isinstance(each, RefusedError)]
    first = others[0] if others else problems[0]
    if len(problems) == 1:
        return first
    reasons = " ".join(each.message for each in problems)
    return type(first)(f"No destination took the backup. {reasons}", first.hint)
