"""Where archives are kept: the built-in folder ``local``, and any alias of Django's STORAGES.

An alias whose storage is a folder of this host gets our own atomic, synced writes. Every other one is
remote. Names of destinations come from settings and catalogue; :func:`get_destination` makes one
of them usable.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from django.core.files.storage import FileSystemStorage, InvalidStorageError, Storage, storages

from .. import conf
from ..core.errors import RefusedError, UnreachableError
from .base import Destination, StoredObject
from .local import LOCAL, LocalDestination
from .s3 import S3Destination, is_s3
from .storage import MissingObjectError, StorageDestination, describe

__all__ = [
    "LOCAL",
    "Destination",
    "LocalDestination",
    "MissingObjectError",
    "S3Destination",
    "StorageDestination",
    "StoredObject",
    "get_destination",
    "local_folders",
    "reach",
]

_DESTINATIONS: dict[str, Callable[[], Destination]] = {
    LOCAL: lambda: LocalDestination(conf.archives_folder()),
}
"""The built-in ones."""


def get_destination(name: str) -> Destination:
    """The destination of this name.

    Raises:
        RefusedError: it is not configured, or its storage cannot be made.
    """
    if name in _DESTINATIONS:
        return _DESTINATIONS[name]()
    if name not in storages.backends:
        raise RefusedError(
            f"There is no destination {name!r}.", f"Add {name!r} to STORAGES again, or use another destination."
        )
    try:
        return _of_storage(storages[name], name=name)
    except InvalidStorageError as exc:
        raise RefusedError(
            f"The storage of the destination {name!r} cannot be loaded.",
            "Is its package installed? For S3: pip install 'django-walsafe[s3]'.",
        ) from exc
    except Exception as exc:
        raise RefusedError(
            f"The storage of the destination {name!r} cannot be made: {describe(exc)}.", "Correct it in STORAGES."
        ) from exc


def _of_storage(storage: Storage, *, name: str) -> Destination:
    if isinstance(storage, FileSystemStorage):
        return LocalDestination(Path(storage.location), name=name)
    return S3Destination(storage, name=name) if is_s3(storage) else StorageDestination(storage, name=name)


def reach(name: str) -> Destination:
    """The destination that a copy in the catalogue lies at.

    Raises:
        UnreachableError: it is not configured any more, which says nothing of what lies there.
    """
    try:
        return get_destination(name)
    except RefusedError as exc:
        raise UnreachableError(exc.message, exc.hint) from exc


def local_folders() -> dict[str, Path]:
    """Destination → folder, for those destinations of the settings that are folders of this host."""
    found: dict[str, Path] = {}
    for name in conf.destinations():
        try:
            destination = get_destination(name)
        except RefusedError:
            continue  # the system checks say so
        if isinstance(destination, LocalDestination):
            found[name] = destination.root
    return found
