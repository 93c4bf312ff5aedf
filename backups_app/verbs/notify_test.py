"""``notify-test``: does everybody hear of it when something goes wrong?"""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..documents import trial_document
from ..services.audit import Actor
from ..services.notifications import send_test
from .output import Output

HELP = "send a test message to every receiver of notifications; exit 1 when one does not get it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(options: dict[str, Any], output: Output) -> int:
    """Send, and tell how each receiver fared."""
    trials = send_test(actor=Actor.system(), now=timezone.now())
    for trial in trials:
        if trial.is_delivered:
            output.line(f"{trial.receiver.name}: delivered")
        else:
            output.problem(f"{trial.receiver.name}: not delivered. {trial.reason}")
    output.document({"notifications": [trial_document(trial) for trial in trials]})
    return 0 if all(trial.is_delivered for trial in trials) else 1
