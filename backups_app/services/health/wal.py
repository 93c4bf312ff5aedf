"""Write-ahead logs that grow: somebody keeps SQLite from starting them anew."""

from __future__ import annotations

from collections.abc import Iterator

from ... import conf
from .facts import Look, Problem


def find_large_wals(look: Look) -> Iterator[Problem]:
    """Is the ``-wal`` of a database larger than ``WAL_LIMIT_BYTES``? Judged by ``stat`` alone."""
    limit = int(conf.get("WAL_LIMIT_BYTES"))
    for each in look.databases:
        if each.wal_bytes > limit:
            yield Problem(
                code="wal_large",
                database=each.database.name,
                message=f"The write-ahead log has grown to {each.wal_bytes:,} bytes; the limit is {limit:,}.",
                hint="A connection that stays inside a read transaction holds it up: find that process and end it. "
                "The log is emptied by the next checkpoint. Never delete it: it holds committed data.",
            )
