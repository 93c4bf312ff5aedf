"""Rows of the catalogue: what is under care, what was backed up, what was proven, what happened."""

from .audit import AuditEvent
from .backup import Backup, Copy
from .database import Database
from .restore import Restore
from .verification import Verification

__all__ = ["AuditEvent", "Backup", "Copy", "Database", "Restore", "Verification"]
