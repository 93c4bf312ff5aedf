"""Which problems there are and were, so that each is told once."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .shown import shown


class HealthProblem(models.Model):
    """One problem, from the look that found it to the one that did not find it any more."""

    code = models.CharField(_("problem"), max_length=40)
    database = models.CharField(_("database"), max_length=200, blank=True)
    subject = models.CharField(
        _("about"), max_length=200, blank=True, help_text=_("A host, a disk, a destination, when it is no database.")
    )
    host = models.CharField(
        _("seen by"),
        max_length=200,
        blank=True,
        help_text=_("The only host that can see it, in a fleet. Empty: every host can."),
    )
    message = models.TextField(_("message"))
    hint = models.TextField(_("what to do"), blank=True)
    first_seen = models.DateTimeField(_("since"))
    last_seen = models.DateTimeField(_("last seen"))
    told_at = models.DateTimeField(_("told"), null=True, blank=True)
    gone_since = models.DateTimeField(
        _("gone since"), null=True, blank=True, help_text=_("It is settled when it stays away for a minute.")
    )
    resolved_at = models.DateTimeField(_("settled"), null=True, blank=True)

    class Meta:
        verbose_name = _("health problem")
        verbose_name_plural = _("health problems")
        ordering = ["-first_seen", "-id"]
        default_permissions = ("view",)
        indexes: ClassVar = [models.Index(fields=["resolved_at", "-first_seen"], name="health_problem_by_end")]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["code", "database", "subject", "host"],
                condition=Q(resolved_at=None),
                name="health_problem_is_open_once",
            ),
            models.CheckConstraint(condition=~Q(code=""), name="health_problem_has_a_code"),
        ]

    def __str__(self) -> str:
        about = ", ".join(each for each in (self.database, self.subject) if each)
        return shown(f"{self.code.replace('_', ' ')}{f' ({about})' if about else ''}")

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What names the problem from one look to the next."""
        return (self.code, self.database, self.subject, self.host)

    @property
    def is_open(self) -> bool:
        """Whether it was there at the last look, or is gone for less than a minute."""
        return self.resolved_at is None
