"""``prune``: delete what the retention policy no longer keeps."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..core.errors import BackupError, CancelledError, InputError, combined_exit_code
from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import pruning_document
from ..models import Database
from ..services.databases import databases_here, sync_databases
from ..services.people import actor_for
from ..services.prune import Judged, prune_database, simulate_prune
from .find import find_database
from .output import Output, human_age, human_size
from .restores import confirm

HELP = "delete the backups that the retention policy no longer keeps"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="databases (default: all under care on this host)")
    parser.add_argument("--dry-run", action="store_true", help="say what would be kept and deleted, and why")
    parser.add_argument("--user", metavar="NAME", help="who prunes (default: the system account)")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(options: dict[str, Any], output: Output) -> int:
    """Prune each database; one that is refused does not stop the others."""
    sync_databases()
    actor = actor_for(options["user"], permission="prune_backup")
    databases, codes = _chosen(options, output)
    kept: list[Judged] = []
    deleted: list[Judged] = []
    if not options["dry_run"] and any(_gives_up_some(each) for each in databases):
        names = ", ".join(each.name for each in databases)
        confirm(f"Delete what the policies of {names} no longer keep?", is_yes=options["yes"])
    with cancel_on_signal() as is_cancelled:
        for database in databases:
            if is_cancelled():
                codes.append(CancelledError.exit_code)
                break
            try:
                if options["dry_run"]:
                    judged = simulate_prune(database, now=timezone.now())
                    kept += [each for each in judged if each.decision.is_kept]
                    deleted += [each for each in judged if not each.decision.is_kept]
                    continue
                with progress_bar(database.name) as on_progress:
                    pruned = prune_database(database, actor=actor, on_progress=on_progress, is_cancelled=is_cancelled)
            except BackupError as exc:
                codes.append(output.error(exc, about=database.name))
                continue
            kept += pruned.kept
            deleted += pruned.deleted
            codes += [output.error(failure, about=database.name) for failure in pruned.failures]
    _print(kept, deleted, output, is_dry_run=options["dry_run"])
    document = {
        "dry_run": options["dry_run"],
        "kept": [pruning_document(each) for each in kept],
        "deleted": [pruning_document(each) for each in deleted],
    }
    output.document({"prune": document})
    return combined_exit_code(codes)


def _gives_up_some(database: Database) -> bool:
    """Whether there is something to ask about."""
    try:
        return any(not each.decision.is_kept for each in simulate_prune(database, now=timezone.now()))
    except BackupError:
        return False  # it is told when its turn comes


def _chosen(options: dict[str, Any], output: Output) -> tuple[list[Database], list[int]]:
    if not options["names"]:
        databases = databases_here()
        if not databases:
            raise InputError("No database is under care.", "Add one with `manage.py backup add-database NAME PATH`.")
        return databases, []
    databases, codes = [], []
    for name in dict.fromkeys(options["names"]):
        try:
            databases.append(find_database(name))
        except BackupError as exc:
            codes.append(output.error(exc))
    return databases, codes


def _print(kept: list[Judged], deleted: list[Judged], output: Output, *, is_dry_run: bool) -> None:
    now, gone = timezone.now(), "would be deleted" if is_dry_run else "deleted"
    output.table(
        ("id", "database", "age#", "stored#", "", "why"),
        [
            (
                each.backup.pk,
                each.backup.database.name,
                human_age(now - (each.backup.taken_at or each.backup.created_at)),
                human_size(each.backup.stored_bytes),
                word,
                each.decision.reason,
            )
            for judged, word in ((kept, "kept"), (deleted, gone))
            for each in judged
        ],
    )
    freed = human_size(sum(each.backup.stored_bytes for each in deleted))
    output.line(f"{len(kept)} kept, {len(deleted)} {gone}, {freed} {'would be ' if is_dry_run else ''}freed.")
