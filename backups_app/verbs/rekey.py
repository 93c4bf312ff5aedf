"""``rekey``: encrypt stored backups anew for the recipients set now."""

from __future__ import annotations

import argparse
from typing import Any

from ..core.errors import EXIT_CODES, BackupError, CancelledError, InputError, combined_exit_code
from ..core.terminal import cancel_on_signal, progress_bar
from ..documents import backup_document
from ..models import Backup
from ..services.keys.rekey import backups_to_rekey, rekey_backup, require_replaced
from ..services.people import actor_for
from .find import find_backup
from .identity import add_identity, keyring_of
from .output import Output

HELP = "encrypt stored backups anew for the recipients set now, with an identity that opens them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids of backups, or their beginnings")
    parser.add_argument("--all", action="store_true", help="every verified backup that is not for exactly these keys")
    add_identity(parser)
    parser.add_argument("--keep-old", action="store_true", help="do not remove the old archives")
    parser.add_argument("--user", metavar="NAME", help="who does it (default: the system account)")


def run(options: dict[str, Any], output: Output) -> int:
    """Rekey each backup; one that fails does not stop the others."""
    actor, keyring = actor_for(options["user"], permission="manage_keys"), keyring_of(options)
    codes: list[int] = []
    done: list[Backup] = []
    with cancel_on_signal() as is_cancelled:
        for backup in _chosen(options):
            if is_cancelled():
                codes.append(CancelledError.exit_code)
                break
            try:
                with progress_bar(f"{backup.database.name} {backup.pk}") as on_progress:
                    new = rekey_backup(
                        backup,
                        actor=actor,
                        keyring=keyring,
                        is_old_kept=options["keep_old"],
                        on_progress=on_progress,
                        is_cancelled=is_cancelled,
                    )
            except BackupError as exc:
                codes.append(output.error(exc, about=backup.pk))
                continue
            done.append(new)
            codes.append(_report(backup, new, output, is_old_kept=options["keep_old"]))
    output.document({"backups": [backup_document(each) for each in done]})
    return combined_exit_code(codes)


def _chosen(options: dict[str, Any]) -> list[Backup]:
    if bool(options["ids"]) == options["all"]:
        raise InputError("Name backups, or give --all.", "One of them, not both.")
    return backups_to_rekey() if options["all"] else [find_backup(each) for each in dict.fromkeys(options["ids"])]


def _report(old: Backup, new: Backup, output: Output, *, is_old_kept: bool) -> int:
    if new.state != Backup.State.VERIFIED:
        output.problem(f"{old.pk}: {new.reason}", new.hint)
        return EXIT_CODES.get(new.failure_code, 1)
    output.line(f"{old.pk} → {new.pk}: encrypted for {', '.join(f'{each[:16]}…' for each in new.key_ids)}, proven")
    if is_old_kept:
        return 0
    try:
        require_replaced(old, new)
    except BackupError as exc:
        return output.error(exc, about=old.pk)
    return 0
