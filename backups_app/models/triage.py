"""Archives of others that were judged from the admin: one row per run, one per file or member of a ZIP."""

from __future__ import annotations

import secrets
from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .backup import Backup
from .job import Job
from .shown import shown


def new_triage_id() -> str:
    """A random id of 12 hex digits."""
    return secrets.token_hex(6)


class TriageRun(models.Model):
    """What was to be judged, and the sums. How far it is says its job."""

    id = models.CharField(_("id"), max_length=32, primary_key=True, default=new_triage_id, editable=False)
    job = models.OneToOneField(
        Job, on_delete=models.PROTECT, related_name="triage_run", null=True, verbose_name=_("job"), editable=False
    )
    paths = models.JSONField(_("folders and files"), default=list)
    upload_name = models.CharField(
        _("uploaded as"),
        max_length=255,
        blank=True,
        editable=False,
        help_text=_("What the sender called the file; text only. Empty: it was not uploaded."),
    )
    upload_removed_at = models.DateTimeField(_("upload removed"), null=True, blank=True, editable=False)
    requested_by_id = models.CharField(_("requested by (user id)"), max_length=64, blank=True)
    requested_by_name = models.CharField(_("requested by"), max_length=200)
    created_at = models.DateTimeField(_("asked for"), default=timezone.now)
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)
    totals = models.JSONField(_("totals"), null=True, blank=True)

    class Meta:
        verbose_name = _("triage")
        verbose_name_plural = _("triage")
        ordering = ["-created_at", "-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("run_triage", "Can have archives of others judged"),
            ("discard_archive", "Can delete useless archives of others"),
        ]
        indexes: ClassVar = [models.Index(fields=["-created_at"], name="triage_by_time")]

    def __str__(self) -> str:
        return f"{self.created_at:%Y-%m-%d %H:%M:%S} UTC ({self.id})"

    @property
    def is_upload(self) -> bool:
        """Whether its file came through the browser and lies, or lay, in quarantine."""
        return bool(self.upload_name)


class TriageFile(models.Model):
    """One judged file, or one member of a ZIP, and what was done with it since."""

    class Verdict(models.TextChoices):
        HOLDS_DATA = "holds data", _("holds data")
        SCHEMA_ONLY = "schema only", _("schema only")
        EMPTY = "empty", _("empty")
        CORRUPT = "corrupt", _("corrupt")
        KEY_MISSING = "key missing", _("key missing")
        NOT_A_DATABASE = "not a database", _("not a database")

    run = models.ForeignKey(TriageRun, on_delete=models.CASCADE, related_name="files", verbose_name=_("triage"))
    path = models.TextField(_("file"), help_text=_("With what cannot be shown spelled out."))
    location = models.BinaryField(_("path in bytes"), help_text=_("The path of the file itself."))
    member = models.TextField(_("member of the ZIP"), blank=True)
    device = models.CharField(_("device and number"), max_length=64, blank=True)
    format = models.CharField(_("format"), max_length=200)
    verdict = models.CharField(_("verdict"), max_length=20, choices=Verdict.choices)
    reason = models.TextField(_("reason"), blank=True)
    tables = models.BigIntegerField(_("tables"), null=True, blank=True)
    rows = models.BigIntegerField(_("rows"), null=True, blank=True)
    newest_row_at = models.DateTimeField(_("newest row"), null=True, blank=True)
    size_bytes = models.BigIntegerField(_("size"))
    sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True)
    is_judged = models.BooleanField(_("judged"))
    is_useless = models.BooleanField(_("useless"))
    is_importable = models.BooleanField(_("can be imported"), default=False)
    backup = models.ForeignKey(
        Backup, on_delete=models.SET_NULL, related_name="+", null=True, blank=True, verbose_name=_("imported as")
    )
    deleted_at = models.DateTimeField(_("deleted"), null=True, blank=True)
    outcome = models.TextField(
        _("outcome"), blank=True, help_text=_("Why it was not imported, or not deleted, when somebody asked for it.")
    )

    class Meta:
        verbose_name = _("judged file")
        verbose_name_plural = _("judged files")
        ordering = ["-run__created_at", "id"]
        default_permissions = ("view",)
        indexes: ClassVar = [models.Index(fields=["run", "verdict"], name="triage_file_by_verdict")]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(
                    verdict__in=["holds data", "schema only", "empty", "corrupt", "key missing", "not a database"]
                ),
                name="triage_file_verdict_is_known",
            ),
            # What holds data is never useless, and only what is useless is ever deleted.
            models.CheckConstraint(
                condition=Q(is_useless=False) | Q(verdict__in=["schema only", "empty"], is_judged=True),
                name="triage_file_with_data_is_not_useless",
            ),
            models.CheckConstraint(
                condition=Q(deleted_at=None) | Q(is_useless=True, member=""), name="triage_file_deleted_was_useless"
            ),
            models.CheckConstraint(
                condition=Q(is_importable=False) | Q(verdict="holds data"), name="triage_file_imported_holds_data"
            ),
        ]

    def __str__(self) -> str:
        return shown(self.path)
