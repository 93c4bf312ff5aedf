"""Stored bytes into a file of our own, proven on the way."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from .archive import OpenStored, read_chunks
from .errors import VerificationError, translated
from .files import create_private_file, require_free_space
from .progress import Watch


def fetch_stored(
    open_stored: OpenStored, target: Path, *, size_bytes: int | None, sha256: str | None, watch: Watch
) -> None:
    """Copy a stored object to the new private file ``target``, synced, when it has the digest ``sha256``.

    Without a digest its bytes are taken as they are; ``size_bytes`` is None when unknown.

    Raises:
        VerificationError: its bytes are not those. UnreachableError, DiskFullError, CancelledError,
            DeadlineError. ``target`` does not exist after any of them.
    """
    require_free_space(target.parent, size_bytes or 0, purpose="the fetched archive")
    digest = hashlib.sha256()
    doing = f"fetching {target.name}"
    with translated(doing):
        descriptor = create_private_file(target)
        try:
            with open(descriptor, "wb") as file:
                with open_stored() as stored:
                    for piece in read_chunks(stored, phase="fetch", total_bytes=size_bytes or 0, watch=watch):
                        digest.update(piece)
                        # Translated here, so that a full disk is not taken for a store that does not answer.
                        with translated(doing):
                            file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            if sha256 is not None and digest.hexdigest() != sha256:
                raise VerificationError(
                    "The stored bytes are not those that were written.", "Verify this copy; use another one."
                )
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def gives_back(open_stored: OpenStored, path: Path, *, watch: Watch) -> bool:
    """Whether a stored object, read to its last byte, is what the private file ``path`` holds.

    Raises:
        UnreachableError: it cannot be read. BackupError: ``path`` cannot. CancelledError, DeadlineError.
    """
    doing = f"reading {path.name}"
    with translated(doing), open(path, "rb") as file:
        total_bytes = path.stat().st_size
        with open_stored() as stored:
            for piece in read_chunks(stored, phase="read back", total_bytes=total_bytes, watch=watch):
                with translated(doing):
                    expected = file.read(len(piece))
                if expected != piece:
                    return False
        return not file.read(1)
