"""``release``: let the retention policy decide about a held backup again."""

from __future__ import annotations

import argparse
from typing import Any

from ..documents import backup_document
from ..services.hold import release_backup
from ..services.people import actor_for
from .find import find_backup
from .output import Output

HELP = "let the retention policy decide about a held backup again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", metavar="ID", help="id of a backup, or its beginning")
    parser.add_argument("--user", metavar="NAME", help="who releases it (default: the system account)")


def run(options: dict[str, Any], output: Output) -> int:
    """Release it."""
    backup = find_backup(options["id"])
    backup = release_backup(backup, actor=actor_for(options["user"], permission="hold_backup"))
    output.line(f"Backup {backup.pk} of {backup.database.name} is released.")
    output.document({"backups": [backup_document(backup)]})
    return 0
