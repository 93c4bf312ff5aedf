"""What is known of the public keys that archives were encrypted for."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .shown import shown


class Recipient(models.Model):
    """A public key that was set at some time, and what has been proven about it.

    Evidence only: which recipients archives are encrypted for is read from the settings.
    """

    public = models.CharField(_("recipient"), max_length=100, unique=True)
    key_id = models.CharField(_("key id"), max_length=20)
    first_seen_at = models.DateTimeField(_("first seen"))
    first_used_at = models.DateTimeField(_("first archive"), null=True, blank=True)
    retired_at = models.DateTimeField(
        _("retired"), null=True, blank=True, help_text=_("Since then it is no longer set.")
    )
    proven_at = models.DateTimeField(
        _("last proof"), null=True, blank=True, help_text=_("Somebody opened a challenge with its identity then.")
    )
    proven_by_name = models.CharField(_("proven by"), max_length=200, blank=True)
    challenge_sha256 = models.CharField(_("digest of the open challenge"), max_length=64, blank=True)
    challenge_expires_at = models.DateTimeField(_("challenge expires"), null=True, blank=True)
    challenge_attempts = models.PositiveSmallIntegerField(_("answers given"), default=0)

    class Meta:
        verbose_name = _("key")
        verbose_name_plural = _("keys")
        ordering = ["-first_seen_at", "-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [("manage_keys", "Can manage encryption keys")]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(challenge_sha256="") | Q(challenge_expires_at__isnull=False),
                name="recipient_challenge_expires",
            ),
        ]

    def __str__(self) -> str:
        return shown(f"{self.key_id}…")
