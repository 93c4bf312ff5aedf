"""``show``: everything known of one backup."""

from __future__ import annotations

import argparse
from typing import Any

from ..core.terminal import printable
from ..documents import backup_document, media_facts, verification_document
from ..models import Backup
from ..services.links import object_name
from .find import find_backup
from .output import Output, human_size

HELP = "show one backup with its evidence"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("id", metavar="ID", help="id of a backup, or its beginning")


def run(options: dict[str, Any], output: Output) -> int:
    """Print the backup."""
    backup = find_backup(options["id"])
    verifications = list(backup.verifications.select_related("backup__database"))
    _print(backup, output)
    output.table(
        ("verified", "level", "verdict", "check", "evidence"),
        [
            (
                f"{verification.finished_at:%Y-%m-%d %H:%M:%S}",
                verification.level,
                verification.verdict,
                check["name"],
                check["evidence"],
            )
            for verification in verifications
            for check in verification.checks or [{"name": "–", "evidence": verification.reason}]
        ],
    )
    document = {
        **backup_document(backup),
        "verifications": [verification_document(each) for each in verifications],
    }
    output.document({"backups": [document]})
    return 0


def _relations(backup: Backup) -> list[tuple[str, str]]:
    """What its archive has to do with those of others."""
    found: list[tuple[str, str]] = []
    if backup.shares_with:
        found.append(("archive", f"shared with backup {backup.shares_with}: nothing had changed"))
    if backup.builds_on:
        found.append(("builds on", f"backup {backup.builds_on}: the archive holds the pages that changed since"))
    return found


def _print(backup: Backup, output: Output) -> None:
    facts = [
        ("backup", backup.pk),
        ("database", backup.database.name),
        ("state", backup.state),
        ("verdict", backup.verdict or "–"),
        ("taken", f"{backup.taken_at:%Y-%m-%d %H:%M:%S} UTC" if backup.taken_at else "–"),
        ("size", f"{human_size(backup.size_bytes)}, stored as {human_size(backup.archive_bytes)}"),
        ("sha256", backup.sha256 or "–"),
        *_relations(backup),
        ("encrypted for", ", ".join(f"{each[:16]}…" for each in backup.key_ids) or "–"),
        *(
            (f"copy at {copy.destination}", f"{object_name(backup, copy)} ({copy.state})")
            for copy in backup.copies.all()
        ),
        *_media_facts(backup),
        *(("remark", remark) for remark in backup.remarks),
    ]
    if backup.is_held:
        facts.append(("held", f"by {backup.held_by_name}" if backup.held_by_name else "as a safety backup"))
    if backup.is_gone:
        facts.append(("pruned", f"{backup.pruning_at:%Y-%m-%d %H:%M:%S} UTC: {backup.prune_reason}"))
    if backup.note:
        facts.append(("note", backup.note))
    if backup.reason:
        facts += [("reason", backup.reason), ("hint", backup.hint)]
    for name, value in facts:
        output.line(f"{name:<16} {printable(str(value))}")  # a line break in a note must not look like a fact
    output.table(("table", "rows#"), [(name, f"{rows:,}") for name, rows in backup.tables.items()])


def _media_facts(backup: Backup) -> list[tuple[str, str]]:
    media = media_facts(backup)
    if media is None:
        return []
    size = f"{human_size(media['bytes'])}, stored as {human_size(media['archive_bytes'])}"
    folders = ", ".join(media["folders"])
    return [("media", f"{media['files']:,} files, {size}"), ("media folders", folders)]
