"""Restores into a live database: request → approve → run → undo, with a preview and guards."""

from .decide import approve_restore, expire_restores, reject_restore
from .request import request_restore
from .run import heal_restores, run_restore
from .undo import runs_at_once, undo_restore

__all__ = [
    "approve_restore",
    "expire_restores",
    "heal_restores",
    "reject_restore",
    "request_restore",
    "run_restore",
    "runs_at_once",
    "undo_restore",
]
