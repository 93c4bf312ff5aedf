"""The machines that work, and when each of them was last heard of."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from .shown import shown


class Host(models.Model):
    """One machine with a supervisor. It writes its own row every few seconds."""

    name = models.CharField(_("name"), max_length=200, unique=True)
    instance = models.CharField(
        _("identity"), max_length=32, blank=True, help_text=_("Tells two machines apart that were given one name.")
    )
    supervisor_pid = models.PositiveIntegerField(_("supervisor"), default=0)
    seen_at = models.DateTimeField(_("last sign of life"))
    started_at = models.DateTimeField(_("started"))
    stopped_at = models.DateTimeField(
        _("stopped"), null=True, blank=True, help_text=_("It was told to end, and said so.")
    )
    worker_restarts = models.PositiveIntegerField(_("worker restarts"), default=0)
    worker_restarted_at = models.DateTimeField(_("last worker restart"), null=True, blank=True)
    worker_problem = models.TextField(_("why the worker was restarted"), blank=True)

    class Meta:
        verbose_name = _("host")
        verbose_name_plural = _("hosts")
        ordering = ["name"]
        default_permissions: ClassVar = ("view",)

    def __str__(self) -> str:
        return shown(self.name)
