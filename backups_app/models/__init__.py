"""Rows of the catalogue: what is under care, what was backed up, what was proven, what happened."""

from .audit import AuditEvent
from .backup import Backup, Copy
from .database import Database
from .finding import Finding
from .health import HealthProblem
from .host import Host
from .job import Job
from .notification import Notification
from .overview import Overview
from .recipient import Recipient
from .restore import Restore
from .schedule import Schedule, ScheduledRun
from .triage import TriageFile, TriageRun
from .verification import Verification

__all__ = [
    "AuditEvent",
    "Backup",
    "Copy",
    "Database",
    "Finding",
    "HealthProblem",
    "Host",
    "Job",
    "Notification",
    "Overview",
    "Recipient",
    "Restore",
    "Schedule",
    "ScheduledRun",
    "TriageFile",
    "TriageRun",
    "Verification",
]
