"""How much memory a backup to a bucket and a restore from it take: ``python -m tests.destinations.memory 250``.

A database of so many megabytes of random bytes is backed up, encrypted, to a bucket alone, written
to a new file from there, and restored in place from there. The S3 server is a process of its own, which
holds its objects in memory; only this process is measured. The last line is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.destinations.bucket import KEY, new_bucket, served

_MIB = 1 << 20


def build(path: Path, megabytes: int) -> None:
    """A WAL database that does not compress."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE blob (id INTEGER PRIMARY KEY, content BLOB NOT NULL)")
        for _ in range(megabytes):
            connection.execute("INSERT INTO blob (content) VALUES (randomblob(?))", (_MIB - 200,))
            connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def peak_of(work: Callable[[], object]) -> int:
    """How many bytes this process holds at most while ``work`` is done, more than before it."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def measure(folder: Path, megabytes: int, url: str) -> dict[str, int]:
    """The figures, in bytes."""
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "BACKUPS_HOME": str(folder / "home"),
        "BACKUPS_ROOTS": str(folder),
        "BACKUPS_DESTINATIONS": "s3",
        "BACKUPS_S3_BUCKET": new_bucket(url),
        "BACKUPS_S3_ENDPOINT_URL": url,
        "BACKUPS_S3_REGION": "us-east-1",
        "BACKUPS_S3_ACCESS_KEY_ID": KEY["aws_access_key_id"],
        "BACKUPS_S3_SECRET_ACCESS_KEY": KEY["aws_secret_access_key"],
    }
    import django

    django.setup()
    from django.conf import settings
    from django.core.management import call_command
    from django.utils import timezone

    from backups_app.models import Backup, Recipient
    from backups_app.services.audit import Actor
    from backups_app.services.create import create_backup
    from backups_app.services.databases import add_database
    from backups_app.services.extract import extract_backup
    from backups_app.services.keys.registry import sync_recipients
    from backups_app.services.restores import approve_restore, run_restore
    from backups_app.services.restores.request import file_request
    from tests.keys import Key

    for alias in ("default", "catalog"):
        call_command("migrate", database=alias, verbosity=0)
    key = Key(folder / "key.txt")
    settings.BACKUPS = {
        **settings.BACKUPS,
        "AGE_RECIPIENTS": [key.recipient],
        "AGE_IDENTITY_FILE": key.path,
        "RESTORE_WAIT_SECONDS": 300,
    }
    sync_recipients(now=timezone.now())
    Recipient.objects.update(proven_at=timezone.now())
    anna, ben = Actor(id="1", name="anna"), Actor(id="2", name="ben")

    def backed_up(name: str, size: int) -> Backup:
        path = folder / f"{name}.sqlite3"
        build(path, size)
        return create_backup(add_database(name, path, actor=anna), actor=anna, trigger=Backup.Trigger.COMMAND)

    assert backed_up("warm", 20).state == "verified"  # what is loaded once is no part of it
    live = folder / "large.sqlite3"
    build(live, megabytes)
    database = add_database("large", live, actor=anna)
    made: list[Backup] = []
    peaks = {
        "create": peak_of(lambda: made.append(create_backup(database, actor=anna, trigger=Backup.Trigger.COMMAND)))
    }
    (backup,) = made
    assert backup.state == "verified", backup.reason
    assert [copy.destination for copy in backup.copies.all()] == ["s3"]
    print(f"peaks so far: {peaks}", file=sys.stderr, flush=True)
    new = folder / "new.sqlite3"
    peaks["extract"] = peak_of(lambda: extract_backup(backup, new, actor=anna))
    print(f"peaks so far: {peaks}", file=sys.stderr, flush=True)
    new.unlink()
    request = file_request(
        backup, database, reason="a test", actor=anna, overrides={}, is_migrating=False, preview=None
    )
    approved = approve_restore(request, actor=ben)
    peaks["restore"] = peak_of(lambda: run_restore(approved, actor=ben))
    approved.refresh_from_db()
    assert approved.state == "succeeded", approved.outcome
    return {"archive": backup.archive_bytes or 0, **peaks}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.destinations.memory")
    parser.add_argument("megabytes", type=int)
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder, served() as url:
        print(json.dumps(measure(Path(folder), given.megabytes, url)))


if __name__ == "__main__":
    main()
