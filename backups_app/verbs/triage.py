"""``triage``: judge archives that somebody else made, import the good ones, delete the useless ones.

Deleting is a second, explicit step: ``--delete-useless`` asks before it, or takes ``--yes``.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..core.errors import (
    BackupError,
    CancelledError,
    InputError,
    NotFoundError,
    RefusedError,
    combined_exit_code,
)
from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import Document, judged_document
from ..models import Database
from ..services.audit import Actor
from ..services.databases import get_database, sync_databases
from ..services.importing import import_archive, is_importable
from ..services.people import actor_for
from ..services.triage import (
    Judged,
    Totals,
    TriageOptions,
    delete_useless,
    judge_files,
    plan_of,
    triage_options,
    watch_of,
)
from . import arguments
from .output import Output, human_size
from .restores import confirm

HELP = "judge archives that somebody else made; import the good ones, delete the useless ones"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", nargs="+", metavar="PATH", type=arguments.path, help="files and folders")
    parser.add_argument("--import", action="store_true", dest="import", help="keep what holds data as verified backups")
    parser.add_argument("--into", metavar="NAME", help="the database under care that the imports belong to")
    parser.add_argument(
        "--identity",
        action="append",
        default=[],
        metavar="FILE",
        type=arguments.path,
        help="age identity file, or a key of the old system, beside BACKUPS['AGE_IDENTITY_FILE']; may be repeated",
    )
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="FILE",
        type=arguments.path,
        help="32-byte key of the old system, or a folder with master.key and master.key.bak.*; may be repeated",
    )
    parser.add_argument("--delete-useless", action="store_true", help="delete files that were read and hold no data")
    parser.add_argument("--yes", action="store_true", help="delete without asking")
    parser.add_argument(
        "--limit-seconds", type=arguments.count, metavar="N", help="longest time for one file (default: 120)"
    )
    parser.add_argument("--user", metavar="NAME", help="who imports or deletes (default: the system account)")


@dataclass(kw_only=True)
class _Found:
    """What a run has found out and done."""

    files: list[Judged] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    imported: dict[int, str] = field(default_factory=dict)
    """Place in ``files`` → id of the backup."""
    deleted: set[int] = field(default_factory=set)
    codes: list[int] = field(default_factory=list)


def run(options: dict[str, Any], output: Output) -> int:
    """Judge everything; then import, then delete, when that was asked for."""
    _require_sense(options)
    sync_databases()
    into = get_database(options["into"]) if options["into"] is not None else None
    actor = _actor(options)
    means = triage_options(
        key_files=options["key"],
        identity_files=options["identity"],
        limit_seconds=options["limit_seconds"],
        ask_passphrase=_ask_passphrase if sys.stdin.isatty() else None,
    )
    found = _Found()
    with cancel_on_signal() as is_cancelled:
        with _ending(found, output):
            _judge(options, found, output, means=means, is_cancelled=is_cancelled)
            if options["import"]:
                _import(found, output, into=into, means=means, actor=actor, is_cancelled=is_cancelled)
        _print(found, output)
        if options["delete_useless"] and CancelledError.exit_code not in found.codes:
            with _ending(found, output):
                _delete(found, output, is_yes=options["yes"], actor=actor, is_cancelled=is_cancelled)
    output.document({"files": _documents(found), "totals": found.totals.as_dict()})
    return combined_exit_code(found.codes)


@contextmanager
def _ending(found: _Found, output: Output) -> Iterator[None]:
    """A cancel or a refusal ends a step; what was found and done until then is still told."""
    try:
        yield
    except (CancelledError, RefusedError) as exc:
        found.codes.append(output.error(exc))


def _require_sense(options: dict[str, Any]) -> None:
    if options["into"] is not None and not options["import"]:
        raise InputError("--into is for an import.", "Give --import as well, or leave --into out.")
    if options["limit_seconds"] == 0:
        raise InputError("--limit-seconds must be at least 1.", "Leave it out for 120 seconds.")
    if options["delete_useless"] and not options["yes"] and not sys.stdin.isatty():
        raise RefusedError(
            "Deleting needs a confirmation, and there is no terminal to ask on.",
            "Look at the list without --delete-useless first; then give --delete-useless --yes.",
        )


def _actor(options: dict[str, Any]) -> Actor:
    for asked, permission in (("import", "import_backup"), ("delete_useless", "discard_archive")):
        if options[asked]:
            actor_for(options["user"], permission=permission)
    return actor_for(options["user"], permission="run_triage", or_permission="import_backup")


def _ask_passphrase() -> str:
    return getpass.getpass("Passphrase of the identity file: ", stream=sys.stderr)


def _judge(
    options: dict[str, Any],
    found: _Found,
    output: Output,
    *,
    means: TriageOptions,
    is_cancelled: Callable[[], bool],
) -> None:
    plan = plan_of(options["paths"])
    for path in plan.missing:
        missing = NotFoundError("There is nothing at this path.", "Check the path; the others were judged.")
        found.codes.append(output.error(missing, about=str(path)))
    named = {str(path) for path in plan.paths}
    with progress_bar(f"triage of {plan.files:,} files") as on_progress:
        watch = watch_of(is_cancelled)
        for judged in judge_files(plan, options=means, watch=watch, on_progress=on_progress):
            found.files.append(judged)
            found.totals.add(judged)
            if judged.format == "live database" and str(judged.file) in named:
                refused = RefusedError(judged.reason, "Back it up with `manage.py backup create`.")
                found.codes.append(output.error(refused, about=judged.path))


def _import(
    found: _Found,
    output: Output,
    *,
    into: Database | None,
    means: TriageOptions,
    actor: Actor,
    is_cancelled: Callable[[], bool],
) -> None:
    known = 0
    for place, judged in enumerate(found.files):
        if not is_importable(judged):
            continue
        if is_cancelled():
            raise CancelledError("The import was cancelled.", "What is imported stays; run it again for the rest.")
        try:
            with progress_bar(f"import {judged.path}") as on_progress:
                done = import_archive(
                    judged,
                    into=into,
                    options=means,
                    actor=actor,
                    on_progress=on_progress,
                    is_cancelled=is_cancelled,
                )
        except BackupError as exc:
            found.codes.append(output.error(exc, about=judged.path))
            continue
        found.imported[place] = done.backup.pk
        known += not done.is_new
    if known:
        output.note(f"Note: {known:,} of these databases were imported before; none is imported twice.")


def _delete(found: _Found, output: Output, *, is_yes: bool, actor: Actor, is_cancelled: Callable[[], bool]) -> None:
    useless = [(place, each) for place, each in enumerate(found.files) if each.is_useless and each.member is None]
    if not useless:
        return
    size = human_size(found.totals.reclaimable_bytes)
    confirm(f"Delete {len(useless):,} files without data ({size})? This cannot be undone.", is_yes=is_yes)
    watch = watch_of(is_cancelled)
    for place, judged in useless:
        try:
            delete_useless(judged, actor=actor, watch=watch)
        except CancelledError:
            raise
        except BackupError as exc:
            found.codes.append(output.error(exc, about=judged.path))
            continue
        found.deleted.add(place)
    output.line(f"{len(found.deleted):,} of {len(useless):,} useless files were deleted.")


def _documents(found: _Found) -> list[Document]:
    return [
        judged_document(each, imported=found.imported.get(place), is_deleted=place in found.deleted)
        for place, each in enumerate(found.files)
    ]


def _print(found: _Found, output: Output) -> None:
    output.table(
        ("file", "format", "verdict", "tables#", "rows#", "newest row", "size#", "imported as", "reason"),
        [_row(each, found.imported.get(place)) for place, each in enumerate(found.files)],
    )
    totals = found.totals.as_dict()
    output.table(
        ("verdict", "files#", "size#"),
        [(verdict, f"{each['files']:,}", human_size(each["bytes"])) for verdict, each in totals["verdicts"].items()],
    )
    output.line(f"{totals['files']:,} files, {human_size(totals['bytes'])}.")
    if totals["unjudged_files"]:
        output.line(f"{totals['unjudged_files']:,} could not be judged; the list says why.")
    output.line(
        f"{totals['reclaimable_files']:,} were read completely and hold no row of data: "
        f"{human_size(totals['reclaimable_bytes'])} can be reclaimed with --delete-useless."
    )


def _row(judged: Judged, imported: str | None) -> tuple[object, ...]:
    return (
        judged.path,
        judged.format,
        judged.verdict,
        "–" if judged.tables is None else f"{judged.tables:,}",
        "–" if judged.rows is None else f"{judged.rows:,}",
        (judged.newest_row_at or "–")[:10],
        human_size(judged.size_bytes),
        imported or "–",
        judged.reason,
    )
