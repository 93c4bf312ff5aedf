"""``setup-groups``: the four groups of people, with their permissions."""

from __future__ import annotations

import argparse
from typing import Any

from ..documents import group_document
from ..services.audit import Actor
from ..services.groups import SetUp, setup_groups
from .output import Output

HELP = "make the groups viewer, operator, approver and auditor, or add what they lack; takes nothing away"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(options: dict[str, Any], output: Output) -> int:
    """Set the groups up and tell what was done."""
    done = setup_groups(actor=Actor.system())
    for each in done:
        output.line(f"{each.name}: {_words(each)}")
    output.document({"groups": [group_document(each) for each in done]})
    return 0


def _words(done: SetUp) -> str:
    if done.is_new:
        return f"made, with {len(done.added)} permissions"
    return f"added {', '.join(done.added)}" if done.added else "nothing to do"
