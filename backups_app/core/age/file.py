"""A whole age file: a header that wraps the file key, then the payload under that key."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence

from ..errors import InputError
from . import scrypt, x25519
from .errors import HeaderError, NoMatchError
from .file_key import FileKey
from .header import MAX_STANZAS, Stanza, header_bytes, read_header
from .scrypt import ScryptIdentity, ScryptRecipient
from .source import ByteSource
from .stream import seal, unseal
from .x25519 import X25519Identity, X25519Recipient

Recipient = X25519Recipient | ScryptRecipient
Identity = X25519Identity | ScryptIdentity

_NONCE_BYTES = 16


def encrypt(
    pieces: Iterable[bytes], *, recipients: Sequence[Recipient], file_key: FileKey | None = None
) -> Iterator[bytes]:
    """The age file that holds ``pieces``, in constant memory.

    The header is made at once, the rest while it is read. With ``file_key`` (fresh, from
    :meth:`FileKey.generate`) the caller can later read back what was stored without an identity.
    When ``pieces`` raises, the file stays without its end and no reader accepts it.

    Raises:
        InputError: no recipient, too many, a passphrase among others, or a file key used before.
    """
    _check_recipients(recipients)
    file_key = file_key or FileKey.generate()
    file_key.use_for_writing()
    header = header_bytes([recipient.wrap(file_key) for recipient in recipients], file_key=file_key)
    return _written(iter(pieces), header=header, file_key=file_key)


def _check_recipients(recipients: Sequence[Recipient]) -> None:
    if not recipients:
        raise InputError("There is no recipient to encrypt for.", "Set one.")
    if len(recipients) > MAX_STANZAS:
        raise InputError(f"There are more than {MAX_STANZAS:,} recipients.", "Use fewer.")
    if len(recipients) > 1 and any(isinstance(each, ScryptRecipient) for each in recipients):
        raise InputError("A passphrase must be the only recipient of a file.", "Use key pairs, or it alone.")


def _written(pieces: Iterator[bytes], *, header: bytes, file_key: FileKey) -> Iterator[bytes]:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    yield header + nonce
    yield from seal(pieces, key=file_key.payload_key(nonce))


def decrypt(
    pieces: Iterable[bytes], *, identities: Sequence[Identity] = (), file_key: FileKey | None = None
) -> Iterator[bytes]:
    """What an age file holds, in constant memory, each byte authenticated before it is released.

    With ``file_key`` the recipients are not tried, but all else is checked: the header's form and
    MAC, and every chunk. Only a regular end of the iterator proves that the content is complete.
    Armor has to be taken off before, see :func:`~.armor.unarmored`.

    Raises:
        NoMatchError: no identity opens it.
        HeaderError, HmacError, PayloadError: it is damaged. Whatever ``pieces`` raises.
    """
    source = ByteSource(iter(pieces))
    header = read_header(source)
    _check_native_stanzas(header.stanzas)
    opened = file_key or _unwrapped(header.stanzas, identities)
    header.check_mac(opened)
    nonce = source.take(_NONCE_BYTES)
    if len(nonce) < _NONCE_BYTES:
        raise HeaderError("the file ends behind it")
    yield from unseal(source.rest(), key=opened.payload_key(nonce))


def _check_native_stanzas(stanzas: Sequence[Stanza]) -> None:
    """Refuse what no proper writer makes, whoever reads it and whichever stanza is theirs."""
    for stanza in stanzas:
        if stanza.type == x25519.STANZA_TYPE:
            x25519.checked_share(stanza)
        elif stanza.type == scrypt.STANZA_TYPE:
            scrypt.checked_salt(stanza)
            if len(stanzas) > 1:
                raise HeaderError("a passphrase is not its only recipient")


def _unwrapped(stanzas: Sequence[Stanza], identities: Sequence[Identity]) -> FileKey:
    for identity in identities:
        for stanza in stanzas:
            if (file_key := identity.unwrap(stanza)) is not None:
                return file_key
    kinds = {stanza.type for stanza in stanzas}
    if kinds == {scrypt.STANZA_TYPE}:
        raise NoMatchError("This age file is encrypted with a passphrase, and no right one was given.", "Give it.")
    raise NoMatchError
