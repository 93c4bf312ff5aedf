"""Copies that are still to be stored: a destination failed, and is tried again from a good copy.

The clock asks for it, each pause twice as long as the one before; a scrub does it at once. A destination
that fails again stops nothing and is judged by nobody: its copies keep waiting, and health says so.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from ..core.errors import BackupError, CancelledError, DeadlineError, UnreachableError
from ..core.progress import Watch
from ..models import AuditEvent, Backup, Copy, Database, Job, Verification
from . import audit
from .audit import Actor
from .hosts import here
from .jobs.ask import ask_job
from .jobs.ending import Ending
from .repair import repair_copy

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Mending:
    """What one run of attempts came to."""

    found: list[Verification] = field(default_factory=list)
    """The verdicts about what was stored."""
    failures: dict[str, BackupError] = field(default_factory=dict)
    """Destination → why a copy still waits there."""
    _down: set[str] = field(default_factory=set)

    def ending(self) -> Ending:
        """That of its job: a store that is down is no failure of the job, and health tells of it."""
        waiting = " ".join(f"Still waiting at {name}: {exc.message}" for name, exc in self.failures.items())
        return Ending.succeeded(f"{len(self.found)} copies stored. {waiting}".strip())

    def mend(self, backup: Backup, copy: Copy, *, actor: Actor, job: Job | None, watch: Watch) -> list[Verification]:
        """Try one copy; a failure is recorded, and a destination that does not answer is not asked again.

        Raises:
            CancelledError, DeadlineError.
        """
        if copy.destination in self._down:
            return []
        try:
            repaired = repair_copy(backup, copy, actor=actor, job=job, watch=watch)
        except (CancelledError, DeadlineError):
            raise
        except BackupError as exc:
            self.failures[copy.destination] = exc
            if isinstance(exc, UnreachableError):
                self._down.add(copy.destination)
            audit.record(
                "repair",
                actor=actor,
                outcome=AuditEvent.Outcome.FAILED,
                database_name=backup.database.name,
                subject=backup.pk,
                detail=f"{copy.destination}: {exc.message}",
            )
            return []
        if repaired is None:
            return []
        self.found.append(repaired)
        return [repaired]


def copies_to_mend(database: Database) -> list[Copy]:
    """Copies that wait, whose repair was interrupted, or which have got a good one beside them; oldest backups last."""
    return list(_with_good_one().filter(backup__database=database).select_related("backup__database"))


def recopy_claimed_database(database: Database, *, actor: Actor, job: Job | None, watch: Watch) -> Mending:
    """Try every copy of ``database`` that waits and whose pause is over, for the owner of ``job``."""
    mending = Mending()
    for copy in _waiting(now=timezone.now()).filter(backup__database=database).select_related("backup__database"):
        watch.check()
        mending.mend(copy.backup, copy, actor=actor, job=job, watch=watch)
    return mending


def ask_recopies(*, now: datetime) -> list[Job]:
    """Ask for another attempt for each database of this host with copies whose pause is over at ``now``."""
    waiting = Database.objects.filter(here(), pk__in=_waiting(now=now).order_by().values("backup__database"))
    asked = Job.objects.filter(kind=Job.Kind.COPY, state__in=Job.OPEN_STATES, database=OuterRef("pk"))
    return [
        ask_job(Job.Kind.COPY, database, actor=Actor.system(), trigger=Job.Trigger.SCHEDULE)
        for database in waiting.filter(~Exists(asked))
    ]


def _waiting(*, now: datetime) -> QuerySet[Copy]:
    due = Q(retry_at=None) | Q(retry_at__lte=now)
    return _with_good_one().filter(due, state__in=Copy.WAITING_STATES)


def _with_good_one() -> QuerySet[Copy]:
    good = Copy.objects.filter(backup=OuterRef("backup"), state=Copy.State.VERIFIED)
    states = [*Copy.WAITING_STATES, Copy.State.REFUSED, Copy.State.FAILED]
    wanted = Copy.objects.filter(Exists(good), state__in=states)
    # What is not encrypted will never be allowed to leave this host.
    wanted = wanted.exclude(state=Copy.State.REFUSED, backup__is_encrypted=False)
    gone = [Backup.State.RUNNING, *Backup.GONE_STATES]
    return wanted.exclude(backup__state__in=gone).order_by("-backup__created_at", "pk")
