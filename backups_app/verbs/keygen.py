"""``keygen``: make a new encryption key in a new file."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..documents import new_key_document
from ..services.keys.keygen import generate_key
from ..services.people import actor_for
from . import arguments
from .output import Output

HELP = "make a new encryption key in a new file, and print its public half"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--out", type=arguments.path, required=True, metavar="FILE", help="the new file; secret")
    parser.add_argument("--user", metavar="NAME", help="who makes it (default: the system account)")


def run(options: dict[str, Any], output: Output) -> int:
    """Make the key; nothing uses it before its recipient is set."""
    actor = actor_for(options["user"], permission="manage_keys")
    key = generate_key(options["out"], actor=actor, now=timezone.now())
    output.line(key.recipient)
    output.note(f"The secret key is in {key.path}. Keep it, and a second copy, away from the archives.")
    output.note("To use it: add the line above to BACKUPS['AGE_RECIPIENTS'], then `manage.py backup prove`.")
    output.document({"key": new_key_document(key)})
    return 0
