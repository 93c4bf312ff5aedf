"""Rows of the catalogue: what is under care, what was backed up, what was proven, what happened."""

from .audit import AuditEvent
from .backup import Backup, Copy
from .database import Database
from .host import Host
from .job import Job
from .notification import Notification
from .overview import Overview
from .restore import Restore
from .schedule import Schedule, ScheduledRun
from .verification import Verification

__all__ = [
    "AuditEvent",
    "Backup",
    "Copy",
    "Database",
    "Host",
    "Job",
    "Notification",
    "Overview",
    "Restore",
    "Schedule",
    "ScheduledRun",
    "Verification",
]
