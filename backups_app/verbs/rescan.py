"""``rescan``: rebuild the catalogue from the destination, and say what is wrong there."""

from __future__ import annotations

import argparse
from typing import Any

from ..core.errors import VerificationError
from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import rescan_document
from ..services.audit import Actor
from ..services.databases import sync_databases
from ..services.rescan import Rescan, rescan_all
from .output import Output

HELP = "rebuild the catalogue from the stored archives, and report what was changed or deleted there"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--dry-run", action="store_true", help="report only; change nothing")
    parser.add_argument(
        "--destination",
        action="append",
        default=[],
        metavar="NAME",
        help="look at this destination only; may be given several times (default: all of them)",
    )
    parser.add_argument(
        "--trust", default="", metavar="KEY", help="a public key whose signatures count: a PEM file, or the key's id"
    )


def run(options: dict[str, Any], output: Output) -> int:
    """Rescan each destination, and print what was found; exit code 3 when something needs attention."""
    if not options["dry_run"]:
        sync_databases()
    with cancel_on_signal() as is_cancelled, progress_bar("rescan") as on_progress:
        found = rescan_all(
            options["destination"],
            actor=Actor.system(),
            is_dry_run=options["dry_run"],
            trusting=options["trust"],
            on_progress=on_progress,
            is_cancelled=is_cancelled,
        )
    for done in found:
        _print(done, output)
    documents = [rescan_document(done) for done in found]
    output.document({"rescan": documents[0], "rescans": documents})
    return VerificationError.exit_code if any(done.damage for done in found) else 0


def _print(done: Rescan, output: Output) -> None:
    verb = "would come back" if done.is_dry_run else "came back"
    output.line(
        f"{done.manifests} manifests at {done.destination}: {done.known} backups are known and right, "
        f"{done.registered} {verb} into the catalogue."
    )
    for name in done.databases_added:
        output.line(f"The database {name!r} is known from its archives only; add its file to have it under care.")
    output.table(
        ("database", "chain ends at#", "backup", "manifest SHA-256"),
        [(name, head.sequence, head.backup, head.manifest_sha256) for name, head in sorted(done.heads.items())],
    )
    for note in done.notes:
        output.note(f"Note: {note}")
    for each in done.findings:
        about = " ".join(part for part in (each.database, each.backup, each.place) if part)
        if each.is_damage:
            output.problem(f"{each.code}: {about}: {each.message}", each.hint)
        else:
            output.note(f"Note: {each.code}: {about}: {each.message} {each.hint}")
