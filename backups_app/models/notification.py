"""News that somebody must hear: an outbox, so that telling them never holds up the work."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .job import Job


class Notification(models.Model):
    """One message to one receiver, sent until it arrives or is given up."""

    class Channel(models.TextChoices):
        MAIL = "mail", _("mail")
        WEBHOOK = "webhook", _("webhook")
        HEARTBEAT = "heartbeat", _("heartbeat")

    class Event(models.TextChoices):
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        RECOVERED = "recovered", _("recovered")
        TEST = "test", _("test")

    class State(models.TextChoices):
        PENDING = "pending", _("pending")
        SENT = "sent", _("sent")
        FAILED = "failed", _("given up")

    channel = models.CharField(_("channel"), max_length=20, choices=Channel.choices)
    event = models.CharField(_("event"), max_length=20, choices=Event.choices)
    job = models.ForeignKey(
        Job, on_delete=models.CASCADE, related_name="notifications", null=True, blank=True, verbose_name=_("job")
    )
    receiver = models.PositiveSmallIntegerField(
        _("receiver"), default=0, help_text=_("Place in the setting that names the receivers; never the address.")
    )
    content = models.JSONField(_("content"), default=dict)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    state = models.CharField(_("state"), max_length=20, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    next_attempt_at = models.DateTimeField(_("next attempt"), default=timezone.now)
    sent_at = models.DateTimeField(_("sent"), null=True, blank=True)
    reason = models.TextField(_("last failure"), blank=True)

    class Meta:
        verbose_name = _("notification")
        verbose_name_plural = _("notifications")
        ordering = ["-created_at", "-id"]
        default_permissions = ("view",)
        indexes: ClassVar = [models.Index(fields=["state", "next_attempt_at"], name="notification_by_next_attempt")]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(state__in=["pending", "sent", "failed"]), name="notification_state_is_known"
            ),
            models.CheckConstraint(
                condition=~Q(state="sent") | Q(sent_at__isnull=False), name="notification_is_sent_at_a_time"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_channel_display()} {self.get_event_display()} ({self.get_state_display()})"
