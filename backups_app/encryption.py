"""Which keys are set: recipients that archives are encrypted for, identities that open them here.

Both come from the settings, the environment and files that these name, never from a row of the
catalogue: whoever can write there must not be able to become a reader of the archives.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from . import conf
from .core.age import X25519Identity, X25519Recipient, read_recipients
from .core.archive import Keys
from .core.errors import InputError, KeyMissingError
from .core.keyring import load_identities
from .core.manifest import Manifest
from .core.verify import NO_KEYS
from .destinations import local_folders

_SEPARATORS = re.compile(r"[\s,]+")


def recipients() -> list[X25519Recipient]:
    """Every recipient that is named in a setting, the environment or a file, each once, in that order.

    All of them count, so that no key is left out silently. An empty list: archives are not encrypted.

    Raises:
        InputError: one is malformed, or a file holds none. NotFoundError, BackupError: a file cannot be read.
    """
    found = [X25519Recipient.parse(each) for each in _recipient_texts()]
    for path in _files("AGE_RECIPIENTS_FILE"):
        found += read_recipients(path)
    return list(dict.fromkeys(found))


def _recipient_texts() -> list[str]:
    texts: list[str] = []
    for given in (conf.get("AGE_RECIPIENTS"), os.environ.get("BACKUPS_AGE_RECIPIENTS")):
        for each in [given] if isinstance(given, str) else list(given or ()):
            if not isinstance(each, str):
                raise InputError("A recipient in BACKUPS['AGE_RECIPIENTS'] is not a text.", "Give age1… texts.")
            texts += [part for part in _SEPARATORS.split(each) if part]
    return texts


def _files(name: str) -> list[Path]:
    """The files that a setting and its environment variable name."""
    named = (conf.get(name), os.environ.get(f"BACKUPS_{name}"))
    return list(dict.fromkeys(Path(each).expanduser().absolute() for each in named if each))


def identity_files() -> list[Path]:
    """The files with the identities of this host."""
    return _files("AGE_IDENTITY_FILE")


def public_folder_with(path: Path) -> str:
    """The name of a setting whose folder holds ``path`` and is handed out or written by us; "" for none."""
    folders = [
        ("MEDIA_ROOT", getattr(settings, "MEDIA_ROOT", None)),
        ("STATIC_ROOT", getattr(settings, "STATIC_ROOT", None)),
        *(("STATICFILES_DIRS", each) for each in _static_folders()),
        ("the archives folder", conf.archives_folder()),
        *((f"the folder of the destination {name}", each) for name, each in _destination_folders().items()),
        ("the scratch folder", conf.scratch_folder()),
        ("the quarantine folder", conf.quarantine_folder()),
        ("the state folder", conf.state_folder()),
    ]
    # The name as it is given, and what it leads to: a link in a public folder discloses as well.
    around = {*(path.parent.resolve() / path.name).parents, *path.resolve().parents}
    return next((name for name, each in folders if each and Path(each).expanduser().resolve() in around), "")


def _destination_folders() -> dict[str, Path]:
    try:
        return local_folders()
    except (TypeError, ValueError):  # the system checks say what is wrong with the setting
        return {}


def _static_folders() -> list[str]:
    found = getattr(settings, "STATICFILES_DIRS", None) or []
    return [str(each[1] if isinstance(each, list | tuple) else each) for each in found]


def is_readable_by_others(path: Path) -> bool:
    """Whether the mode of a file lets its group or everybody read it."""
    try:
        return bool(path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    except OSError:
        return False


class Keyring:
    """The identities at hand. Their files are read when the first encrypted archive needs them."""

    def __init__(self, files: Iterable[Path], *, ask_passphrase: Callable[[], str] | None = None) -> None:
        self.files = list(files)
        self._ask_passphrase = ask_passphrase

    @classmethod
    def configured(cls) -> Keyring:
        """Those of the settings; nobody is asked for a passphrase."""
        return cls(identity_files())

    @cached_property
    def identities(self) -> list[X25519Identity]:
        """The identities.

        Raises:
            KeyMissingError: there are none, or a file of them cannot be used.
        """
        if not self.files:
            raise KeyMissingError(
                "The archive is encrypted, and no identity is at hand.",
                "Give the identity file with --identity FILE, or set BACKUPS['AGE_IDENTITY_FILE'].",
            )
        return load_identities(self.files, ask_passphrase=self._passphrase)

    def keys_for(self, manifest: Manifest) -> Keys:
        """What opens the archive of a manifest, if anything at hand does.

        Raises: as :attr:`identities`, when it is encrypted.
        """
        return NO_KEYS if manifest.encryption is None else Keys(identities=self.identities)

    @cached_property
    def publics(self) -> frozenset[str]:
        """The recipients whose archives can be opened here; none when the files cannot be used."""
        try:
            return frozenset(str(each.recipient) for each in self.identities)
        except KeyMissingError:
            return frozenset()

    def require_any(self, publics: Iterable[str]) -> None:
        """Return when an archive for these recipients can be opened here.

        Raises:
            KeyMissingError: it cannot.
        """
        identities = self.identities
        wanted = set(publics)
        if wanted and not any(str(each.recipient) in wanted for each in identities):
            shown = ", ".join(sorted(f"{each[:16]}…" for each in wanted))
            raise KeyMissingError(
                f"No identity at hand opens this archive; it is encrypted for {shown}.",
                "Give the identity file of one of these keys.",
            )

    def _passphrase(self) -> str:
        try:
            given = str(conf.given_or_secret("AGE_PASSPHRASE"))
        except ImproperlyConfigured as exc:
            raise KeyMissingError(str(exc), "Check its path, its owner and its mode.") from exc
        if given:
            return given
        if self._ask_passphrase is None:
            raise KeyMissingError(
                "The identity file is protected by a passphrase, and there is nobody to ask for it.",
                "Set BACKUPS_AGE_PASSPHRASE_FILE to a private file that holds it.",
            )
        return self._ask_passphrase()
