"""``requests``: restores that wait, run, or have ended."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..documents import restore_document
from ..models import Restore
from ..services.people import actor_for
from ..services.restores import expire_restores, heal_restores
from .output import Output, human_age

HELP = "list the restore requests that are open"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--all", action="store_true", help="also those that have ended")
    parser.add_argument("--user", metavar="NAME", help="who looks (default: the system account)")


def run(options: dict[str, Any], output: Output) -> int:
    """Print the requests."""
    actor_for(options["user"], permission="view_restore")
    expire_restores()
    heal_restores()
    restores = Restore.objects.select_related("database")
    if not options["all"]:
        restores = restores.filter(state__in=Restore.OPEN_STATES)
    found, now = list(restores), timezone.now()
    output.table(
        ("id", "database", "backup", "state", "asked", "by", "approved by", "reason"),
        [
            (
                each.pk,
                each.database.name,
                each.backup_id,
                each.state,
                f"{human_age(now - each.requested_at)} ago",
                each.requested_by_name,
                each.approved_by_name or "–",
                each.reason[:60],
            )
            for each in found
        ],
    )
    if not found:
        output.line("No restore is waiting.")
    output.document({"restores": [restore_document(each) for each in found]})
    return 0
