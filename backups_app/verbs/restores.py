"""What the verbs on restores print."""

from __future__ import annotations

import sys
from typing import Any

from ..core.errors import EXIT_CODES, RefusedError
from ..core.terminal import printable
from ..documents import restore_document
from ..models import Restore
from ..services.wording import english
from .output import Output, human_size

_MAX_TABLES = 40


def print_preview(restore: Restore, output: Output) -> None:
    """What the restore would do, for people."""
    preview: dict[str, Any] | None = restore.preview
    if preview is None:
        return
    changed = [each for each in preview["tables"] if each["now"] != each["after"]]
    output.line(f"Restore of backup {restore.backup_id} into {restore.database.name}: {printable(restore.reason)}")
    output.line(f"  the backup is {preview['backup_age_seconds'] / 3600:.1f} h old")
    output.table(
        ("table", "rows now#", "rows after#", "added#", "lost#"),
        [
            (each["name"], _rows(each["now"]), _rows(each["after"]), f"{each['added']:,}", f"{each['lost']:,}")
            for each in changed[:_MAX_TABLES]
        ],
    )
    if len(changed) > _MAX_TABLES:
        output.line(f"  … and {len(changed) - _MAX_TABLES} more tables")
    for title, names in (
        ("only in the live database", preview["schema"]["only_now"]),
        ("only in the backup", preview["schema"]["only_after"]),
        ("defined differently", preview["schema"]["changed"]),
        ("migrations that the code does not know", preview["migrations"]["unknown_to_code"]),
        ("migrations that the backup lacks", preview["migrations"]["missing_in_backup"]),
    ):
        if names:
            output.line(f"  {title}: {', '.join(names[:10])}{' …' if len(names) > 10 else ''}")
    output.line(f"  administrators afterwards: {', '.join(preview['superusers']) or 'none'}")
    output.line(f"  sessions that end: {preview['sessions_ending']}")
    output.line(
        f"  disk: {human_size(preview['needed_bytes'])} needed, {human_size(preview['free_bytes'])} free; "
        f"writers wait about {preview['estimated_blocked_seconds']} s"
    )
    for warning in preview.get("warnings", []):
        output.line(f"  ! {warning}")
    for blocker in preview["blockers"]:
        output.line(f"  ! {blocker['code']}: {blocker['message']}")
        output.line(f"    overridden: {restore.overrides.get(blocker['code'], 'no')}")


def _rows(rows: int | None) -> str:
    return "–" if rows is None else f"{rows:,}"


def report_outcome(restore: Restore, output: Output) -> int:
    """Print how a run ended; returns the exit code."""
    output.document({"restore": restore_document(restore)})
    if restore.state == Restore.State.SUCCEEDED:
        report = restore.report or {}
        output.line(f"{restore.database.name} holds backup {restore.backup_id} again, and was checked.")
        if restore.safety_backup_id:
            output.line(f"Undo: manage.py backup undo {restore.pk} --user NAME")
        for note in report.get("notes", []):
            output.note(f"Note: {note}")
        if report.get("pending_migrations"):
            output.note(f"Note: pending migrations: {', '.join(report['pending_migrations'])}. Run manage.py migrate.")
        return 0
    output.problem(f"{english(restore, 'state')}: {restore.outcome}", restore.hint)
    if restore.state == Restore.State.ROLLED_BACK:
        return 3
    return EXIT_CODES.get(restore.failure_code, 1)


def confirm(question: str, *, is_yes: bool) -> None:
    """Ask on the terminal, unless ``--yes`` was given.

    Raises:
        RefusedError: the answer is no, or there is no terminal to ask on.
    """
    if is_yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError("This needs a confirmation, and there is no terminal to ask on.", "Give --yes.")
    print(f"{question} [yes/no] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RefusedError("Not confirmed; nothing was changed.", "Answer yes, or give --yes.")
