"""Texts in the catalogue that are longer than their columns, which SQLite takes and PostgreSQL refuses."""

from __future__ import annotations

import sqlite3
from functools import cache

from django.apps import apps
from django.db import connections, models

from backups_app.conf import CATALOG_ALIAS


def too_long_texts() -> list[str]:
    """Each text that would not fit, with its column; none after a statement failed: all is rolled back then."""
    wrapper = connections[CATALOG_ALIAS]
    if wrapper.vendor != "sqlite" or wrapper.needs_rollback or wrapper.connection is None:
        return []
    try:  # one statement, not through Django: it follows every test
        found = wrapper.connection.execute(_question(_columns())).fetchall()
    except sqlite3.OperationalError:  # a test may have dropped some tables
        tables = set(wrapper.introspection.table_names())
        found = wrapper.connection.execute(
            _question(tuple(each for each in _columns() if each[0] in tables))
        ).fetchall()
    return [f"{table}.{column} ({limit}): {text!r}" for table, column, limit, text in found]


@cache
def _columns() -> tuple[tuple[str, str, int], ...]:
    """Table, column and greatest length of each text."""
    return tuple(
        (model._meta.db_table, field.column or "", field.max_length)
        for model in apps.get_app_config("backups_app").get_models()
        if not model._meta.proxy
        for field in model._meta.concrete_fields
        if isinstance(field, models.CharField) and field.max_length is not None
    )


@cache
def _question(columns: tuple[tuple[str, str, int], ...]) -> str:
    return " UNION ALL ".join(
        f'SELECT \'{table}\', \'{column}\', {limit}, "{column}" FROM "{table}" WHERE length("{column}") > {limit}'
        for table, column, limit in columns
    )
