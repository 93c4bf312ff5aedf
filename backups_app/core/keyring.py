"""Identity files as they are met in practice: missing, malformed, or under a passphrase.

Whatever keeps one from being used is a :class:`KeyMissingError`: it says nothing about an archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .age import X25519Identity, read_identities
from .age.keyfile import AskPassphrase
from .errors import BackupError, KeyMissingError

PASSPHRASE_VARIABLE = "BACKUPS_AGE_PASSPHRASE"  # noqa: S105 - a name  # nosec B105
"""Holds the passphrase; with ``_FILE`` at its end it names a file that does."""


def load_identities(paths: Iterable[Path], *, ask_passphrase: AskPassphrase | None = None) -> list[X25519Identity]:
    """The identities in all these files.

    Raises:
        KeyMissingError: one of them cannot be read, is not a file of identities, or is protected by
            a passphrase that is not to be had or wrong. The message holds no key.
    """
    found: list[X25519Identity] = []
    for path in paths:
        try:
            found += read_identities(path, ask_passphrase=ask_passphrase)
        except BackupError as exc:
            raise KeyMissingError(f"The identity file {path} cannot be used: {exc.message}", exc.hint) from exc
    return found


def passphrase_from_environment() -> str:
    """The passphrase in ``$BACKUPS_AGE_PASSPHRASE``, or in the file that it names; "" when there is none.

    Raises:
        KeyMissingError: the file cannot be read.
    """
    given, path = os.environ.get(PASSPHRASE_VARIABLE, ""), os.environ.get(f"{PASSPHRASE_VARIABLE}_FILE")
    if given or not path:
        return given
    try:
        return Path(path).read_text("utf-8").rstrip("\r\n")
    except (OSError, ValueError):
        raise KeyMissingError(
            f"The file named by {PASSPHRASE_VARIABLE}_FILE cannot be read.", "Check its path, its owner and its mode."
        ) from None
