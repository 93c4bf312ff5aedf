"""A recorded verdict with its evidence."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from .backup import Backup, Verdict


class Verification(models.Model):
    """One verdict about one copy of a backup, at one level, with every check that was made."""

    class Level(models.TextChoices):
        CREATION = "creation", _("at creation")
        QUICK = "quick", _("quick")
        FULL = "full", _("full")

    Verdict = Verdict

    backup = models.ForeignKey(
        Backup, on_delete=models.CASCADE, related_name="verifications", verbose_name=_("backup"), editable=False
    )
    job = models.ForeignKey(
        "backups_app.Job",
        on_delete=models.SET_NULL,
        related_name="verifications",
        null=True,
        blank=True,
        verbose_name=_("job"),
        editable=False,
    )
    destination = models.CharField(_("destination"), max_length=100)
    level = models.CharField(_("level"), max_length=20, choices=Level.choices)
    verdict = models.CharField(_("verdict"), max_length=20, choices=Verdict.choices)
    reason = models.TextField(_("reason"), blank=True)
    hint = models.TextField(_("hint"), blank=True)
    checks = models.JSONField(_("checks"), default=list)
    started_at = models.DateTimeField(_("started"))
    finished_at = models.DateTimeField(_("finished"))
    requested_by_id = models.CharField(_("requested by (user id)"), max_length=64, blank=True)
    requested_by_name = models.CharField(_("requested by"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("verification")
        verbose_name_plural = _("verifications")
        ordering = ["-finished_at", "-id"]
        default_permissions = ("view",)
        indexes: ClassVar = [
            models.Index(fields=["backup", "-finished_at"], name="verification_by_backup"),
            models.Index(fields=["level", "-finished_at"], name="verification_by_level"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(verdict__in=["passed", "failed", "unreachable", "key_missing"]),
                name="verification_verdict_is_known",
            ),
            models.CheckConstraint(condition=Q(finished_at__gte=F("started_at")), name="verification_ends_after_start"),
            models.CheckConstraint(
                condition=Q(verdict="passed", reason="") | (~Q(verdict="passed") & ~Q(reason="")),
                name="verification_says_why_it_did_not_pass",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.backup_id} {self.get_level_display()}: {self.get_verdict_display()}"
