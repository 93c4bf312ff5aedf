"""Carry out an approved restore: stage, guard, safety backup, copy in place, check, or roll back."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.utils import timezone

from ... import conf
from ...core.age import FileKey
from ...core.census import Census, take_census
from ...core.errors import (
    BackupError,
    BusyError,
    CancelledError,
    DiskFullError,
    InputError,
    NotFoundError,
    RefusedError,
    VerificationError,
    translated,
)
from ...core.files import scratch_folder
from ...core.progress import ProgressCallback, Watch
from ...core.restore import (
    HaveOthersWritten,
    LiveFacts,
    RecreateError,
    RestoreCheckError,
    Restored,
    fit_to_live,
    live_facts,
    noticing_commits,
    recreate,
    require_space,
    restore_in_place,
    schema_version,
)
from ...core.sqlite import open_live
from ...encryption import Keyring
from ...models import AuditEvent, Backup, Job, Restore
from .. import audit
from ..audit import Actor
from ..create import create_claimed_backup
from ..databases import live_path
from ..jobs.ending import Ending
from ..jobs.inline import run_inline
from ..media import untouched_note
from ..swapping import swapping
from ..wording import english
from .binding import binding_of
from .ending import RestoreEnding, finish_restore
from .guards import objections, refuse_objections
from .heal import heal_restores, scratch_token
from .preview import facts_for
from .staging import stage_backup

logger = logging.getLogger(__name__)


_MISSED = (
    "Other processes committed after the safety backup was taken: what came before the exchange of the content "
    "is neither in the safety backup nor in the database now."
)


def run_restore(
    restore: Restore,
    *,
    actor: Actor,
    keyring: Keyring | None = None,
    on_progress: ProgressCallback | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Restore:
    """Run an approved restore, once; returns the row in a final state.

    ``succeeded``: the live database holds the backup's content and was checked. ``failed`` or
    ``cancelled``: the live database is as it was, unless ``failure_code`` is
    ``verification_failed`` and the outcome says that it could not be put back. ``rolled_back``:
    the check failed and the safety backup was put back. A cancel counts until the last page.

    Raises:
        RefusedError: it is not approved, was used, has expired, or the archive, target or options
            are not those that were approved. BusyError: a backup or restore of it runs; the
            approval may be used later. KeyMissingError: the backup is encrypted, and no identity at hand
            (``keyring``; default: those of the settings) opens it; likewise. DatabaseError: the
            catalogue could not be written; the next verb on restores finds out how it ended.
    """
    if connections["default"].in_atomic_block:
        raise RefusedError(
            "A restore cannot run inside a transaction of the site.", "Run it from the command line or a worker."
        )
    heal_restores()
    with _recording_refusals(restore, actor=actor):  # no job is made for what must not run
        _require_approved(restore)
        _require_open(restore)
    keyring = keyring or Keyring.configured()
    _require_key(restore, keyring)
    return run_inline(
        Job.Kind.RESTORE,
        restore.database,
        restore=restore,
        actor=actor,
        trigger=Job.Trigger.COMMAND,
        work=lambda claim: run_claimed_restore(
            restore,
            actor=actor,
            job=claim.job,
            watch=claim.watch(on_progress=on_progress, is_cancelled=is_cancelled),
            keyring=keyring,
        ),
        ending_of=Ending.of_restore,
        is_cancelled=is_cancelled,
    )


def run_claimed_restore(
    restore: Restore, *, actor: Actor, job: Job | None, watch: Watch, keyring: Keyring | None = None
) -> Restore:
    """:func:`run_restore` for the owner of ``job``, who holds the lock of the database."""
    keyring = keyring or Keyring.configured()
    with (
        translated("preparing the restore"),
        scratch_folder(conf.scratch_folder(), scratch_token(restore)) as folder,
    ):
        with _recording_refusals(restore, actor=actor):
            _require_approved(restore)
            _require_key(restore, keyring)
            _take(restore)
        ending = _carry_out(restore, folder, actor=actor, job=job, watch=watch, keyring=keyring)
        # Outside of what turns errors into failures: when the catalogue cannot be written now, the
        # row stays "running", and healing it finds the truth in the live database.
        finish_restore(restore, ending, actor=actor)
    return restore


def _carry_out(
    restore: Restore, folder: Path, *, actor: Actor, job: Job | None, watch: Watch, keyring: Keyring
) -> RestoreEnding:
    try:
        return _Run(restore, folder, actor=actor, job=job, watch=watch, keyring=keyring).carry_out()
    except BackupError as exc:
        return RestoreEnding.of(exc)
    except Exception as exc:
        logger.exception("An unexpected error ended restore %s", restore.pk)
        unexpected = BackupError(f"An unexpected error: {type(exc).__name__}: {exc}", "See the log; please report it.")
        return RestoreEnding.of(unexpected)


@contextmanager
def _recording_refusals(restore: Restore, *, actor: Actor) -> Iterator[None]:
    try:
        yield
    except RefusedError as exc:
        audit.record(
            "restore",
            actor=actor,
            outcome=AuditEvent.Outcome.REFUSED,
            database_name=restore.database.name,
            subject=restore.pk,
            detail=exc.message,
        )
        raise


def _require_approved(restore: Restore) -> None:
    """Refuse an approval that does not hold for what would run now."""
    restore.refresh_from_db()
    if restore.state != Restore.State.APPROVED:
        return  # taking it will say so
    if binding_of(restore) != restore.approved_binding:
        raise RefusedError(
            "The archive, the target or the options are not those that were approved.", "File a new request."
        )
    if restore.is_self_approved and conf.get("FOUR_EYES"):
        raise RefusedError(
            f"Restore {restore.pk} was approved by the person who asked for it; somebody else must approve it.",
            "File a new request, and ask a second person.",
        )


def _require_key(restore: Restore, keyring: Keyring) -> None:
    """Refuse early what no identity opens: the approval is not used up."""
    if restore.backup.is_encrypted:
        keyring.require_any(restore.backup.key_ids)


def _take(restore: Restore) -> None:
    now = timezone.now()
    try:
        with transaction.atomic(using=conf.CATALOG_ALIAS):
            claimed = Restore.objects.filter(
                pk=restore.pk,
                state=Restore.State.APPROVED,
                expires_at__gt=now,
                binding_sha256=restore.binding_sha256,
                approved_binding=restore.binding_sha256,
            ).update(state=Restore.State.RUNNING, started_at=now)
    except IntegrityError as exc:  # one running restore per database
        raise BusyError(
            f"An earlier restore of {restore.database.name} ended without a record, and the database is locked.",
            "Run `manage.py backup requests` when the database can be read.",
        ) from exc
    restore.refresh_from_db()
    if not claimed:
        raise _not_usable(restore)


def _require_open(restore: Restore) -> None:
    if restore.state != Restore.State.APPROVED or restore.expires_at <= timezone.now():
        raise _not_usable(restore)


def _not_usable(restore: Restore) -> RefusedError:
    return RefusedError(
        f"Restore {restore.pk} is {english(restore, 'state')}; an approval is used once, in time.",
        "File a new request.",
    )


class _Run:
    """One run: what it works on, and its steps in order."""

    def __init__(
        self, restore: Restore, folder: Path, *, actor: Actor, job: Job | None, watch: Watch, keyring: Keyring
    ) -> None:
        self.restore = restore
        self.folder = folder
        self.actor = actor
        self.job = job
        self.watch = watch
        self.keyring = keyring
        # Opens the safety backup without an identity, as long as this run lives: for a roll-back.
        self.safety_key: FileKey | None = None
        self.live = live_path(restore.database)
        self.now: Census | None = None
        self.report: dict[str, Any] = {"notes": []}
        restore.report = self.report

    def carry_out(self) -> RestoreEnding:
        """All steps; raises BackupError while the live database is untouched."""
        findings: list[str] = []
        staged, census = stage_backup(
            self.restore.backup, self.folder, watch=self.watch, keyring=self.keyring, on_finding=findings.append
        )
        self.report["notes"] += findings
        if self.restore.backup.has_media:
            self.report["notes"].append(untouched_note(self.restore.backup))
        facts, problem = self._look_at_live()
        self._ask_guards(census)
        if facts is None:
            return self._recreate(staged, census, problem, is_unsound=bool(findings))
        expected, notes = fit_to_live(staged, census, facts, watch=self.watch)
        if "free_space" not in self.restore.overrides:
            require_space(self.live, facts, expected)
        self.report["notes"] += notes
        with noticing_commits(self.live) as have_others_written:
            problem = self._make_safety_backup()
            if not problem:
                return self._restore_in_place(
                    staged, expected, is_unsound=bool(findings), have_others_written=have_others_written
                )
        return self._recreate(staged, expected, problem, is_unsound=bool(findings))

    def _look_at_live(self) -> tuple[LiveFacts | None, str]:
        try:
            return live_facts(self.live, busy_timeout_seconds=conf.get("BUSY_TIMEOUT_SECONDS")), ""
        except (NotFoundError, VerificationError, InputError) as exc:
            return None, exc.message

    def _ask_guards(self, census: Census) -> None:
        """The guards again: much may have happened since the request."""
        self.now = self._live_census()
        facts = facts_for(self.restore.backup, self.restore.database, now=self.now, after=census, keyring=self.keyring)
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

    def _keep_safety_key(self, file_key: FileKey) -> None:
        self.safety_key = file_key

    def _make_safety_backup(self) -> str:
        """Back the live database up; returns why it is too damaged for that, or nothing."""
        safety = create_claimed_backup(
            self.restore.database,
            actor=self.actor,
            trigger=Backup.Trigger.SAFETY,
            note=f"before restore {self.restore.pk}",
            is_held=True,
            job=self.job,
            watch=self.watch,
            on_file_key=self._keep_safety_key,
        )
        if not safety.archive_sha256:
            if safety.failure_code == VerificationError.code and self.now is None:
                return safety.reason
            raise _safety_error(safety)
        if safety.state != Backup.State.VERIFIED:
            self.report["notes"].append(f"The live database was not sound before the restore: {safety.reason}")
        self.restore.safety_backup = safety
        # Together with the safety backup, what tells old content from new after a crash.
        self.report["schema_version_before"] = schema_version(self.live)
        self._save_report()
        return ""

    def _save_report(self) -> None:
        self.restore.save(update_fields=["report", "safety_backup"])

    def _restore_in_place(
        self, staged: Path, expected: Census, *, is_unsound: bool, have_others_written: HaveOthersWritten
    ) -> RestoreEnding:
        try:
            done = self._exchange(
                staged, expected, watch=self.watch, is_unsound=is_unsound, have_others_written=have_others_written
            )
        except RestoreCheckError as exc:
            self._note_result(exc.restored)
            return self._roll_back(exc)
        self._note_result(done)
        self._migrate()
        return RestoreEnding(state=Restore.State.SUCCEEDED)

    def _exchange(
        self,
        staged: Path,
        expected: Census,
        *,
        watch: Watch,
        is_unsound: bool,
        have_others_written: HaveOthersWritten = lambda: False,
    ) -> Restored:
        with swapping(self.restore.database):
            return restore_in_place(
                staged,
                self.live,
                census=expected,
                wait_seconds=conf.get("RESTORE_WAIT_SECONDS"),
                watch=watch,
                is_unsound=is_unsound,
                have_others_written=have_others_written,
            )

    def _note_result(self, done: Restored) -> None:
        self.report.update(
            checks=[check.as_dict() for check in done.checks],
            tables=done.census.tables,
            blocked_seconds=round(done.blocked_seconds, 3),
            waited_seconds=round(done.waited_seconds, 3),
            others_wrote=done.others_wrote,
        )
        self.report["notes"] += done.notes
        if done.others_wrote_before:
            self.report["notes"].append(_MISSED)

    def _roll_back(self, failure: RestoreCheckError) -> RestoreEnding:
        """Put the safety backup back. Whatever happens, both outcomes are in the report."""
        safety = self.restore.safety_backup
        if safety is None:  # it was made before anything was touched
            raise failure
        self.report["failed_checks"] = self.report["checks"]
        watch = Watch()  # nothing may stop a roll-back
        findings: list[str] = []
        try:
            (self.folder / "staged.sqlite3").unlink(missing_ok=True)
            staged, census = stage_backup(
                safety, self.folder, watch=watch, file_key=self.safety_key, on_finding=findings.append
            )
            self.report["notes"] += findings
            facts = live_facts(self.live, busy_timeout_seconds=conf.get("BUSY_TIMEOUT_SECONDS"))
            expected, _notes = fit_to_live(staged, census, facts, watch=watch)
            done = self._exchange(staged, expected, watch=watch, is_unsound=bool(findings))
        except Exception as exc:
            logger.exception("Rolling restore %s back failed", self.restore.pk)
            reason = exc.message if isinstance(exc, BackupError) else f"{type(exc).__name__}: {exc}"
            self.report["roll_back_error"] = reason
            if isinstance(exc, RestoreCheckError):
                self.report["roll_back_checks"] = [check.as_dict() for check in exc.restored.checks]
            return RestoreEnding(
                state=Restore.State.FAILED,
                outcome=f"{failure.message} Rolling back failed too: {reason}",
                hint=f"The database needs a look. When the cause is gone, restore the safety backup {safety.pk}.",
                code=failure.code,
            )
        self.report["roll_back_checks"] = [check.as_dict() for check in done.checks]
        return RestoreEnding(
            state=Restore.State.ROLLED_BACK,
            outcome=f"{failure.message} The safety backup {safety.pk} was put back and checked.",
            code=failure.code,
        )

    def _recreate(self, staged: Path, census: Census, problem: str, *, is_unsound: bool) -> RestoreEnding:
        """The live file is missing or too damaged to read: nothing to back up, nothing to keep open."""
        self.watch.check()
        self.report["recreating"] = problem
        self._save_report()
        try:
            with swapping(self.restore.database):
                done = recreate(
                    staged,
                    self.live,
                    census=census,
                    token=self.restore.pk,
                    now=timezone.now().astimezone(UTC),
                    is_unsound=is_unsound,
                )
        except RecreateError as exc:
            self.report.update(
                moved_aside=[str(each) for each in exc.moved], checks=[check.as_dict() for check in exc.checks]
            )
            raise
        self.report["notes"].append(
            f"The database was made anew: {problem} Restart the processes that had the old file open."
        )
        self.report.update(
            moved_aside=[str(each) for each in done.moved],
            checks=[check.as_dict() for check in done.checks],
            tables=census.tables,
        )
        self._migrate()
        return RestoreEnding(state=Restore.State.SUCCEEDED)

    def _migrate(self) -> None:
        """Run the site's migrations when asked, else say which are pending. The restore stands either way."""
        alias = self.restore.database.alias
        if not alias:
            return
        try:
            connections[alias].close()
            pending = pending_migrations(alias)
            if pending and self.restore.is_migrating:
                call_command("migrate", database=alias, interactive=False, verbosity=0)
                self.report["migrated"], pending = pending, []
            self.report["pending_migrations"] = pending
        except Exception as exc:
            logger.exception("Migrating after restore %s failed", self.restore.pk)
            self.report["notes"].append(
                f"Looking for migrations, or running them, failed: {type(exc).__name__}: {exc}. Run manage.py migrate."
            )


def _safety_error(safety: Backup) -> BackupError:
    """Why there is no safety backup, as the kind of error that it was."""
    kind = next((each for each in (CancelledError, BusyError, DiskFullError) if each.code == safety.failure_code), None)
    return (kind or BackupError)(f"The safety backup could not be made: {safety.reason}", safety.hint)


def pending_migrations(alias: str) -> list[str]:
    """Migrations that the code has and the database lacks."""
    from django.db.migrations.executor import MigrationExecutor

    with closing(connections[alias]):
        executor = MigrationExecutor(connections[alias])
        plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]
