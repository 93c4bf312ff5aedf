"""The audit trail."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .shown import shown


class AuditEvent(models.Model):
    """What somebody did, and how it ended. The database refuses to change or remove a row."""

    class Outcome(models.TextChoices):
        DONE = "done", _("done")
        FAILED = "failed", _("failed")
        REFUSED = "refused", _("refused")

    at = models.DateTimeField(_("time"), default=timezone.now, db_index=True)
    actor_id = models.CharField(_("user id"), max_length=64, blank=True)
    actor_name = models.CharField(_("who"), max_length=200)
    action = models.CharField(_("action"), max_length=40)
    outcome = models.CharField(_("outcome"), max_length=20, choices=Outcome.choices)
    database_name = models.CharField(_("database"), max_length=200, blank=True)
    subject = models.CharField(_("subject"), max_length=255, blank=True, help_text=_("Id of the backup or request."))
    detail = models.TextField(_("detail"), blank=True)

    class Meta:
        verbose_name = _("audit event")
        verbose_name_plural = _("audit events")
        ordering = ["-at", "-id"]
        default_permissions = ("view",)
        indexes: ClassVar = [models.Index(fields=["action", "-at"], name="audit_by_action")]

    def __str__(self) -> str:
        return shown(f"{self.at:%Y-%m-%d %H:%M:%S} UTC {self.actor_name}: {self.action} {self.subject}")
