"""Who made a manifest: Ed25519 over its exact bytes, with keys in files that stock ``openssl`` reads.

The signing key lies in ``signing.key`` (PKCS#8 PEM, 0600) of the state folder and is made on first
use. Losing it loses no data: the next one signs what is made from then on. Each public key that was
ever trusted here is kept in ``signing-keys/<key id>.pub``, so that older manifests stay checkable.
A key's id is the SHA-256 of its public half in DER: ``openssl pkey -pubin -outform DER | sha256sum``.
"""

from __future__ import annotations

import base64
import hashlib
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import BackupError, InputError, NotFoundError, translated
from .files import create_private_folder, file_lock, publish_new_file, read_bounded, replace_synced, write_synced

logger = logging.getLogger(__name__)

SUFFIX = ".manifest.sig"
SIGNATURE_BYTES = 64
"""A detached signature is the raw 64 bytes of Ed25519 (RFC 8032), nothing around them."""

_KEY_FILE = "signing.key"
_PUBLIC_FILE = "signing.pub"
_TRUSTED_FOLDER = "signing-keys"
_LOCK_FILE = "signing.lock"
_MAX_KEY_BYTES = 16 << 10


@dataclass(frozen=True)
class PublicKey:
    """A public key that checks signatures, as SubjectPublicKeyInfo in DER (RFC 8410)."""

    der: bytes

    @classmethod
    def from_der(cls, der: bytes) -> PublicKey:
        """Raises InputError when this is not an Ed25519 public key in its one spelling."""
        try:
            key = serialization.load_der_public_key(der)
        except Exception as exc:
            raise _not_a_key() from exc
        return cls._of(key, der=der)

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Raises InputError when this is not an Ed25519 public key."""
        try:
            key = serialization.load_pem_public_key(pem)
        except Exception as exc:
            raise _not_a_key() from exc
        return cls._of(key)

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """A key as :attr:`text` spells it. Raises InputError."""
        try:
            der = base64.b64decode(text, validate=True)
        except ValueError as exc:
            raise _not_a_key() from exc
        return cls.from_der(der)

    @classmethod
    def _of(cls, key: object, *, der: bytes | None = None) -> PublicKey:
        if not isinstance(key, Ed25519PublicKey):
            raise _not_a_key()
        found = cls(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
        if der is not None and found.der != der:
            raise _not_a_key()
        return found

    @property
    def key_id(self) -> str:
        """SHA-256 of the DER, as 64 hex digits."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def text(self) -> str:
        """Base64 of the DER: the line between the markers of the PEM."""
        return base64.b64encode(self.der).decode("ascii")

    @property
    def pem(self) -> bytes:
        """The file that ``openssl -inkey`` takes."""
        return f"-----BEGIN PUBLIC KEY-----\n{self.text}\n-----END PUBLIC KEY-----\n".encode("ascii")

    def has_signed(self, content: bytes, signature: bytes) -> bool:
        """Whether ``signature`` was made over exactly ``content`` by the owner of this key."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        key = serialization.load_der_public_key(self.der)
        if not isinstance(key, Ed25519PublicKey):
            return False
        try:
            key.verify(signature, content)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """The secret half. It never leaves the state folder and is in no message."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey._of(key.public_key())

    def sign(self, content: bytes) -> bytes:
        """The detached signature: 64 bytes."""
        return self._key.sign(content)

    @classmethod
    def _from_pem(cls, pem: bytes) -> SigningKey:
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except Exception as exc:
            raise _unusable() from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise _unusable()
        return cls(key)

    def _pem(self) -> bytes:
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


@dataclass(frozen=True, kw_only=True)
class OpenedKey:
    """The signing key, and how it came to be."""

    key: SigningKey
    is_new: bool
    """It was made just now, by this process."""
    is_replacement: bool
    """It is new, and another one had signed here before."""


def open_signing_key(state: Path) -> OpenedKey:
    """The signing key kept in ``state``, made when there is none.

    Of processes that come together one makes it, and all get the same. Its public half is in
    ``signing.pub`` and among the trusted keys when this returns.

    Raises:
        BackupError: the folder cannot be written, or the file holds no key. A damaged key is
            never replaced silently.
    """
    with translated("opening the signing key"), file_lock(state / _LOCK_FILE):
        earlier = _trusted_in(state)
        with suppress(NotFoundError):
            key = _read_signing_key(state)
            _publish(state, key.public)
            return OpenedKey(key=key, is_new=False, is_replacement=False)
        key = SigningKey(Ed25519PrivateKey.generate())
        draft = state / f"{_KEY_FILE}.draft"
        draft.unlink(missing_ok=True)  # we hold the lock: it is of a dead process
        write_synced(draft, key._pem())
        publish_new_file(draft, state / _KEY_FILE)
        _publish(state, key.public)
        return OpenedKey(key=key, is_new=True, is_replacement=bool(earlier))


def trusted_keys(state: Path) -> dict[str, PublicKey]:
    """Key id → public key of every key whose signatures count here: our own, older ones, and those added."""
    with translated("reading the trusted keys"):
        found = _trusted_in(state)
        with suppress(NotFoundError):
            own = PublicKey.from_pem(read_bounded(state / _PUBLIC_FILE, _MAX_KEY_BYTES))
            found.setdefault(own.key_id, own)
        return found


def trust_key(state: Path, key: PublicKey) -> bool:
    """Let the signatures of ``key`` count from now on; False when they did already."""
    folder = state / _TRUSTED_FOLDER
    with translated("keeping a public key"), file_lock(state / _LOCK_FILE):
        if key.key_id in _trusted_in(state):
            return False
        create_private_folder(folder)
        replace_synced(folder / f"{key.key_id}.pub", key.pem)
        return True


def read_public_key(path: Path) -> PublicKey:
    """A public key from a PEM file.

    Raises:
        NotFoundError: no file is there. InputError: it holds no Ed25519 public key.
    """
    with translated(f"reading {path.name}"):
        return PublicKey.from_pem(read_bounded(path, _MAX_KEY_BYTES))


def _read_signing_key(state: Path) -> SigningKey:
    return SigningKey._from_pem(read_bounded(state / _KEY_FILE, _MAX_KEY_BYTES))


def _publish(state: Path, key: PublicKey) -> None:
    """Make the files of the public half what they must be; a process may have died in between."""
    folder = create_private_folder(state / _TRUSTED_FOLDER)
    kept = folder / f"{key.key_id}.pub"
    for path in (kept, state / _PUBLIC_FILE):
        try:
            if read_bounded(path, _MAX_KEY_BYTES) == key.pem:
                continue
        except (NotFoundError, InputError):
            pass
        replace_synced(path, key.pem)


def _trusted_in(state: Path) -> dict[str, PublicKey]:
    folder = state / _TRUSTED_FOLDER
    found: dict[str, PublicKey] = {}
    for path in sorted(folder.glob("*.pub")) if folder.is_dir() else []:
        try:
            key = PublicKey.from_pem(read_bounded(path, _MAX_KEY_BYTES))
        except BackupError as exc:
            logger.warning("The public key %s cannot be used: %s", path.name, exc.message)
            continue
        found[key.key_id] = key
    return found


def _not_a_key() -> InputError:
    return InputError(
        "This is not an Ed25519 public key in PEM form.", "Give the file state/signing.pub of the host that signed."
    )


def _unusable() -> BackupError:
    return BackupError(
        "The signing key in state/signing.key cannot be read as an Ed25519 key.",
        "Put it back from a copy, or move it away: a new one is made then, and older manifests stay checkable "
        "with the public keys in state/signing-keys.",
    )
