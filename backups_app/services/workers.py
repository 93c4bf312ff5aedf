"""Whether anybody is there to do what was asked for."""

from __future__ import annotations

from datetime import datetime, timedelta

from ..models import Host

SILENCE = timedelta(seconds=30)
"""How long a machine may be silent before it counts as gone; it writes every few seconds."""


def is_anybody_working(now: datetime) -> bool:
    """Whether at least one machine works: heard of lately, and not told to end since."""
    return Host.objects.filter(stopped_at=None, seen_at__gte=now - SILENCE).exists()
