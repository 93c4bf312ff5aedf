"""Where a file lies: among our own, or elsewhere."""

from __future__ import annotations

from pathlib import Path

from .. import conf
from ..destinations import local_folders


def is_below(path: Path, folder: Path) -> bool:
    """Whether a file lies somewhere below ``folder``, through links; one whose place cannot be told counts as such."""
    try:
        own, parent = folder.resolve(), path.parent.resolve()
    except (OSError, RuntimeError, ValueError):
        return True
    return own == parent or own in parent.parents


def own_folders() -> list[Path]:
    """The folders of this host that hold our own archives."""
    return [conf.archives_folder(), *local_folders().values()]
