"""What a restore would do, computed by a real one into scratch."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.apps import apps
from django.contrib.auth import get_user_model
from django.db.migrations.loader import MigrationLoader
from django.utils import timezone

from ... import conf, encryption
from ...core.census import Census
from ...core.compare import Side, compare, read_side
from ...core.errors import InputError, NotFoundError, VerificationError, translated
from ...core.files import scratch_folder
from ...core.manifest import utc_text
from ...core.progress import Watch
from ...core.restore import SPACE_FACTOR, refuse_unfit
from ...core.sqlite import open_live, open_snapshot
from ...encryption import Keyring
from ...models import Backup, Database
from ..databases import live_path
from ..hosts import require_here
from ..media import untouched_note
from ..signing import signature_problem
from .guards import Facts, Objection, objections
from .staging import stage_backup

# Writers wait up to about this long per byte while the content is copied in (docs/performance.md).
_BLOCKED_SECONDS_PER_BYTE = 5e-9
_USUAL_TIMEOUT_SECONDS = 5
_LEAST_BLOCKED_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What would change, and which guards object."""

    document: dict[str, Any]
    objections: list[Objection]


def preview_restore(backup: Backup, database: Database, *, watch: Watch, keyring: Keyring | None = None) -> Preview:
    """Unpack and check the backup, compare it with the live database, and ask the guards.

    Raises:
        KeyMissingError: it is encrypted, and no identity opens it.
        NotFoundError, VerificationError: the backup cannot be used. RefusedError: it does not fit
            into the live database, whatever is overridden, or that is on another host. BusyError: the live database
            stayed locked. DiskFullError, BackupError, CancelledError, DeadlineError.
    """
    require_here(database)
    keyring = keyring or Keyring.configured()
    with (
        translated("preparing the preview"),
        scratch_folder(conf.scratch_folder(), f"preview-{uuid.uuid4().hex}") as folder,
    ):
        findings: list[str] = []
        staged, census = stage_backup(backup, folder, watch=watch, keyring=keyring, on_finding=findings.append)
        with open_snapshot(staged) as connection:
            after = read_side(connection, **_user_table(), watch=watch)
        now, problem = _read_live(database, folder, watch=watch)
        refuse_unfit(
            census,
            encoding=now.census.encoding if now else "",
            page_count=now.census.page_count if now else 0,
        )
    facts = facts_for(backup, database, now=now.census if now else None, after=census, keyring=keyring)
    return _assemble(facts, now=now, after=after, problem=problem, findings=findings)


def facts_for(backup: Backup, database: Database, *, now: Census | None, after: Census, keyring: Keyring) -> Facts:
    """What the guards need to know.

    Raises:
        InputError, NotFoundError, BackupError: the recipients that are set cannot be used.
    """
    recipients = encryption.recipients()
    unknown, missing = _migration_differences(database, after)
    live_bytes = now.size_bytes if now else 0
    folder = Path(database.path).parent
    return Facts(
        backup=backup,
        database=database,
        now=now,
        after=after,
        free_bytes=shutil.disk_usage(folder).free if folder.is_dir() else 0,
        needed_bytes=int(SPACE_FACTOR * max(live_bytes, after.size_bytes)),
        unknown_migrations=unknown,
        missing_migrations=missing,
        safety_recipients=tuple(f"{each.key_id}…" for each in recipients),
        can_open_safety=not recipients or any(str(each) in keyring.publics for each in recipients),
        unsigned=signature_problem(backup),
    )


def _user_table() -> dict[str, str]:
    model = get_user_model()
    field = model._meta.get_field(model.USERNAME_FIELD)
    return {"user_table": model._meta.db_table, "name_column": str(getattr(field, "column", field.name))}


def _read_live(database: Database, staging: Path, *, watch: Watch) -> tuple[Side | None, str]:
    """The live database as it is, or why it cannot be read."""
    try:
        with (
            translated(f"reading {database.name}"),
            _opened(database, staging, watch=watch) as connection,
        ):
            return read_side(connection, **_user_table(), watch=watch), ""
    except (NotFoundError, VerificationError, InputError) as exc:
        return None, exc.message


@contextmanager
def _opened(database: Database, staging: Path, *, watch: Watch) -> Iterator[Any]:
    wait = conf.get("BUSY_TIMEOUT_SECONDS")
    with open_live(live_path(database), staging=staging, busy_timeout_seconds=wait, watch=watch) as live:
        yield live.connection


def _assemble(facts: Facts, *, now: Side | None, after: Side, problem: str, findings: list[str]) -> Preview:
    backup, found = facts.backup, objections(facts)
    moment = timezone.now()
    document: dict[str, Any] = {
        "computed_at": utc_text(moment),
        "backup": backup.pk,
        "database": facts.database.name,
        "backup_age_seconds": int((moment - (backup.taken_at or backup.created_at)).total_seconds()),
        "live": "readable" if now else problem,
        **compare(now, after),
        "migrations": {
            "unknown_to_code": list(facts.unknown_migrations),
            "missing_in_backup": list(facts.missing_migrations),
        },
        "free_bytes": facts.free_bytes,
        "needed_bytes": facts.needed_bytes,
        "estimated_blocked_seconds": _blocked_seconds(facts),
        "warnings": [*findings, *_warnings(facts)],
        "blockers": [{"code": each.code, "message": each.message} for each in found],
    }
    return Preview(document=document, objections=found)


def _blocked_seconds(facts: Facts) -> float:
    return round(max(_LEAST_BLOCKED_SECONDS, facts.after.size_bytes * _BLOCKED_SECONDS_PER_BYTE), 2)


def _warnings(facts: Facts) -> list[str]:
    found: list[str] = []
    if facts.backup.has_media:
        found.append(untouched_note(facts.backup))
    if facts.safety_recipients and facts.can_open_safety:
        found.append("The safety backup will be encrypted: an undo needs the identity too.")
    if _blocked_seconds(facts) < _USUAL_TIMEOUT_SECONDS:
        return found
    return [
        *found,
        f"Writers may wait longer than {_USUAL_TIMEOUT_SECONDS} s, the timeout that many sites have, and then fail: "
        "stop them, raise their timeout, or use the middleware that answers 503.",
    ]


def _migration_differences(database: Database, after: Census) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Migrations only in the backup, and only in the code; empty for files that are not the site's own."""
    if not database.alias or not after.migrations:
        return (), ()
    disk = MigrationLoader(None, ignore_no_migrations=True).disk_migrations or {}
    installed = {config.label for config in apps.get_app_configs()}
    applied = set(after.migrations)
    missing = set(disk) - applied
    for key, migration in disk.items():  # a squashed migration stands for those it replaces
        replaced = {tuple(each) for each in migration.replaces}
        if key in applied:
            missing -= replaced
        elif replaced and replaced <= applied:
            missing.discard(key)
    unknown = {(app, name) for app, name in applied - set(disk) if app in installed}
    return _labels(unknown), _labels(missing)


def _labels(keys: set[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(f"{app}.{name}" for app, name in sorted(keys))
