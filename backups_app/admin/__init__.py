"""The screens: permission → form → service → message. No file, SQL or crypto code lives here."""

from .audit import AuditEventAdmin
from .backup import BackupAdmin
from .copy import CopyAdmin
from .database import DatabaseAdmin
from .finding import FindingAdmin
from .health import HealthProblemAdmin
from .host import HostAdmin
from .job import JobAdmin
from .notification import NotificationAdmin
from .overview import OverviewAdmin
from .recipient import RecipientAdmin
from .restore import RestoreAdmin
from .schedule import ScheduleAdmin, ScheduledRunAdmin
from .triage import TriageFileAdmin, TriageRunAdmin
from .verification import VerificationAdmin

__all__ = [
    "AuditEventAdmin",
    "BackupAdmin",
    "CopyAdmin",
    "DatabaseAdmin",
    "FindingAdmin",
    "HealthProblemAdmin",
    "HostAdmin",
    "JobAdmin",
    "NotificationAdmin",
    "OverviewAdmin",
    "RecipientAdmin",
    "RestoreAdmin",
    "ScheduleAdmin",
    "ScheduledRunAdmin",
    "TriageFileAdmin",
    "TriageRunAdmin",
    "VerificationAdmin",
]
