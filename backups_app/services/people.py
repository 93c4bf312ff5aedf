"""Who may do what: people of the site by name, and the system account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, router

from ..core.errors import BackupError, NotFoundError, RefusedError
from .audit import Actor


def find_person(name: str) -> Any:
    """The active user of this name.

    Raises:
        NotFoundError: there is none. RefusedError: the account is not active.
        UsersUnreadableError: the site's users cannot be read.
    """
    model = get_user_model()
    _require_user_database(model)
    try:
        person = model._default_manager.get_by_natural_key(name)
    except model.DoesNotExist as exc:
        raise NotFoundError(f"There is no user {name!r}.", "Give the name of a staff account of the site.") from exc
    except DatabaseError as exc:
        raise UsersUnreadableError(f"The users of the site cannot be read: {exc}.") from exc
    if not person.is_active:
        raise RefusedError(f"The account {name!r} is not active.", "Ask somebody else.")
    return person


class UsersUnreadableError(BackupError):
    """The database with the site's users is missing or damaged."""


def _require_user_database(model: Any) -> None:
    """Look before Django does: connecting to a missing SQLite file would create an empty one."""
    connection = connections[router.db_for_read(model) or DEFAULT_DB_ALIAS]
    name = str(connection.settings_dict["NAME"])
    if (
        connection.vendor == "sqlite"
        and not name.startswith("file:")
        and name != ":memory:"
        and not Path(name).exists()
    ):
        raise UsersUnreadableError(f"The database with the site's users, {name}, is missing.")


def require_permission(person: Any, permission: str) -> None:
    """Refuse a person without a permission of this app.

    Raises:
        RefusedError: naming the permission.
    """
    if not person.has_perm(f"backups_app.{permission}"):
        raise RefusedError(
            f"{person.get_username()} does not have the permission {permission.replace('_', ' ')}.",
            "Ask an administrator of the site for it, or ask somebody who has it.",
        )


def actor_for(name: str | None, *, permission: str) -> Actor:
    """The actor of a command: a person with the permission, or the system account when none is named.

    When the site's users cannot be read, which may be why somebody restores, the name is taken as
    it was given and marked as unchecked: whoever can run commands here could have changed them.

    Raises: as :func:`find_person` and :func:`require_permission`.
    """
    if name is None:
        return Actor.system()
    try:
        person = find_person(name)
    except UsersUnreadableError:
        return Actor(id=f"unchecked:{name}", name=f"{name} (unchecked)")
    require_permission(person, permission)
    return Actor.of(person)
