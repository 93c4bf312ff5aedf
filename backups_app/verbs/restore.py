"""``restore``: file a request to restore into a live database, or write a backup to a new file."""

from __future__ import annotations

import argparse
from typing import Any

from .. import conf
from ..core.errors import InputError, RefusedError
from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import extraction_document, restore_document
from ..models import Backup
from ..services.databases import get_database, sync_databases
from ..services.extract import extract_backup
from ..services.people import actor_for
from ..services.restores import approve_restore, request_restore, run_restore
from . import arguments
from .find import find_backup
from .identity import add_identity, keyring_of
from .output import Output
from .restores import print_preview, report_outcome

HELP = "ask for a restore into a live database, or write a backup to a new file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", metavar="ID", help="id of a backup, or its beginning")
    parser.add_argument("--reason", default="", metavar="TEXT", help="why; needed for a live database")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--into", metavar="NAME", help="the live database (default: the one that was backed up)")
    target.add_argument("--to", metavar="FILE", type=arguments.path, help="a new file instead; it must not exist")
    parser.add_argument(
        "--media-to", metavar="FOLDER", type=arguments.path, help="with --to: a new folder for the backup's media"
    )
    parser.add_argument("--user", metavar="NAME", help="who asks (default: the system account)")
    parser.add_argument(
        "--override", action="append", default=[], metavar="GUARD=REASON", help="go on though a guard objects, and why"
    )
    add_identity(parser)
    parser.add_argument("--migrate", action="store_true", help="run the site's migrations afterwards")
    parser.add_argument(
        "--yes", action="store_true", help="approve and run at once; only where BACKUPS['FOUR_EYES'] is False"
    )


def run(options: dict[str, Any], output: Output) -> int:
    """File the request, or extract the backup."""
    backup = find_backup(options["id"])
    if options["to"] is not None:
        return _extract(backup, options, output)
    if options["media_to"] is not None:
        raise InputError("--media-to needs --to.", "A restore into a live database does not touch media folders.")
    if options["yes"]:
        _require_self_approval(options["user"])
    sync_databases()
    database = get_database(options["into"] if options["into"] is not None else backup.database.name)
    actor, keyring = actor_for(options["user"], permission="request_restore"), keyring_of(options)
    with cancel_on_signal() as is_cancelled, progress_bar(f"preview {database.name}") as on_progress:
        restore = request_restore(
            backup,
            database,
            reason=options["reason"],
            actor=actor,
            overrides=_overrides(options["override"]),
            is_migrating=options["migrate"],
            keyring=keyring,
            on_progress=on_progress,
            is_cancelled=is_cancelled,
        )
        print_preview(restore, output)
        if options["yes"]:
            approver = actor_for(options["user"], permission="approve_restore")
            approve_restore(restore, actor=approver)
            run_restore(restore, actor=approver, keyring=keyring, on_progress=on_progress, is_cancelled=is_cancelled)
    if options["yes"]:
        return report_outcome(restore, output)
    output.line(f"Request {restore.pk} is filed. Another person runs it with:")
    output.line(f"  manage.py backup approve {restore.pk} --user NAME")
    output.document({"restore": restore_document(restore)})
    return 0


def _require_self_approval(user: str | None) -> None:
    """Refuse ``--yes`` before anything is filed where it cannot lead to a restore."""
    if conf.get("FOUR_EYES"):
        raise RefusedError(
            "A restore needs a second person here, so --yes cannot approve it.",
            "Leave --yes out, and let somebody else run `backup approve`. "
            "A site with one person sets BACKUPS['FOUR_EYES'] = False.",
        )
    actor_for(user, permission="approve_restore")
    if user is None:
        raise RefusedError("The system account may not approve a restore.", "Give a person with --user NAME.")


def _overrides(given: list[str]) -> dict[str, str]:
    overrides: dict[str, str] = {}
    for each in given:
        code, separator, reason = each.partition("=")
        if not separator or not reason.strip():
            raise InputError(f"--override {each!r} gives no reason.", "Write it as --override GUARD=REASON.")
        overrides[code.strip()] = reason.strip()
    return overrides


def _extract(backup: Backup, options: dict[str, Any], output: Output) -> int:
    if options["migrate"]:
        raise InputError("--migrate is for a live database.", "Leave it out with --to.")
    actor = actor_for(options["user"], permission="download_backup")
    with cancel_on_signal() as is_cancelled, progress_bar(backup.database.name) as on_progress:
        extraction = extract_backup(
            backup,
            options["to"],
            actor=actor,
            media_target=options["media_to"],
            keyring=keyring_of(options),
            overrides=_overrides(options["override"]),
            on_progress=on_progress,
            is_cancelled=is_cancelled,
        )
    if backup.taken_at is None:
        raise RefusedError("This backup was never taken.", "Choose another backup.")
    output.line(f"Restored {backup.database.name} as of {backup.taken_at:%Y-%m-%d %H:%M:%S} UTC")
    output.line(f"to {extraction.target}")
    if extraction.media_target is not None:
        output.line(f"and its media to {extraction.media_target}")
    for remark in extraction.media_remarks:
        output.line(f"  remark  {remark}")
    for check in extraction.checks:
        output.line(f"  ok  {check.name}: {check.evidence}")
    document = extraction_document(backup, extraction, requested_by=actor.name, reason=options["reason"])
    output.document({"restore": document})
    return 0
