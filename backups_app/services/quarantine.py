"""Where uploads lie until they are imported or removed: a private folder, random names, for a limited time."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from .. import conf
from ..core.errors import RefusedError, translated
from ..core.files import remove_if_there
from ..core.quarantine import Received, Receiving, quarantined_files
from ..models import Job, TriageRun
from . import audit
from .audit import Actor

__all__ = [
    "Received",
    "Receiving",
    "has_open_job",
    "quarantined_path",
    "receive",
    "remove_upload",
    "sweep_quarantine",
]

logger = logging.getLogger(__name__)


def receive(*, announced_bytes: int = 0) -> Receiving:
    """A file in quarantine for an upload that begins; it takes ``UPLOAD_MAX_BYTES`` at most.

    Raises:
        DiskFullError, BackupError: it cannot begin.
    """
    limit = conf.get("UPLOAD_MAX_BYTES")
    return Receiving(conf.quarantine_folder(), limit_bytes=limit, announced_bytes=announced_bytes)


def quarantined_path(given: str) -> Path:
    """The file of an upload, when it lies in quarantine.

    Raises:
        RefusedError: it lies elsewhere, or is gone.
    """
    path = Path(given)
    if path.parent != conf.quarantine_folder() or path.is_symlink() or not path.is_file():
        raise RefusedError("The uploaded file is not in quarantine any more.", "Upload it again.")
    return path


def remove_upload(run: TriageRun, *, actor: Actor, why: str) -> bool:
    """Remove the file of an upload, and record it; False when it was removed before.

    Raises:
        RefusedError: a job works on it. BackupError: the file is still there.
    """
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        row = TriageRun.objects.select_for_update().get(pk=run.pk)
        if not row.is_upload or row.upload_removed_at is not None:
            return False
        with translated("removing the upload"):
            for each in row.paths:
                path = Path(each)
                if path.parent == conf.quarantine_folder():
                    remove_if_there(path)
        row.upload_removed_at = timezone.now()
        row.save(update_fields=["upload_removed_at"])
        audit.record("remove-upload", actor=actor, subject=row.pk, detail=f"{row.upload_name}: {why}")
    run.refresh_from_db()
    return True


def sweep_quarantine(*, now: datetime) -> int:
    """Remove the uploads that nobody imported for ``UPLOAD_KEEP_HOURS``, and what aborted ones left; how many.

    An upload that a job waits for, or works on, is left alone.
    """
    limit = timedelta(hours=conf.get("UPLOAD_KEEP_HOURS"))
    kept = TriageRun.objects.exclude(upload_name="").filter(upload_removed_at=None).select_related("job")
    swept, known = 0, set()
    for run in kept:
        known.update(run.paths)
        if run.created_at + limit <= now and not has_open_job(run):
            swept += remove_upload(run, actor=Actor.system(), why=f"not imported for {limit}")
    for path in quarantined_files(conf.quarantine_folder(), idle_seconds=limit.total_seconds()):
        if str(path) not in known:
            with translated("removing the rest of an upload"):
                remove_if_there(path)
            logger.info("The rest of an aborted upload was removed.")
            swept += 1
    return swept


def has_open_job(run: TriageRun) -> bool:
    """Whether a job waits to judge, import or delete something of ``run``, or does it now."""
    return any(
        job.options.get("run") == run.pk
        for job in Job.objects.filter(kind=Job.Kind.TRIAGE, state__in=Job.OPEN_STATES).only("options")
    )
