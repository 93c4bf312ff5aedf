"""Recipients and identities with an X25519 key pair: ``age1…`` and ``AGE-SECRET-KEY-1…``."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from ..errors import InputError
from . import bech32, encoding
from .errors import HeaderError
from .file_key import WRAPPED_BYTES, FileKey, hkdf_sha256
from .header import Stanza, decoded
from .secret import Secret

STANZA_TYPE = "X25519"

_KEY_BYTES = 32
_RECIPIENT_PREFIX = "age"
_IDENTITY_PREFIX = "AGE-SECRET-KEY-"
_INFO = b"age-encryption.org/v1/X25519"
_KEY_ID_CHARACTERS = 16

_RECIPIENT_HINT = "An age recipient looks like age1… and has 62 characters; `age-keygen -y` prints it."
_IDENTITY_HINT = "An age identity looks like AGE-SECRET-KEY-1… and has 74 characters."
_WRONG_PLACE_HINT = (
    "A host that makes backups needs the public recipient (age1…) only. "
    "Treat that secret key as disclosed if others may read the setting."
)


@dataclass(frozen=True, repr=False)
class X25519Recipient:
    """A public key that files can be encrypted for. Not secret.

    Raises:
        InputError: the bytes are no key that a secret can be shared with.
    """

    public_bytes: bytes

    def __post_init__(self) -> None:
        try:
            X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(self.public_bytes))
        except ValueError as exc:  # another length, or a point of low order
            raise InputError("A recipient is not a usable X25519 key.", _RECIPIENT_HINT) from exc

    @classmethod
    def parse(cls, text: str) -> X25519Recipient:
        """Read ``age1…``, strictly.

        Raises:
            InputError: it is anything else. The message does not hold the text, which may be a
                secret key in the wrong place.
        """
        if text.upper().startswith(_IDENTITY_PREFIX):
            raise InputError("A secret key stands where a recipient belongs.", _WRONG_PLACE_HINT)
        if text.startswith(("age1pq1", "age1tag", "ssh-")):
            raise InputError("This type of recipient is not supported.", _RECIPIENT_HINT)
        return cls(_parsed(text, prefix=_RECIPIENT_PREFIX, what="recipient", hint=_RECIPIENT_HINT))

    def __str__(self) -> str:
        return bech32.encode(_RECIPIENT_PREFIX, self.public_bytes)

    def __repr__(self) -> str:
        return f"<X25519Recipient {self.key_id}…>"

    @property
    def key_id(self) -> str:
        """The first 16 characters, ``age1`` included: to show, and to find in a list by eye.

        60 bits of the public key. Decisions compare whole recipients.
        """
        return str(self)[:_KEY_ID_CHARACTERS]

    def wrap(self, file_key: FileKey) -> Stanza:
        """A stanza that the identity of this recipient opens."""
        ephemeral = X25519PrivateKey.generate()
        share = ephemeral.public_key().public_bytes_raw()
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.public_bytes))
        body = file_key.wrapped(_wrap_key(shared, share=share, recipient=self))
        return Stanza((STANZA_TYPE, encoding.encode(share).decode("ascii")), body)


class X25519Identity(Secret):
    """A secret key that opens files encrypted for its recipient."""

    __slots__ = ("_private", "recipient")

    def __init__(self, private: X25519PrivateKey) -> None:
        self._private = private
        self.recipient = X25519Recipient(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> X25519Identity:
        """A new random identity."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def parse(cls, text: str) -> X25519Identity:
        """Read ``AGE-SECRET-KEY-1…``, strictly.

        Raises:
            InputError: it is anything else. The message does not hold the text.
        """
        if text.startswith(("AGE-SECRET-KEY-PQ-", "AGE-PLUGIN-")):
            raise InputError("This type of identity is not supported.", _IDENTITY_HINT)
        content = _parsed(text, prefix=_IDENTITY_PREFIX, what="identity", hint=_IDENTITY_HINT)
        return cls(X25519PrivateKey.from_private_bytes(content))

    def secret_text(self) -> str:
        """The secret key itself, ``AGE-SECRET-KEY-1…``, for a private file and nothing else."""
        return bech32.encode(_IDENTITY_PREFIX.lower(), self._private.private_bytes_raw()).upper()

    def __repr__(self) -> str:
        return f"<X25519Identity of {self.recipient.key_id}… (redacted)>"

    def unwrap(self, stanza: Stanza) -> FileKey | None:
        """The file key, or None when the stanza is for somebody else.

        Raises:
            HeaderError: the stanza is of this type and malformed.
        """
        if stanza.type != STANZA_TYPE:
            return None
        share = checked_share(stanza)
        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError as exc:  # a point of low order: the secret would be known to everybody
            raise HeaderError("the share of a recipient is not a usable X25519 key") from exc
        return FileKey.unwrapped(stanza.body, _wrap_key(shared, share=share, recipient=self.recipient))


def checked_share(stanza: Stanza) -> bytes:
    """The ephemeral share in an X25519 stanza.

    Raises:
        HeaderError: the stanza has not exactly the form that the format demands.
    """
    if len(stanza.arguments) != 2:
        raise HeaderError("an X25519 recipient has not two arguments")
    if len(stanza.body) != WRAPPED_BYTES:
        raise HeaderError("the body of an X25519 recipient has not 32 bytes")
    return decoded(stanza.arguments[1], size_bytes=_KEY_BYTES)


def _wrap_key(shared: bytes, *, share: bytes, recipient: X25519Recipient) -> bytes:
    return hkdf_sha256(shared, salt=share + recipient.public_bytes, info=_INFO)


def _parsed(text: str, *, prefix: str, what: str, hint: str) -> bytes:
    try:
        found, content = bech32.decode(text)
    except ValueError as exc:
        raise InputError(f"An age {what} is malformed: {exc}.", hint) from exc
    if found != prefix or len(content) != _KEY_BYTES:
        raise InputError(f"A text is not an age {what} of the X25519 type.", hint)
    return content
