"""Make a new key, only when somebody asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ... import encryption
from ...core.age import X25519Identity, identity_file
from ...core.errors import InputError, NotFoundError, RefusedError
from ...core.files import refuse_existing, sync_folder, write_synced
from .. import audit
from ..audit import Actor


@dataclass(frozen=True, kw_only=True)
class NewKey:
    """A key just made. Its secret half is in the file and nowhere else."""

    recipient: str
    key_id: str
    path: Path
    created_at: datetime


def generate_key(path: Path, *, actor: Actor, now: datetime) -> NewKey:
    """Write a new identity to the new file ``path`` (mode 0600), durable when this returns.

    It is not put to use: its recipient has to be set, and proven.

    Raises:
        RefusedError: the file exists, or lies where it would be handed out, swept, or lost together
            with the archives. NotFoundError: its folder is missing. BackupError: from the disk.
            Nothing is written then.
    """
    _require_place(path)
    refuse_existing(path)
    identity = X25519Identity.generate()
    write_synced(path, identity_file(identity, now=now))
    sync_folder(path.parent)
    recipient = identity.recipient
    audit.record("keygen", actor=actor, subject=recipient.key_id, detail=f"{recipient} in {path}")
    return NewKey(recipient=str(recipient), key_id=recipient.key_id, path=path, created_at=now)


def _require_place(path: Path) -> None:
    if not path.name or path.is_dir():
        raise InputError(f"{path} is not the name of a new file.", "Give a file name.")
    if not path.parent.is_dir():
        raise NotFoundError(f"The folder {path.parent} does not exist.", "Create it first, with mode 0700.")
    public = encryption.public_folder_with(path)
    if public:
        raise RefusedError(
            f"{path} lies inside {public}, where a key must not be.",
            "Keep it on another disk or machine than the archives, in a folder that only you can read.",
        )
