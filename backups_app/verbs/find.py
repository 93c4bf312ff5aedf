"""Find what a person names on the command line."""

from __future__ import annotations

from ..core.errors import InputError, NotFoundError
from ..models import Backup, Database
from ..services.databases import get_database


def find_backup(given: str) -> Backup:
    """The backup with this id, or the only one whose id begins with it (4 characters or more).

    Raises:
        NotFoundError: there is none. InputError: several begin so.
    """
    backups = Backup.objects.select_related("database")
    exact = backups.filter(pk=given).first()
    if exact is not None:
        return exact
    found = list(backups.filter(pk__startswith=given)[:2]) if len(given) >= 4 else []
    if not found:
        raise NotFoundError(f"There is no backup {given!r}.", "See `manage.py backup list` for the ids.")
    if len(found) > 1:
        raise InputError(f"Several backups begin with {given!r}.", "Give more characters of the id.")
    return found[0]


def find_database(given: str) -> Database:
    """The database of this name, also one that has left care: its backups are still there.

    Raises:
        NotFoundError: there is none.
    """
    return Database.objects.filter(name=given).first() or get_database(given)
