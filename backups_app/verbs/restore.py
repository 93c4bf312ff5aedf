"""``restore``: the database of a backup as a new file."""

from __future__ import annotations

import argparse
from typing import Any

from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import extraction_document
from ..services.audit import Actor
from ..services.extract import extract_backup
from . import arguments
from .find import find_backup
from .output import Output

HELP = "write the database of a backup to a new file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", metavar="ID", help="id of a backup, or its beginning")
    parser.add_argument(
        "--to", metavar="FILE", required=True, type=arguments.path, help="the new file; it must not exist"
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; kept in the output")


def run(options: dict[str, Any], output: Output) -> int:
    """Extract the backup."""
    backup, actor = find_backup(options["id"]), Actor.system()
    with cancel_on_signal() as is_cancelled, progress_bar(backup.database.name) as on_progress:
        extraction = extract_backup(
            backup, options["to"], actor=actor, on_progress=on_progress, is_cancelled=is_cancelled
        )
    output.line(f"Restored {backup.database.name} as of {backup.taken_at:%Y-%m-%d %H:%M:%S} UTC")
    output.line(f"to {extraction.target}")
    for check in extraction.checks:
        output.line(f"  ok  {check.name}: {check.evidence}")
    document = extraction_document(backup, extraction, requested_by=actor.name, reason=options["reason"])
    output.document({"restore": document})
    return 0
