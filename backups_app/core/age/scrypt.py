"""Recipients and identities that are a passphrase.

A file for a passphrase has no other recipient: who opens it knows that somebody with the
passphrase made it.
"""

from __future__ import annotations

import re
import secrets

from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from ..errors import BackupError, InputError
from . import encoding
from .errors import HeaderError
from .file_key import WRAPPED_BYTES, FileKey
from .header import Stanza, decoded
from .secret import Secret

STANZA_TYPE = "scrypt"

DEFAULT_WORK_FACTOR = 18
"""Base-two logarithm of scrypt's N when writing, as the age program has it: about a second, 256 MiB."""

MAX_WORK_FACTOR = 20
"""Largest one that is read by default: 1 GiB of memory. A file may ask for any, so there is a limit."""

_SALT_BYTES = 16
_LABEL = b"age-encryption.org/v1/scrypt"
_WORK_FACTOR = re.compile(r"[1-9][0-9]*", re.ASCII)


class ScryptRecipient(Secret):
    """Encrypts for everybody who knows a passphrase.

    Raises:
        InputError: the passphrase is empty or the work factor out of range.
    """

    __slots__ = ("_passphrase", "_work_factor")

    def __init__(self, passphrase: str, *, work_factor: int = DEFAULT_WORK_FACTOR) -> None:
        self._passphrase = _encoded(passphrase)
        if not 1 <= work_factor <= MAX_WORK_FACTOR:
            raise InputError(f"A work factor is between 1 and {MAX_WORK_FACTOR}.", "18 is usual.")
        self._work_factor = work_factor

    def wrap(self, file_key: FileKey) -> Stanza:
        """The one stanza of the file. Takes the time and memory of the work factor."""
        salt = secrets.token_bytes(_SALT_BYTES)
        body = file_key.wrapped(_wrap_key(self._passphrase, salt=salt, work_factor=self._work_factor))
        return Stanza((STANZA_TYPE, encoding.encode(salt).decode("ascii"), str(self._work_factor)), body)


class ScryptIdentity(Secret):
    """Opens files that were encrypted with a passphrase.

    Raises:
        InputError: the passphrase is empty.
    """

    __slots__ = ("_max_work_factor", "_passphrase")

    def __init__(self, passphrase: str, *, max_work_factor: int = MAX_WORK_FACTOR) -> None:
        self._passphrase = _encoded(passphrase)
        self._max_work_factor = max_work_factor

    def unwrap(self, stanza: Stanza) -> FileKey | None:
        """The file key, or None when the passphrase is another.

        Raises:
            HeaderError: the stanza is of this type and malformed, or asks for too much work.
        """
        if stanza.type != STANZA_TYPE:
            return None
        salt, digits = checked_salt(stanza)
        # The length first: Python converts no number of 5,000 digits.
        if len(digits) > 2 or int(digits) > self._max_work_factor:
            raise HeaderError(
                f"its scrypt work factor is over the limit of {self._max_work_factor}",
                "Raise the limit if you trust who made the file; each step doubles time and memory.",
            )
        wrap_key = _wrap_key(self._passphrase, salt=salt, work_factor=int(digits))
        return FileKey.unwrapped(stanza.body, wrap_key)


def checked_salt(stanza: Stanza) -> tuple[bytes, str]:
    """Salt and work factor (in digits) of an scrypt stanza.

    Raises:
        HeaderError: the stanza has not exactly the form that the format demands.
    """
    if len(stanza.arguments) != 3:
        raise HeaderError("an scrypt recipient has not three arguments")
    if len(stanza.body) != WRAPPED_BYTES:
        raise HeaderError("the body of an scrypt recipient has not 32 bytes")
    salt, digits = stanza.arguments[1:]
    if not _WORK_FACTOR.fullmatch(digits):
        raise HeaderError("its scrypt work factor is not a decimal number")
    return decoded(salt, size_bytes=_SALT_BYTES), digits


def _encoded(passphrase: str) -> bytes:
    if not passphrase:
        raise InputError("The passphrase is empty.", "Give one.")
    try:
        return passphrase.encode("utf-8")
    except UnicodeEncodeError:
        # Not chained: the exception holds the passphrase.
        raise InputError("The passphrase is not valid text.", "Give it in UTF-8.") from None


def _wrap_key(passphrase: bytes, *, salt: bytes, work_factor: int) -> bytes:
    try:
        return Scrypt(salt=_LABEL + salt, length=32, n=1 << work_factor, r=8, p=1).derive(passphrase)
    except MemoryError as exc:
        raise BackupError(
            f"There is too little memory for a passphrase of work factor {work_factor}.",
            f"{1 << work_factor >> 10:,} MiB must be free.",
        ) from exc
