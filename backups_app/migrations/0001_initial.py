"""The first tables of the catalogue."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

import backups_app.models.backup
import backups_app.models.database


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="AuditEvent",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField(db_index=True, default=django.utils.timezone.now, verbose_name="time")),
                ("actor_id", models.CharField(blank=True, max_length=64, verbose_name="user id")),
                ("actor_name", models.CharField(max_length=200, verbose_name="who")),
                ("action", models.CharField(max_length=40, verbose_name="action")),
                (
                    "outcome",
                    models.CharField(
                        choices=[("done", "done"), ("failed", "failed"), ("refused", "refused")],
                        max_length=20,
                        verbose_name="outcome",
                    ),
                ),
                ("database_name", models.CharField(blank=True, max_length=200, verbose_name="database")),
                (
                    "subject",
                    models.CharField(
                        blank=True, help_text="Id of the backup or request.", max_length=255, verbose_name="subject"
                    ),
                ),
                ("detail", models.TextField(blank=True, verbose_name="detail")),
            ],
            options={
                "verbose_name": "audit event",
                "verbose_name_plural": "audit events",
                "ordering": ["-at", "-id"],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="Database",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=200, unique=True, verbose_name="name")),
                (
                    "identity",
                    models.CharField(
                        default=backups_app.models.database.new_identity,
                        editable=False,
                        max_length=32,
                        unique=True,
                        verbose_name="identity",
                    ),
                ),
                (
                    "alias",
                    models.CharField(
                        blank=True,
                        editable=False,
                        help_text="Its name in DATABASES, when it has one.",
                        max_length=100,
                        verbose_name="alias",
                    ),
                ),
                ("path", models.TextField(editable=False, verbose_name="path")),
                ("is_under_care", models.BooleanField(default=True, editable=False, verbose_name="under care")),
                (
                    "required_tables",
                    models.JSONField(
                        blank=True,
                        default=list,
                        help_text='Tables that must hold rows for a backup to be verified, as a list: ["auth_user"].',
                        verbose_name="required tables",
                    ),
                ),
                (
                    "freshness_hours",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Oldest acceptable verified backup. Empty: the setting FRESHNESS_HOURS.",
                        null=True,
                        verbose_name="freshness limit (hours)",
                    ),
                ),
                (
                    "added_at",
                    models.DateTimeField(default=django.utils.timezone.now, editable=False, verbose_name="added"),
                ),
            ],
            options={
                "verbose_name": "database",
                "verbose_name_plural": "databases",
                "ordering": ["name"],
                "default_permissions": ("change", "view"),
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("alias", ""), _negated=True),
                        fields=("alias",),
                        name="database_alias_is_unique",
                    ),
                    models.CheckConstraint(condition=models.Q(("name", ""), _negated=True), name="database_has_a_name"),
                    models.CheckConstraint(condition=models.Q(("path", ""), _negated=True), name="database_has_a_path"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Backup",
            fields=[
                (
                    "id",
                    models.CharField(
                        default=backups_app.models.backup.new_backup_id,
                        editable=False,
                        max_length=32,
                        primary_key=True,
                        serialize=False,
                        verbose_name="id",
                    ),
                ),
                (
                    "trigger",
                    models.CharField(
                        choices=[("command", "command line"), ("admin", "admin")], max_length=20, verbose_name="trigger"
                    ),
                ),
                ("requested_by_id", models.CharField(blank=True, max_length=64, verbose_name="requested by (user id)")),
                ("requested_by_name", models.CharField(blank=True, max_length=200, verbose_name="requested by")),
                ("note", models.TextField(blank=True, verbose_name="note")),
                ("is_held", models.BooleanField(default=False, verbose_name="held")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, verbose_name="created")),
                (
                    "taken_at",
                    models.DateTimeField(
                        blank=True,
                        help_text="Every commit acknowledged before this instant is inside.",
                        null=True,
                        verbose_name="taken",
                    ),
                ),
                ("finished_at", models.DateTimeField(blank=True, null=True, verbose_name="finished")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("running", "running"),
                            ("verified", "verified"),
                            ("failed", "failed"),
                            ("cancelled", "cancelled"),
                        ],
                        default="running",
                        max_length=20,
                        verbose_name="state",
                    ),
                ),
                (
                    "verdict",
                    models.CharField(
                        blank=True,
                        choices=[
                            ("passed", "passed"),
                            ("failed", "failed"),
                            ("unreachable", "unreachable"),
                            ("key_missing", "key missing"),
                        ],
                        max_length=20,
                        verbose_name="last verdict",
                    ),
                ),
                ("verified_at", models.DateTimeField(blank=True, null=True, verbose_name="last verified")),
                ("failure_code", models.CharField(blank=True, max_length=40, verbose_name="failure")),
                ("reason", models.TextField(blank=True, verbose_name="reason")),
                ("hint", models.TextField(blank=True, verbose_name="hint")),
                ("archive_name", models.CharField(blank=True, max_length=255, verbose_name="archive name")),
                ("size_bytes", models.BigIntegerField(blank=True, null=True, verbose_name="size")),
                ("archive_bytes", models.BigIntegerField(blank=True, null=True, verbose_name="stored size")),
                ("sha256", models.CharField(blank=True, max_length=64, verbose_name="SHA-256")),
                ("archive_sha256", models.CharField(blank=True, max_length=64, verbose_name="archive SHA-256")),
                ("content_sha256", models.CharField(blank=True, max_length=64, verbose_name="content digest")),
                ("manifest_sha256", models.CharField(blank=True, max_length=64, verbose_name="manifest SHA-256")),
                ("is_encrypted", models.BooleanField(default=False, verbose_name="encrypted")),
                ("census", models.JSONField(blank=True, null=True, verbose_name="census")),
                ("row_count", models.BigIntegerField(blank=True, null=True, verbose_name="rows")),
                ("remarks", models.JSONField(blank=True, default=list, verbose_name="remarks")),
                ("pinned_seconds", models.FloatField(blank=True, null=True, verbose_name="snapshot time (s)")),
                (
                    "database",
                    models.ForeignKey(
                        editable=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="backups",
                        to="backups_app.database",
                        verbose_name="database",
                    ),
                ),
            ],
            options={
                "verbose_name": "backup",
                "verbose_name_plural": "backups",
                "ordering": ["-created_at", "-id"],
                "permissions": [
                    ("create_backup", "Can create backups"),
                    ("verify_backup", "Can verify backups"),
                    ("download_backup", "Can download backups"),
                ],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="Verification",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("destination", models.CharField(max_length=100, verbose_name="destination")),
                (
                    "level",
                    models.CharField(
                        choices=[("creation", "at creation"), ("quick", "quick"), ("full", "full")],
                        max_length=20,
                        verbose_name="level",
                    ),
                ),
                (
                    "verdict",
                    models.CharField(
                        choices=[
                            ("passed", "passed"),
                            ("failed", "failed"),
                            ("unreachable", "unreachable"),
                            ("key_missing", "key missing"),
                        ],
                        max_length=20,
                        verbose_name="verdict",
                    ),
                ),
                ("reason", models.TextField(blank=True, verbose_name="reason")),
                ("hint", models.TextField(blank=True, verbose_name="hint")),
                ("checks", models.JSONField(default=list, verbose_name="checks")),
                ("started_at", models.DateTimeField(verbose_name="started")),
                ("finished_at", models.DateTimeField(verbose_name="finished")),
                ("requested_by_id", models.CharField(blank=True, max_length=64, verbose_name="requested by (user id)")),
                ("requested_by_name", models.CharField(blank=True, max_length=200, verbose_name="requested by")),
                (
                    "backup",
                    models.ForeignKey(
                        editable=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="verifications",
                        to="backups_app.backup",
                        verbose_name="backup",
                    ),
                ),
            ],
            options={
                "verbose_name": "verification",
                "verbose_name_plural": "verifications",
                "ordering": ["-finished_at", "-id"],
                "default_permissions": ("view",),
            },
        ),
        migrations.CreateModel(
            name="Copy",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("destination", models.CharField(max_length=100, verbose_name="destination")),
                ("name", models.CharField(max_length=255, verbose_name="name")),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "pending"),
                            ("verified", "verified"),
                            ("failed", "failed"),
                            ("unreachable", "unreachable"),
                            ("key_missing", "key missing"),
                        ],
                        default="pending",
                        max_length=20,
                        verbose_name="state",
                    ),
                ),
                ("reason", models.TextField(blank=True, verbose_name="reason")),
                ("stored_at", models.DateTimeField(blank=True, null=True, verbose_name="stored")),
                ("checked_at", models.DateTimeField(blank=True, null=True, verbose_name="last checked")),
                (
                    "backup",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="copies",
                        to="backups_app.backup",
                        verbose_name="backup",
                    ),
                ),
            ],
            options={
                "verbose_name": "copy",
                "verbose_name_plural": "copies",
                "ordering": ["destination"],
                "default_permissions": ("view",),
                "constraints": [
                    models.UniqueConstraint(fields=("backup", "destination"), name="copy_is_one_per_destination"),
                    models.UniqueConstraint(fields=("destination", "name"), name="copy_name_is_never_reused"),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("state__in", ["pending", "verified", "failed", "unreachable", "key_missing"])
                        ),
                        name="copy_state_is_known",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "verified"), _negated=True),
                            models.Q(
                                ("checked_at__gte", models.F("stored_at")),
                                ("checked_at__isnull", False),
                                ("stored_at__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="copy_is_verified_after_storing",
                    ),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="backup",
            index=models.Index(fields=["database", "-created_at"], name="backup_by_database"),
        ),
        migrations.AddIndex(
            model_name="backup",
            index=models.Index(fields=["state", "-created_at"], name="backup_by_state"),
        ),
        migrations.AddIndex(
            model_name="backup",
            index=models.Index(fields=["-created_at"], name="backup_by_time"),
        ),
        migrations.AddConstraint(
            model_name="backup",
            constraint=models.CheckConstraint(
                condition=models.Q(("state__in", ["running", "verified", "failed", "cancelled"])),
                name="backup_state_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="backup",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("finished_at", None), ("state", "running")),
                    models.Q(models.Q(("state", "running"), _negated=True), ("finished_at__isnull", False)),
                    _connector="OR",
                ),
                name="backup_ends_when_it_is_finished",
            ),
        ),
        migrations.AddConstraint(
            model_name="backup",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state", "verified"), _negated=True),
                    models.Q(
                        ("archive_bytes__gt", 0),
                        ("archive_bytes__isnull", False),
                        ("size_bytes__gte", 0),
                        ("size_bytes__isnull", False),
                        ("taken_at__isnull", False),
                        ("verified_at__isnull", False),
                        ("census__isnull", False),
                        models.Q(("sha256", ""), _negated=True),
                        models.Q(("archive_sha256", ""), _negated=True),
                        models.Q(("content_sha256", ""), _negated=True),
                        models.Q(("manifest_sha256", ""), _negated=True),
                    ),
                    _connector="OR",
                ),
                name="backup_is_verified_by_evidence",
            ),
        ),
        migrations.AddConstraint(
            model_name="backup",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state__in", ["failed", "cancelled"]), _negated=True),
                    models.Q(("reason", ""), _negated=True),
                    _connector="OR",
                ),
                name="backup_failure_has_a_reason",
            ),
        ),
        migrations.AddIndex(
            model_name="verification",
            index=models.Index(fields=["backup", "-finished_at"], name="verification_by_backup"),
        ),
        migrations.AddConstraint(
            model_name="verification",
            constraint=models.CheckConstraint(
                condition=models.Q(("verdict__in", ["passed", "failed", "unreachable", "key_missing"])),
                name="verification_verdict_is_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="verification",
            constraint=models.CheckConstraint(
                condition=models.Q(("finished_at__gte", models.F("started_at"))), name="verification_ends_after_start"
            ),
        ),
        migrations.AddConstraint(
            model_name="verification",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("reason", ""), ("verdict", "passed")),
                    models.Q(models.Q(("verdict", "passed"), _negated=True), models.Q(("reason", ""), _negated=True)),
                    _connector="OR",
                ),
                name="verification_says_why_it_did_not_pass",
            ),
        ),
    ]
