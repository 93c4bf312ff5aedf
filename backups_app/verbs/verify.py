"""``verify``: judge stored copies again."""

from __future__ import annotations

import argparse
from typing import Any

from django.db.models import Q

from ..core.errors import (
    BackupError,
    CancelledError,
    InputError,
    KeyMissingError,
    VerificationError,
    combined_exit_code,
)
from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import verification_document
from ..models import Backup, Copy, Job, Verification
from ..models.backup import Verdict
from ..services.audit import Actor
from ..services.databases import databases_here, databases_under_care, sync_databases
from ..services.hosts import here
from ..services.jobs import ask_due, ask_verify
from ..services.scrub import scrub_database
from ..services.verify import verify_backup
from .enqueue import add_enqueue, report_queued
from .find import find_backup
from .identity import add_identity, keyring_of, refuse_queued_identity
from .output import Output

HELP = "verify stored backups and record the verdicts"

_EXIT_CODES = {
    Verdict.PASSED: 0,
    Verdict.FAILED: VerificationError.exit_code,
    Verdict.UNREACHABLE: VerificationError.exit_code,
    Verdict.KEY_MISSING: KeyMissingError.exit_code,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids of backups, or their beginnings")
    parser.add_argument(
        "--all", action="store_true", help="every stored backup of this host's databases; with --enqueue of all hosts'"
    )
    parser.add_argument("--due", action="store_true", help="what was not proven for VERIFY_DAYS, so much per day")
    parser.add_argument(
        "--level",
        choices=["quick", "full", "drill"],
        default="full",
        help="how deep (default: full); drill restores into scratch and takes the time",
    )
    add_identity(parser)
    add_enqueue(parser)


def run(options: dict[str, Any], output: Output) -> int:
    """Verify each backup; one that fails does not stop the others."""
    refuse_queued_identity(options)
    if options["due"]:
        return _run_due(options, output)
    backups, codes = _chosen(options, output)
    keyring = keyring_of(options)  # one for all: a passphrase is asked for once
    if options["enqueue"]:
        report_queued(_ask(backups, options["level"], codes, output), output)
        return combined_exit_code(codes)
    verifications: list[Verification] = []
    with cancel_on_signal() as is_cancelled:
        for backup in backups:
            if is_cancelled():
                codes.append(CancelledError.exit_code)
                break
            try:
                with progress_bar(f"{backup.database.name} {backup.pk}") as on_progress:
                    verifications += verify_backup(
                        backup,
                        level=options["level"],
                        actor=Actor.system(),
                        keyring=keyring,
                        on_progress=on_progress,
                        is_cancelled=is_cancelled,
                    )
            except BackupError as exc:
                codes.append(output.error(exc, about=backup.pk))
    return _print(verifications, codes, output)


def _run_due(options: dict[str, Any], output: Output) -> int:
    """What is due, of all databases under care on this host; with ``--enqueue`` on all hosts."""
    if options["ids"] or options["all"] or options["level"] != Verification.Level.FULL:
        raise InputError("--due chooses by itself, and looks in full.", "Give no ids, no --all and no --level.")
    sync_databases()
    codes: list[int] = []
    databases = databases_under_care() if options["enqueue"] else databases_here()
    if options["enqueue"]:
        jobs = [ask_due(each, actor=Actor.system(), trigger=Job.Trigger.COMMAND) for each in databases]
        report_queued(jobs, output)
        return 0
    verifications: list[Verification] = []
    with cancel_on_signal() as is_cancelled:
        for database in databases:
            if is_cancelled():
                codes.append(CancelledError.exit_code)
                break
            try:
                with progress_bar(database.name) as on_progress:
                    verifications += scrub_database(
                        database, actor=Actor.system(), on_progress=on_progress, is_cancelled=is_cancelled
                    )
            except BackupError as exc:
                codes.append(output.error(exc, about=database.name))
    if not verifications:
        output.line("Nothing was due, or today's budget is used up.")
    return _print(verifications, codes, output)


def _print(verifications: list[Verification], codes: list[int], output: Output) -> int:
    codes += [_report(verification, output) for verification in verifications]
    output.table(
        ("backup", "database", "copy", "level", "verdict", "checks#", "seconds#", "recovery#"),
        [
            (
                each.backup_id,
                each.backup.database.name,
                each.destination,
                each.level,
                each.verdict,
                len(each.checks),
                f"{(each.finished_at - each.started_at).total_seconds():.1f}",
                "–" if each.recovery_seconds is None else f"{each.recovery_seconds:.1f} s",
            )
            for each in verifications
        ],
    )
    output.document({"verifications": [verification_document(each) for each in verifications]})
    return combined_exit_code(codes)


def _ask(backups: list[Backup], level: str, codes: list[int], output: Output) -> list[Job]:
    """Ask for those that have a copy; the others are reported."""
    jobs: dict[str, Job] = {}
    for backup in backups:
        try:
            (job,) = ask_verify([backup], level=level, actor=Actor.system(), trigger=Job.Trigger.COMMAND)
        except BackupError as exc:
            codes.append(output.error(exc, about=backup.pk))
        else:
            jobs[job.pk] = job
    return list(jobs.values())


def _chosen(options: dict[str, Any], output: Output) -> tuple[list[Backup], list[int]]:
    if options["all"]:
        if options["ids"]:
            raise InputError("Both ids and --all were given.", "Give one of them.")
        stored = Copy.objects.filter(state__in=Copy.STORED_STATES).values("backup")
        backups_here = Backup.objects.filter(Q() if options["enqueue"] else here("database__host"))
        return list(backups_here.filter(pk__in=stored).select_related("database")), []
    if not options["ids"]:
        raise InputError("No backup was named.", "Give one or more ids, or --all.")
    backups: dict[str, Backup] = {}
    codes: list[int] = []
    for given in options["ids"]:
        try:
            backup = find_backup(given)
        except BackupError as exc:
            codes.append(output.error(exc))
        else:
            backups[backup.pk] = backup
    return list(backups.values()), codes


def _report(verification: Verification, output: Output) -> int:
    if verification.verdict != Verdict.PASSED:
        output.problem(f"{verification.backup_id}: {verification.verdict}: {verification.reason}", verification.hint)
    return _EXIT_CODES[Verdict(verification.verdict)]
