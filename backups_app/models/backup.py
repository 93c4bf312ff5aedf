"""A backup and its stored copies."""

from __future__ import annotations

import secrets
from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .database import Database
from .shown import shown


def new_backup_id() -> str:
    """A random id of 12 hex digits: unique without asking the catalogue, short enough to type."""
    return secrets.token_hex(6)


class Verdict(models.TextChoices):
    """What a verification found."""

    PASSED = "passed", _("passed")
    FAILED = "failed", _("failed")
    UNREACHABLE = "unreachable", _("unreachable")
    KEY_MISSING = "key_missing", _("key missing")


class Backup(models.Model):
    """One attempt to back up a database, and everything that is known of its result."""

    class State(models.TextChoices):
        RUNNING = "running", _("running")
        VERIFIED = "verified", _("verified")
        FAILED = "failed", _("failed")
        CANCELLED = "cancelled", _("cancelled")
        PRUNING = "pruning", _("being pruned")
        PRUNED = "pruned", _("pruned")

    GONE_STATES = (State.PRUNING, State.PRUNED)
    """Its files are gone, or going: it can be neither verified nor restored, and stays as a record."""

    class Trigger(models.TextChoices):
        COMMAND = "command", _("command line")
        ADMIN = "admin", _("admin")
        SCHEDULE = "schedule", _("schedule")
        SAFETY = "safety", _("before a restore")
        REKEY = "rekey", _("encrypted anew")
        IMPORT = "import", _("import")

    id = models.CharField(_("id"), max_length=32, primary_key=True, default=new_backup_id, editable=False)
    database = models.ForeignKey(
        Database, on_delete=models.PROTECT, related_name="backups", verbose_name=_("database"), editable=False
    )
    job = models.ForeignKey(
        "backups_app.Job",
        on_delete=models.SET_NULL,
        related_name="backups",
        null=True,
        blank=True,
        verbose_name=_("job"),
        editable=False,
    )
    trigger = models.CharField(_("trigger"), max_length=20, choices=Trigger.choices)
    requested_by_id = models.CharField(_("requested by (user id)"), max_length=64, blank=True)
    requested_by_name = models.CharField(_("requested by"), max_length=200, blank=True)
    note = models.TextField(_("note"), blank=True)
    is_held = models.BooleanField(_("held"), default=False)
    held_by_name = models.CharField(
        _("held by"), max_length=200, blank=True, help_text=_("Empty for a safety backup that nobody held by hand.")
    )
    origin_sha256 = models.CharField(
        _("origin SHA-256"),
        max_length=64,
        blank=True,
        help_text=_("Of an imported backup: digest of the database in the archive that it came from."),
    )

    created_at = models.DateTimeField(_("created"), default=timezone.now)
    taken_at = models.DateTimeField(
        _("taken"), null=True, blank=True, help_text=_("Every commit acknowledged before this instant is inside.")
    )
    finished_at = models.DateTimeField(_("finished"), null=True, blank=True)

    state = models.CharField(_("state"), max_length=20, choices=State.choices, default=State.RUNNING)
    verdict = models.CharField(_("last verdict"), max_length=20, choices=Verdict.choices, blank=True)
    verified_at = models.DateTimeField(_("last verified"), null=True, blank=True)
    failure_code = models.CharField(_("failure"), max_length=40, blank=True)
    reason = models.TextField(_("reason"), blank=True)
    hint = models.TextField(_("hint"), blank=True)

    archive_name = models.CharField(_("archive name"), max_length=255, blank=True)
    shares_with = models.CharField(
        _("shares the archive of"),
        max_length=32,
        blank=True,
        help_text=_("The backup with the same content, whose archive serves for this one too."),
    )
    builds_on = models.CharField(
        _("builds on"),
        max_length=32,
        blank=True,
        help_text=_("Its archive holds the pages that changed since that of this backup."),
    )
    links_sha256 = models.CharField(
        _("chain SHA-256"),
        max_length=64,
        blank=True,
        help_text=_("One digest for all archives that a restore reads. Empty: it reads this one only."),
    )
    size_bytes = models.BigIntegerField(_("size"), null=True, blank=True)
    archive_bytes = models.BigIntegerField(_("stored size"), null=True, blank=True)
    sha256 = models.CharField(_("SHA-256"), max_length=64, blank=True)
    archive_sha256 = models.CharField(_("archive SHA-256"), max_length=64, blank=True)
    content_sha256 = models.CharField(_("content digest"), max_length=64, blank=True)
    manifest_sha256 = models.CharField(_("manifest SHA-256"), max_length=64, blank=True)
    sequence = models.PositiveBigIntegerField(
        _("number in the chain"), null=True, blank=True, help_text=_("Empty: its manifest is not signed.")
    )
    signing_key_id = models.CharField(_("signing key"), max_length=64, blank=True)
    is_encrypted = models.BooleanField(_("encrypted"), default=False)
    key_ids = models.JSONField(
        _("recipients"),
        default=list,
        blank=True,
        editable=False,
        help_text=_("Public keys that the archive was encrypted for: evidence, never a setting."),
    )
    census = models.JSONField(_("census"), null=True, blank=True)
    row_count = models.BigIntegerField(_("rows"), null=True, blank=True)
    remarks = models.JSONField(_("remarks"), default=list, blank=True)
    media = models.JSONField(
        _("media"),
        null=True,
        blank=True,
        editable=False,
        help_text=_("Facts of the folders that were stored beside the database, as in the manifest."),
    )
    media_bytes = models.BigIntegerField(_("stored size of media"), default=0, editable=False)

    pruning_at = models.DateTimeField(
        _("marked for pruning"), null=True, blank=True, help_text=_("From then on its files are removed.")
    )
    pruned_at = models.DateTimeField(_("pruned"), null=True, blank=True)
    prune_reason = models.TextField(_("why it was pruned"), blank=True)
    pinned_seconds = models.FloatField(_("snapshot time (s)"), null=True, blank=True)

    class Meta:
        verbose_name = _("backup")
        verbose_name_plural = _("backups")
        ordering = ["-created_at", "-id"]
        default_permissions = ("view",)
        permissions: ClassVar = [
            ("create_backup", "Can create backups"),
            ("verify_backup", "Can verify backups"),
            ("download_backup", "Can download backups"),
            ("prune_backup", "Can prune backups"),
            ("hold_backup", "Can hold and release backups"),
            ("import_backup", "Can import archives of others"),
        ]
        indexes: ClassVar = [
            models.Index(fields=["database", "-created_at"], name="backup_by_database"),
            models.Index(fields=["state", "-created_at"], name="backup_by_state"),
            models.Index(fields=["-created_at"], name="backup_by_time"),
            models.Index(fields=["origin_sha256"], condition=~Q(origin_sha256=""), name="backup_by_origin"),
            models.Index(fields=["database", "state", "-taken_at"], name="backup_by_age_of_data"),
            # Sums of bytes are answered from the index alone: the rows hold a census each.
            models.Index(
                fields=["state", "shares_with", "created_at", "archive_bytes", "media_bytes"],
                name="backup_by_stored_bytes",
            ),
            models.Index(fields=["shares_with"], condition=~Q(shares_with=""), name="backup_by_shared_archive"),
            models.Index(fields=["builds_on"], condition=~Q(builds_on=""), name="backup_by_base"),
        ]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(state__in=["running", "verified", "failed", "cancelled", "pruning", "pruned"]),
                name="backup_state_is_known",
            ),
            models.CheckConstraint(
                condition=Q(state="running", finished_at=None) | (~Q(state="running") & Q(finished_at__isnull=False)),
                name="backup_ends_when_it_is_finished",
            ),
            # A backup is good only after proof: no row may say "verified" without the evidence.
            models.CheckConstraint(
                condition=~Q(state="verified")
                | (
                    # "isnull" too: a comparison with NULL is not false, so a CHECK would let it pass.
                    Q(size_bytes__isnull=False, size_bytes__gte=0, archive_bytes__isnull=False, archive_bytes__gt=0)
                    & Q(taken_at__isnull=False, verified_at__isnull=False)
                    & Q(census__isnull=False)
                    & ~Q(sha256="")
                    & ~Q(archive_sha256="")
                    & ~Q(content_sha256="")
                    & ~Q(manifest_sha256="")
                ),
                name="backup_is_verified_by_evidence",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["failed", "cancelled"]) | ~Q(reason=""), name="backup_failure_has_a_reason"
            ),
            models.CheckConstraint(
                condition=Q(builds_on="", links_sha256="") | (~Q(builds_on="") & ~Q(links_sha256="")),
                name="backup_builds_on_a_known_chain",
            ),
            models.CheckConstraint(
                condition=Q(shares_with="") | ~Q(shares_with=F("id")), name="backup_shares_with_another"
            ),
            # What is held has its files, and what has lost them says when and why.
            models.CheckConstraint(
                condition=(
                    Q(state__in=["pruning", "pruned"], is_held=False, pruning_at__isnull=False) & ~Q(prune_reason="")
                )
                | (~Q(state__in=["pruning", "pruned"]) & Q(pruning_at=None)),
                name="backup_is_pruned_for_a_reason",
            ),
            models.CheckConstraint(
                condition=Q(state="pruned", pruned_at__isnull=False) | (~Q(state="pruned") & Q(pruned_at=None)),
                name="backup_is_pruned_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return shown(f"{self.database_id and self.database.name} {self.created_at:%Y-%m-%d %H:%M:%S} UTC ({self.id})")

    @property
    def tables(self) -> dict[str, int]:
        """Rows per table, as counted in the source."""
        return dict(self.census["tables"]) if self.census else {}

    @property
    def has_media(self) -> bool:
        """Whether an archive of folders belongs to it."""
        return self.media is not None

    @property
    def stored_bytes(self) -> int:
        """What it adds to one destination: its own archives, so not one that it shares with another backup."""
        return (0 if self.shares_with else self.archive_bytes or 0) + self.media_bytes

    @property
    def restored_sha256(self) -> str:
        """One digest for every archive that a restore of it reads: what an approval is bound to."""
        return self.links_sha256 or self.archive_sha256

    @property
    def is_gone(self) -> bool:
        """Whether its files were removed, or are being removed."""
        return self.state in self.GONE_STATES


class Copy(models.Model):
    """One archive at one destination."""

    class State(models.TextChoices):
        PENDING = "pending", _("pending")
        VERIFIED = "verified", _("verified")
        FAILED = "failed", _("failed")
        UNREACHABLE = "unreachable", _("unreachable")
        KEY_MISSING = "key_missing", _("key missing")
        REPAIRING = "repairing", _("being repaired")
        REFUSED = "refused", _("refused")
        PRUNED = "pruned", _("pruned")

    STORED_STATES = (State.VERIFIED, State.FAILED, State.UNREACHABLE, State.KEY_MISSING)
    """There is an archive to look at, or was when somebody looked last."""

    WAITING_STATES = (State.PENDING, State.REPAIRING)
    """It is to be stored, or stored again, from a good copy."""

    backup = models.ForeignKey(Backup, on_delete=models.CASCADE, related_name="copies", verbose_name=_("backup"))
    destination = models.CharField(_("destination"), max_length=100)
    name = models.CharField(_("name"), max_length=255)
    state = models.CharField(_("state"), max_length=20, choices=State.choices, default=State.PENDING)
    reason = models.TextField(_("reason"), blank=True)
    stored_at = models.DateTimeField(_("stored"), null=True, blank=True)
    checked_at = models.DateTimeField(_("last checked"), null=True, blank=True)
    attempts = models.PositiveIntegerField(
        _("failed attempts"), default=0, help_text=_("To store it, or to remove it, since the last success.")
    )
    retry_at = models.DateTimeField(
        _("next attempt"), null=True, blank=True, help_text=_("Not before then, unless somebody asks.")
    )

    class Meta:
        verbose_name = _("copy")
        verbose_name_plural = _("copies")
        ordering = ["destination"]
        default_permissions = ("view",)
        indexes: ClassVar = [models.Index(fields=["state"], name="copy_by_state")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["backup", "destination"], name="copy_is_one_per_destination"),
            models.UniqueConstraint(fields=["destination", "name"], name="copy_name_is_never_reused"),
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "pending",
                        "verified",
                        "failed",
                        "unreachable",
                        "key_missing",
                        "repairing",
                        "refused",
                        "pruned",
                    ]
                ),
                name="copy_state_is_known",
            ),
            models.CheckConstraint(
                condition=~Q(state="verified")
                | Q(stored_at__isnull=False, checked_at__isnull=False, checked_at__gte=F("stored_at")),
                name="copy_is_verified_after_storing",
            ),
        ]

    def __str__(self) -> str:
        return shown(f"{self.destination}:{self.name}")
