"""``hold``: keep a backup, whatever the retention policy says."""

from __future__ import annotations

import argparse
from typing import Any

from ..documents import backup_document
from ..services.hold import hold_backup
from ..services.people import actor_for
from .find import find_backup
from .output import Output

HELP = "keep a backup, whatever the retention policy says"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", metavar="ID", help="id of a backup, or its beginning")
    parser.add_argument("--user", metavar="NAME", help="who holds it (default: the system account)")


def run(options: dict[str, Any], output: Output) -> int:
    """Hold it."""
    backup = find_backup(options["id"])
    backup = hold_backup(backup, actor=actor_for(options["user"], permission="hold_backup"))
    output.line(f"Backup {backup.pk} of {backup.database.name} is held.")
    output.document({"backups": [backup_document(backup)]})
    return 0
