"""What a rescan found wrong with a destination."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from .shown import shown


class Finding(models.Model):
    """One finding of the last rescan of a destination. The next one replaces them all."""

    destination = models.CharField(_("destination"), max_length=100)
    host = models.CharField(_("host"), max_length=200, blank=True, help_text=_("The machine that looked, in a fleet."))
    code = models.CharField(_("code"), max_length=40)
    is_damage = models.BooleanField(_("needs attention"), default=True)
    database_name = models.CharField(_("database"), max_length=200, blank=True)
    about = models.CharField(_("backup"), max_length=32, blank=True, help_text=_("Id of the backup, where known."))
    path = models.TextField(_("object"), blank=True)
    message = models.TextField(_("message"))
    hint = models.TextField(_("hint"), blank=True)
    found_at = models.DateTimeField(_("found"))

    class Meta:
        verbose_name = _("finding")
        verbose_name_plural = _("findings")
        ordering = ["destination", "database_name", "path", "code"]
        default_permissions: ClassVar = ("view",)

    def __str__(self) -> str:
        return shown(f"{self.code.replace('_', ' ')} {self.path}".strip())
