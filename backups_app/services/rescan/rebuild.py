"""Rows of the catalogue, made from signed manifests."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from ... import conf
from ...core import age
from ...core import archive as archives
from ...core.errors import BusyError
from ...core.manifest import Manifest
from ...core.verify import STORED_BYTES, Check
from ...inert_text import fitting
from ...jobs.claim import job_lock
from ...models import Backup, Copy, Database, Verification
from ...models.backup import Verdict
from ...models.database import UNKNOWN_PATH
from .known import id_in, stem_of

_REMARK = "Rebuilt from its signed manifest by a rescan."


def database_for(manifest: Manifest) -> tuple[Database, bool]:
    """The database that a manifest is of, and whether its row is new.

    By identity first. A database of the same name under care that has no backups yet is the same
    one on a fresh machine, and takes the identity over. Else there is a new row, not under care: a
    file or an alias of that name takes its place when it is added.

    Raises:
        BusyError: a job runs on the database that should take the identity over.
    """
    found = Database.objects.filter(identity=manifest.identity).first()
    if found is not None:
        return found, False
    name = fitting(manifest.database, 200)
    twin = Database.objects.filter(name=name).first()
    if twin is None or twin.backups.exists():
        name = name if twin is None else f"{fitting(name, 180)} ({manifest.identity[:8]})"
        facts = {"path": UNKNOWN_PATH, "is_under_care": False, "host": conf.host_name()}
        row = Database(name=name, identity=manifest.identity, **facts)
        row.save(force_insert=True)
        return row, True
    with job_lock(twin) as is_ours:
        if not is_ours:
            raise BusyError(f"A job of {twin.name} is running.", "Try again when it has ended.")
        Database.objects.filter(pk=twin.pk).update(identity=manifest.identity)
    twin.refresh_from_db()
    return twin, False


def copy_name(manifest: Manifest, stem: str) -> str:
    """The name of a copy whose manifest lies at ``stem``: that of its archive, or of none when it shares one."""
    own = manifest.archive_name
    if stem_of(own) == stem:
        return own
    return stem + archives.SUFFIX + (age.SUFFIX if manifest.encryption else "")


def register(
    manifest: Manifest, *, stem: str, digest: str, database: Database, destination: str
) -> tuple[Backup, Copy]:
    """Bring a backup back into the catalogue, not verified yet, with the proof that its manifest records.

    Quick verification of the copy then decides: the stored bytes are those that were proven, or not.
    """
    now = timezone.now()
    owner = manifest.id if stem_of(manifest.archive_name) == stem else id_in(stem_of(manifest.archive_name))
    taken_at = min(manifest.taken_at, now)
    backup = Backup(
        pk=manifest.id,
        database=database,
        trigger=fitting(manifest.trigger, 20),
        created_at=manifest.created_at,
        taken_at=manifest.taken_at,
        finished_at=manifest.created_at,
        state=Backup.State.FAILED,
        failure_code="verification_failed" if manifest.failure else "unverified",
        reason=manifest.failure or "It was found by a rescan, and its stored bytes are not verified yet.",
        hint="Run `manage.py backup verify`.",
        archive_name=manifest.archive_name,
        shares_with="" if owner == manifest.id else owner,
        builds_on=manifest.delta.base if manifest.delta else "",
        links_sha256=manifest.delta.links_sha256 if manifest.delta else "",
        size_bytes=manifest.size_bytes,
        archive_bytes=manifest.archive_bytes,
        sha256=manifest.sha256,
        archive_sha256=manifest.archive_sha256,
        content_sha256=manifest.content_sha256,
        manifest_sha256=digest,
        sequence=manifest.sequence,
        signing_key_id=manifest.key.key_id,
        is_encrypted=manifest.encryption is not None,
        census=manifest.census.as_dict(),
        row_count=manifest.census.rows,
        media=None if manifest.media is None else manifest.media.as_dict(),
        media_bytes=0 if manifest.media is None else manifest.media.archive_bytes,
        remarks=[_REMARK],
    )
    copy = Copy(
        backup=backup,
        destination=destination,
        name=copy_name(manifest, stem),
        state=Copy.State.FAILED if manifest.failure else Copy.State.PENDING,
        reason=manifest.failure,
        stored_at=min(manifest.created_at, now),
    )
    evidence = f"{manifest.archive_bytes:,} bytes, SHA-256 {manifest.archive_sha256}, by the signed manifest"
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        backup.save(force_insert=True)
        copy.save(force_insert=True)
        Verification.objects.create(
            backup=backup,
            destination=destination,
            level=Verification.Level.CREATION,
            verdict=Verdict.FAILED if manifest.failure else Verdict.PASSED,
            reason=manifest.failure,
            checks=[Check(name=STORED_BYTES, ok=True, evidence=evidence).as_dict()],
            started_at=taken_at,
            finished_at=taken_at,
        )
    return backup, copy
