"""The age v1 file format over the primitives of ``cryptography``, as byte iterators.

The format in short (https://age-encryption.org/v1):

- A random 16-byte *file key* encrypts one file. The text *header* holds one stanza for each
  recipient that wraps the file key: an X25519 exchange (:mod:`.x25519`) or a passphrase through
  scrypt (:mod:`.scrypt`), each with HKDF-SHA256 and ChaCha20-Poly1305. An HMAC under a key that
  is derived from the file key closes it (:mod:`.header`).
- The *payload* is a 16-byte nonce and chunks of 64 KiB, sealed with ChaCha20-Poly1305 under a
  key derived from file key and nonce; the counter and a last-chunk mark are the chunk's nonce
  (:mod:`.stream`).
- Keys are Bech32: ``age1…`` and ``AGE-SECRET-KEY-1…``. Armor is strict PEM (:mod:`.armor`).

``age -d`` opens what :func:`encrypt` writes, and :func:`decrypt` what ``age`` writes, for these
two kinds of recipient. Stanzas of other kinds (post-quantum, plug-ins, SSH) are passed over.

Promises: no byte leaves :func:`decrypt` before its chunk is authenticated; only a regular end
means that the content is complete; a writer that stops early, for whatever reason, leaves a file
that no reader accepts; everything a file can be wrong in is a :class:`VerificationError` or, when
no key fits, a :class:`KeyMissingError`; key material shows in no message and no ``repr``.

Proof without the secret key: a host that makes archives knows recipients only. It generates the
file key itself, keeps it in memory, and reads back what a destination stored::

    file_key = FileKey.generate()
    stored = encrypt(compressed, recipients=recipients, file_key=file_key)
    compressed = decrypt(read_back, file_key=file_key)

That proves every byte of the stored file: the header's MAC covers all stanzas, and was made in
the same process from the same key; the chunks cover the content. It does not prove that somebody
holds the identity of a recipient: only opening an archive with it does. When the file key goes
out of scope, that host can no longer read the archive.

What age does not give: origin. Whoever knows a public recipient can make a valid file for it;
the signed manifest says whose archive it is.
"""

from __future__ import annotations

from .armor import unarmored
from .errors import ArmorError, HeaderError, HmacError, NoMatchError, PayloadError
from .file import Identity, Recipient, decrypt, encrypt
from .file_key import FileKey
from .header import MAGIC
from .keyfile import identity_file, parse_identities, parse_recipients, read_identities, read_recipients
from .scrypt import ScryptIdentity, ScryptRecipient
from .x25519 import X25519Identity, X25519Recipient

SUFFIX = ".age"

MAGICS = (MAGIC, b"-----BEGIN AGE ENCRYPTED FILE-----")
"""How an age file begins, binary and armored."""

__all__ = [
    "MAGICS",
    "SUFFIX",
    "ArmorError",
    "FileKey",
    "HeaderError",
    "HmacError",
    "Identity",
    "NoMatchError",
    "PayloadError",
    "Recipient",
    "ScryptIdentity",
    "ScryptRecipient",
    "X25519Identity",
    "X25519Recipient",
    "decrypt",
    "encrypt",
    "identity_file",
    "parse_identities",
    "parse_recipients",
    "read_identities",
    "read_recipients",
    "unarmored",
]
