"""``tick``: what has to be done every minute, where no supervisor does it."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..core.errors import combined_exit_code
from ..documents import scheduled_run_document
from ..models import ScheduledRun
from ..services.clock import tick
from ..services.databases import sync_databases
from .output import Output

HELP = "fire the schedules that are due; call it every minute from cron, unless `serve` runs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(options: dict[str, Any], output: Output) -> int:
    """Do the duties and print what was fired; nothing when nothing is due."""
    sync_databases()
    ticked = tick(now=timezone.now())
    for each in ticked.runs:
        output.line(_words(each))
    codes = [output.error(failure) for failure in ticked.failures]
    output.document({"runs": [scheduled_run_document(each) for each in ticked.runs]})
    return combined_exit_code(codes)


def _words(run: ScheduledRun) -> str:
    text = f"{run.schedule.kind} {run.schedule.database.name}: due {run.due_at:%Y-%m-%d %H:%M} UTC, job {run.job_id}"
    if run.is_late:
        text += ", late"
    return f"{text}, stands for {run.missed} missed" if run.missed else text
