"""Keeps the catalogue apart from the databases that it looks after."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

from .conf import CATALOG_ALIAS

_CATALOG_APPS = frozenset({"backups_app", "django_q"})


class CatalogRouter:
    """Rows of the app and of its queue live in the ``catalog`` database, and nothing else does."""

    def db_for_read(self, model: type[Model], **_hints: Any) -> str | None:
        """The catalogue for its own models."""
        return CATALOG_ALIAS if model._meta.app_label in _CATALOG_APPS else None

    db_for_write = db_for_read

    def allow_relation(self, first: Model, second: Model, **_hints: Any) -> bool | None:
        """No relation may cross between the catalogue and another database."""
        inside = {each._meta.app_label in _CATALOG_APPS for each in (first, second)}
        return False if len(inside) == 2 else None

    def allow_migrate(self, db: str, app_label: str, **_hints: Any) -> bool | None:
        """Each table in its own place."""
        if app_label in _CATALOG_APPS:
            return db == CATALOG_ALIAS
        return False if db == CATALOG_ALIAS else None
