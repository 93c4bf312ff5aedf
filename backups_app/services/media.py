"""Which folders are stored beside a database, and what is recorded of them."""

from __future__ import annotations

from pathlib import Path

from .. import conf
from ..core.media.tar import shown
from ..media import checked_folders
from ..models import Backup, Database
from .databases import require_allowed


def media_folders(database: Database) -> list[Path]:
    """The folders that are stored beside ``database``: those of the setting, else those it was added with.

    They are checked again at each use, as the database is.

    Raises:
        InputError, NotFoundError, RefusedError: one of them cannot be stored, or lies outside
            BACKUPS["ROOTS"] now.
    """
    given = conf.get("MEDIA").get(database.name)
    if given is not None:
        return checked_folders(given)
    folders = checked_folders(database.media)
    for each in folders:
        require_allowed(each)
    return folders


def stored_folders(backup: Backup) -> list[str]:
    """The names of the folders that were stored with a backup, as they can be shown."""
    return [shown(each) for each in backup.media["labels"]] if backup.media else []


def untouched_note(backup: Backup) -> str:
    """What a restore in place does not do, and how to do it."""
    return (
        "The folders of media are not touched. They are restored to new ones by "
        f"`manage.py backup restore {backup.pk} --to FILE --media-to FOLDER`."
    )
