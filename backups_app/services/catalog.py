"""The catalogue itself: made when missing, refused when it does not fit the code."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from django.core.management import call_command
from django.db import DatabaseError, Error, connections
from django.db.migrations.executor import MigrationExecutor

from .. import conf
from ..core.errors import BackupError, BusyError, primary_code, translated
from ..core.files import create_private_file, create_private_folder, file_lock
from ..models import Database

logger = logging.getLogger(__name__)

_APPS = ("backups_app", "django_q")

_ADVISORY_KEY = 0x57414C5341464543
"""Which advisory lock of PostgreSQL is held while the catalogue is made: "WALSAFEC"."""

_LOCKED_STATES = ("40001", "40P01", "55P03")
"""What PostgreSQL calls a serialization failure, a deadlock, and a lock that could not be had."""

_ready_files: set[str] = set()


def require_catalog() -> None:
    """Make sure that the catalogue is there and fits the code; create it when it is missing.

    Safe to call from many processes, and hosts, at once: one of them creates it.

    Raises:
        BackupError: it is behind or ahead of the code, or cannot be read.
    """
    create_private_folder(conf.home())
    make_private_file()
    try:
        if not _is_missing():
            _refuse_misfit()
            return
        with making_catalog():
            if _is_missing():
                call_command("migrate", database=conf.CATALOG_ALIAS, interactive=False, verbosity=0)
        _refuse_misfit()
    except DatabaseError as exc:
        raise BackupError(
            f"The catalogue cannot be used: {exc}.",
            "If its file is damaged, move it away: a new one is made at the next start, and the archives are "
            "all still in their folder."
            if conf.is_catalog_local()
            else "See whether its server runs, and whether the address in BACKUPS_CATALOG_URL is right.",
        ) from exc


@contextmanager
def making_catalog() -> Iterator[None]:
    """Be the only one that changes the tables of the catalogue, on all hosts that share it, until the block ends."""
    with file_lock(conf.state_folder() / "catalog.lock"):
        connection = connections[conf.CATALOG_ALIAS]
        if connection.vendor != "postgresql":
            yield
            return
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s)", [_ADVISORY_KEY])
        try:
            yield
        finally:
            # It goes with the connection as well, however this process ends.
            with suppress(Error), connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [_ADVISORY_KEY])


def make_private_file() -> None:
    """Make the file of a catalogue that is missing, for this account only; its log and journal get the same mode.

    SQLite would give it the mode that the umask leaves.

    Raises:
        BackupError: from the disk.
    """
    settings = connections[conf.CATALOG_ALIAS].settings_dict
    path = Path(str(settings["NAME"]))
    if not conf.is_catalog_local() or not path.is_absolute() or os.path.lexists(path):
        return
    with translated("making the catalogue"), suppress(FileExistsError):  # another process was first
        create_private_folder(path.parent)
        os.close(create_private_file(path))


def missing_migrations() -> list[str]:
    """Names of the migrations that the catalogue still lacks; empty when it fits the code."""
    executor = MigrationExecutor(connections[conf.CATALOG_ALIAS])
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] in _APPS]
    return [f"{migration.app_label}.{migration.name}" for migration, _ in executor.migration_plan(targets)]


def is_ready() -> bool:
    """Whether the catalogue is there, readable and fits the code; never raises for its state.

    A page asks this every time, so a yes is remembered: a catalogue does not become older than
    the code of a running process.
    """
    if not _ready_files:
        try:
            if not _is_missing() and not missing_migrations():
                _ready_files.add(str(connections[conf.CATALOG_ALIAS].settings_dict["NAME"]))
        except DatabaseError:
            return False
    return str(connections[conf.CATALOG_ALIAS].settings_dict["NAME"]) in _ready_files


def is_answering() -> bool:
    """Whether the catalogue fits the code and can be read right now; never raises. Why not is logged."""
    try:
        if is_ready():
            Database.objects.exists()
            return True
        logger.error("The catalogue is missing, or does not fit the code.")
    except Error as exc:
        logger.error("The catalogue cannot be read: %s", exc)  # noqa: TRY400 - no traceback
    return False


def _is_missing() -> bool:
    """Whether it still has to be made: no tables, or a making that was killed before its first use."""
    if "backups_app_backup" not in connections[conf.CATALOG_ALIAS].introspection.table_names():
        return True
    return bool(missing_migrations()) and not Database.objects.exists()


def _refuse_misfit() -> None:
    missing = missing_migrations()
    if missing:
        raise BackupError(
            f"The catalogue is behind the code; it lacks {', '.join(missing)}.",
            f"Run `manage.py migrate --database {conf.CATALOG_ALIAS}`.",
        )
    executor = MigrationExecutor(connections[conf.CATALOG_ALIAS])
    known = executor.loader.disk_migrations or {}
    newer = [
        f"{app}.{name}" for app, name in executor.loader.applied_migrations if app in _APPS and (app, name) not in known
    ]
    if newer:
        raise BackupError(
            f"The catalogue was written by a newer version; this one does not know {', '.join(sorted(newer))}.",
            "Update the app on this host.",
        )


def is_locked(exc: Error) -> bool:
    """Whether a database error says that another process held a lock for too long."""
    cause = exc.__cause__
    if isinstance(cause, sqlite3.Error):
        return primary_code(cause) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return getattr(cause, "sqlstate", None) in _LOCKED_STATES


def catalog_error(exc: Error) -> BackupError:
    """What to tell people of an error that the catalogue gave in the middle of a verb."""
    if is_locked(exc):
        return BusyError(
            "The catalogue stayed locked by another process; the outcome was not recorded.",
            "Try again when less is going on.",
        )
    if "readonly database" in str(exc):
        return BackupError(
            "The catalogue cannot be written by this user.",
            "Run it as the user that owns BACKUPS_HOME, and check the mode of what is in it.",
        )
    return BackupError(f"The catalogue failed: {exc}.", "Run it with --traceback to see where.")
