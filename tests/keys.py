"""Keys for tests, and the stock ``age`` program."""

from __future__ import annotations

import subprocess
from pathlib import Path

from backups_app.core.age import ScryptRecipient, X25519Identity, encrypt, identity_file
from tests.support import NOW, needs_tool


class Key:
    """An identity in a file of its own."""

    def __init__(self, path: Path, identity: X25519Identity | None = None) -> None:
        self.identity = identity or X25519Identity.generate()
        self.path = path
        path.write_bytes(identity_file(self.identity, now=NOW))
        path.chmod(0o600)

    @property
    def recipient(self) -> str:
        return str(self.identity.recipient)

    @property
    def secret(self) -> str:
        return self.identity.secret_text()


def wrapped(key: Key, path: Path, *, passphrase: str) -> Path:
    """The identity of a key in a file that is protected by a passphrase (cheaply, for tests)."""
    content = identity_file(key.identity, now=NOW)
    path.write_bytes(b"".join(encrypt([content], recipients=[ScryptRecipient(passphrase, work_factor=5)])))
    return path


def age_decrypt(key: Key, source: Path, target: Path) -> Path:
    """Open an age file with the stock program: no part of ours."""
    subprocess.run([needs_tool("age"), "-d", "-i", key.path, "-o", target, source], check=True)
    return target


def stock_restore(key: Key, archive: Path, target: Path) -> Path:
    """``age -d`` and ``zstd -d``: no part of ours."""
    packed = age_decrypt(key, archive, target.with_suffix(".zst"))
    subprocess.run([needs_tool("zstd"), "-dq", packed, "-o", target], check=True)
    return target
