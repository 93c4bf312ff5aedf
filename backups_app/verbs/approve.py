"""``approve``: approve a restore as a second person, and run it."""

from __future__ import annotations

import argparse
from typing import Any

from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import restore_document
from ..models import Job
from ..services.hosts import require_here
from ..services.jobs import ask_restore
from ..services.people import actor_for
from ..services.restores import approve_restore, run_restore
from .enqueue import add_enqueue, report_queued
from .find import find_restore
from .identity import add_identity, keyring_of, refuse_queued_identity
from .output import Output
from .restores import confirm, print_preview, report_outcome

HELP = "approve a restore as a second person, and run it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", metavar="ID", help="id of a restore request, or its beginning")
    parser.add_argument("--user", metavar="NAME", help="who approves; not the one who asked")
    add_identity(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_enqueue(parser)


def run(options: dict[str, Any], output: Output) -> int:
    """Approve, then run, or leave the running to a worker."""
    refuse_queued_identity(options)
    restore = find_restore(options["id"])
    actor = actor_for(options["user"], permission="approve_restore")
    if not options["enqueue"]:
        require_here(restore.database)
    print_preview(restore, output)
    confirm(f"Restore {restore.database.name} from backup {restore.backup_id} now?", is_yes=options["yes"])
    approve_restore(restore, actor=actor)
    if options["enqueue"]:
        job = ask_restore(restore, actor=actor, trigger=Job.Trigger.COMMAND)
        report_queued([job], output, document={"restore": restore_document(restore)})
        return 0
    with cancel_on_signal() as is_cancelled, progress_bar(restore.database.name) as on_progress:
        run_restore(
            restore, actor=actor, keyring=keyring_of(options), on_progress=on_progress, is_cancelled=is_cancelled
        )
    return report_outcome(restore, output)
