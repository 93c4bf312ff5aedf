"""The JSON documents of the command line contract, and of whatever else speaks JSON."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from .core.manifest import utc_text
from .core.triage import Judged
from .models import Backup, Database, Job, Restore, ScheduledRun, Verification
from .services.databases import Skipped
from .services.extract import Extraction
from .services.groups import SetUp
from .services.health import Health
from .services.keys.keygen import NewKey
from .services.keys.proof import Challenge
from .services.keys.report import KeyReport
from .services.links import object_name
from .services.notifications.trial import Trial
from .services.prune import Judged as Pruning
from .services.rescan import Rescan

Document = dict[str, Any]


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else utc_text(moment)


def backup_document(backup: Backup) -> Document:
    """A backup, with its copies."""
    return {
        "id": backup.pk,
        "database": backup.database.name,
        "created_at": _time(backup.created_at),
        "taken_at": _time(backup.taken_at),
        "finished_at": _time(backup.finished_at),
        "trigger": backup.trigger,
        "requested_by": backup.requested_by_name or None,
        "state": backup.state,
        "verdict": backup.verdict or None,
        "verified_at": _time(backup.verified_at),
        "bytes": backup.size_bytes,
        "archive_bytes": backup.archive_bytes,
        "sha256": backup.sha256 or None,
        "archive_sha256": backup.archive_sha256 or None,
        "shares_with": backup.shares_with or None,
        "builds_on": backup.builds_on or None,
        "encrypted": backup.is_encrypted,
        "key_ids": [each[:16] for each in backup.key_ids],
        "sequence": backup.sequence,
        "signing_key": backup.signing_key_id or None,
        "tables": backup.tables,
        "copies": [
            {"destination": copy.destination, "name": object_name(backup, copy), "state": copy.state}
            for copy in backup.copies.all()
        ],
        "held": backup.is_held,
        "held_by": backup.held_by_name or None,
        "pruned_at": _time(backup.pruned_at),
        "prune_reason": backup.prune_reason or None,
        "note": backup.note,
        "failure": backup.failure_code or None,
        "reason": backup.reason or None,
        "hint": backup.hint or None,
        "remarks": backup.remarks,
        "media": media_facts(backup),
    }


def media_facts(backup: Backup) -> Document | None:
    """The folders stored beside the database of a backup."""
    if backup.media is None or not backup.manifest_sha256:
        return None
    return {
        "files": backup.media["files"],
        "folders": backup.media["labels"],
        "bytes": backup.media["content_bytes"],
        "archive_bytes": backup.media["bytes"],
    }


def verification_document(verification: Verification) -> Document:
    """A verdict with its evidence."""
    return {
        "id": verification.pk,
        "backup": verification.backup_id,
        "database": verification.backup.database.name,
        "destination": verification.destination,
        "level": verification.level,
        "verdict": verification.verdict,
        "reason": verification.reason or None,
        "hint": verification.hint or None,
        "checks": verification.checks,
        "started_at": _time(verification.started_at),
        "finished_at": _time(verification.finished_at),
        "recovery_seconds": verification.recovery_seconds,
        "data_age_seconds": verification.data_age_seconds,
    }


def pruning_document(judged: Pruning) -> Document:
    """What retention decided about a backup, and why."""
    backup = judged.backup
    return {
        "id": backup.pk,
        "database": backup.database.name,
        "created_at": _time(backup.created_at),
        "taken_at": _time(backup.taken_at),
        "trigger": backup.trigger,
        "archive_bytes": backup.archive_bytes,
        "held": backup.is_held,
        "reason": judged.decision.reason,
    }


def new_key_document(key: NewKey) -> Document:
    """A key just made: its public half, and where the secret one is."""
    return {
        "recipient": key.recipient,
        "key_id": key.key_id,
        "file": str(key.path),
        "created_at": _time(key.created_at),
    }


def key_document(key: KeyReport) -> Document:
    """What is known of a key."""
    return {
        "recipient": key.recipient.public,
        "key_id": key.recipient.key_id,
        "configured": key.is_configured,
        "proven": key.is_proven,
        "proof": key.proof,
        "proven_at": _time(key.recipient.proven_at),
        "proven_until": _time(key.proof_due_at),
        "first_used_at": _time(key.recipient.first_used_at),
        "retired_at": _time(key.recipient.retired_at),
        "identity_at_hand": key.is_at_hand,
        "archives": key.archives,
        "archives_only_by_it": key.archives_alone,
    }


def challenge_document(challenge: Challenge, *, path: Path | None) -> Document:
    """A challenge. Only an identity of its recipient shows the word in it."""
    return {
        "recipient": challenge.recipient.public,
        "key_id": challenge.recipient.key_id,
        "expires_at": _time(challenge.expires_at),
        "file": None if path is None else str(path),
        "armored": challenge.armored,
    }


def lost_document(backup: Backup) -> Document:
    """A stored archive that no key opens any more."""
    return {
        "backup": backup.pk,
        "database": backup.database.name,
        "taken_at": _time(backup.taken_at),
        "key_ids": [each[:16] for each in backup.key_ids],
    }


def trial_document(trial: Trial) -> Document:
    """How a test message to one receiver fared."""
    return {
        "channel": str(trial.receiver.channel),
        "receiver": trial.receiver.name,
        "delivered": trial.is_delivered,
        "reason": trial.reason or None,
    }


def judged_document(judged: Judged, *, imported: str | None, is_deleted: bool) -> Document:
    """A judged archive, and what was done with it."""
    return {**judged.as_dict(), "member": judged.member, "imported": imported, "deleted": is_deleted}


def database_document(database: Database) -> Document:
    """A database under care."""
    return {
        "name": database.name,
        "host": database.host or None,
        "alias": database.alias or None,
        "path": database.path,
        "identity": database.identity,
        "required_tables": database.required_tables,
        "media": database.media,
        "freshness_hours": database.freshness_hours,
        "retention": {name: getattr(database, name) for name in Database.KEEP_FIELDS},
    }


def skipped_document(skipped: Skipped) -> Document:
    """An alias that is not under care."""
    return {"alias": skipped.alias, "reason": skipped.reason}


def extraction_document(backup: Backup, extraction: Extraction, *, requested_by: str, reason: str) -> Document:
    """A restore to a new file, in the shape of a restore request."""
    return {
        "id": None,
        "backup": backup.pk,
        "database": backup.database.name,
        "state": "succeeded",
        "requested_by": requested_by,
        "approved_by": None,
        "reason": reason or None,
        "safety_backup": None,
        "preview": None,
        "report": {
            "to": str(extraction.target),
            "from": extraction.destination,
            "bytes": backup.size_bytes,
            "sha256": backup.sha256,
            "tables": backup.tables,
            "checks": [check.as_dict() for check in extraction.checks],
            "media_to": None if extraction.media_target is None else str(extraction.media_target),
            "media_remarks": list(extraction.media_remarks),
        },
    }


def restore_document(restore: Restore) -> Document:
    """A restore into a live database."""
    return {
        "id": restore.pk,
        "backup": restore.backup_id,
        "database": restore.database.name,
        "state": restore.state,
        "requested_by": restore.requested_by_name,
        "requested_at": _time(restore.requested_at),
        "approved_by": restore.approved_by_name or None,
        "approved_at": _time(restore.approved_at),
        "self_approved": restore.is_self_approved,
        "expires_at": _time(restore.expires_at),
        "reason": restore.reason,
        "overrides": restore.overrides,
        "undo_of": restore.undo_of_id,
        "safety_backup": restore.safety_backup_id,
        "started_at": _time(restore.started_at),
        "finished_at": _time(restore.finished_at),
        "failure": restore.failure_code or None,
        "outcome": restore.outcome or None,
        "hint": restore.hint or None,
        "preview": restore.preview,
        "report": restore.report,
    }


def job_document(job: Job) -> Document:
    """A job, as it is now."""
    return {
        "id": job.pk,
        "kind": job.kind,
        "database": job.database.name if job.database else None,
        "restore": job.restore_id,
        "options": job.options,
        "state": job.state,
        "trigger": job.trigger,
        "requested_by": job.requested_by_name,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
        "attempts": job.attempts,
        "host": job.host or None,
        "phase": job.phase or None,
        "percent": job.percent,
        "cancel_requested": job.cancel_requested_at is not None,
        "failure": job.failure_code or None,
        "outcome": job.outcome or None,
        "hint": job.hint or None,
    }


def scheduled_run_document(run: ScheduledRun) -> Document:
    """A due time that was fired."""
    return {
        "id": run.pk,
        "schedule": run.schedule_id,
        "database": run.schedule.database.name,
        "kind": run.schedule.kind,
        "due_at": _time(run.due_at),
        "fired_at": _time(run.fired_at),
        "late": run.is_late,
        "missed": run.missed,
        "job": run.job_id,
    }


def rescan_document(done: Rescan) -> Document:
    """What a rescan did and found."""
    return {
        "destination": done.destination,
        "dry_run": done.is_dry_run,
        "objects": done.objects,
        "manifests": done.manifests,
        "known": done.known,
        "registered": done.registered,
        "databases_added": done.databases_added,
        "trusted_keys": done.trusted_keys,
        "notes": done.notes,
        "heads": [
            {
                "database": name,
                "sequence": head.sequence,
                "manifest_sha256": head.manifest_sha256,
                "backup": head.backup,
            }
            for name, head in sorted(done.heads.items())
        ],
        "damage": len(done.damage),
        "findings": [
            {
                "code": each.code,
                "damage": each.is_damage,
                "path": each.place or None,
                "backup": each.backup or None,
                "database": each.database or None,
                "message": each.message,
                "hint": each.hint,
            }
            for each in done.findings
        ],
    }


def group_document(done: SetUp) -> Document:
    """What became of a group of people."""
    return {"name": done.name, "created": done.is_new, "added": done.added, "unknown": done.unknown}


def health_document(health: Health) -> Document:
    """The health of everything under care."""
    return {
        "ok": health.is_ok,
        "checked_at": _time(health.checked_at),
        "databases": [
            {
                "name": each.database.name,
                "ok": not each.problems,
                "last_verified_at": _time(each.last_verified.taken_at if each.last_verified else None),
                "last_verified_backup": each.last_verified.pk if each.last_verified else None,
                "age_seconds": None if (age := each.age(now=health.checked_at)) is None else int(age.total_seconds()),
                "limit_seconds": int(each.limit.total_seconds()),
                "last_attempt": each.last_attempt.state if each.last_attempt else None,
                "last_drill_at": _time(each.last_drill.finished_at if each.last_drill else None),
                "last_drill_verdict": each.last_drill.verdict if each.last_drill else None,
                "recovery_seconds": each.last_drill.recovery_seconds if each.last_drill else None,
                "bytes": each.size_bytes,
                "wal_bytes": each.wal_bytes,
            }
            for each in health.databases
        ],
        "disks": [
            {
                "folder": str(each.folder),
                "holds": list(each.places),
                "ok": not each.is_nearly_full,
                "free_bytes": each.free_bytes,
                "total_bytes": each.total_bytes,
                "next_backup_bytes": each.backup_bytes,
                "next_restore_bytes": each.restore_bytes,
            }
            for each in health.disks
        ],
        "problems": [
            {
                "code": each.code,
                "database": each.database or None,
                "message": each.message,
                "hint": each.hint,
            }
            for each in health.problems
        ],
        "warnings": [{"code": each.code, "message": each.message, "hint": each.hint} for each in health.warnings],
        "notices": health.notices,
    }
