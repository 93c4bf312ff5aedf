"""Recovery without Django: ``python -m backups_app.core restore|inspect ARCHIVE [--identity FILE]``.

Needs no settings and no catalogue; a manifest beside the archive is used when there is one, and so
is the archive of the folders (media) that belongs to it.
Exit codes are those of ``manage.py backup``.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from pathlib import Path

from .archive import Keys
from .errors import BackupError, CancelledError, KeyMissingError, VerificationError, from_os, translated
from .extract import Inspection, extract_file, inspect_file
from .keyring import load_identities, passphrase_from_environment
from .progress import Watch
from .terminal import (
    ask_passphrase,
    cancel_on_signal,
    discard,
    open_closed_streams,
    printable,
    progress_bar,
)
from .verify import failures, reason_of

_NO_IDENTITY = KeyMissingError(
    "The archive is encrypted, and no identity was given.", "Give the file with its secret key: --identity FILE."
)


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit code; every known failure is one readable message."""
    options = _parser().parse_args(arguments)
    try:
        keys = _keys(options.identity)
        with cancel_on_signal() as is_cancelled, progress_bar(options.archive.name) as on_progress:
            watch = Watch(on_progress=on_progress, is_cancelled=is_cancelled)
            if options.verb == "restore":
                inspection = extract_file(
                    options.archive, options.to, media_target=options.media_to, watch=watch, keys=keys
                )
            else:
                with (
                    translated("using the scratch folder"),
                    tempfile.TemporaryDirectory(prefix="walsafe-", dir=options.scratch) as scratch,
                ):
                    inspection = inspect_file(options.archive, scratch=Path(scratch), watch=watch, keys=keys)
        _print(inspection, is_json=options.json)
        if options.verb == "restore" and not options.json:
            print(f"restored to {printable(str(options.to))}")
            if options.media_to is not None:
                print(f"media restored to {printable(str(options.media_to))}")
        if failures(inspection.checks):
            raise VerificationError(
                f"The archive is not good: {reason_of(inspection.checks)}", "Use another copy or an older backup."
            )
    except KeyMissingError as exc:
        return _report(exc if options.identity else _NO_IDENTITY)
    except BackupError as exc:
        return _report(exc)
    return 0


def _report(exc: BackupError) -> int:
    try:
        print(f"Error: {printable(exc.message)}", file=sys.stderr)
        if exc.hint:
            print(f"Hint: {printable(exc.hint)}", file=sys.stderr)
    except OSError:
        discard(sys.stderr)
    return exc.exit_code


def _keys(files: list[Path]) -> Keys:
    def passphrase() -> str:
        return passphrase_from_environment() or ask_passphrase()

    return Keys(identities=load_identities(files, ask_passphrase=passphrase))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backups_app.core", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="restore|inspect")
    restore = verbs.add_parser("restore", help="write the database of an archive to a new file")
    inspect = verbs.add_parser("inspect", help="say what an archive holds and whether it is whole")
    for verb in (restore, inspect):
        verb.add_argument("archive", type=Path, metavar="ARCHIVE")
        verb.add_argument(
            "--identity",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="file with the secret key of an encrypted archive; may be repeated",
        )
        verb.add_argument("--json", action="store_true", help="print one JSON document")
    restore.add_argument("--to", type=Path, metavar="FILE", required=True, help="the new file; it must not exist")
    restore.add_argument(
        "--media-to", type=Path, metavar="FOLDER", help="the new folder for the folders stored beside the database"
    )
    inspect.add_argument("--scratch", type=Path, metavar="FOLDER", help="where to unpack (default: the system's)")
    return parser


def _print(inspection: Inspection, *, is_json: bool) -> None:
    manifest, census = inspection.manifest, inspection.census
    if is_json:
        document = {
            "bytes": inspection.size_bytes,
            "sha256": inspection.sha256,
            "archive_bytes": inspection.archive_bytes,
            "archive_sha256": inspection.archive_sha256,
            "manifest": None if manifest is None else json.loads(manifest.to_bytes()),
            "census": None if census is None else census.as_dict(),
            "checks": [check.as_dict() for check in inspection.checks],
            "media": _media_document(inspection),
        }
        print(json.dumps(document, indent=2))
        return
    if manifest is not None:
        print(f"database  {printable(manifest.database)}")
        print(f"taken     {manifest.taken_at.isoformat()}")
        print(f"backup    {printable(manifest.id)}")
    print(f"size      {inspection.size_bytes:,} bytes, stored as {inspection.archive_bytes:,}")
    print(f"sha256    {inspection.sha256}")
    if manifest is not None and manifest.media is not None:
        found = manifest.media
        print(f"media     {found.files:,} files with {found.content_bytes:,} bytes, stored as {found.archive_bytes:,}")
    for remark in inspection.media.remarks if inspection.media else ():
        print(f"remark    {printable(remark)}")
    for check in inspection.checks:
        print(f"{'ok    ' if check.ok else 'FAILED'}    {check.name}: {printable(check.evidence)}")
    if census is not None:
        for table, rows in census.tables.items():
            print(f"{rows:>12,}  {printable(table)}")
    if manifest is None and not failures(inspection.checks):
        print(
            "Warning: there is no manifest beside the archive. It is whole and sound, "
            "but nothing proves who made it or that no row is missing.",
            file=sys.stderr,
        )


def _media_document(inspection: Inspection) -> dict[str, object] | None:
    if inspection.media is None:
        return None
    counts = inspection.media.counts
    return {
        "files": counts.files,
        "folders": counts.folders,
        "links": counts.links,
        "bytes": counts.content_bytes,
        "remarks": list(inspection.media.remarks),
    }


def run() -> int:
    """:func:`main` as a process of its own: closed or full standard streams and an early Ctrl-C are no traceback."""
    open_closed_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that this terminal cannot show is spelled out
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _report(CancelledError("It was stopped.", "Nothing was published; start it again when you like."))
    except BrokenPipeError:  # the reader has seen enough
        discard(sys.stdout)
        return BackupError.exit_code
    except OSError as exc:
        discard(sys.stdout)
        return _report(from_os(exc, doing="printing the result"))
    return code


if __name__ == "__main__":
    sys.exit(run())
