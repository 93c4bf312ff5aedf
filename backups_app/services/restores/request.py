"""Ask for a restore."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from ... import conf
from ...core.errors import BackupError, InputError, RefusedError
from ...core.progress import ProgressCallback, Watch
from ...encryption import Keyring
from ...models import AuditEvent, Backup, Database, Restore
from .. import audit
from ..audit import Actor
from ..copies import refuse_pruned
from .binding import binding_of
from .decide import expire_restores
from .guards import refuse_objections, require_reasons
from .preview import preview_restore


def request_restore(
    backup: Backup,
    database: Database,
    *,
    reason: str,
    actor: Actor,
    overrides: Mapping[str, str] | None = None,
    is_migrating: bool = False,
    keyring: Keyring | None = None,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Restore:
    """Preview the restore of ``backup`` into ``database``, and file the request when no guard objects.

    ``overrides`` maps the code of a guard to why it does not count. The request, and an approval
    of it, may be used until ``expires_at``. ``keyring``: the identities to try in place of those of
    the settings; they are not kept, so running the restore needs them again. The attempt is in the
    audit trail either way.

    Raises:
        InputError: the reason is empty. RefusedError: a guard objects.
        VerificationError, NotFoundError: the backup cannot be used. BackupError: any other kind.
        No request exists after any of them.
    """
    expire_restores()
    chosen = dict(overrides or {})
    watch = Watch(on_progress=on_progress, is_cancelled=is_cancelled, deadline_seconds=conf.get("DEADLINE_SECONDS"))
    try:
        if not reason.strip():
            raise InputError("A restore needs a reason.", "Say why with --reason TEXT.")
        require_reasons(chosen)
        preview = preview_restore(backup, database, watch=watch, keyring=keyring)
        refuse_objections(preview.objections, chosen)
    except BackupError as exc:
        _audit_refusal(backup, database, exc, actor=actor)
        raise
    needed = {each.code for each in preview.objections}
    return file_request(
        backup,
        database,
        reason=reason,
        actor=actor,
        overrides={code: why for code, why in chosen.items() if code in needed},
        is_migrating=is_migrating,
        preview=preview.document,
    )


def file_request(
    backup: Backup,
    database: Database,
    *,
    reason: str,
    actor: Actor,
    overrides: dict[str, str],
    is_migrating: bool,
    preview: dict[str, object] | None,
    undo_of: Restore | None = None,
) -> Restore:
    """Add the row of a request and its audit event.

    Raises:
        RefusedError: the backup was pruned in the meantime. From the request on, it cannot be.
    """
    now = timezone.now()
    restore = Restore(
        backup=backup,
        database=database,
        reason=reason.strip(),
        overrides=overrides,
        is_migrating=is_migrating,
        archive_sha256=backup.archive_sha256,
        undo_of=undo_of,
        requested_by_id=actor.id,
        requested_by_name=actor.name,
        requested_at=now,
        expires_at=now + timedelta(hours=conf.get("APPROVAL_HOURS")),
        preview=preview,
    )
    restore.binding_sha256 = binding_of(restore)
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        refuse_pruned(Backup.objects.select_for_update().get(pk=backup.pk))
        restore.save(force_insert=True)
        audit.record(
            "request-restore",
            actor=actor,
            database_name=database.name,
            subject=restore.pk,
            detail=f"backup {backup.pk}: {restore.reason}" + _override_text(overrides),
        )
    return restore


def _override_text(overrides: dict[str, str]) -> str:
    return "".join(f"; overrides {code}: {why}" for code, why in overrides.items())


def _audit_refusal(backup: Backup, database: Database, exc: BackupError, *, actor: Actor) -> None:
    is_refused = isinstance(exc, RefusedError)
    audit.record(
        "request-restore",
        actor=actor,
        outcome=AuditEvent.Outcome.REFUSED if is_refused else AuditEvent.Outcome.FAILED,
        database_name=database.name,
        subject=backup.pk,
        detail=exc.message,
    )
