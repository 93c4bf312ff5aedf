"""What triage may use: keys, identities, a time limit, and the live files that it must not open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from django.utils import timezone

from ... import conf, encryption
from ...core.age import X25519Identity, decrypt, read_identities
from ...core.errors import BackupError, RefusedError
from ...core.legacy import KEY_BYTES
from ...core.triage import FileIdentity, Limits, TriageOptions, read_legacy_keys
from ..databases import live_files

logger = logging.getLogger(__name__)


def triage_options(
    *,
    key_files: Iterable[Path] = (),
    identity_files: Iterable[Path] = (),
    limit_seconds: float | None = None,
    ask_passphrase: Callable[[], str] | None = None,
) -> TriageOptions:
    """The options of a triage: the keys given, those in ``TRIAGE_KEY_FILES``, and the identity of this host.

    Identity files may be keys of the old system as well. No key is ever made. Live databases under care,
    the catalogue, and what lies beside them are excluded. ``limit_seconds`` is for each file.

    Raises:
        NotFoundError, InputError: a key file is missing, or is none. RefusedError: it is a live database.
    """
    live = live_files()
    keys: list[bytes] = []
    identities: list[X25519Identity] = []
    for path in key_files:
        keys += read_legacy_keys(_not_live(path, live))
    for path in [*identity_files, *conf.triage_key_files()]:
        if path.is_dir() or _size(path) == KEY_BYTES:  # no line of age is so short
            keys += read_legacy_keys(_not_live(path, live))
        else:
            identities += read_identities(_not_live(path, live), ask_passphrase=ask_passphrase)
    for path in encryption.identity_files():
        try:
            identities += read_identities(_not_live(path, live))
        except BackupError as exc:  # the system checks say so; what it opens is judged "key missing"
            logger.warning("Triage goes on without the identity of this host: %s", exc)
    return TriageOptions(
        keys=tuple(dict.fromkeys(keys)),
        open_age=partial(_opened, identities) if identities else None,
        limits=Limits() if limit_seconds is None else Limits(seconds=limit_seconds),
        exclude=live,
        now=timezone.now,
    )


def _opened(identities: list[X25519Identity], pieces: Iterator[bytes]) -> Iterator[bytes]:
    return decrypt(pieces, identities=identities)


def _not_live(path: Path, live: frozenset[FileIdentity]) -> Path:
    """Refuse a live database before it is opened as a file: closing it would drop this process's locks."""
    if is_live(path, live):
        raise RefusedError(f"{path} is a live database, not a key.", "Check the path.")
    return path


def is_live(path: Path, live: frozenset[FileIdentity]) -> bool:
    """Whether the path leads to one of these files, through links too."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return False
    return (found.st_dev, found.st_ino) in live


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
