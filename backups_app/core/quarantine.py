"""Bytes from outside on their way into a private file: limited while they arrive, whole or not there.

Nothing of what the sender calls the file becomes part of a path.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, RefusedError, translated
from .files import create_private_file, create_private_folder, require_free_space, sync_folder

_TOKEN_BYTES = 16


@dataclass(frozen=True, kw_only=True)
class Received:
    """A file that has arrived, synced."""

    path: Path
    size_bytes: int
    sha256: str


class Receiving:
    """A new file of mode 0600 with a random name in the private folder ``folder``, open for what arrives."""

    def __init__(self, folder: Path, *, limit_bytes: int, announced_bytes: int = 0) -> None:
        """Begin.

        Raises:
            DiskFullError: what was announced does not fit. BackupError: the folder cannot be used.
        """
        with translated("preparing the quarantine"):
            create_private_folder(folder)
            require_free_space(folder, min(announced_bytes, limit_bytes), purpose="the upload")
            self.path = folder / secrets.token_hex(_TOKEN_BYTES)
            self._descriptor: int | None = create_private_file(self.path)
        self._limit_bytes, self._size_bytes = limit_bytes, 0
        self._digest = hashlib.sha256()

    def write(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            RefusedError: more arrive than are allowed. DiskFullError, BackupError. The file is gone then.
        """
        try:
            self._size_bytes += len(piece)
            if self._size_bytes > self._limit_bytes:
                raise RefusedError(
                    f"The upload has more than {self._limit_bytes:,} bytes. It was not kept.",
                    "Put the file below one of BACKUPS['TRIAGE_ROOTS'], or raise BACKUPS['UPLOAD_MAX_BYTES'].",
                )
            if self._descriptor is None:
                raise RefusedError("The upload is over.", "Send it again.")
            with translated("writing the upload"):
                left = memoryview(piece)
                while left:
                    left = left[os.write(self._descriptor, left) :]
        except BaseException:
            self.discard()
            raise
        self._digest.update(piece)

    def finish(self) -> Received:
        """All has arrived: it is durable when this returns.

        Raises:
            InputError: nothing arrived. BackupError: from the disk. The file is gone then.
        """
        try:
            if not self._size_bytes or self._descriptor is None:
                raise InputError("The upload is empty.", "Choose a file.")
            with translated("writing the upload"):
                os.fsync(self._descriptor)
                self._close()
                sync_folder(self.path.parent)
        except BaseException:
            self.discard()
            raise
        return Received(path=self.path, size_bytes=self._size_bytes, sha256=self._digest.hexdigest())

    def discard(self) -> None:
        """Remove the file, wherever it is; may be called again."""
        self._close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            os.close(descriptor)


def quarantined_files(folder: Path, *, idle_seconds: float) -> Iterator[Path]:
    """The plain files in quarantine that nothing was written to for so long; links are left alone."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        with suppress(FileNotFoundError):
            if entry.is_file(follow_symlinks=False) and time.time() - entry.stat().st_mtime > idle_seconds:
                yield Path(entry.path)
