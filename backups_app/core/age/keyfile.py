"""Files of keys: identities, one per line, plain or under a passphrase; recipients, one per line.

Lines that are empty or begin with ``#`` are comments. Every other line must be a key that we
know: a line that is silently skipped could be the one that was needed. Messages name the line
and never quote it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from ..errors import InputError, translated
from .armor import unarmored
from .errors import NoMatchError
from .file import decrypt
from .header import MAGIC
from .scrypt import ScryptIdentity
from .x25519 import X25519Identity, X25519Recipient

MAX_KEYFILE_BYTES = 1 << 20
"""Largest file of keys that is read: more than ten thousand keys."""

AskPassphrase = Callable[[], str]
"""Asks a person, or reads a setting; called only when a passphrase is needed."""

_Key = TypeVar("_Key")


def read_identities(path: Path, *, ask_passphrase: AskPassphrase | None = None) -> list[X25519Identity]:
    """The identities in a file; see :func:`parse_identities`.

    Raises:
        NotFoundError, BackupError: it cannot be read.
    """
    return parse_identities(_content(path), name=path.name, ask_passphrase=ask_passphrase)


def read_recipients(path: Path) -> list[X25519Recipient]:
    """The recipients in a file; see :func:`parse_recipients`.

    Raises:
        NotFoundError, BackupError: it cannot be read.
    """
    return parse_recipients(_content(path), name=path.name)


def parse_identities(content: bytes, *, name: str, ask_passphrase: AskPassphrase | None = None) -> list[X25519Identity]:
    """The identities in the content of a file, at least one.

    The file may itself be an age file, binary or armored, that is encrypted with a passphrase.

    Raises:
        InputError: a line is not an identity, or there is none.
        NoMatchError: the passphrase is wrong, or there is nobody to ask for it.
        VerificationError: the age file around the identities is damaged.
    """
    if content.lstrip().startswith((MAGIC, b"-----BEGIN AGE ")):
        content = _opened(content, name=name, ask_passphrase=ask_passphrase)
    return _parsed(content, name=name, what="identity", parse=X25519Identity.parse)


def parse_recipients(content: bytes, *, name: str) -> list[X25519Recipient]:
    """The recipients in the content of a file, at least one.

    Raises:
        InputError: a line is not a recipient, or there is none.
    """
    return _parsed(content, name=name, what="recipient", parse=X25519Recipient.parse)


def identity_file(identity: X25519Identity, *, now: datetime) -> bytes:
    """What a new identity file holds, as ``age-keygen`` writes it. Secret."""
    created = now.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"# created: {created}\n# public key: {identity.recipient}\n{identity.secret_text()}\n".encode("ascii")


def _content(path: Path) -> bytes:
    with translated(f"reading the keys in {path.name}"), open(path, "rb") as file:
        content = file.read(MAX_KEYFILE_BYTES + 1)
    if len(content) > MAX_KEYFILE_BYTES:
        raise InputError(f"{path.name} is too large for a file of keys.", "Check the path.")
    return content


def _opened(content: bytes, *, name: str, ask_passphrase: AskPassphrase | None) -> bytes:
    if ask_passphrase is None:
        raise NoMatchError(f"{name} is protected by a passphrase.", "Give the passphrase, or a plain identity file.")
    identity = ScryptIdentity(ask_passphrase())
    return b"".join(decrypt(unarmored(iter([content])), identities=[identity]))


def _parsed(content: bytes, *, name: str, what: str, parse: Callable[[str], _Key]) -> list[_Key]:
    keys: list[_Key] = []
    for number, line in _key_lines(content):
        try:
            keys.append(parse(line))
        except InputError as exc:
            raise InputError(f"Line {number} of {name}: {exc.message}", exc.hint) from exc
    if not keys:
        raise InputError(f"{name} holds no {what}.", "Check the path.")
    return keys


def _key_lines(content: bytes) -> Iterator[tuple[int, str]]:
    # What is not UTF-8 becomes a character that no key has; a comment may hold anything.
    text = content.decode("utf-8", "replace")
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if stripped and not stripped.startswith("#"):
            yield number, stripped
