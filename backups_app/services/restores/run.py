"""Carry out an approved restore: stage, guard, safety backup, copy in place, check, or roll back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone

from ... import conf
from ...core.census import Census, take_census
from ...core.errors import (
    BackupError,
    CancelledError,
    InputError,
    NotFoundError,
    RefusedError,
    VerificationError,
    translated,
)
from ...core.files import is_scratch_in_use, scratch_folder
from ...core.progress import ProgressCallback, Watch
from ...core.restore import (
    LiveFacts,
    RestoreCheckError,
    Restored,
    fit_to_live,
    live_facts,
    recreate,
    require_space,
    restore_in_place,
    schema_version,
)
from ...core.sqlite import open_live
from ...models import AuditEvent, Backup, Database, Restore
from .. import audit
from ..audit import Actor
from ..create import create_locked_backup
from ..databases import live_path
from ..locks import database_lock, swapping
from .guards import objections, refuse_objections
from .preview import facts_for
from .request import binding_of
from .staging import stage_backup

logger = logging.getLogger(__name__)


def _scratch_token(restore: Restore) -> str:
    return f"restore-{restore.pk}"


def run_restore(
    restore: Restore,
    *,
    actor: Actor,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Restore:
    """Run an approved restore, once; returns the row in a final state.

    ``succeeded``: the live database holds the backup's content and was checked. ``failed`` or
    ``cancelled``: the live database is as it was. ``rolled_back``: the check failed and the safety
    backup was put back. A cancel counts until the last page is copied.

    Raises:
        RefusedError: it is not approved, was used, has expired, or the archive, target or options
            are not those that were approved. BusyError: a backup or restore of it runs.
    """
    if connections["default"].in_atomic_block:
        raise RefusedError(
            "A restore cannot run inside a transaction of the site.", "Run it from the command line or a worker."
        )
    heal_restores()
    with (
        translated("preparing the restore"),
        database_lock(restore.database, alone=True),
        scratch_folder(conf.scratch_folder(), _scratch_token(restore)) as folder,
    ):
        _claim(restore, actor=actor)
        watch = Watch(on_progress=on_progress, is_cancelled=is_cancelled, deadline_seconds=conf.get("DEADLINE_SECONDS"))
        try:
            _Run(restore, folder, actor=actor, watch=watch).carry_out()
        except BackupError as exc:
            _finish_failed(restore, exc, actor=actor)
        except Exception as exc:
            logger.exception("An unexpected error ended restore %s", restore.pk)
            unexpected = BackupError(
                f"An unexpected error: {type(exc).__name__}: {exc}", "See the log; please report it."
            )
            _finish_failed(restore, unexpected, actor=actor)
    return restore


def _claim(restore: Restore, *, actor: Actor) -> None:
    now = timezone.now()
    restore.refresh_from_db()
    if restore.state == Restore.State.APPROVED and binding_of(restore) != restore.approved_binding:
        raise RefusedError(
            "The archive, the target or the options are not those that were approved.", "File a new request."
        )
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        claimed = Restore.objects.filter(
            pk=restore.pk,
            state=Restore.State.APPROVED,
            expires_at__gt=now,
            approved_binding=restore.binding_sha256,
        ).update(state=Restore.State.RUNNING, started_at=now)
    restore.refresh_from_db()
    if not claimed:
        raise RefusedError(
            f"Restore {restore.pk} is {restore.get_state_display()}; an approval is used once, in time.",
            "File a new request.",
        )


class _Run:
    """One run: what it works on, and its steps in order."""

    def __init__(self, restore: Restore, folder: Path, *, actor: Actor, watch: Watch) -> None:
        self.restore = restore
        self.folder = folder
        self.actor = actor
        self.watch = watch
        self.live = live_path(restore.database)
        self.report: dict[str, Any] = {"notes": []}

    def carry_out(self) -> None:
        """All steps; raises BackupError while the live database is untouched."""
        staged, census = stage_backup(self.restore.backup, self.folder, watch=self.watch)
        facts, problem = self._look_at_live()
        self._ask_guards(census)
        if facts is None:
            self._recreate(staged, census, problem)
            return
        expected, notes = fit_to_live(staged, census, facts, watch=self.watch)
        if "free_space" not in self.restore.overrides:
            require_space(self.live, facts, expected)
        self.report["notes"] += notes
        self._make_safety_backup()
        self._restore_in_place(staged, expected)

    def _look_at_live(self) -> tuple[LiveFacts | None, str]:
        try:
            return live_facts(self.live, busy_timeout_seconds=conf.get("BUSY_TIMEOUT_SECONDS")), ""
        except (NotFoundError, VerificationError, InputError) as exc:
            return None, exc.message

    def _ask_guards(self, census: Census) -> None:
        """The guards again: much may have happened since the request."""
        facts = facts_for(self.restore.backup, self.restore.database, now=self._live_census(), after=census)
        refuse_objections(objections(facts), self.restore.overrides)

    def _live_census(self) -> Census | None:
        wait = conf.get("BUSY_TIMEOUT_SECONDS")
        try:
            with (
                translated(f"reading {self.live.name}"),
                open_live(self.live, staging=self.folder, busy_timeout_seconds=wait, watch=self.watch) as live,
            ):
                return take_census(live.connection, watch=self.watch)
        except (NotFoundError, VerificationError, InputError):
            return None

    def _make_safety_backup(self) -> None:
        safety = create_locked_backup(
            self.restore.database,
            actor=self.actor,
            trigger=Backup.Trigger.SAFETY,
            note=f"before restore {self.restore.pk}",
            is_held=True,
            watch=self.watch,
        )
        if not safety.archive_sha256:
            kind = CancelledError if safety.state == Backup.State.CANCELLED else BackupError
            raise kind(f"The safety backup could not be made: {safety.reason}", safety.hint)
        if safety.state != Backup.State.VERIFIED:
            self.report["notes"].append(f"The live database was not sound before the restore: {safety.reason}")
        self.restore.safety_backup = safety
        # Together with the safety backup, what tells old content from new after a crash.
        self.report["schema_version_before"] = schema_version(self.live)
        self._save_report()

    def _save_report(self) -> None:
        self.restore.report = self.report
        self.restore.save(update_fields=["report", "safety_backup"])

    def _restore_in_place(self, staged: Path, expected: Census) -> None:
        try:
            done = self._exchange(staged, expected, watch=self.watch)
        except RestoreCheckError as exc:
            self._note_result(exc.restored)
            self._roll_back(exc)
            return
        self._note_result(done)
        self._migrate()
        _finish(self.restore, Restore.State.SUCCEEDED, self.report, actor=self.actor)

    def _exchange(self, staged: Path, expected: Census, *, watch: Watch) -> Restored:
        wait_seconds = conf.get("RESTORE_WAIT_SECONDS")
        with swapping(self.restore.database):
            return restore_in_place(staged, self.live, census=expected, wait_seconds=wait_seconds, watch=watch)

    def _note_result(self, done: Restored) -> None:
        self.report.update(
            checks=[check.as_dict() for check in done.checks],
            tables=done.census.tables,
            blocked_seconds=round(done.blocked_seconds, 3),
            waited_seconds=round(done.waited_seconds, 3),
            others_wrote=done.others_wrote,
        )
        self.report["notes"] += done.notes

    def _roll_back(self, failure: RestoreCheckError) -> None:
        """Put the safety backup back. Whatever happens, both outcomes are in the report."""
        safety = self.restore.safety_backup
        if safety is None:  # it was made before anything was touched
            raise failure
        (self.folder / "staged.sqlite3").unlink(missing_ok=True)
        watch = Watch()  # nothing may stop a roll-back
        try:
            staged, census = stage_backup(safety, self.folder, watch=watch)
            facts = live_facts(self.live, busy_timeout_seconds=conf.get("BUSY_TIMEOUT_SECONDS"))
            expected, _notes = fit_to_live(staged, census, facts, watch=watch)
            done = self._exchange(staged, expected, watch=watch)
        except BackupError as exc:
            raise BackupError(
                f"{failure.message} Rolling back failed too: {exc.message}",
                f"Undo it from the safety backup {safety.pk} when the cause is gone.",
            ) from exc
        self.report["roll_back_checks"] = [check.as_dict() for check in done.checks]
        _finish(
            self.restore,
            Restore.State.ROLLED_BACK,
            self.report,
            actor=self.actor,
            outcome=f"{failure.message} The safety backup {safety.pk} was put back and checked.",
        )

    def _recreate(self, staged: Path, census: Census, problem: str) -> None:
        """The live file is missing or cannot be opened: nothing to back up, nothing to keep open."""
        self.watch.check()
        moved = recreate(staged, self.live, now=timezone.now().astimezone(UTC))
        self.report["notes"].append(f"The database was made anew: {problem}")
        self.report.update(moved_aside=[str(each) for each in moved], tables=census.tables)
        self._migrate()
        _finish(self.restore, Restore.State.SUCCEEDED, self.report, actor=self.actor)

    def _migrate(self) -> None:
        """Run the site's migrations when asked, else say which are pending."""
        alias = self.restore.database.alias
        if not alias:
            return
        connections[alias].close()
        pending = pending_migrations(alias)
        if pending and self.restore.is_migrating:
            try:
                call_command("migrate", database=alias, interactive=False, verbosity=0)
                self.report["migrated"] = pending
                return
            except Exception as exc:
                logger.exception("Migrating after restore %s failed", self.restore.pk)
                self.report["notes"].append(f"Migrating failed: {type(exc).__name__}: {exc}")
        self.report["pending_migrations"] = pending


def pending_migrations(alias: str) -> list[str]:
    """Migrations that the code has and the database lacks."""
    from django.db.migrations.executor import MigrationExecutor

    with closing(connections[alias]):
        executor = MigrationExecutor(connections[alias])
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


def heal_restores() -> list[Restore]:
    """Finish the rows of restores whose process died, by looking at the live database.

    The copy is one transaction, and it moves the schema version by one: the live database holds
    the old content when the version is still the one noted before the copy, else the new.
    """
    healed: list[Restore] = []
    for restore in Restore.objects.filter(state=Restore.State.RUNNING).select_related("database", "backup"):
        if is_scratch_in_use(conf.scratch_folder(), _scratch_token(restore)):
            continue
        restore.refresh_from_db()
        if restore.state != Restore.State.RUNNING:
            continue
        _heal(restore)
        healed.append(restore)
    return healed


def _heal(restore: Restore) -> None:
    report = dict(restore.report or {"notes": []})
    before = report.get("schema_version_before")
    actor = Actor.system()
    if before is not None and _is_replaced(restore.database, int(before)):
        report.setdefault("notes", []).append("The process ended after the copy; the check was not made.")
        _finish(restore, Restore.State.SUCCEEDED, report, actor=actor)
        return
    interrupted = BackupError(
        "The process that ran this restore ended before the copy was committed; the live database is as it was.",
        "File a new request.",
    )
    restore.report = report
    _finish_failed(restore, interrupted, actor=actor, code="interrupted")


def _is_replaced(database: Database, before: int) -> bool:
    try:
        return schema_version(live_path(database)) != before
    except BackupError:
        return False


def _finish_failed(restore: Restore, exc: BackupError, *, actor: Actor, code: str = "") -> None:
    state = Restore.State.CANCELLED if isinstance(exc, CancelledError) else Restore.State.FAILED
    report, code = restore.report or {}, code or exc.code
    _finish(restore, state, report, actor=actor, outcome=exc.message, hint=exc.hint, code=code)


def _finish(
    restore: Restore,
    state: str,
    report: dict[str, Any],
    *,
    actor: Actor,
    outcome: str = "",
    hint: str = "",
    code: str = "",
) -> None:
    restore.state = Restore.State(state)
    restore.report = report
    restore.outcome, restore.hint, restore.failure_code = outcome, hint, code
    restore.finished_at = timezone.now()
    is_good = state == Restore.State.SUCCEEDED
    with transaction.atomic(using=conf.CATALOG_ALIAS), translated("recording the restore"):
        restore.save()
        audit.record(
            "restore",
            actor=actor,
            outcome=AuditEvent.Outcome.DONE if is_good else AuditEvent.Outcome.FAILED,
            database_name=restore.database.name,
            subject=restore.pk,
            detail=f"{restore.get_state_display()}: {outcome}" if outcome else str(restore.get_state_display()),
        )
