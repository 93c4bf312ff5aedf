"""Encrypt a backup anew for the recipients set now, with an identity that opens it.

No archive is ever changed in place. The backup is unpacked into private scratch and fully checked,
and a new backup with the same content and the same time is stored and proven as any other. Only
then is the old archive removed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from ... import conf, encryption
from ...core.age import X25519Recipient
from ...core.archive import write_archive
from ...core.create import CreatedArchive
from ...core.errors import BackupError, InputError, NotFoundError, RefusedError, VerificationError
from ...core.manifest import Manifest
from ...core.media.pack import PackedMedia
from ...core.media.repack import repack_media
from ...core.progress import ProgressCallback, Watch
from ...core.snapshot import Snapshot
from ...core.verify import check_database
from ...destinations import reach
from ...encryption import Keyring
from ...jobs.claim import Claim
from ...models import AuditEvent, Backup, Copy, Job, Recipient, Restore, Verification
from ...models.backup import Verdict
from .. import audit
from ..audit import Actor
from ..copies import from_first_good_copy, require_copies
from ..create import new_row, record_run
from ..hosts import here, require_here
from ..jobs.ending import Ending
from ..jobs.inline import run_inline
from ..links import is_referred_to, referring_first
from ..names import media_name
from ..prune import give_up, needed_backups, newest_at, pass_on
from ..publish import Terms, store_created
from ..restores.staging import stage_backup
from ..storing import plan_places
from ..verify import read_manifest, verify_copy
from ..wording import english
from .safety import unproven_remark

logger = logging.getLogger(__name__)


def rekey_backup(
    backup: Backup,
    *,
    actor: Actor,
    keyring: Keyring | None = None,
    is_old_kept: bool = False,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Backup:
    """A new backup with the content of ``backup``, encrypted for the recipients set now; returns its row.

    It is ``verified`` when every proof held; only then the archive of ``backup`` is removed (unless
    ``is_old_kept``), and its row says which backup has its content. Else everything is as it was. When
    an earlier run made such a backup already, that one is looked at again and serves.
    :func:`require_replaced` tells whether the old archive had to stay.

    Raises:
        NotFoundError: it has no stored copy. RefusedError: no recipient is set, it is held in an
            open request to restore, or it is not a verified one. KeyMissingError: no identity opens it.
        BusyError: its turn did not come.
    """
    require_here(backup.database)
    _require_usable(backup)
    keyring = keyring or Keyring.configured()
    if backup.is_encrypted:
        keyring.require_any(backup.key_ids)

    def work(claim: Claim) -> Backup:
        watch = claim.watch(on_progress=on_progress, is_cancelled=is_cancelled)
        done = _made_before(backup, actor=actor, job=claim.job, watch=watch)
        done = done or _rekey(backup, actor=actor, keyring=keyring, job=claim.job, watch=watch)
        if done.state == Backup.State.VERIFIED:
            _replace(backup, done, actor=actor, is_old_kept=is_old_kept)
        return done

    return run_inline(
        Job.Kind.CREATE,
        backup.database,
        actor=actor,
        trigger=Job.Trigger.COMMAND,
        options={"rekey": backup.pk},
        work=work,
        ending_of=Ending.of_backup,
        is_cancelled=is_cancelled,
    )


def _require_usable(backup: Backup) -> None:
    require_copies(backup)
    if backup.state != Backup.State.VERIFIED:
        raise RefusedError(
            f"Backup {backup.pk} is {english(backup, 'state')}; only a verified one is encrypted anew.",
            f"Verify it first: `manage.py backup verify {backup.pk} --identity FILE`.",
        )
    if backup.restores.filter(state__in=Restore.OPEN_STATES).exists():
        raise RefusedError(f"A request to restore backup {backup.pk} is open.", "Decide it first, then run this again.")


def _made_before(backup: Backup, *, actor: Actor, job: Job, watch: Watch) -> Backup | None:
    """What an earlier run made of ``backup`` for the recipients set now, when its archive is still what it was.

    That run was ended before the old archive went, or the old one had to stay.
    """
    try:
        wanted = {str(each) for each in encryption.recipients()}
    except BackupError:
        return None  # it is told when the new archive is to be made
    if not wanted:
        return None
    others = Backup.objects.filter(database=backup.database_id, trigger=Backup.Trigger.REKEY).exclude(pk=backup.pk)
    same = others.filter(content_sha256=backup.content_sha256, taken_at=backup.taken_at)
    for each in same.filter(state=Backup.State.VERIFIED).select_related("database"):
        if set(each.key_ids) != wanted or each.has_media != backup.has_media:
            continue
        for copy in each.copies.filter(state=Copy.State.VERIFIED):
            found = verify_copy(each, copy, level=Verification.Level.QUICK, actor=actor, job=job, watch=watch)
            if found.verdict == Verdict.PASSED:
                return each
    return None


def _rekey(backup: Backup, *, actor: Actor, keyring: Keyring, job: Job, watch: Watch) -> Backup:
    row = new_row(backup.database, actor=actor, trigger=Backup.Trigger.REKEY, note=backup.note)
    row.origin_sha256 = backup.origin_sha256
    row.job = job  # it is held, if the old one is, once it is proven

    def work(folder: Path, recipients: list[Recipient]) -> None:
        if not recipients:
            raise InputError("No recipient is set to encrypt for.", "Set BACKUPS['AGE_RECIPIENTS'].")
        places = plan_places(backup.database, recipients, now=timezone.now())
        manifest = _manifest_of(backup)
        created = _written_anew(backup, folder, recipients, manifest=manifest, keyring=keyring, watch=watch)
        if created.archive.content_sha256 != backup.content_sha256:
            raise VerificationError("The content is not that of the backup.", "Verify it; nothing was changed.")
        terms = Terms(
            places=places,
            folder=folder,
            tables=manifest.required_tables,
            actor=actor,
            watch=watch,
            remark=f"Content of backup {backup.pk}. {unproven_remark(recipients, now=timezone.now())}".strip(),
        )
        store_created(row, created, terms)

    return record_run(row, work, actor=actor)


def _manifest_of(backup: Backup) -> Manifest:
    def read(copy: Copy) -> Manifest:
        return read_manifest(copy, expected_sha256=backup.manifest_sha256)

    return from_first_good_copy(backup, read)


def _written_anew(
    backup: Backup,
    folder: Path,
    recipients: list[Recipient],
    *,
    manifest: Manifest,
    keyring: Keyring,
    watch: Watch,
) -> CreatedArchive:
    staged, census = stage_backup(backup, folder, watch=watch, keyring=keyring)
    try:
        archive = write_archive(
            staged,
            folder / "archive",
            watch=watch,
            level=conf.get("ZSTD_LEVEL"),
            workers=conf.get("ZSTD_WORKERS"),
            recipients=[X25519Recipient.parse(each.public) for each in recipients],
        )
        media = _media_anew(backup, folder, recipients, manifest=manifest, keyring=keyring, watch=watch)
        checks = check_database(
            staged, expected=census, required_tables=manifest.required_tables, is_thorough=False, watch=watch
        )
    finally:
        staged.unlink(missing_ok=True)
    snapshot = Snapshot(
        path=staged,
        census=census,
        taken_at=manifest.taken_at,
        size_bytes=archive.content_bytes,
        pinned_seconds=0.0,
        method=manifest.method,  # type: ignore[arg-type]
        journal_mode=manifest.journal_mode,
        access="immutable",
        wal_bytes=0,
    )
    return CreatedArchive(snapshot=snapshot, archive=archive, checks=checks, media=media)


def _media_anew(
    backup: Backup,
    folder: Path,
    recipients: list[Recipient],
    *,
    manifest: Manifest,
    keyring: Keyring,
    watch: Watch,
) -> PackedMedia | None:
    media = manifest.media
    if media is None:
        return None

    def repack(copy: Copy) -> PackedMedia:
        return repack_media(
            partial(reach(copy.destination).open, media_name(copy.name)),
            media,
            folder / "media",
            encryption=manifest.encryption,
            keys=keyring.keys_for(manifest),
            watch=watch,
            level=conf.get("ZSTD_LEVEL"),
            workers=conf.get("ZSTD_WORKERS"),
            recipients=[X25519Recipient.parse(each.public) for each in recipients],
        )

    return from_first_good_copy(backup, repack)


def _replace(old: Backup, new: Backup, *, actor: Actor, is_old_kept: bool) -> None:
    """Let the new backup stand for the old one: in its undos, in its hold, and then alone.

    The old one goes as any backup that is pruned; when a file of it cannot be removed now, healing
    tries again.
    """
    if is_old_kept:
        with transaction.atomic(using=conf.CATALOG_ALIAS):
            pass_on(Backup.objects.select_for_update().get(pk=old.pk), new)
        old.refresh_from_db()
        became = "kept"
    else:
        became = "given up" if _give_up(old, new, actor=actor) else "stays"
    new.refresh_from_db()
    audit.record(
        "rekey",
        actor=actor,
        outcome=AuditEvent.Outcome.DONE,
        database_name=old.database.name,
        subject=old.pk,
        detail=f"as {new.pk} for {', '.join(new.key_ids)}; old archive {became}",
    )


def require_replaced(old: Backup, new: Backup) -> None:
    """Return when the archive of ``old`` is given up, now that ``new`` has its content.

    Raises:
        RefusedError: it stays, with the reason.
    """
    old.refresh_from_db()
    if old.is_gone:
        return
    now = timezone.now()
    if old.pk in needed_backups(now=now):
        why = "a restore needs it"
    elif is_referred_to(old):
        why = "another backup shares it, or builds on it"
    elif places := newest_at(old, now=now):
        why = f"nothing newer is verified at {', '.join(places)}"
    else:
        why = "something has changed meanwhile"
    raise RefusedError(
        f"Its content is in backup {new.pk} too, but the old archive stays for its old keys: {why}.",
        "Run this again when that has changed; the new backup is not made twice.",
    )


def _give_up(old: Backup, new: Backup, *, actor: Actor) -> bool:
    old.refresh_from_db()
    reason = f"Its content is kept as backup {new.pk}, encrypted for other keys."
    try:
        return give_up(old, reason=reason, actor=actor, now=timezone.now(), heir=new)
    except BackupError as exc:
        logger.error("A file of backup %s could not be removed: %s", old.pk, exc)  # noqa: TRY400 - no traceback
        return True


def backups_to_rekey() -> list[Backup]:
    """Verified backups of this host's databases that are not for exactly the recipients set now, oldest first.

    Those that need the archive of another one come before it.

    Raises: as :func:`encryption.recipients`. NotFoundError: there is nothing to do.
    """
    wanted = {str(each) for each in encryption.recipients()}
    with_copy = Copy.objects.filter(state__in=Copy.STORED_STATES).values("backup")
    stored = Backup.objects.filter(here("database__host"), pk__in=with_copy, state=Backup.State.VERIFIED)
    # What shares an archive, or builds on one, first: else the archive could not go.
    ordered = stored.select_related("database").order_by("taken_at", "created_at")
    found = referring_first([each for each in ordered if set(each.key_ids) != wanted])
    if not found:
        raise NotFoundError("No backup has to be encrypted anew.", "Each is for the recipients set now.")
    return found
