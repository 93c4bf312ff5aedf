"""``keys``: which key still opens how many archives; the recovery kit."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..documents import key_document, lost_document
from ..services.keys.kit import recovery_kit, write_kit
from ..services.keys.report import KeyReport, report_keys
from . import arguments
from .identity import add_identity, keyring_of
from .output import Output

HELP = "say which encryption key still opens how many archives"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_identity(parser)
    parser.add_argument(
        "--kit", type=arguments.path, metavar="FILE", help="also write the recovery kit, a text to print, to a new file"
    )


def run(options: dict[str, Any], output: Output) -> int:
    """Print the keys."""
    now = timezone.now()
    report = report_keys(now=now, keyring=keyring_of(options))
    if options["kit"] is not None:
        write_kit(recovery_kit(now=now), options["kit"])
        output.note(f"The recovery kit is in {options['kit']}. Print it; it holds no secret.")
    output.table(
        ("key", "in use", "proof", "proven until", "identity at hand", "archives#", "only by it#"),
        [_row(each) for each in report.keys],
    )
    if not report.keys:
        output.line("No recipient is set: archives are not encrypted. See docs/encryption.md.")
    output.line(f"{report.encrypted_archives} archives are encrypted, {report.plain_archives} are not.")
    for backup in report.lost:
        keys = ", ".join(f"{each[:16]}…" for each in backup.key_ids) or "an unknown key"
        output.line(f"! {backup.pk} ({backup.database.name}) can no longer be opened: it is for {keys}.")
    output.document(
        {
            "keys": [key_document(each) for each in report.keys],
            "encrypted_archives": report.encrypted_archives,
            "plain_archives": report.plain_archives,
            "cannot_be_opened": [lost_document(each) for each in report.lost],
        }
    )
    return 0


def _row(key: KeyReport) -> tuple[object, ...]:
    return (
        f"{key.recipient.key_id}…",
        "yes" if key.is_configured else "retired",
        key.proof,
        f"{key.proof_due_at:%Y-%m-%d}" if key.proof_due_at else "–",
        "yes" if key.is_at_hand else "no",
        key.archives,
        key.archives_alone,
    )
