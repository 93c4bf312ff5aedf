"""The screens: permission → form → service → message. No file, SQL or crypto code lives here."""

from .audit import AuditEventAdmin
from .backup import BackupAdmin
from .database import DatabaseAdmin
from .health import HealthProblemAdmin
from .job import JobAdmin
from .notification import NotificationAdmin
from .restore import RestoreAdmin
from .schedule import ScheduleAdmin, ScheduledRunAdmin
from .verification import VerificationAdmin

__all__ = [
    "AuditEventAdmin",
    "BackupAdmin",
    "DatabaseAdmin",
    "HealthProblemAdmin",
    "JobAdmin",
    "NotificationAdmin",
    "RestoreAdmin",
    "ScheduleAdmin",
    "ScheduledRunAdmin",
    "VerificationAdmin",
]
