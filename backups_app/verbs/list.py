"""``list``: the backups of the catalogue, newest first."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..documents import backup_document
from ..models import Backup
from ..services.databases import sync_databases
from . import arguments
from .find import find_database
from .output import Output, human_age, human_size

HELP = "list backups, newest first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--database", metavar="NAME", help="only those of one database")
    parser.add_argument("--pruned", action="store_true", help="also those whose archives are gone")
    parser.add_argument("--limit", type=arguments.count, metavar="N", help="at most this many")


def run(options: dict[str, Any], output: Output) -> int:
    """Print the backups."""
    sync_databases()
    backups = Backup.objects.select_related("database").prefetch_related("copies")
    if not options["pruned"]:
        backups = backups.exclude(state__in=Backup.GONE_STATES)
    if options["database"] is not None:
        backups = backups.filter(database=find_database(options["database"]))
    found = list(backups[: options["limit"]] if options["limit"] is not None else backups)
    now = timezone.now()
    output.table(
        ("id", "database", "age#", "state", "verdict", "rows#", "size#", "stored#", "reason"),
        [
            (
                backup.pk,
                backup.database.name,
                human_age(now - backup.created_at),
                backup.state,
                backup.verdict or "–",
                "–" if backup.row_count is None else f"{backup.row_count:,}",
                human_size(backup.size_bytes),
                human_size(backup.archive_bytes),
                backup.reason[:60],
            )
            for backup in found
        ],
    )
    if not found:
        output.line("There is no backup yet. Make one with `manage.py backup create --all`.")
    output.document({"backups": [backup_document(backup) for backup in found]})
    return 0
