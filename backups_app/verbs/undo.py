"""``undo``: put back the content from before a restore."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import restore_document
from ..models import Job, Restore
from ..services.people import actor_for
from ..services.restores import ask_undo, undo_restore
from .enqueue import add_enqueue, report_queued
from .find import find_restore
from .identity import add_identity, keyring_of, refuse_queued_identity
from .output import Output
from .restores import confirm, report_outcome

HELP = "put back the content from before a restore"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", metavar="ID", help="id of a restore, or its beginning")
    parser.add_argument("--user", metavar="NAME", help="who undoes it; one of its two people may at once")
    add_identity(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_enqueue(parser)


def run(options: dict[str, Any], output: Output) -> int:
    """Undo the restore, or file a request to."""
    refuse_queued_identity(options)
    restore = find_restore(options["id"])
    actor = actor_for(options["user"], permission="request_restore", or_permission="approve_restore")
    if sys.stdin.isatty():  # else it goes on: two people approved this content, and an undo can be undone
        confirm(f"Undo restore {restore.pk} of {restore.database.name} now?", is_yes=options["yes"])
    if options["enqueue"]:
        undo, job = ask_undo(restore, actor=actor, trigger=Job.Trigger.COMMAND)
        if job is not None:
            report_queued([job], output, document={"restore": restore_document(undo)})
            return 0
        return _report_filed(undo, output)
    with cancel_on_signal() as is_cancelled, progress_bar(restore.database.name) as on_progress:
        undo = undo_restore(
            restore, actor=actor, keyring=keyring_of(options), on_progress=on_progress, is_cancelled=is_cancelled
        )
    if undo.state == Restore.State.REQUESTED:
        return _report_filed(undo, output)
    return report_outcome(undo, output)


def _report_filed(undo: Restore, output: Output) -> int:
    output.line(f"Request {undo.pk} is filed; another person must approve it.")
    output.document({"restore": restore_document(undo)})
    return 0
