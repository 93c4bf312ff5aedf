"""The option ``--identity`` of the verbs that may have to open an encrypted archive."""

from __future__ import annotations

import argparse
from typing import Any

from ..core.errors import InputError
from ..core.terminal import ask_passphrase
from ..encryption import Keyring, identity_files
from . import arguments


def add_identity(parser: argparse.ArgumentParser) -> None:
    """Declare it."""
    parser.add_argument(
        "--identity",
        action="append",
        default=[],
        type=arguments.path,
        metavar="FILE",
        help="file with the secret key of an encrypted archive (default: BACKUPS['AGE_IDENTITY_FILE']); repeatable",
    )


def keyring_of(options: dict[str, Any]) -> Keyring:
    """The identities that were given, else those of the settings; a passphrase is asked for on the terminal."""
    return Keyring(options["identity"] or identity_files(), ask_passphrase=ask_passphrase)


def refuse_queued_identity(options: dict[str, Any]) -> None:
    """Refuse to hand a secret key on to a worker.

    Raises:
        InputError: both --identity and --enqueue were given.
    """
    if options["identity"] and options["enqueue"]:
        raise InputError(
            "A key is never put into the queue, so --identity cannot be used with --enqueue.",
            "Leave one out, or set BACKUPS['AGE_IDENTITY_FILE'] where the worker runs.",
        )
