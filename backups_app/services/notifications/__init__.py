"""Who is told how work ended: rows of an outbox, written with the outcome, sent later, retried, never in the way."""

from .health import undelivered
from .queue import notify, notify_job
from .send import Sent, send_due
from .trial import send_test

__all__ = ["Sent", "notify", "notify_job", "send_due", "send_test", "undelivered"]
