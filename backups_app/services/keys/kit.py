"""What to print and keep beside the key: how to get the data back without this software. No secret."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from ... import conf
from ...core.files import refuse_existing, write_synced
from ...core.terminal import printable
from ...models import Backup, Database
from ..databases import databases_under_care
from ..names import safe_name
from .report import report_keys

_RULE = "-" * 72


def recovery_kit(*, now: datetime) -> str:
    """The recovery kit as plain text, to be printed or kept as a file. It holds no secret.

    Raises: as :func:`~.report.report_keys`.
    """
    report = report_keys(now=now)
    keys = [
        f"  {each.recipient.public}\n"
        f"    {'in use' if each.is_configured else 'retired'}, {each.proof}, opens {each.archives} archives\n"
        "    its identity (secret key) is kept at: ______________________________"
        for each in report.keys
    ]
    parts = [
        "RECOVERY KIT",
        f"Made {now:%Y-%m-%d %H:%M} UTC on {conf.host_name()}. Print it again when a key changes. It holds no secret.",
        _RULE,
        "WHERE THE ARCHIVES ARE",
        f"  on {conf.host_name()}, below {conf.archives_folder()}",
        *(_place(each) for each in databases_under_care()),
        _RULE,
        "WHICH KEYS OPEN THEM",
        *(keys or ["  No archive is encrypted: no key is needed. Leave the age step out."]),
        _RULE,
        _STEPS,
    ]
    return "\n".join(parts) + "\n"


def write_kit(kit: str, path: Path) -> None:
    """Write the kit to the new file ``path``.

    Raises:
        RefusedError: the file exists. NotFoundError, BackupError: from the disk.
    """
    refuse_existing(path)
    write_synced(path, kit.encode("utf-8"))


def _place(database: Database) -> str:
    verified = Backup.objects.filter(database=database, state=Backup.State.VERIFIED).order_by("-taken_at")
    # Only a whole database comes out of the steps below.
    newest, whole = verified.first(), verified.filter(builds_on="").first()
    shown = whole.archive_name if whole else "no verified backup yet" if newest is None else "none that is whole"
    more = f"\n    newer, but a delta: {newest.archive_name}" if newest and newest.builds_on else ""
    return f"  {printable(database.name)}: {safe_name(database.name)}/YEAR/…; newest verified: {shown}{more}"


_STEPS = """WHAT TO DO

You need the programs age and zstd, an archive (….sqlite3.zst.age) and the identity file of one of
the keys above. An identity file holds a line that begins with AGE-SECRET-KEY-1; it may itself be
protected by a passphrase, which age then asks for.

1. Copy the newest archive that is no delta (….sqlite3.delta.zst.age), and the .manifest.json beside
   it, to a machine with enough room. A delta holds only the pages that changed since an older
   archive: open it with this software, as below, where all of them are.

2. Open and unpack it, each step into a file of its own:

     age -d -i IDENTITY-FILE -o recovered.zst ARCHIVE.sqlite3.zst.age
     zstd -d recovered.zst -o recovered.sqlite3

   Go on only when both end without an error. An archive that is not encrypted ends in .zst:
   begin with the second command.

3. Compare with the manifest, before anything opens the database:

     sha256sum recovered.sqlite3        must be "sha256" under "snapshot"
     sqlite3 recovered.sqlite3 'PRAGMA integrity_check'

4. Stop every process of the site. Move the old database and its -wal, -shm and -journal files to
   another folder. Put recovered.sqlite3 in its place, with the old owner and mode. Start the site.

5. Delete recovered.zst and every other copy in the clear.

With this software: python -m backups_app.core restore ARCHIVE --identity FILE --to recovered.sqlite3
"""
