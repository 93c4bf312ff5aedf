"""The one language of what is recorded: evidence, audit, logs and messages of errors are in English."""

from __future__ import annotations

from django.db.models import Model
from django.utils import translation


def english(row: Model, field: str) -> str:
    """The label of a choice as the source has it, whatever language the person who asks reads.

    Messages are kept: on rows, in the audit trail, in notifications. Half of one in another
    language could neither be searched nor compared.
    """
    with translation.override(None):
        return str(getattr(row, f"get_{field}_display")())
