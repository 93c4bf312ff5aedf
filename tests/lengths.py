"""Texts in the catalogue that are longer than their columns, which SQLite takes and PostgreSQL refuses."""

from __future__ import annotations

from django.apps import apps
from django.db import connections, models
from django.db.models.functions import Length

from backups_app.conf import CATALOG_ALIAS


def too_long_texts() -> list[str]:
    """Each text that would not fit, with its column; none after a statement failed: all is rolled back then."""
    if connections[CATALOG_ALIAS].vendor != "sqlite" or connections[CATALOG_ALIAS].needs_rollback:
        return []
    found = []
    tables = set(connections["catalog"].introspection.table_names())  # a test may have dropped some
    for model in apps.get_app_config("backups_app").get_models():
        if model._meta.proxy or model._meta.db_table not in tables:
            continue
        limits = {
            field.attname: field.max_length
            for field in model._meta.concrete_fields
            if isinstance(field, models.CharField) and field.max_length is not None
        }
        is_long = models.Q()
        for name, limit in limits.items():
            is_long |= models.Q(**{f"{name}_characters__gt": limit})
        if not limits:
            continue
        lengths = {f"{name}_characters": Length(name) for name in limits}
        for row in model._default_manager.annotate(**lengths).filter(is_long).order_by().values(*limits):
            found += [
                f"{model.__name__}.{name} ({limits[name]}): {text!r}"
                for name, text in row.items()
                if text and len(text) > limits[name]
            ]
    return found
