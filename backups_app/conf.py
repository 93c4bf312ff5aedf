"""The settings of the app: one dict ``BACKUPS`` with defaults, read when it is asked for.

Reading lazily means that a test, or a host project, may change a setting at any time, and that
importing the app never fails because of one.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

CATALOG_ALIAS = "catalog"
"""The DATABASES alias of the control database; never under care, never a restore target."""

DEFAULTS: dict[str, Any] = {
    # Folder for archives/, scratch/ and state/. Default: $BACKUPS_HOME, else var/ beside manage.py.
    "HOME": None,
    # Folders below which `backup add-database` accepts files. Default: none.
    "ROOTS": [],
    # Tables that must hold rows, per database name: {"default": ["auth_user"]}.
    "REQUIRED_TABLES": {},
    # Oldest acceptable last verified backup, unless a database says otherwise.
    "FRESHNESS_HOURS": 26,
    # How long to wait for a lock on a database under care.
    "BUSY_TIMEOUT_SECONDS": 5,
    # Longest time for one backup or verification; None means no limit.
    "DEADLINE_SECONDS": 6 * 3600,
    # How long a restore waits for writers and readers of the live database before it gives up.
    "RESTORE_WAIT_SECONDS": 30,
    # A restore needs the approval of a second person. False: a person may approve their own.
    "FOUR_EYES": True,
    # How long a request for a restore, and its approval, may be used.
    "APPROVAL_HOURS": 24,
    # How long `backup serve`, told to end, lets running jobs work before it kills them.
    "STOP_SECONDS": 60,
    # Up to this size a new backup gets integrity_check, above it quick_check.
    "INTEGRITY_CHECK_MAX_BYTES": 64 << 20,
    "ZSTD_LEVEL": 1,
    "ZSTD_WORKERS": 2,
}


def get(name: str) -> Any:
    """The value of one setting.

    Raises:
        KeyError: there is no such setting (a programming error).
        ImproperlyConfigured: BACKUPS is not a dict.
    """
    default = DEFAULTS[name]
    given = getattr(settings, "BACKUPS", {})
    if not isinstance(given, dict):
        raise ImproperlyConfigured("The setting BACKUPS must be a dict.")
    return given.get(name, default)


def home() -> Path:
    """The folder that everything is written to, absolute.

    Raises:
        ImproperlyConfigured: it is set nowhere and the project has no BASE_DIR.
    """
    given = get("HOME") or os.environ.get("BACKUPS_HOME")
    if given:
        return Path(given).expanduser().absolute()
    base = getattr(settings, "BASE_DIR", None)
    if base is None:
        raise ImproperlyConfigured("Set BACKUPS['HOME'] to the folder where backups may be written.")
    return Path(base).absolute() / "var"


def archives_folder() -> Path:
    """Where the built-in destination ``local`` keeps its archives."""
    return home() / "archives"


def scratch_folder() -> Path:
    """Where work in progress lies: plaintext, private, swept."""
    return home() / "scratch"


def state_folder() -> Path:
    """Lock files, the audit copy, and what else must outlive the catalogue."""
    return home() / "state"


def roots() -> list[Path]:
    """Folders below which other databases may be added, absolute with links resolved."""
    return [Path(root).expanduser().resolve() for root in get("ROOTS")]
