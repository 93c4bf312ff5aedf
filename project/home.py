"""The one folder that everything is written to, and the secret key that is kept there."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured


def prepare_home(home: Path) -> Path:
    """Create ``home`` and its ``state`` folder, readable by this user only.

    Raises:
        ImproperlyConfigured: it cannot be created or is not a folder.
    """
    try:
        for folder in (home, home / "state"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise ImproperlyConfigured(
            f"The folder {home} cannot be used ({exc.strerror}). Set BACKUPS_HOME to a folder that this user may write."
        ) from exc
    return home


def load_secret_key(path: Path) -> str:
    """The secret key kept in ``path``, made on first use with mode 0600.

    Two processes that start together get the same key: the first one to link it wins.

    Raises:
        ImproperlyConfigured: the file cannot be written, or holds no key.
    """
    try:
        if not path.exists():
            draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with open(descriptor, "w", encoding="ascii") as file:
                    file.write(secrets.token_urlsafe(64))
                    file.flush()
                    os.fsync(file.fileno())
                with suppress(FileExistsError):  # another process was first; its key counts
                    os.link(draft, path)
            finally:
                draft.unlink()
        key = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as exc:
        raise ImproperlyConfigured(
            f"The secret key file {path} cannot be used. Set DJANGO_SECRET_KEY, or make the folder writable."
        ) from exc
    if len(key) < 50:
        raise ImproperlyConfigured(f"The secret key file {path} is damaged. Remove it to get a new key.")
    return key
