"""New files and folders beside those of others: written under a hidden name, and swept when their maker was killed.

Whoever writes one holds a shared lock (``flock``) on the folder; the kernel frees it when the
process ends, however it ends. Whoever gets the exclusive lock therefore knows that nobody writes
there, and that everything named like ours is of the dead. Where folders cannot be locked, nothing
is swept.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import NotFoundError, translated
from .files import remove_if_there

_NAME = re.compile(r"\.walsafe-[0-9a-f]{16}\.partial")
_LONGEST_SWEEP_SECONDS = 2.0


@contextmanager
def partial_beside(target: Path) -> Iterator[Path]:
    """A free hidden name in the target's folder, on the same file system; what is there afterwards is removed.

    First, what killed runs of this account have left in that folder is removed, whatever their target was.

    Raises:
        NotFoundError: the target's folder does not exist. BackupError: what was written cannot be removed.
    """
    with translated("looking for the target's folder"):
        if not target.parent.is_dir():
            raise NotFoundError(f"The folder {target.parent} does not exist.", "Create it first.")
    with _writing_in(target.parent):
        temporary = target.parent / f".walsafe-{secrets.token_hex(8)}.partial"
        try:
            yield temporary
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                with translated("removing the temporary file"):
                    remove_if_there(temporary)


@contextmanager
def _writing_in(folder: Path) -> Iterator[None]:
    """Sweep the folder if nobody writes in it, and keep others from sweeping it until the block ends."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it may be written to and not be listed
        yield
        return
    try:
        if _is_locked(descriptor, fcntl.LOCK_EX):
            _sweep(folder)
        give_up_at = time.monotonic() + _LONGEST_SWEEP_SECONDS
        while not _is_locked(descriptor, fcntl.LOCK_SH) and time.monotonic() < give_up_at:
            time.sleep(0.01)  # somebody sweeps; who holds the lock for longer is none of us, and stops all sweeps
        yield
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what is named like ours, is private and belongs to this account. What resists is left."""
    with suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - names, before anything is removed
            if _NAME.fullmatch(name):
                with suppress(OSError):
                    _remove(folder / name)


def _remove(left: Path) -> None:
    status = left.lstat()
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        return
    if stat.S_ISREG(status.st_mode):
        left.unlink()
    elif stat.S_ISDIR(status.st_mode):
        shutil.rmtree(left, ignore_errors=True)
