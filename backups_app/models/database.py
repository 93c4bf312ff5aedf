"""A database under care."""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .shown import shown

UNKNOWN_PATH = "(unknown)"
"""Path of a database that is known from its archives only; no file under care has it."""


def new_identity() -> str:
    """A random identity that survives renames and moves of the database."""
    return uuid.uuid4().hex


class Database(models.Model):
    """One SQLite file under care, with its policy."""

    name = models.CharField(_("name"), max_length=200, unique=True)
    identity = models.CharField(_("identity"), max_length=32, unique=True, default=new_identity, editable=False)
    alias = models.CharField(
        _("alias"), max_length=100, blank=True, editable=False, help_text=_("Its name in DATABASES, when it has one.")
    )
    host = models.CharField(
        _("host"),
        max_length=200,
        blank=True,
        editable=False,
        help_text=_("The machine that holds the file. Empty until it is known."),
    )
    path = models.TextField(_("path"), editable=False)
    is_imported = models.BooleanField(
        _("imported"), default=False, editable=False, help_text=_("It has imported backups only, and no file.")
    )
    is_under_care = models.BooleanField(_("under care"), default=True, editable=False)
    required_tables = models.JSONField(
        _("required tables"),
        default=list,
        blank=True,
        help_text=_('Tables that must hold rows for a backup to be verified, as a list: ["auth_user"].'),
    )
    destinations = models.JSONField(
        _("destinations"),
        default=list,
        blank=True,
        help_text=_("Where its backups are stored. None chosen: as in the setting DESTINATIONS."),
    )
    media = models.JSONField(
        _("media folders"),
        default=list,
        blank=True,
        editable=False,
        help_text=_("Folders that are stored beside it, unless the setting MEDIA names others."),
    )
    delta_chain = models.PositiveIntegerField(
        _("deltas after a full archive"),
        null=True,
        blank=True,
        help_text=_("At most so many archives of changed pages in a row. Empty: the setting DELTA_CHAIN. 0: none."),
    )
    freshness_hours = models.PositiveIntegerField(
        _("freshness limit (hours)"),
        null=True,
        blank=True,
        help_text=_("Oldest acceptable verified backup. Empty: the setting FRESHNESS_HOURS."),
    )
    keep_last = models.PositiveIntegerField(_("keep the last"), null=True, blank=True, help_text=_("Backups."))
    keep_hourly = models.PositiveIntegerField(
        _("keep hourly"),
        null=True,
        blank=True,
        help_text=_("The newest of each hour, for this many hours with backups."),
    )
    keep_daily = models.PositiveIntegerField(
        _("keep daily"), null=True, blank=True, help_text=_("The newest of each day, for this many days with backups.")
    )
    keep_weekly = models.PositiveIntegerField(
        _("keep weekly"),
        null=True,
        blank=True,
        help_text=_("The newest of each week, for this many weeks with backups."),
    )
    keep_monthly = models.PositiveIntegerField(
        _("keep monthly"),
        null=True,
        blank=True,
        help_text=_("The newest of each month, for this many months with backups."),
    )
    keep_yearly = models.PositiveIntegerField(
        _("keep yearly"),
        null=True,
        blank=True,
        help_text=_("The newest of each year, for this many years with backups."),
    )
    keep_within_days = models.PositiveIntegerField(
        _("keep all within (days)"), null=True, blank=True, help_text=_("Every backup that is not older.")
    )
    added_at = models.DateTimeField(_("added"), default=timezone.now, editable=False)

    KEEP_FIELDS = (
        "keep_last",
        "keep_hourly",
        "keep_daily",
        "keep_weekly",
        "keep_monthly",
        "keep_yearly",
        "keep_within_days",
    )
    """The rules of retention. Null: as in the setting RETENTION."""

    class Meta:
        verbose_name = _("database")
        verbose_name_plural = _("databases")
        ordering = ["name"]
        default_permissions = ("change", "view")
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["host", "alias"], condition=~Q(alias=""), name="database_alias_is_unique_per_host"
            ),
            models.CheckConstraint(condition=~Q(name=""), name="database_has_a_name"),
            models.CheckConstraint(
                condition=(Q(is_imported=False) & ~Q(path="")) | Q(is_imported=True, path="", is_under_care=False),
                name="database_has_a_path",
            ),
        ]

    def __str__(self) -> str:
        return shown(self.name)
