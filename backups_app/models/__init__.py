"""Rows of the catalogue: what is under care, what was backed up, what was proven, what happened."""

from .audit import AuditEvent
from .backup import Backup, Copy
from .database import Database
from .health import HealthProblem
from .host import Host
from .job import Job
from .notification import Notification
from .restore import Restore
from .schedule import Schedule, ScheduledRun
from .verification import Verification

__all__ = [
    "AuditEvent",
    "Backup",
    "Copy",
    "Database",
    "HealthProblem",
    "Host",
    "Job",
    "Notification",
    "Restore",
    "Schedule",
    "ScheduledRun",
    "Verification",
]
