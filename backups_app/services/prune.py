"""Delete the backups that the policy of their database no longer keeps, in two steps that survive a crash.

First the row is marked, in a transaction that makes sure again that it may go; then its files are
removed and the row says that it is pruned. A process that dies in between leaves a marked row,
which :func:`~.heal.heal_interrupted` or the next prune finishes. The rows stay as history.

This module is the only one that marks backups, and :func:`_mark` the only place in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from .. import conf
from ..core.errors import BackupError, RefusedError, UnreachableError
from ..core.progress import ProgressCallback, Watch
from ..core.retention import Candidate, Decision, Policy, plan
from ..destinations import reach
from ..jobs.claim import Claim
from ..models import AuditEvent, Backup, Copy, Database, Job, Restore, Verification
from ..models.backup import Verdict
from . import audit
from .audit import Actor
from .heal import heal_interrupted
from .jobs.ending import Ending
from .jobs.inline import run_inline
from .links import is_referred_to, object_name, referring_first
from .names import media_name
from .removal import finish_removal
from .verify import is_as_backed_up

_NOT_STORED = (Copy.State.PENDING, Copy.State.REFUSED)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A backup with what is to become of it."""

    backup: Backup
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Pruned:
    """What one run came to."""

    database: Database
    kept: list[Judged] = field(default_factory=list)
    deleted: list[Judged] = field(default_factory=list)
    failures: list[BackupError] = field(default_factory=list)
    """Marked backups of which a file could not be removed, and destinations at which nothing was pruned; both are
    tried again."""

    def ending(self) -> Ending:
        """How its job ended."""
        if self.failures:
            return Ending.of(self.failures[0])
        return Ending.succeeded(f"{len(self.deleted)} deleted, {len(self.kept)} kept.")


def policy_of(database: Database, *, rules: Mapping[str, int | None] | None = None) -> Policy:
    """The policy of a database: its own rules, else those of the settings.

    ``rules`` stand in for the database's own, for a simulation.
    """
    default = conf.get("RETENTION")
    own = {name: getattr(database, name) for name in Database.KEEP_FIELDS} if rules is None else rules
    found = {name: default.get(name) if own.get(name) is None else own[name] for name in Database.KEEP_FIELDS}
    return Policy(**found, safety_days=conf.get("SAFETY_DAYS"), failed_days=conf.get("FAILED_DAYS"))


def simulate_prune(database: Database, *, now: datetime, rules: Mapping[str, int | None] | None = None) -> list[Judged]:
    """What a prune at ``now`` would keep and delete, and why, newest first; changes nothing.

    Backups without files are left out: there is nothing to decide.

    Raises:
        RefusedError: it would refuse to run.
    """
    backups = {each.pk: each for each in _backups(database)}
    candidates = _candidates(database, list(backups.values()), now=now)
    with_files = {each.id for each in candidates if each.has_files}
    decisions = plan(candidates, policy_of(database, rules=rules), now=now)
    return [Judged(backup=backups[each.id], decision=each) for each in decisions if each.id in with_files]


def prune_database(
    database: Database,
    *,
    actor: Actor,
    trigger: str = Job.Trigger.COMMAND,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Pruned:
    """Delete what the policy of ``database`` no longer keeps, now; never backups of another database.

    Raises:
        RefusedError: the newest run failed, the policy would keep nothing, or what is to be kept
            is not there. Nothing was deleted. BusyError: its turn did not come. CancelledError:
            what was deleted so far stays deleted; everything else is untouched.
    """
    heal_interrupted()

    def work(claim: Claim) -> Pruned:
        watch = claim.watch(on_progress=on_progress, is_cancelled=is_cancelled)
        return prune_claimed_database(database, actor=actor, watch=watch)

    return run_inline(
        Job.Kind.PRUNE,
        database,
        actor=actor,
        trigger=trigger,
        work=work,
        ending_of=Pruned.ending,
        is_cancelled=is_cancelled,
    )


def prune_claimed_database(database: Database, *, actor: Actor, watch: Watch) -> Pruned:
    """:func:`prune_database` for the owner of a job, who holds the lock of ``database``."""
    now = timezone.now()
    pruned = Pruned(database=database)
    for backup in Backup.objects.filter(database=database, state=Backup.State.PRUNING).select_related("database"):
        _remove(Judged(backup=backup, decision=_again(backup)), pruned, actor=actor)
    try:
        judged = simulate_prune(database, now=now)
        blocked = _unsafe_places(judged)
    except BackupError as exc:
        is_refused = isinstance(exc, RefusedError)
        outcome = AuditEvent.Outcome.REFUSED if is_refused else AuditEvent.Outcome.FAILED
        audit.record("prune", actor=actor, outcome=outcome, database_name=database.name, detail=exc.message)
        raise
    pruned.kept.extend(each for each in judged if each.decision.is_kept)
    oldest_first = [each for each in reversed(judged) if not each.decision.is_kept]
    doomed_by_id = {each.backup.pk: each for each in oldest_first}
    doomed = [doomed_by_id[each.pk] for each in referring_first([each.backup for each in oldest_first])]
    total = sum(each.backup.stored_bytes for each in doomed)
    done = 0
    pruned.failures.extend(blocked.values())
    for each in doomed:
        watch.report("prune", done, total)
        if _is_at_one_of(each.backup, blocked):
            pruned.kept.append(each)  # until that destination answers
        elif _mark(each, actor=actor, now=now):
            _remove(each, pruned, actor=actor)
        else:
            pruned.kept.append(each)
        done += each.backup.stored_bytes
    return pruned


def give_up(
    backup: Backup,
    *,
    reason: str,
    actor: Actor,
    now: datetime,
    is_last_allowed: bool = False,
    heir: Backup | None = None,
) -> bool:
    """Delete one backup for a reason other than the policy; False when it may not go, as for any prune.

    ``is_last_allowed``: somebody has confirmed that it may be the newest of its sort. ``heir``: a verified
    backup with the same content, which is held in its place (:func:`pass_on`), also when it may not go.
    The caller holds the lock of its database.

    Raises:
        BackupError: a file could not be removed. The backup is given up all the same, and healing
            tries again.
    """
    if not _mark(
        Judged(backup=backup, decision=Decision(id=backup.pk, is_kept=False, reason=reason)),
        actor=actor,
        now=now,
        is_last_allowed=is_last_allowed,
        heir=heir,
    ):
        return False
    finish_removal(backup, actor=actor)
    return True


def _backups(database: Database) -> list[Backup]:
    """By the key of the database, never by a name."""
    rows = Backup.objects.filter(database=database).exclude(state__in=Backup.GONE_STATES)
    return list(rows.select_related("database").defer("census", "remarks"))


def _candidates(database: Database, backups: list[Backup], *, now: datetime) -> list[Candidate]:
    copies: dict[str, list[Copy]] = defaultdict(list)
    for copy in Copy.objects.filter(backup__database=database).exclude(state__in=[*_NOT_STORED, Copy.State.PRUNED]):
        copies[copy.backup_id].append(copy)
    needed = needed_backups(now=now)
    failed_at = _failed_since(database)
    safeties = _safeties(database.pk)
    return [
        Candidate(
            id=backup.pk,
            identity=database.identity,
            state=backup.state,
            created_at=backup.created_at,
            at=backup.taken_at or backup.created_at,
            failed_at=failed_at.get(backup.pk),
            has_files=bool(copies[backup.pk]),
            is_held=is_held_by_hand(backup),
            is_safety=backup.pk in safeties,
            is_needed=backup.pk in needed,
            refers_to=frozenset({backup.shares_with, backup.builds_on} - {""}),
            verified_at=frozenset(copy.destination for copy in copies[backup.pk] if copy.state == Copy.State.VERIFIED),
        )
        for backup in backups
    ]


def _failed_since(database: Database) -> dict[str, datetime]:
    """Id of each backup with bad verdicts that is not verified → since when no copy of it is good.

    Each copy counts from the first bad verdict after its last good one, the backup from the last copy that became
    bad: a fault that was repaired says nothing of the next one.
    """
    verdicts = Verification.objects.filter(backup__database=database, verdict__in=(Verdict.PASSED, Verdict.FAILED))
    verdicts = verdicts.exclude(backup__state__in=[Backup.State.VERIFIED, *Backup.GONE_STATES])
    since: dict[str, dict[str, datetime]] = defaultdict(dict)
    proven: set[str] = set()
    for each in verdicts.order_by("finished_at", "pk"):
        is_deep = each.level in Verification.DEEP_LEVELS
        if each.verdict == Verdict.FAILED and not is_as_backed_up(each):
            since[each.backup_id].setdefault(each.destination, each.finished_at)
        elif is_deep or each.backup_id in proven:  # a quick look alone proves nothing
            since[each.backup_id].pop(each.destination, None)
            proven.add(each.backup_id)
    return {backup: max(copies.values()) for backup, copies in since.items() if copies}


def is_held_by_hand(backup: Backup) -> bool:
    """Whether somebody holds it: the hold that each safety backup begins with ends with its window."""
    return backup.is_held and (bool(backup.held_by_name) or not is_safety(backup))


def is_safety(backup: Backup) -> bool:
    """Whether its window protects it: it was made before a restore, or is such a one, encrypted anew."""
    if backup.trigger != Backup.Trigger.REKEY:
        return backup.trigger == Backup.Trigger.SAFETY
    return backup.pk in _safeties(backup.database_id)


def _safeties(database_id: int) -> set[str]:
    """Ids of the safety backups. The row of one that was encrypted anew stays, and says what the new one is."""
    rows = Backup.objects.filter(database=database_id)
    found = list(rows.filter(trigger=Backup.Trigger.SAFETY).values_list("pk", "taken_at", "content_sha256"))
    if not found:
        return set()
    contents = {(taken_at, content) for _pk, taken_at, content in found if content}
    anew = rows.filter(trigger=Backup.Trigger.REKEY).values_list("pk", "taken_at", "content_sha256")
    return {pk for pk, *_more in found} | {pk for pk, *content in anew if tuple(content) in contents}


def pass_on(backup: Backup, heir: Backup) -> None:
    """Let ``heir``, which has the same content, be what an undo of ``backup`` uses, and be held as that one is."""
    Restore.objects.filter(safety_backup=backup).update(safety_backup=heir)
    if is_held_by_hand(backup):
        Backup.objects.filter(pk=heir.pk).update(is_held=True, held_by_name=backup.held_by_name)


def needed_backups(*, now: datetime) -> set[str]:
    """Ids of the backups that an open restore uses, or an undo may use at once."""
    needed: set[str] = set()
    is_open = Q(state__in=Restore.OPEN_STATES)
    for backup, safety in Restore.objects.filter(is_open).values_list("backup_id", "safety_backup_id"):
        needed |= {backup, *([safety] if safety else [])}
    undoable = Restore.objects.filter(
        state=Restore.State.SUCCEEDED, expires_at__gt=now, safety_backup__isnull=False
    ).values_list("safety_backup_id", flat=True)
    return needed | {each for each in undoable if each}


def _unsafe_places(judged: list[Judged]) -> dict[str, BackupError]:
    """Look at what is kept before anything is deleted: the newest verified copy at each place must be there.

    Returns the places, with what is wrong, at which nothing may be deleted now.

    Raises:
        RefusedError: a copy that is kept has another size. UnreachableError: no place answers, or each
            lacks what is kept.
    """
    doomed = [each.backup.pk for each in judged if not each.decision.is_kept]
    stored = Copy.objects.filter(backup__in=doomed).exclude(state__in=_NOT_STORED)
    places = set(stored.values_list("destination", flat=True)) if doomed else set()
    unsafe: dict[str, BackupError] = {}
    for place in sorted(places):
        try:
            _require_survivor(judged, place)
        except UnreachableError as exc:
            unsafe[place] = exc
    if unsafe and len(unsafe) == len(places):
        raise next(iter(unsafe.values()))
    return unsafe


def _require_survivor(judged: list[Judged], place: str) -> None:
    for each in judged:
        copy = each.backup.copies.filter(destination=place, state=Copy.State.VERIFIED).first()
        if each.decision.is_kept and copy is not None:
            _require_there(each.backup, copy)
            return


def _is_at_one_of(backup: Backup, places: Mapping[str, object]) -> bool:
    return backup.copies.filter(destination__in=list(places)).exclude(state__in=_NOT_STORED).exists()


def _require_there(backup: Backup, copy: Copy) -> None:
    try:
        found = reach(copy.destination).size(object_name(backup, copy))
        if backup.has_media:
            found += reach(copy.destination).size(media_name(copy.name))
    except UnreachableError as exc:
        raise UnreachableError(
            f"Nothing was pruned: the backup {backup.pk}, which is to be kept, is not at {copy.destination}. "
            f"{exc.message}",
            exc.hint,
        ) from exc
    expected = (backup.archive_bytes or 0) + backup.media_bytes  # also where the archive is another one's
    if found != expected:
        raise RefusedError(
            f"Nothing was pruned: the backup {backup.pk}, which is to be kept, has {found:,} bytes at "
            f"{copy.destination} in place of {expected:,}.",
            f"Run `manage.py backup verify {backup.pk}`, and make a new backup.",
        )


def _mark(
    judged: Judged, *, actor: Actor, now: datetime, is_last_allowed: bool = False, heir: Backup | None = None
) -> bool:
    """Give a backup up; False when it may not go any more, because something has changed since the plan.

    Whatever was planned, the newest verified backup of a database and the newest verified copy at
    each destination are not marked, unless a person allows that: it is asked here, in the
    transaction that marks.
    """
    backup = judged.backup
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        Database.objects.select_for_update().get(pk=backup.database_id)  # one at a time
        row = Backup.objects.select_for_update().get(pk=backup.pk)
        if heir is not None:
            pass_on(row, heir)  # as it is held now: somebody may have asked for that a moment ago
        elif is_held_by_hand(row):
            return False
        if row.state != backup.state or row.pk in needed_backups(now=now):
            return False
        if row.state == Backup.State.RUNNING or is_referred_to(row):
            return False
        if not is_last_allowed and is_newest_of_its_sort(row, now=now):
            return False
        backup.state, backup.is_held, backup.held_by_name = Backup.State.PRUNING, False, ""
        backup.pruning_at, backup.prune_reason = now, judged.decision.reason
        backup.save(update_fields=["state", "is_held", "held_by_name", "pruning_at", "prune_reason"])
        audit.record(
            "prune",
            actor=actor,
            database_name=backup.database.name,
            subject=backup.pk,
            detail=f"given up: {backup.prune_reason}",
        )
    return True


def is_newest_of_its_sort(backup: Backup, *, now: datetime) -> bool:
    """Whether no other verified backup is newer, be it anywhere or at one of its destinations.

    Failed evidence is the best there is while nothing else is verified.
    """
    proven = proven_beside(backup)
    if backup.state != Backup.State.VERIFIED:
        return not proven.exists()
    return not _newer(proven, backup, now=now).exists() or bool(newest_at(backup, now=now))


def proven_beside(backup: Backup) -> QuerySet[Backup]:
    """The other verified backups of its database that have a verified copy; one with several comes several times."""
    others = Backup.objects.filter(database=backup.database_id, state=Backup.State.VERIFIED).exclude(pk=backup.pk)
    return others.filter(copies__state=Copy.State.VERIFIED)


def newest_at(backup: Backup, *, now: datetime) -> list[str]:
    """The destinations where a verified backup has the newest verified copy of its database."""
    newer = _newer(proven_beside(backup), backup, now=now)
    places = backup.copies.filter(state=Copy.State.VERIFIED).values_list("destination", flat=True)
    return [
        place
        for place in places
        if not newer.filter(copies__destination=place, copies__state=Copy.State.VERIFIED).exists()
    ]


def _newer(backups: QuerySet[Backup], backup: Backup, *, now: datetime) -> QuerySet[Backup]:
    return backups.filter(taken_at__gte=backup.taken_at, taken_at__lte=now)


def _again(backup: Backup) -> Decision:
    return Decision(id=backup.pk, is_kept=False, reason=backup.prune_reason)


def _remove(judged: Judged, pruned: Pruned, *, actor: Actor) -> None:
    try:
        finish_removal(judged.backup, actor=actor)
    except BackupError as exc:
        pruned.failures.append(exc)
    else:
        pruned.deleted.append(judged)
