"""``add-database``: put another SQLite file under care."""

from __future__ import annotations

import argparse
from typing import Any

from ..documents import database_document
from ..services.audit import Actor
from ..services.databases import add_database, sync_databases
from . import arguments
from .output import Output

HELP = "put another SQLite file under care"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("name", metavar="NAME", help="a new name for it")
    parser.add_argument("path", metavar="PATH", type=arguments.path, help="the file, below one of BACKUPS['ROOTS']")
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        metavar="TABLE",
        help="a table that must hold rows for a backup to be verified; may be repeated",
    )
    parser.add_argument(
        "--media",
        action="append",
        default=[],
        type=arguments.path,
        metavar="FOLDER",
        help="a folder that is stored beside it, below one of BACKUPS['ROOTS']; may be repeated",
    )


def run(options: dict[str, Any], output: Output) -> int:
    """Add the database."""
    sync_databases()
    database = add_database(
        options["name"],
        options["path"],
        actor=Actor.system(),
        tables=tuple(options["require"]),
        media=options["media"],
    )
    output.line(f"{database.name} is under care: {database.path}")
    for folder in database.media:
        output.line(f"with the folder {folder}")
    output.line("Back it up now with `manage.py backup create` and its name.")
    output.document({"databases": [database_document(database)]})
    return 0
