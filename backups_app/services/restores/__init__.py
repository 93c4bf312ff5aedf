"""Restores into a live database: request → approve → run → undo, with a preview and guards."""

from .decide import approve_restore, expire_restores, reject_restore
from .heal import bring_up_to_date, heal_restores
from .request import request_restore
from .run import run_restore
from .undo import ask_undo, request_undo, runs_at_once, undo_restore

__all__ = [
    "approve_restore",
    "ask_undo",
    "bring_up_to_date",
    "expire_restores",
    "heal_restores",
    "reject_restore",
    "request_restore",
    "request_undo",
    "run_restore",
    "runs_at_once",
    "undo_restore",
]
