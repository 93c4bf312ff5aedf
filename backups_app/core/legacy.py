"""Reading the encrypted container (``.enc``) of the system that came before this one.

Layout, integers big-endian::

    4 bytes  N, length of the package
    2 bytes  M, length of the metadata
    M bytes  JSON metadata in clear; its exact bytes are the additional authenticated data
    N bytes  the package: 16 bytes unused salt, 12 bytes nonce, AES-256-GCM ciphertext, 16 bytes tag

The file is exactly ``6 + M + N`` bytes long, and ``N`` is the size of the content plus 44. Keys
are 32 raw bytes. Reading never creates a key.

GCM proves everything or nothing, and only at the end: content goes to a private file that is
removed again unless the tag is right. A wrong key and a damaged package look alike, but for one
thing: a key under which the first bytes are those of a known format is the right one, because a
wrong key gives noise. Then, and only then, a wrong tag means damage.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import AEADDecryptionContext, Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from .archive import CHUNK_BYTES, write_all
from .errors import InputError, KeyMissingError, VerificationError, translated
from .files import create_private_file
from .progress import Watch

KEY_BYTES = 32
MAX_HEADER_BYTES = 6 + 0xFFFF

_PREFIX = struct.Struct(">IH")
_SALT_BYTES, _NONCE_BYTES, _TAG_BYTES = 16, 12, 16
_OVERHEAD_BYTES = _SALT_BYTES + _NONCE_BYTES + _TAG_BYTES
_PROBE_BYTES = 16

# What the content may begin with. Short ones are left out: noise begins with two given bytes often.
_KNOWN_BEGINNINGS = (b"SQLite format 3\x00", b"PGDMP", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"\x1f\x8b\x08\x00")

# Names under which the metadata may tell the size of the content.
_SIZE_NAMES = ("original_size", "original_size_bytes", "original_bytes", "plaintext_size")


@dataclass(frozen=True, kw_only=True)
class Container:
    """What a container says of itself without any key. Nothing of it is proven yet."""

    metadata: dict[str, Any]
    header: bytes
    """The exact bytes of the metadata."""
    content_bytes: int
    """Size of the content inside."""

    @property
    def package_start(self) -> int:
        """Where the package begins in the file."""
        return _PREFIX.size + len(self.header)


def looks_like_container(head: bytes, *, size_bytes: int | None = None) -> bool:
    """Whether a file that begins with ``head`` may be a container, whole or not.

    The format has no magic number. ``size_bytes`` is the size of the file, when that is known.
    """
    if len(head) < _PREFIX.size + 2:
        return False
    package_bytes, metadata_bytes = _PREFIX.unpack_from(head)
    metadata = head[_PREFIX.size : _PREFIX.size + metadata_bytes]
    if not metadata.startswith(b"{") or metadata_bytes < 2:
        return False
    if size_bytes == _PREFIX.size + metadata_bytes + package_bytes:
        return True
    if len(metadata) == metadata_bytes:
        return _parsed(metadata) is not None
    # Cut inside the metadata. Six bytes of readable text in front of a brace are just text.
    return metadata[1:2] in (b'"', b"}", b" ", b"\n") and not _is_text(head[: _PREFIX.size])


def _is_text(prefix: bytes) -> bool:
    return all(0x20 <= each < 0x7F or each in b"\t\r\n" for each in prefix)


def _parsed(metadata: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(metadata)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def read_container(stored: BinaryIO, *, size_bytes: int) -> Container:
    """Check the structure of a container of ``size_bytes`` bytes, from its first byte, without a key.

    Raises:
        VerificationError: it is truncated, or its lengths or its metadata do not agree.
    """
    prefix = stored.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise _damaged(f"it ends after {len(prefix)} bytes")
    package_bytes, metadata_bytes = _PREFIX.unpack(prefix)
    expected_bytes = _PREFIX.size + metadata_bytes + package_bytes
    if size_bytes != expected_bytes:
        what = "truncated: " if size_bytes < expected_bytes else ""
        raise _damaged(f"{what}it has {size_bytes:,} bytes and must have {expected_bytes:,}")
    if package_bytes < _OVERHEAD_BYTES:
        raise _damaged(f"its package of {package_bytes} bytes is too short to hold a nonce and a tag")
    header = _read_exactly(stored, metadata_bytes)
    metadata = _parsed(header)
    if metadata is None:
        raise _damaged("its metadata is not a JSON object")
    content_bytes = package_bytes - _OVERHEAD_BYTES
    told_bytes = next((metadata[name] for name in _SIZE_NAMES if type(metadata.get(name)) is int), content_bytes)
    if told_bytes != content_bytes:
        raise _damaged(f"its metadata tells of {told_bytes:,} bytes of content, it has room for {content_bytes:,}")
    return Container(metadata=metadata, header=header, content_bytes=content_bytes)


def _read_exactly(stored: BinaryIO, count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = stored.read(count - len(found))
        if not piece:
            raise _damaged("it ends in the middle")
        found += piece
    return found


def _damaged(why: str) -> VerificationError:
    return VerificationError(f"The encrypted container is damaged: {why}.", "Keep it, and look for another copy.")


def refuse_malformed_keys(keys: Sequence[bytes]) -> None:
    """Refuse keys that are no keys of this format.

    Raises:
        InputError: one is not 32 bytes long. The message does not carry it.
    """
    for number, key in enumerate(keys, start=1):
        if len(key) != KEY_BYTES:
            raise InputError(
                f"Key {number} of {len(keys)} has {len(key)} bytes; a key has {KEY_BYTES}.",
                "Give the raw bytes of master.key, and of each master.key.bak.<time>.",
            )


def decrypt_container(
    stored: BinaryIO, target: Path, *, size_bytes: int, keys: Sequence[bytes], watch: Watch
) -> Container:
    """Decrypt a container into the new private file ``target`` with the first key that opens it.

    ``stored`` can seek and is read in pieces, once for each key that is tried. ``target`` exists
    only when the tag proved its content.

    Raises:
        VerificationError: the structure is damaged, or the right key finds damage.
        KeyMissingError: no key opens it, or none was given.
        InputError: a key is malformed. DiskFullError, CancelledError, DeadlineError.
    """
    refuse_malformed_keys(keys)
    stored.seek(0)
    container = read_container(stored, size_bytes=size_bytes)
    if not keys:
        raise KeyMissingError("It is encrypted, and no key was given.", "Give every master.key you have.")
    likely = [key for key in keys if _opens_beginning(stored, container, key)]
    for key in likely or keys:
        if _decrypt(stored, container, target, key=key, watch=watch):
            return container
    if likely:
        raise _damaged("the key fits, but the authentication tag does not match what is stored")
    raise KeyMissingError(
        f"No given key opens it ({len(keys)} tried), or it is damaged: the format cannot tell the two apart.",
        "Give every master.key and master.key.bak.<time> you have.",
    )


def _opens_beginning(stored: BinaryIO, container: Container, key: bytes) -> bool:
    stored.seek(container.package_start)
    decryptor = _decryptor(stored, container, key)
    beginning = decryptor.update(_read_exactly(stored, min(_PROBE_BYTES, container.content_bytes)))
    return beginning.startswith(_KNOWN_BEGINNINGS)


def _decryptor(stored: BinaryIO, container: Container, key: bytes) -> AEADDecryptionContext:
    nonce = _read_exactly(stored, _SALT_BYTES + _NONCE_BYTES)[_SALT_BYTES:]
    decryptor = Cipher(AES(key), GCM(nonce)).decryptor()
    decryptor.authenticate_additional_data(container.header)
    return decryptor


def _decrypt(stored: BinaryIO, container: Container, target: Path, *, key: bytes, watch: Watch) -> bool:
    """Whether ``key`` opens the container; ``target`` is there exactly when it does."""
    stored.seek(container.package_start)
    decryptor = _decryptor(stored, container, key)
    left_bytes = container.content_bytes
    with translated("decrypting the container"):
        descriptor = create_private_file(target)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                while left_bytes:
                    piece = _read_exactly(stored, min(CHUNK_BYTES, left_bytes))
                    write_all(file, decryptor.update(piece))
                    left_bytes -= len(piece)
                    watch.report("decrypt", container.content_bytes - left_bytes, container.content_bytes)
                decryptor.finalize_with_tag(_read_exactly(stored, _TAG_BYTES))
        except InvalidTag:
            target.unlink()
            return False
        except BaseException:
            target.unlink(missing_ok=True)
            raise
    return True
