"""``status``: is the data safe?"""

from __future__ import annotations

import argparse
from typing import Any

from ..documents import health_document
from ..services.databases import sync_databases
from ..services.health import DatabaseHealth, check_health
from ..services.jobs.reap import reap_jobs
from .output import Output, human_age, human_size

HELP = "say whether everything under care is safe; exit 8 when something needs attention"

NEEDS_ATTENTION = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(options: dict[str, Any], output: Output) -> int:
    """Print the health."""
    sync_databases()
    reap_jobs()
    health = check_health()
    output.table(
        ("database", "last verified#", "limit#", "last drill#", "recovery#", "log#", "state"),
        [
            (
                each.database.name,
                "never" if (age := each.age(now=health.checked_at)) is None else f"{human_age(age)} ago",
                human_age(each.limit),
                "–" if each.last_drill is None else f"{human_age(health.checked_at - each.last_drill.finished_at)} ago",
                _recovery(each),
                human_size(each.wal_bytes),
                "needs attention" if each.problems else "safe",
            )
            for each in health.databases
        ],
    )
    output.table(
        ("disk of", "free#", "next backup#", "next restore#", "state"),
        [
            (
                str(each.folder),
                human_size(each.free_bytes),
                human_size(each.backup_bytes),
                human_size(each.restore_bytes),
                "nearly full" if each.is_nearly_full else "enough",
            )
            for each in health.disks
        ],
    )
    if health.is_ok:
        output.line("Everything under care has a verified backup within its limit.")
    for problem in health.problems:
        where = f"{problem.database}: " if problem.database else ""
        output.line(f"! {where}{problem.message}")
        output.line(f"  {problem.hint}")
    for warning in health.warnings:
        output.note(f"Warning: {warning.message} {warning.hint}")
    for notice in health.notices:
        output.note(f"Note: {notice}")
    output.document({"health": health_document(health)})
    return 0 if health.is_ok else NEEDS_ATTENTION


def _recovery(found: DatabaseHealth) -> str:
    """How long the restore of the last drill took."""
    if found.last_drill is None or found.last_drill.recovery_seconds is None:
        return "–"
    return f"{found.last_drill.recovery_seconds:.1f} s"
