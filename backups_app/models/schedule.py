"""When work is due, and what became of each due time."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .database import Database
from .job import Job
from .shown import shown


class Schedule(models.Model):
    """The due times of one kind of work on one database."""

    class Kind(models.TextChoices):
        CREATE = "create", _("back up")
        VERIFY = "verify", _("verify")
        DRILL = "drill", _("drill")
        PRUNE = "prune", _("prune")

    database = models.ForeignKey(
        Database, on_delete=models.CASCADE, related_name="schedules", verbose_name=_("database")
    )
    kind = models.CharField(_("kind"), max_length=20, choices=Kind.choices, default=Kind.CREATE)
    cron = models.CharField(
        _("cron expression"),
        max_length=100,
        help_text=_("Minute, hour, day of month, month, day of week: “15 3 * * *” is every day at 03:15."),
    )
    time_zone = models.CharField(
        _("time zone"), max_length=64, default="UTC", help_text=_("Such as Europe/Athens: the times are local there.")
    )
    jitter_seconds = models.PositiveIntegerField(
        _("jitter (seconds)"),
        default=0,
        help_text=_("Each run starts up to this much later, so that many databases do not start at once."),
    )
    is_enabled = models.BooleanField(_("enabled"), default=True)
    handled_until = models.DateTimeField(
        _("handled until"),
        default=timezone.now,
        editable=False,
        help_text=_("Due times up to this instant have been looked at."),
    )
    added_at = models.DateTimeField(_("added"), default=timezone.now, editable=False)

    class Meta:
        verbose_name = _("schedule")
        verbose_name_plural = _("schedules")
        ordering = ["database__name", "kind"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["database", "kind"], name="schedule_is_one_per_database_and_kind"),
            models.CheckConstraint(
                condition=Q(kind__in=["create", "verify", "drill", "prune"]), name="schedule_kind_is_known"
            ),
            models.CheckConstraint(condition=~Q(cron=""), name="schedule_has_a_cron"),
        ]

    def __str__(self) -> str:
        return shown(f"{self.get_kind_display()} {self.database.name}: {self.cron}")


class ScheduledRun(models.Model):
    """One due time of a schedule, and the job that it became. It is recorded once, whoever looks."""

    schedule = models.ForeignKey(Schedule, on_delete=models.CASCADE, related_name="runs", verbose_name=_("schedule"))
    due_at = models.DateTimeField(_("due"))
    fired_at = models.DateTimeField(_("fired"), default=timezone.now)
    is_late = models.BooleanField(_("late"), default=False)
    missed = models.PositiveIntegerField(
        _("missed"), default=0, help_text=_("Earlier due times that this run stands for too.")
    )
    job = models.ForeignKey(
        Job,
        on_delete=models.SET_NULL,
        related_name="scheduled_runs",
        null=True,
        blank=True,
        verbose_name=_("job"),
    )

    class Meta:
        verbose_name = _("scheduled run")
        verbose_name_plural = _("scheduled runs")
        ordering = ["-due_at", "-id"]
        default_permissions = ("view",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["schedule", "due_at"], name="scheduled_run_fires_once"),
        ]

    def __str__(self) -> str:
        return f"{self.schedule}: {self.due_at:%Y-%m-%d %H:%M} UTC"
