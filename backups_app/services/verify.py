"""Verify stored copies again, and record the verdicts."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from .. import conf
from ..core.errors import KeyMissingError, VerificationError
from ..core.files import scratch_folder
from ..core.manifest import Manifest
from ..core.media.unpack import PREFIX as MEDIA_PREFIX
from ..core.media.unpack import verify_media_full, verify_media_quick
from ..core.progress import ProgressCallback, Watch
from ..core.verify import (
    SITE_CHECK,
    STORED_BYTES,
    Check,
    LockedError,
    check_stored,
    failures,
    reason_of,
    verdict_for,
    verify_full,
    verify_quick,
)
from ..destinations import reach
from ..encryption import Keyring
from ..jobs.claim import Claim
from ..models import AuditEvent, Backup, Copy, Job, Verification
from ..models.backup import Verdict
from . import audit
from .audit import Actor
from .chain import check_chain
from .copies import require_copies, stored_copies
from .databases import required_tables, still_required
from .drill import Rehearsal, rehearse
from .heal import heal_interrupted
from .jobs.ending import Ending
from .jobs.inline import run_inline
from .links import all_referring, chain_of, links_below, opener
from .names import media_name
from .signing import check_signature, read_stored_manifest


def verify_backup(
    backup: Backup,
    *,
    level: str,
    actor: Actor,
    keyring: Keyring | None = None,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> list[Verification]:
    """Verify each stored copy of ``backup`` at ``level`` and record one verdict per copy.

    An unreachable store is recorded as ``unreachable``, never as ``failed``; an encrypted copy with
    the right stored bytes that no key opens as ``key_missing``. ``keyring``: the identities to try
    in place of those of the settings. The states of copy
    and backup follow the evidence: see :func:`_settle`.

    Raises:
        NotFoundError: the backup has no stored copy. BusyError: its turn did not come.
            CancelledError, DeadlineError, DiskFullError and the like: the copy could not be judged;
            nothing is recorded about it.
    """
    heal_interrupted()
    require_copies(backup)

    def work(claim: Claim) -> list[Verification]:
        watch = claim.watch(on_progress=on_progress, is_cancelled=is_cancelled)
        return verify_claimed_backup(backup, level=level, actor=actor, job=claim.job, watch=watch, keyring=keyring)

    return run_inline(
        Job.Kind.VERIFY,
        backup.database,
        actor=actor,
        trigger=Job.Trigger.COMMAND,
        options={"backups": [backup.pk], "level": level},
        work=work,
        ending_of=Ending.of_verifications,
        is_cancelled=is_cancelled,
    )


def verify_claimed_backup(
    backup: Backup,
    *,
    level: str,
    actor: Actor,
    job: Job | None,
    watch: Watch,
    keyring: Keyring | None = None,
    judged: Collection[str] = (),
) -> list[Verification]:
    """:func:`verify_backup` for the owner of ``job``, but for the copies at the destinations in ``judged``."""
    keyring = keyring or Keyring.configured()
    return [
        verify_copy(backup, copy, level=level, actor=actor, job=job, watch=watch, keyring=keyring)
        for copy in require_copies(backup)
        if copy.destination not in judged
    ]


def deepest_level(backup: Backup) -> str:
    """How deep a copy can be looked at here: without a key, the stored bytes are compared with the proven ones.

    A row that was rebuilt does not know for which keys its archive is: any identity here may open it.
    """
    publics = Keyring.configured().publics
    is_locked = backup.is_encrypted and not (publics.intersection(backup.key_ids) if backup.key_ids else publics)
    return Verification.Level.QUICK if is_locked else Verification.Level.FULL


def read_manifest(copy: Copy, *, expected_sha256: str) -> Manifest:
    """The manifest stored beside a copy, when it is the one that the catalogue knows.

    Raises:
        UnreachableError: it cannot be read. VerificationError: it was altered.
    """
    return read_stored_manifest(copy, expected_sha256=expected_sha256).manifest


def verify_copy(
    backup: Backup,
    copy: Copy,
    *,
    level: str,
    actor: Actor,
    job: Job | None,
    watch: Watch,
    keyring: Keyring | None = None,
    is_spreading: bool = True,
) -> Verification:
    """Verify one stored copy, and record the verdict; for the owner of ``job``.

    With ``is_spreading``, a verdict that changes what is known of the copy is followed by a quick look at
    the copies there that share its archive, or build on it.

    Raises: as :func:`verify_backup`.
    """
    keyring = keyring or Keyring.configured()
    started_at = timezone.now()
    rehearsal = Rehearsal(taken_at=backup.taken_at, started_at=started_at)
    checks: list[Check] = []
    verdict, reason, hint = str(Verdict.PASSED), "", ""
    try:
        with scratch_folder(conf.scratch_folder(), f"verify-{uuid.uuid4().hex}") as scratch:
            _check_copy(
                backup, copy, checks, level=level, rehearsal=rehearsal, scratch=scratch, watch=watch, keyring=keyring
            )
        if failures(checks):
            verdict, reason = Verdict.FAILED, reason_of(checks)
            hint = "Use another copy, or an older verified backup; then look at the disk of this destination."
    except (VerificationError, KeyMissingError) as exc:
        verdict, reason, hint = verdict_for(exc), exc.message, exc.hint
    was_good = copy.state == Copy.State.VERIFIED
    verification = Verification(
        backup=backup,
        destination=copy.destination,
        level=level,
        verdict=verdict,
        reason=reason,
        hint=hint,
        checks=[check.as_dict() for check in checks],
        started_at=started_at,
        finished_at=timezone.now(),
        requested_by_id=actor.id,
        requested_by_name=actor.name,
        job=job,
        recovery_seconds=rehearsal.recovery_seconds,
        data_age_seconds=rehearsal.data_age_seconds if level == Verification.Level.DRILL else None,
    )
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        verification.save()
        _settle(backup, copy, verification)
        audit.record(
            "verify",
            actor=actor,
            outcome=AuditEvent.Outcome.DONE if verdict == Verdict.PASSED else AuditEvent.Outcome.FAILED,
            database_name=backup.database.name,
            subject=backup.pk,
            detail=f"{level} at {copy.destination}: {verdict}" + (f": {reason}" if reason else ""),
        )
    if is_spreading:
        _spread(backup, copy, verification, was_good=was_good, actor=actor, job=job, watch=watch)
    return verification


def _spread(
    backup: Backup,
    copy: Copy,
    verification: Verification,
    *,
    was_good: bool,
    actor: Actor,
    job: Job | None,
    watch: Watch,
) -> None:
    """Let the verdict about one archive reach the copies at the same destination that are not restored without it.

    What is found to be bad through another backup is looked for below it: its owner gets the verdict.
    """
    look = partial(verify_copy, level=Verification.Level.QUICK, actor=actor, job=job, watch=watch, is_spreading=False)
    is_good = copy.state == Copy.State.VERIFIED
    if is_good == was_good:
        return
    roots = [backup]
    if not is_good:
        for below in reversed([each for each in chain_of(backup) if each.pk != backup.pk]):
            found = stored_copies(below).filter(destination=copy.destination).first()
            if found is not None and look(below, found).verdict != Verdict.PASSED:
                roots.append(below)
                break  # what is above it is bad for this reason
    seen = {each.pk for each in roots}
    for root in roots:
        for above in all_referring(root):
            found = stored_copies(above).filter(destination=copy.destination).first()
            if found is None or above.pk in seen or (found.state == Copy.State.VERIFIED) == is_good:
                continue
            seen.add(above.pk)
            look(above, found)


def _check_copy(
    backup: Backup,
    copy: Copy,
    checks: list[Check],
    *,
    level: str,
    rehearsal: Rehearsal,
    scratch: Path,
    watch: Watch,
    keyring: Keyring,
) -> None:
    """Append the checks made; those made before an error stay as evidence."""
    rehearsal.start()
    stored = read_stored_manifest(copy, expected_sha256=backup.manifest_sha256)
    manifest = stored.manifest
    checks.append(Check(name="manifest", ok=True, evidence=f"SHA-256 {backup.manifest_sha256}"))
    checks.append(check_signature(backup, copy, stored))
    if manifest.is_signed:
        checks.append(check_chain(backup, manifest))
    open_stored = opener(backup, copy)
    if level == Verification.Level.QUICK:
        checks += verify_quick(open_stored, manifest, watch=watch, below=links_below(copy, manifest))
        checks += _verify_media_bytes(copy, manifest, watch=watch)
        return
    try:
        keys = keyring.keys_for(manifest)
        below = links_below(copy, manifest, keys_for=keyring.keys_for)
    except KeyMissingError:
        checks += verify_quick(open_stored, manifest, watch=watch, below=links_below(copy, manifest))
        checks += _verify_media_bytes(copy, manifest, watch=watch)
        if failures(checks):  # damage is told apart from a missing key
            return
        raise
    try:
        if level == Verification.Level.DRILL:
            rehearse(
                backup.database,
                manifest,
                open_stored,
                checks,
                rehearsal=rehearsal,
                scratch=scratch,
                watch=watch,
                keys=keys,
                below=below,
            )
        else:
            checks += verify_full(
                open_stored,
                manifest,
                required_tables=still_required(backup.database, manifest),
                scratch=scratch,
                watch=watch,
                keys=keys,
                below=below,
            )
        if not failures(checks):  # its census is that of the manifest
            checks += _check_newer_tables(backup, manifest)
        if manifest.media is not None:
            checks += verify_media_full(
                partial(reach(copy.destination).open, media_name(copy.name)),
                manifest.media,
                encryption=manifest.encryption,
                scratch=scratch,
                watch=watch,
                keys=keys,
            )
    except LockedError as exc:
        checks += exc.checks
        raise


def _check_newer_tables(backup: Backup, manifest: Manifest) -> list[Check]:
    """Whether a copy meets what is required by now. If not it does not pass, yet it is what was backed up then.

    A safety backup is made of whatever was there, so nothing is asked of it.
    """
    if backup.trigger == Backup.Trigger.SAFETY:
        return []
    newer = tuple(table for table in required_tables(backup.database) if table not in manifest.required_tables)
    empty = manifest.census.empty_tables(newer)
    if not empty:
        return []
    evidence = f"no rows in {', '.join(empty)}; not required when it was made"
    return [Check(name=_NEWER_TABLES, ok=False, evidence=evidence)]


def verify_own_bytes(backup: Backup, copy: Copy, manifest: Manifest, *, watch: Watch) -> list[Check]:
    """Compare the stored bytes of a copy's archives with its manifest, whatever they build on.

    Raises:
        UnreachableError: the store does not answer. CancelledError, DeadlineError: from ``watch``.
    """
    archive = check_stored(opener(backup, copy), manifest, watch=watch)
    return [archive, *_verify_media_bytes(copy, manifest, watch=watch)]


def _verify_media_bytes(copy: Copy, manifest: Manifest, *, watch: Watch) -> list[Check]:
    if manifest.media is None:
        return []
    open_media = partial(reach(copy.destination).open, media_name(copy.name))
    return verify_media_quick(open_media, manifest.media, watch=watch)


_NEWER_TABLES = "newer required tables"
_NOT_THERE = (Copy.State.PENDING, Copy.State.REFUSED, Copy.State.PRUNED)
"""A copy that is not stored says nothing of the backup."""


def _settle(backup: Backup, copy: Copy, verification: Verification) -> None:
    """Let the states of copy and backup follow a new verdict.

    A passed ``full`` or ``drill`` proves a copy, and so does one in which only the site's own checks
    failed, or what is required since: the copy is what was backed up, and the verdict says what is wrong
    with that.
    A passed ``quick`` shows that the bytes are those that were written, so it proves a copy only when
    the last deep look at those bytes had passed. A backup is ``verified`` while one copy is, ``failed``
    when all are known to be bad, and stays as it is otherwise.
    """
    copy.checked_at = verification.finished_at
    copy.reason = verification.reason
    is_good = verification.verdict == Verdict.PASSED or is_as_backed_up(verification)
    if not is_good:
        copy.state = Copy.State(verification.verdict)
    elif verification.level in Verification.DEEP_LEVELS or _passed_deep_proof(backup):
        copy.state = Copy.State.VERIFIED
    copy.save()
    backup.refresh_from_db()
    backup.verdict = verification.verdict
    states = set(backup.copies.exclude(state__in=_NOT_THERE).values_list("state", flat=True))
    if Copy.State.VERIFIED in states:
        backup.state = Backup.State.VERIFIED
        backup.failure_code = backup.reason = backup.hint = ""
        if copy.state == Copy.State.VERIFIED:
            backup.verified_at = verification.finished_at
    elif states == {Copy.State.FAILED}:
        backup.state = Backup.State.FAILED
        backup.failure_code = VerificationError.code
        backup.reason = verification.reason or backup.reason
        backup.hint = verification.hint or backup.hint
    backup.save()


def is_as_backed_up(verification: Verification) -> bool:
    """Whether only the site's own checks objected, or what is required since: the copy is what was backed up."""
    failed = [each["name"] for each in verification.checks if not each["ok"] and not each.get("advisory")]
    return bool(failed) and all(name.startswith(SITE_CHECK) or name == _NEWER_TABLES for name in failed)


def _passed_deep_proof(backup: Backup) -> bool:
    # At whatever destination: all copies have the same digests.
    deep = backup.verifications.filter(level__in=Verification.DEEP_LEVELS)
    deep = deep.exclude(verdict=Verdict.KEY_MISSING)  # that one saw the stored bytes only
    last = next((each for each in deep.order_by("-finished_at", "-pk") if _read_what_was_written(each)), None)
    return last is not None and (last.verdict == Verdict.PASSED or is_as_backed_up(last))


def _read_what_was_written(verification: Verification) -> bool:
    # What was found in altered or missing bytes says nothing about the right ones.
    found = {check["name"]: check["ok"] or check.get("advisory", False) for check in verification.checks}
    others = ("signature", "chain", f"{MEDIA_PREFIX}{STORED_BYTES}")
    return found.get(STORED_BYTES, False) and all(found.get(name, True) for name in others)
