"""The connection to the catalogue while a job runs: it may be lost between two queries that lie hours apart."""

from __future__ import annotations

from typing import Any

from django.db import connections

from .. import conf


def distrust_connection() -> None:
    """Let the next query of this thread find out first whether its connection still stands, else open a new one.

    Django itself does so only between requests and tasks. Nothing happens to a connection of SQLite, nor inside
    a transaction: what is lost with that one must be seen.
    """
    connection: Any = connections[conf.CATALOG_ALIAS]
    if not connection.in_atomic_block:
        connection.health_check_enabled = True
        connection.health_check_done = False
