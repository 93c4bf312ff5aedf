"""The overview's place in the index of an admin site."""

from __future__ import annotations

from typing import ClassVar

from django.utils.translation import gettext_lazy as _

from .database import Database


class Overview(Database):
    """A name for one page over all databases: it has no table, no rows and no permissions of its own.

    Every admin site lists its pages by model, so a page that is a model's needs no template of the host.
    """

    class Meta:
        proxy = True
        verbose_name = _("backups overview")
        verbose_name_plural = _("backups overview")
        default_permissions: ClassVar = ()
