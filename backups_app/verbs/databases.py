"""``databases``: what is under care."""

from __future__ import annotations

import argparse
from typing import Any

from ..documents import database_document, skipped_document
from ..services.databases import databases_under_care, required_tables, sync_databases
from .output import Output

HELP = "list the databases under care"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments: none."""


def run(options: dict[str, Any], output: Output) -> int:
    """Print the databases."""
    skipped = sync_databases()
    databases = databases_under_care()
    output.table(
        ("name", "host", "alias", "path", "required tables"),
        [
            (each.name, each.host, each.alias or "–", each.path, ", ".join(required_tables(each)) or "–")
            for each in databases
        ],
    )
    for each in skipped:
        output.note(f"Note: {each.alias!r} is not under care: {each.reason}.")
    output.document(
        {
            "databases": [database_document(each) for each in databases],
            "skipped": [skipped_document(each) for each in skipped],
        }
    )
    return 0
