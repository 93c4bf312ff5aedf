"""Work in the background: what was asked for, who runs it, how far it is, how it ended."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from .database import Database
from .restore import Restore
from .shown import shown


def new_job_id() -> str:
    """A random id of 12 hex digits."""
    return secrets.token_hex(6)


class Job(models.Model):
    """One unit of work. This row is the truth; the queue only wakes somebody up to do it."""

    class Kind(models.TextChoices):
        CREATE = "create", _("back up")
        VERIFY = "verify", _("verify")
        RESTORE = "restore", _("restore")
        PRUNE = "prune", _("prune")
        TRIAGE = "triage", _("triage")
        DRILL = "drill", _("drill")
        COPY = "copy", pgettext_lazy("kind of job", "copy")  # elsewhere the noun

    class State(models.TextChoices):
        QUEUED = "queued", _("queued")
        RUNNING = "running", _("running")
        SUCCEEDED = "succeeded", _("succeeded")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")
        INTERRUPTED = "interrupted", _("interrupted")

    class Trigger(models.TextChoices):
        COMMAND = "command", _("command line")
        ADMIN = "admin", _("admin")
        SCHEDULE = "schedule", _("schedule")

    OPEN_STATES = (State.QUEUED, State.RUNNING)

    id = models.CharField(_("id"), max_length=32, primary_key=True, default=new_job_id, editable=False)
    kind = models.CharField(_("kind"), max_length=20, choices=Kind.choices)
    database = models.ForeignKey(
        Database,
        on_delete=models.PROTECT,
        related_name="jobs",
        null=True,
        blank=True,
        verbose_name=_("database"),
        help_text=_("Empty for work that concerns no database under care."),
    )
    restore = models.ForeignKey(
        Restore, on_delete=models.PROTECT, related_name="jobs", null=True, blank=True, verbose_name=_("restore")
    )
    options = models.JSONField(_("options"), default=dict, blank=True)
    trigger = models.CharField(_("trigger"), max_length=20, choices=Trigger.choices)
    requested_by_id = models.CharField(_("requested by (user id)"), max_length=64, blank=True)
    requested_by_name = models.CharField(_("requested by"), max_length=200, blank=True)
    created_at = models.DateTimeField(_("asked for"), default=timezone.now)

    state = models.CharField(_("state"), max_length=20, choices=State.choices, default=State.QUEUED)
    is_inline = models.BooleanField(
        _("in a command"), default=False, help_text=_("A command runs it itself and waits for it.")
    )
    host = models.CharField(_("host"), max_length=200, blank=True)
    owner = models.CharField(_("owner"), max_length=100, blank=True, help_text=_("Worker generation and process id."))
    token = models.PositiveIntegerField(
        _("fencing token"), default=0, help_text=_("Grows with each claim; only its newest holder may write.")
    )
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    woken_at = models.DateTimeField(_("last wake-up"), null=True, blank=True)
    started_at = models.DateTimeField(_("started"), null=True, blank=True)
    heartbeat_at = models.DateTimeField(_("last sign of life"), null=True, blank=True)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    phase = models.CharField(_("phase"), max_length=60, blank=True)
    phase_started_at = models.DateTimeField(_("phase started"), null=True, blank=True)
    done_bytes = models.BigIntegerField(_("done"), default=0)
    total_bytes = models.BigIntegerField(_("of"), default=0, help_text=_("0 when unknown."))

    cancel_requested_at = models.DateTimeField(_("cancel asked for"), null=True, blank=True)
    cancelled_by_name = models.CharField(_("cancelled by"), max_length=200, blank=True)
    failure_code = models.CharField(_("failure"), max_length=40, blank=True)
    outcome = models.TextField(_("outcome"), blank=True)
    hint = models.TextField(_("hint"), blank=True)
    log = models.TextField(_("log"), blank=True)

    class Meta:
        verbose_name = _("job")
        verbose_name_plural = _("jobs")
        ordering = ["-created_at", "-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [("cancel_job", "Can cancel jobs")]
        indexes: ClassVar = [
            models.Index(fields=["state", "-created_at"], name="job_by_state"),
            models.Index(fields=["database", "-created_at"], name="job_by_database"),
            models.Index(fields=["-created_at"], name="job_by_time"),
            models.Index(fields=["database", "kind", "-finished_at"], name="job_by_kind"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(kind__in=["create", "verify", "restore", "prune", "triage", "drill", "copy"]),
                name="job_kind_is_known",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]),
                name="job_state_is_known",
            ),
            models.UniqueConstraint(
                fields=["database"], condition=Q(state="running"), name="job_runs_once_per_database"
            ),
            models.UniqueConstraint(
                fields=["database", "kind"], condition=Q(state="queued"), name="job_waits_once_per_database_and_kind"
            ),
            models.CheckConstraint(
                condition=(Q(kind="restore") & Q(restore__isnull=False))
                | (~Q(kind="restore") & Q(restore__isnull=True)),
                name="job_restores_a_restore",
            ),
            models.CheckConstraint(
                condition=Q(kind="triage") | Q(database__isnull=False), name="job_concerns_a_database"
            ),
            models.CheckConstraint(
                condition=~Q(state="running")
                | (Q(started_at__isnull=False, heartbeat_at__isnull=False, token__gt=0) & ~Q(owner="")),
                name="job_runs_with_an_owner",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running"], finished_at=None)
                | (~Q(state__in=["queued", "running"]) & Q(finished_at__isnull=False)),
                name="job_ends_when_it_is_finished",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["failed", "cancelled", "interrupted"]) | ~Q(outcome=""),
                name="job_failure_has_a_reason",
            ),
        ]

    def __str__(self) -> str:
        about = self.database.name if self.database else "–"
        return shown(f"{self.get_kind_display()} {about} ({self.id})")

    @property
    def is_open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in self.OPEN_STATES

    @property
    def percent(self) -> int | None:
        """How much of its phase is done, 0 to 100; None while unknown."""
        if self.total_bytes <= 0:
            return None
        return max(0, min(100, self.done_bytes * 100 // self.total_bytes))

    def bytes_per_second(self, *, now: datetime) -> float | None:
        """Speed of the running phase; None while there is nothing to tell."""
        end = self.heartbeat_at or now
        if self.phase_started_at is None or self.done_bytes <= 0:
            return None
        seconds = (end - self.phase_started_at).total_seconds()
        return self.done_bytes / seconds if seconds > 0 else None

    def time_left(self, *, now: datetime) -> timedelta | None:
        """How long the running phase will take at its speed so far; None while unknown."""
        speed = self.bytes_per_second(now=now)
        if not speed or self.total_bytes <= 0:
            return None
        return timedelta(seconds=max(0.0, (self.total_bytes - self.done_bytes) / speed))
