"""A restore into a live database: asked for, approved by somebody else, done, or undone."""

from __future__ import annotations

import secrets
from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .backup import Backup
from .database import Database
from .shown import shown


def new_restore_id() -> str:
    """A random id of 12 hex digits."""
    return secrets.token_hex(6)


class Restore(models.Model):
    """One request to put the content of a backup into a live database."""

    class State(models.TextChoices):
        REQUESTED = "requested", _("requested")
        APPROVED = "approved", _("approved")
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        ROLLED_BACK = "rolled_back", _("rolled back")
        REJECTED = "rejected", _("rejected")
        EXPIRED = "expired", _("expired")
        CANCELLED = "cancelled", _("cancelled")

    OPEN_STATES = (State.REQUESTED, State.APPROVED, State.RUNNING)

    id = models.CharField(_("id"), max_length=32, primary_key=True, default=new_restore_id, editable=False)
    backup = models.ForeignKey(Backup, on_delete=models.PROTECT, related_name="restores", verbose_name=_("backup"))
    database = models.ForeignKey(
        Database, on_delete=models.PROTECT, related_name="restores", verbose_name=_("into database")
    )
    reason = models.TextField(_("reason"))
    overrides = models.JSONField(
        _("overrides"), default=dict, blank=True, help_text=_("Guard → why it was overridden.")
    )
    is_migrating = models.BooleanField(_("migrate afterwards"), default=False)
    archive_sha256 = models.CharField(_("archive SHA-256"), max_length=64)
    binding_sha256 = models.CharField(
        _("binding"), max_length=64, help_text=_("Digest of archive, target and options that an approval is for.")
    )
    undo_of = models.ForeignKey(
        "self", on_delete=models.PROTECT, related_name="undos", null=True, blank=True, verbose_name=_("undo of")
    )

    state = models.CharField(_("state"), max_length=20, choices=State.choices, default=State.REQUESTED)
    requested_by_id = models.CharField(_("requested by (user id)"), max_length=64, blank=True)
    requested_by_name = models.CharField(_("requested by"), max_length=200)
    requested_at = models.DateTimeField(_("requested"), default=timezone.now)
    expires_at = models.DateTimeField(_("expires"))
    approved_by_id = models.CharField(_("approved by (user id)"), max_length=64, blank=True)
    approved_by_name = models.CharField(_("approved by"), max_length=200, blank=True)
    approved_at = models.DateTimeField(_("approved"), null=True, blank=True)
    approved_binding = models.CharField(_("approved binding"), max_length=64, blank=True)
    is_self_approved = models.BooleanField(_("self-approved"), default=False)
    rejected_by_name = models.CharField(_("rejected by"), max_length=200, blank=True)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    safety_backup = models.ForeignKey(
        Backup,
        on_delete=models.PROTECT,
        related_name="safety_for",
        null=True,
        blank=True,
        verbose_name=_("safety backup"),
    )
    preview = models.JSONField(_("preview"), null=True, blank=True)
    report = models.JSONField(_("report"), null=True, blank=True)
    failure_code = models.CharField(_("failure"), max_length=40, blank=True)
    outcome = models.TextField(_("outcome"), blank=True)
    hint = models.TextField(_("hint"), blank=True)

    class Meta:
        verbose_name = _("restore")
        verbose_name_plural = _("restores")
        ordering = ["-requested_at", "-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("request_restore", "Can request restores"),
            ("approve_restore", "Can approve and reject restores"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["state", "-requested_at"], name="restore_by_state"),
            models.Index(fields=["database", "-requested_at"], name="restore_by_database"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "requested",
                        "approved",
                        "running",
                        "succeeded",
                        "failed",
                        "rolled_back",
                        "rejected",
                        "expired",
                        "cancelled",
                    ]
                ),
                name="restore_state_is_known",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="restore_has_a_reason"),
            # Two pairs of eyes, for superusers too. What single-person sites allow says so.
            models.CheckConstraint(
                condition=Q(approved_by_name="")
                | Q(is_self_approved=True)
                | (~Q(approved_by_id=F("requested_by_id")) & ~Q(approved_by_name=F("requested_by_name"))),
                name="restore_is_approved_by_another_person",
            ),
            # Nothing runs, or has run, without an approval of exactly this archive, target and options.
            models.CheckConstraint(
                condition=~Q(state__in=["approved", "running", "succeeded", "rolled_back"])
                | (~Q(approved_by_name="") & Q(approved_at__isnull=False) & Q(approved_binding=F("binding_sha256"))),
                name="restore_runs_only_when_approved",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["succeeded", "failed", "rolled_back", "rejected", "expired", "cancelled"])
                | Q(finished_at__isnull=False),
                name="restore_ends_when_it_is_finished",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["failed", "rolled_back", "rejected"]) | ~Q(outcome=""),
                name="restore_failure_has_a_reason",
            ),
            models.UniqueConstraint(
                fields=["database"], condition=Q(state="running"), name="restore_runs_once_per_database"
            ),
        ]

    def __str__(self) -> str:
        return shown(f"{self.backup_id} → {self.database.name} ({self.get_state_display()})")
