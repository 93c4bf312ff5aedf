"""Who may do what: people of the site by name, and the system account."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections, router

from ..core.errors import BackupError, BusyError, InputError, NotFoundError, RefusedError
from .audit import Actor
from .catalog import is_locked

_UNCHECKED = "unchecked"


def find_person(name: str) -> Any:
    """The active user of this name.

    Raises:
        NotFoundError: there is none. RefusedError: the account is not active.
        UsersUnreadableError: the site's users cannot be read. BusyError: their database is locked.
    """
    model = get_user_model()
    _require_user_database(model)
    try:
        person = model._default_manager.get_by_natural_key(name)
    except model.DoesNotExist as exc:
        raise NotFoundError(f"There is no user {name!r}.", "Give the name of a staff account of the site.") from exc
    except DatabaseError as exc:
        if is_locked(exc):  # a lock must not switch the check of names off
            raise BusyError(
                "The database with the site's users is locked.", "Try again when the other process has finished."
            ) from exc
        raise UsersUnreadableError(f"The users of the site cannot be read: {exc}.") from exc
    if not person.is_active:
        raise RefusedError(f"The account {name!r} is not active.", "Ask somebody else.")
    return person


class UsersUnreadableError(BackupError):
    """The database with the site's users is missing or damaged."""


def _require_user_database(model: Any) -> None:
    """Look before Django does: it would create a missing SQLite file, and a -wal beside an empty one would go."""
    connection = connections[router.db_for_read(model) or DEFAULT_DB_ALIAS]
    name = str(connection.settings_dict["NAME"])
    if (
        connection.vendor == "sqlite"
        and not name.startswith("file:")
        and name != ":memory:"
        and not (Path(name).exists() and Path(name).stat().st_size)
    ):
        raise UsersUnreadableError(f"The database with the site's users, {name}, is missing or empty.")


def require_permission(person: Any, *permissions: str) -> None:
    """Refuse a person who has none of these permissions of this app.

    Raises:
        RefusedError: naming them.
    """
    if not any(person.has_perm(f"backups_app.{permission}") for permission in permissions):
        names = " or ".join(permission.replace("_", " ") for permission in permissions)
        raise RefusedError(
            f"{person.get_username()} does not have the permission {names}.",
            "Ask an administrator of the site for it, or ask somebody who has it.",
        )


def actor_for(name: str | None, *, permission: str, or_permission: str | None = None) -> Actor:
    """The actor of a command: a person with a permission, or the system account when none is named.

    When the site's users cannot be read, which may be why somebody restores, the name is taken as
    it was given and marked as unchecked: whoever can run commands here could have changed them.

    Raises: as :func:`find_person` and :func:`require_permission`. InputError: the name is empty.
    """
    if name is None:
        return Actor.system()
    try:
        person = find_person(name)
    except UsersUnreadableError:
        plain = _plain(name)
        if not plain:
            raise InputError("The name of a person is empty.", "Give it with --user NAME.") from None
        return Actor(id=f"{_UNCHECKED}:{plain}", name=f"{plain} ({_UNCHECKED})")
    require_permission(person, permission, *([or_permission] if or_permission else []))
    return Actor.of(person)


def is_same_person(one: Actor, other: Actor) -> bool:
    """Whether two actors may be one person: by account, by name, or by a name that was never checked."""
    if one.id == other.id or one.name == other.name:
        return True
    if not any(each.id.startswith(f"{_UNCHECKED}:") for each in (one, other)):
        return False
    return _plain(one.name).casefold() == _plain(other.name).casefold()


def _plain(name: str) -> str:
    """A name without what could make two of one: look-alike characters, blanks, our own mark."""
    text = " ".join(unicodedata.normalize("NFKC", name).split())
    text = "".join(each for each in text if unicodedata.category(each) not in ("Cc", "Cf"))
    while text.endswith(f"({_UNCHECKED})"):
        text = text.removesuffix(f"({_UNCHECKED})").rstrip()
    return text
