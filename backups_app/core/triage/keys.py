"""Key files of the legacy container. They are read and never made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import InputError, NotFoundError, translated
from ..legacy import KEY_BYTES

_NAME = "master.key"
_ROTATED = "master.key.bak."


def read_legacy_keys(path: Path) -> list[bytes]:
    """The raw keys in a file of 32 bytes, or in each ``master.key`` and ``master.key.bak.<time>`` of a folder.

    The caller makes sure that ``path`` is no live database. A file in the folder that is no key is
    refused, not skipped: it may be the one that was needed.

    Raises:
        NotFoundError: nothing is there. InputError: a file is no key, or the folder holds none.
        BackupError: it cannot be read. No message carries a key.
    """
    with translated(f"reading the keys in {path.name}"):
        if not path.exists():
            raise NotFoundError(f"There is no key file {path}.", "Check the path. Keys are never made here.")
        if not path.is_dir():
            return [_read(path)]
        names = sorted(each.name for each in path.iterdir())
    files = [path / name for name in names if name == _NAME or name.startswith(_ROTATED)]
    if not files:
        raise InputError(f"The folder {path} holds no {_NAME} and no {_ROTATED}<time>.", "Give the key file itself.")
    return [_read(file) for file in files]


def _read(path: Path) -> bytes:
    with translated(f"reading the key {path.name}"):
        # A key may be a link, as mounted secrets are; a FIFO must not block.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = file.read(KEY_BYTES + 1) if is_file else b""
    if len(content) != KEY_BYTES:
        raise InputError(
            f"{path} is not a key of the old system: a key has exactly {KEY_BYTES} bytes.",
            "Give the raw bytes of master.key, and of each master.key.bak.<time>.",
        )
    return content
