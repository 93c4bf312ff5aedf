"""``create``: verified backups now."""

from __future__ import annotations

import argparse
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from ..core.errors import EXIT_CODES, BackupError, CancelledError, InputError, combined_exit_code
from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import backup_document
from ..models import Backup, Database, Job
from ..services.audit import Actor
from ..services.catalog import catalog_error
from ..services.create import create_backup
from ..services.databases import databases_here, databases_under_care, get_database, sync_databases
from ..services.jobs import ask_create
from .enqueue import add_enqueue, report_queued
from .output import Output, human_size

HELP = "make verified backups now"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="databases under care")
    parser.add_argument(
        "--all", action="store_true", help="every database under care on this host; with --enqueue on all hosts"
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="a note kept with the backup")
    add_enqueue(parser)


def run(options: dict[str, Any], output: Output) -> int:
    """Back up each named database; one that fails does not stop the others."""
    skipped = sync_databases()
    databases, codes = _chosen(options, output)
    if options["all"]:
        for each in skipped:
            output.note(f"Note: {each.alias!r} is not under care: {each.reason}.")
    if options["enqueue"]:
        jobs = [
            ask_create(each, actor=Actor.system(), trigger=Job.Trigger.COMMAND, note=options["note"])
            for each in databases
        ]
        report_queued(jobs, output)
        return combined_exit_code(codes)
    backups: list[Backup] = []
    with cancel_on_signal() as is_cancelled:
        for database in databases:
            if is_cancelled():
                codes.append(CancelledError.exit_code)
                break
            try:
                with progress_bar(database.name) as on_progress:
                    backup = create_backup(
                        database,
                        actor=Actor.system(),
                        trigger=Backup.Trigger.COMMAND,
                        note=options["note"],
                        on_progress=on_progress,
                        is_cancelled=is_cancelled,
                    )
            except BackupError as exc:  # nothing was begun: it is another host's
                codes.append(output.error(exc, about=database.name))
                continue
            except DatabaseError as exc:  # the catalogue: perhaps it can be written for the next one
                codes.append(output.error(catalog_error(exc), about=database.name))
                continue
            backups.append(backup)
            codes.append(_report(backup, output))
    output.table(
        ("id", "database", "state", "tables#", "rows#", "size#", "stored#", "seconds#"),
        [_row(backup) for backup in backups],
    )
    output.document({"backups": [backup_document(backup) for backup in backups]})
    return combined_exit_code(codes)


def _chosen(options: dict[str, Any], output: Output) -> tuple[list[Database], list[int]]:
    if options["all"]:
        if options["names"]:
            raise InputError("Both names and --all were given.", "Give one of them.")
        databases = databases_under_care() if options["enqueue"] else databases_here()
        if not databases:
            raise InputError("No database is under care.", "Add one with `manage.py backup add-database NAME PATH`.")
        return databases, []
    if not options["names"]:
        raise InputError("No database was named.", "Give one or more names, or --all.")
    databases, codes = [], []
    for name in dict.fromkeys(options["names"]):
        try:
            databases.append(get_database(name))
        except BackupError as exc:
            codes.append(output.error(exc))
    return databases, codes


def _report(backup: Backup, output: Output) -> int:
    for remark in backup.remarks:
        output.note(f"Note: {backup.database.name}: {remark}")
    if backup.state == Backup.State.VERIFIED:
        return 0
    output.problem(f"{backup.database.name}: {backup.reason}", backup.hint)
    return EXIT_CODES.get(backup.failure_code, 1)


def _row(backup: Backup) -> tuple[object, ...]:
    seconds = ((backup.finished_at or timezone.now()) - backup.created_at).total_seconds()
    return (
        backup.pk,
        backup.database.name,
        backup.state,
        len(backup.tables),
        "–" if backup.row_count is None else f"{backup.row_count:,}",
        human_size(backup.size_bytes),
        human_size(backup.archive_bytes),
        f"{seconds:.1f}",
    )
