"""Find what a person names on the command line."""

from __future__ import annotations

from typing import TypeVar

from django.db.models import Model, QuerySet

from ..core.errors import InputError, NotFoundError
from ..models import Backup, Database, Job, Restore
from ..services.databases import get_database

Found = TypeVar("Found", bound=Model)

_SHORTEST = 4
"""So many characters of an id are enough."""


def find_backup(given: str) -> Backup:
    """The backup with this id, or the only one whose id begins with it (4 characters or more).

    Raises:
        NotFoundError: there is none. InputError: several begin so.
    """
    return _find(Backup.objects.select_related("database"), given, what="backup", where="list")


def find_restore(given: str) -> Restore:
    """The restore with this id, or the only one whose id begins with it.

    Raises: as :func:`find_backup`.
    """
    restores = Restore.objects.select_related("database", "backup__database", "safety_backup")
    return _find(restores, given, what="restore", where="requests --all")


def find_job(given: str) -> Job:
    """The job with this id, or the only one whose id begins with it.

    Raises: as :func:`find_backup`.
    """
    return _find(Job.objects.select_related("database"), given, what="job", where="jobs --all")


def _find(rows: QuerySet[Found], given: str, *, what: str, where: str) -> Found:
    exact = rows.filter(pk=given).first()
    if exact is not None:
        return exact
    found = list(rows.filter(pk__startswith=given)[:2]) if len(given) >= _SHORTEST else []
    if not found and 0 < len(given) < _SHORTEST:
        raise NotFoundError(f"There is no {what} {given!r}.", f"Give at least {_SHORTEST} characters of its id.")
    if not found:
        raise NotFoundError(f"There is no {what} {given!r}.", f"See `manage.py backup {where}` for the ids.")
    if len(found) > 1:
        raise InputError(f"Several {what}s begin with {given!r}.", "Give more characters of the id.")
    return found[0]


def find_database(given: str) -> Database:
    """The database of this name, also one that has left care: its backups are still there.

    Raises:
        NotFoundError: there is none.
    """
    return Database.objects.filter(name=given).first() or get_database(given)
