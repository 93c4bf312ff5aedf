"""``reject``: turn a restore request down, or withdraw one's own."""

from __future__ import annotations

import argparse
from typing import Any

from ..documents import restore_document
from ..services.people import actor_for
from ..services.restores import reject_restore
from ..services.wording import english
from .find import find_restore
from .output import Output

HELP = "turn a restore request down"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", metavar="ID", help="id of a restore request, or its beginning")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why")
    parser.add_argument("--user", metavar="NAME", help="who rejects (default: the system account)")


def run(options: dict[str, Any], output: Output) -> int:
    """Reject the request."""
    restore = find_restore(options["id"])
    is_own = options["user"] is not None and options["user"] == restore.requested_by_name
    actor = actor_for(options["user"], permission="request_restore" if is_own else "approve_restore")
    reject_restore(restore, reason=options["reason"], actor=actor)
    output.line(f"Restore {restore.pk} is {english(restore, 'state')}.")
    output.document({"restore": restore_document(restore)})
    return 0
