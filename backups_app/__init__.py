"""Verified, WAL-safe backups of SQLite databases, run from the Django admin.

Importing this package imports neither Django nor any of its own modules, so that
``python -m backups_app.core`` recovers an archive on a machine without Django settings.
"""

__version__ = "0.1.0"
