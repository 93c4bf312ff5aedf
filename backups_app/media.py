"""Folders that are stored beside databases: which can be, wherever they were named."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from . import conf
from .core.errors import InputError, NotFoundError, RefusedError
from .destinations import local_folders


def checked_folders(given: Iterable[Path | str]) -> list[Path]:
    """Folders that can be stored beside a database: real, apart from each other, and away from our own.

    Raises:
        InputError: one of them is relative, a link, no folder, or inside another one.
        NotFoundError: one is not there. RefusedError: one holds our own files, or lies in them.
    """
    folders: list[Path] = []
    for each in map(Path, given):
        if not each.is_absolute():
            raise InputError(f"The media folder {each} is not an absolute path.", "Give its whole path.")
        folder = Path(os.path.normpath(each))
        if folder.is_symlink():
            raise InputError(f"The media folder {folder} is a link.", "Give the real path of the folder.")
        if not folder.exists():
            raise NotFoundError(f"The media folder {folder} is not there.", "Make it, or take it off the list.")
        if not folder.is_dir():
            raise InputError(f"The media folder {folder} is no folder.", "Give the path of a folder.")
        folders.append(folder)
    for each in folders:
        for own in (conf.home(), *local_folders().values()):
            if _overlap(each, own):
                raise RefusedError(
                    f"The media folder {each} and the folder of backups {own} lie in each other.",
                    "Backups would hold backups. Choose a folder without them.",
                )
        if any(_overlap(each, other) for other in folders if other is not each):
            raise InputError(f"The media folder {each} comes twice.", "Name each folder once, the outermost only.")
    return folders


def _overlap(first: Path, second: Path) -> bool:
    one, other = first.resolve(), second.resolve()
    return one == other or one in other.parents or other in one.parents
