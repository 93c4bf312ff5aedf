"""The random key of one age file, and the keys that the format derives from it."""

from __future__ import annotations

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ..errors import InputError
from .secret import Secret

WRAPPED_BYTES = 32
"""Size of a wrapped file key: 16 bytes and the tag."""

_FILE_KEY_BYTES = 16
_WRAP_NONCE = bytes(12)  # a wrap key is used once, so the format fixes the nonce


def hkdf_sha256(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """32 bytes derived as the format derives all its keys."""
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


class FileKey(Secret):
    """The key of exactly one file.

    Whoever keeps it can decrypt that file, and no other, without any identity.
    """

    __slots__ = ("_is_used", "_material")

    def __init__(self, material: bytes) -> None:
        if len(material) != _FILE_KEY_BYTES:
            raise InputError("A file key has 16 bytes.", "Let FileKey.generate() make it.")
        self._material = material
        self._is_used = False

    @classmethod
    def generate(cls) -> FileKey:
        """A new random key."""
        return cls(secrets.token_bytes(_FILE_KEY_BYTES))

    def use_for_writing(self) -> None:
        """Note that a file is written with this key. The format forbids a second one.

        Raises:
            InputError: a file was written with it already.
        """
        if self._is_used:
            raise InputError("This file key has encrypted a file already.", "Generate one for each file.")
        self._is_used = True

    def wrapped(self, wrap_key: bytes) -> bytes:
        """The body of a stanza. ``wrap_key`` must be used for nothing else."""
        return ChaCha20Poly1305(wrap_key).encrypt(_WRAP_NONCE, self._material, None)

    @classmethod
    def unwrapped(cls, body: bytes, wrap_key: bytes) -> FileKey | None:
        """The key in the body of a stanza, or None when ``wrap_key`` does not open it.

        The caller has checked that the body has ``WRAPPED_BYTES``: a longer one could be made to
        open under several keys.
        """
        try:
            return cls(ChaCha20Poly1305(wrap_key).decrypt(_WRAP_NONCE, body, None))
        except InvalidTag:
            return None

    def header_key(self) -> bytes:
        """The key of the header's MAC."""
        return hkdf_sha256(self._material, salt=b"", info=b"header")

    def payload_key(self, nonce: bytes) -> bytes:
        """The key of the payload that begins with ``nonce``."""
        return hkdf_sha256(self._material, salt=nonce, info=b"payload")
