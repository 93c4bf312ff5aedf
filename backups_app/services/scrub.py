"""Scrub: prove stored copies again when it is time, the oldest proof first, so much per day; repair what is bad."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.utils import timezone

from .. import conf
from ..core.errors import NotFoundError
from ..core.progress import ProgressCallback, Watch
from ..encryption import Keyring
from ..jobs.claim import Claim
from ..models import Backup, Copy, Database, Job, Verification
from ..models.backup import Verdict
from .audit import Actor
from .heal import heal_interrupted
from .jobs.ending import Ending
from .jobs.inline import run_inline
from .recopy import Mending, copies_to_mend
from .verify import deepest_level, verify_copy

_READ = (Verdict.PASSED, Verdict.FAILED)
"""Verdicts after which the whole of a copy was read; a store that did not answer proves nothing."""

_DEEP = Q(level__in=Verification.DEEP_LEVELS)
_COMPARED = Q(level=Verification.Level.QUICK, backup__is_encrypted=True)
"""All that can be done without the identity."""


def newest_verified(database: Database) -> Backup:
    """The verified backup of ``database`` with the newest data; imported ones were not taken from it.

    Raises:
        NotFoundError: there is none.
    """
    verified = Backup.objects.select_related("database").filter(database=database, state=Backup.State.VERIFIED)
    own = verified.exclude(trigger=Backup.Trigger.IMPORT).filter(origin_sha256="")
    newest = own.order_by("-taken_at").first()
    if newest is None:
        raise NotFoundError("There is no verified backup to look at.", "Make one first.")
    return newest


def due_copies(database: Database, *, now: datetime) -> list[Copy]:
    """The copies of ``database`` to be proven again at ``now``, the oldest proof first.

    A copy is due ``VERIFY_DAYS`` after it was last read in depth, whatever quick looks there were
    since; one that could not be reached or opened is due until it can. One that is known to be bad
    is not due: that was told, and it is repaired when there is a good one. A host without the identity
    compares the stored bytes of an encrypted copy with those that were proven, and that counts there.
    """
    has_identity = bool(Keyring.configured().publics)
    compared = _last_read(_DEEP | _COMPARED)
    last = _last_read(_DEEP) if has_identity else compared
    limit = now - timedelta(days=float(conf.get("VERIFY_DAYS")))
    stored = Copy.objects.filter(backup__database=database, state__in=Copy.STORED_STATES)
    stored = stored.exclude(state=Copy.State.FAILED)
    unknown = Q(state=Copy.State.UNREACHABLE)
    if has_identity:
        unknown |= Q(state=Copy.State.KEY_MISSING)
    found = (
        stored.exclude(backup__state__in=[Backup.State.RUNNING, *Backup.GONE_STATES])
        .annotate(proven_at=Subquery(last), compared_at=Subquery(compared))
        .filter(Q(proven_at=None) | Q(proven_at__lt=limit) | unknown)
        .order_by(F("proven_at").asc(nulls_first=True), "pk")
        .select_related("backup__database")
    )
    return [
        copy
        for copy in found
        if copy.state != Copy.State.VERIFIED  # nothing is known of it
        or copy.compared_at is None
        or copy.compared_at < limit
        or deepest_level(copy.backup) != Verification.Level.QUICK  # the identity here may be another one's
    ]


def _last_read(counts: Q) -> QuerySet[Verification, Any]:
    """When a copy was last read by a verification that ``counts``."""
    read = Verification.objects.filter(
        counts, backup=OuterRef("backup"), destination=OuterRef("destination"), verdict__in=_READ
    )
    return read.order_by().values("backup").annotate(last=Max("finished_at")).values("last")


def bytes_left(*, now: datetime) -> int | None:
    """How many stored bytes may still be read today (UTC), by all databases together; None: no limit.

    Every deep look of today counts, but for the proof at creation, and every comparison of encrypted bytes.
    Negative when a large copy went over it.
    """
    budget = conf.get("SCRUB_BYTES_PER_DAY")
    if budget is None:
        return None
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    read = Verification.objects.filter(_DEEP | _COMPARED, finished_at__gte=today, verdict__in=_READ)
    used = read.exclude(level=Verification.Level.CREATION).aggregate(
        used=Sum(F("backup__archive_bytes") + F("backup__media_bytes"))
    )["used"]
    return int(budget) - int(used or 0)


def scrub_database(
    database: Database,
    *,
    actor: Actor,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> list[Verification]:
    """Prove the due copies of ``database`` again, within the budget of the day, and repair bad ones.

    Returns the verdicts in the order in which they were found: that of a repaired copy follows the bad one.

    Raises:
        BusyError: its turn did not come. CancelledError, DeadlineError: verdicts so far stay.
    """
    heal_interrupted()

    def work(claim: Claim) -> list[Verification]:
        watch = claim.watch(on_progress=on_progress, is_cancelled=is_cancelled)
        return prove_due(database, actor=actor, job=claim.job, watch=watch)

    return run_inline(
        Job.Kind.VERIFY,
        database,
        actor=actor,
        trigger=Job.Trigger.COMMAND,
        options={"due": True},
        work=work,
        ending_of=Ending.of_verifications,
        is_cancelled=is_cancelled,
    )


def scrub_claimed_database(database: Database, *, actor: Actor, job: Job | None, watch: Watch) -> list[Verification]:
    """What a schedule does: the due copies, and those of the newest verified backup in any case.

    What an interrupted attempt of ``job`` has judged as deeply is not read again, and not returned.

    Raises:
        NotFoundError: there is nothing verified and nothing due, and ``job`` has judged nothing.
    """
    earlier = list(job.verifications.all()) if job is not None else []
    found = prove_due(database, actor=actor, job=job, watch=watch)
    try:
        newest = newest_verified(database)
    except NotFoundError:
        if not found and not earlier:
            raise
        return found
    level = deepest_level(newest)
    judged = {each.destination for each in [*earlier, *found] if (each.backup_id, each.level) == (newest.pk, level)}
    for copy in newest.copies.filter(state__in=Copy.STORED_STATES):
        if copy.destination not in judged:
            found += _prove(newest, copy, actor=actor, job=job, watch=watch)
    return found


def prove_due(database: Database, *, actor: Actor, job: Job | None, watch: Watch) -> list[Verification]:
    """:func:`scrub_database` for the owner of ``job``."""
    found: list[Verification] = []
    mending = Mending()
    for copy in copies_to_mend(database):
        found += mending.mend(copy.backup, copy, actor=actor, job=job, watch=watch)
    for copy in due_copies(database, now=timezone.now()):
        left = bytes_left(now=timezone.now())
        if left is not None and left <= 0:
            break  # a copy larger than the budget is read all the same, on a day of its own
        watch.check()
        found += _prove(copy.backup, copy, actor=actor, job=job, watch=watch)
    return found


def _prove(backup: Backup, copy: Copy, *, actor: Actor, job: Job | None, watch: Watch) -> list[Verification]:
    """The verdict about a copy, and that about the repaired one; a repair that fails is tried again."""
    verification = verify_copy(backup, copy, level=deepest_level(backup), actor=actor, job=job, watch=watch)
    if verification.verdict != Verdict.FAILED:
        return [verification]
    return [verification, *Mending().mend(backup, copy, actor=actor, job=job, watch=watch)]
