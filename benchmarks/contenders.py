"""What is compared: one function for each way to copy a database, or to get it back.

Each takes a source file that nobody else uses and an empty folder, and leaves exactly its result
in that folder, durable: file and folder are synced when it returns.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

from backups_app.core import age
from backups_app.core.archive import ENCRYPTION, SUFFIX, Keys, stem_of
from backups_app.core.beside import open_archive_file
from backups_app.core.create import CreateOptions, create_archive, prove_stored
from backups_app.core.extract import extract_file
from backups_app.core.files import publish_new_file, sync_folder, write_synced
from backups_app.core.manifest import SUFFIX as MANIFEST_SUFFIX
from backups_app.core.manifest import Manifest
from backups_app.core.progress import Watch
from backups_app.core.snapshot import take_snapshot
from backups_app.core.verify import failures, reason_of

from .blocked import restore_while_written

ARCHIVE_NAME = f"sample{SUFFIX}"
ENCRYPTED_NAME = ARCHIVE_NAME + age.SUFFIX
_KEY_NAME = "key.txt"
_COPY_NAME = "copy.sqlite3"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do the work, and what it needs to be driven."""

    name: str
    run: Callable[[Path, Path], float | None]
    """Called as ``run(source, folder)``; seconds that it returns count in place of the whole call."""
    is_ours: bool = False
    tools: tuple[str, ...] = ()
    """Programs that must be installed."""
    reads_archive: bool = False
    """The source is an archive of ours, not a database."""
    reads_encrypted: bool = False
    """…and an encrypted one, with its key beside it."""
    modules: tuple[str, ...] = ()
    """Python packages that must be installed."""

    @property
    def missing_tools(self) -> list[str]:
        """The programs and packages that are not on this machine."""
        missing = [tool for tool in self.tools if shutil.which(tool) is None]
        return missing + [module for module in self.modules if find_spec(module) is None]


def create_with_proof(database: Path, folder: Path) -> None:
    """Ours, whole, driven as the service drives it but for the catalogue rows.

    Snapshot with census, check and compress, publish by hard link, read the stored archive back
    to its last byte and compare all digests, then store the manifest and read that back too.
    """
    _create(database, folder, recipients=())


def create_encrypted(database: Path, folder: Path) -> None:
    """The same for a recipient: encrypted, and proven with the key that is kept in memory."""
    identity = age.X25519Identity.generate()
    _create(database, folder, recipients=(identity.recipient,))
    (folder / _KEY_NAME).write_bytes(age.identity_file(identity, now=datetime.now(UTC)))


def _create(database: Path, folder: Path, *, recipients: tuple[age.X25519Recipient, ...]) -> None:
    watch = Watch()
    scratch = folder / "scratch"
    scratch.mkdir(mode=0o700)
    created_at = datetime.now(UTC)
    created = create_archive(database, scratch, options=CreateOptions(recipients=recipients), watch=watch)
    stored = folder / (ENCRYPTED_NAME if recipients else ARCHIVE_NAME)
    publish_new_file(created.archive.path, stored)
    checks = created.checks + prove_stored(lambda: open_archive_file(stored), created.archive, watch=watch)
    if failures(checks):
        raise SystemExit(f"The backup is not proven: {reason_of(checks)}.")
    content = Manifest(
        id="benchmark",
        database="sample",
        identity="sample",
        created_at=created_at,
        taken_at=created.snapshot.taken_at,
        trigger="benchmark",
        archive_name=stored.name,
        archive_bytes=created.archive.archive_bytes,
        archive_sha256=created.archive.archive_sha256,
        encryption=ENCRYPTION if recipients else None,
        size_bytes=created.archive.content_bytes,
        sha256=created.archive.sha256,
        content_sha256=created.archive.content_sha256,
        census=created.snapshot.census,
        journal_mode=created.snapshot.journal_mode,
        method=created.snapshot.method,
    ).to_bytes()
    manifest = stored.with_name(stem_of(stored.name) + MANIFEST_SUFFIX)
    write_synced(scratch / "manifest", content)
    publish_new_file(scratch / "manifest", manifest)
    if manifest.read_bytes() != content:
        raise SystemExit("The stored manifest differs from what was written.")
    scratch.rmdir()


def snapshot_alone(database: Path, folder: Path) -> None:
    """Our ``take_snapshot``: pinned, counted, in steps that can be cancelled, each step synced."""
    take_snapshot(database, folder / _COPY_NAME, watch=Watch())
    sync_folder(folder)


def backup_in_one_step(database: Path, folder: Path) -> None:
    """Python's ``Connection.backup(pages=-1)`` with its defaults: one step, nothing checked."""
    target = folder / _COPY_NAME
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy, pages=-1)
    _make_durable(target)


def cp(database: Path, folder: Path) -> None:
    """``cp``: right only here, where the WAL is empty and nobody writes. The floor of all times."""
    target = folder / _COPY_NAME
    subprocess.run(["cp", "--", database, target], check=True)
    _make_durable(target)


def shell_backup(database: Path, folder: Path) -> None:
    """The ``.backup`` command of the stock ``sqlite3`` shell, nothing checked."""
    _shell_backup(database, folder)
    _make_durable(folder / _COPY_NAME)


def vacuum_into(database: Path, folder: Path) -> None:
    """``VACUUM INTO`` on a plain connection of Python's ``sqlite3``, nothing checked."""
    target = folder / _COPY_NAME
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))
    _make_durable(target)


def shell_backup_and_zstd(database: Path, folder: Path) -> None:
    """The usual script: ``sqlite3 .backup``, then ``zstd -1 -T2``, plain copy removed, no check."""
    _shell_backup(database, folder)
    archive = folder / ARCHIVE_NAME
    subprocess.run(["zstd", "-q", "-1", "-T2", folder / _COPY_NAME, "-o", archive], check=True)
    (folder / _COPY_NAME).unlink()
    _make_durable(archive)


def extract(archive: Path, folder: Path) -> None:
    """Ours: unpack to a new file, compare all digests, ``quick_check``, census, publish."""
    extract_file(archive, folder / _COPY_NAME, watch=Watch())


def shell_backup_zstd_and_age(database: Path, folder: Path) -> None:
    """The usual script for encrypted backups: ``sqlite3 .backup``, then ``zstd | age``; no check."""
    recipient = str(age.X25519Identity.generate().recipient)
    _shell_backup(database, folder)
    script = 'set -o pipefail; zstd -q -1 -T2 -c "$1" | age -r "$2" -o "$3"'
    _bash(script, folder / _COPY_NAME, recipient, folder / ENCRYPTED_NAME)
    (folder / _COPY_NAME).unlink()
    _make_durable(folder / ENCRYPTED_NAME)


def extract_encrypted(archive: Path, folder: Path) -> None:
    """Ours: decrypt and unpack to a new file, compare all digests, ``quick_check``, census, publish."""
    keys = Keys(identities=age.read_identities(archive.with_name(_KEY_NAME)))
    extract_file(archive, folder / _COPY_NAME, watch=Watch(), keys=keys)


def age_and_zstd_decompress(archive: Path, folder: Path) -> None:
    """``age -d | zstd -d`` of the same archive."""
    target = folder / _COPY_NAME
    script = 'set -o pipefail; age -d -i "$1" "$2" | zstd -q -d -o "$3"'
    _bash(script, archive.with_name(_KEY_NAME), archive, target)
    _make_durable(target)


def restic(database: Path, folder: Path) -> float:
    """``sqlite3 .backup``, then ``restic backup`` into a repository that is there already."""
    return _restic(database, folder, is_checked=False)


def restic_with_check(database: Path, folder: Path) -> float:
    """The same, then ``restic check --read-data``: what comes nearest to a proof."""
    return _restic(database, folder, is_checked=True)


def _restic(database: Path, folder: Path, *, is_checked: bool) -> float:
    environment = {**os.environ, "RESTIC_PASSWORD": "benchmark", "RESTIC_CACHE_DIR": str(folder / "cache")}

    def run(*arguments: str | Path) -> None:
        subprocess.run(["restic", "-q", "-r", folder / "repository", *arguments], env=environment, check=True)

    run("init")
    started = time.perf_counter()
    _shell_backup(database, folder)
    run("backup", folder / _COPY_NAME)
    (folder / _COPY_NAME).unlink()
    if is_checked:
        run("check", "--read-data")
    seconds = time.perf_counter() - started
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return seconds


_DBBACKUP = """
import sys
from django.conf import settings
storage = {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": sys.argv[2]}}
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    INSTALLED_APPS=["dbbackup"],
    STORAGES={
        "default": storage, "dbbackup": storage,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    },
)
import django
django.setup()
from django.core.management import call_command
call_command("dbbackup", compress=True, interactive=False, verbosity=0)
"""


def dbbackup(database: Path, folder: Path) -> None:
    """django-dbbackup with its defaults and gzip, not encrypted, nothing checked."""
    subprocess.run([sys.executable, "-c", _DBBACKUP, database, folder], check=True)
    for written in folder.iterdir():  # the archive, and a file of facts beside it
        _make_durable(written)


def _bash(script: str, *arguments: str | Path) -> None:
    subprocess.run(["bash", "-c", script, "bash", *arguments], check=True)


def zstd_decompress(archive: Path, folder: Path) -> None:
    """``zstd -d`` of the same archive: only the frame's own checksum is looked at."""
    target = folder / _COPY_NAME
    subprocess.run(["zstd", "-q", "-d", archive, "-o", target], check=True)
    _make_durable(target)


def _shell_backup(database: Path, folder: Path) -> None:
    # Run inside the folder, so that the shell's own quoting rules never meet a path.
    subprocess.run(["sqlite3", database, f".backup {_COPY_NAME}"], check=True, cwd=folder)


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)


CREATE = Contender(name="create with full proof (ours)", run=create_with_proof, is_ours=True)
SNAPSHOT = Contender(name="snapshot alone (ours)", run=snapshot_alone, is_ours=True)
ONE_STEP = Contender(name="backup(pages=-1)", run=backup_in_one_step)
CP = Contender(name="cp", run=cp, tools=("cp",))
SHELL = Contender(name="sqlite3 .backup", run=shell_backup, tools=("sqlite3",))
VACUUM = Contender(name="VACUUM INTO", run=vacuum_into)
PIPELINE = Contender(
    name="sqlite3 .backup + zstd -1 -T2",
    run=shell_backup_and_zstd,
    tools=("sqlite3", "zstd"),
)
CREATE_ENCRYPTED = Contender(name="create encrypted with full proof (ours)", run=create_encrypted, is_ours=True)
AGE_PIPELINE = Contender(
    name="sqlite3 .backup + zstd -1 -T2 + age",
    run=shell_backup_zstd_and_age,
    tools=("bash", "sqlite3", "zstd", "age"),
)
RESTIC = Contender(name="sqlite3 .backup + restic backup", run=restic, tools=("sqlite3", "restic"))
RESTIC_CHECK = Contender(
    name="sqlite3 .backup + restic backup + check --read-data", run=restic_with_check, tools=("sqlite3", "restic")
)
DBBACKUP = Contender(name="django-dbbackup with gzip", run=dbbackup, modules=("dbbackup",))
EXTRACT_ENCRYPTED = Contender(
    name="extract encrypted with full proof (ours)",
    run=extract_encrypted,
    is_ours=True,
    reads_archive=True,
    reads_encrypted=True,
)
AGE_ZSTD_D = Contender(
    name="age -d + zstd -d",
    run=age_and_zstd_decompress,
    tools=("bash", "age", "zstd"),
    reads_archive=True,
    reads_encrypted=True,
)
EXTRACT = Contender(name="extract with full proof (ours)", run=extract, is_ours=True, reads_archive=True)
ZSTD_D = Contender(name="zstd -d", run=zstd_decompress, tools=("zstd",), reads_archive=True)

RESTORE = Contender(name="longest wait of a writer during a restore (ours)", run=restore_while_written, is_ours=True)

CONTENDERS = (
    CREATE,
    PIPELINE,
    CREATE_ENCRYPTED,
    AGE_PIPELINE,
    RESTIC,
    RESTIC_CHECK,
    DBBACKUP,
    SNAPSHOT,
    ONE_STEP,
    SHELL,
    VACUUM,
    CP,
    EXTRACT,
    ZSTD_D,
    EXTRACT_ENCRYPTED,
    AGE_ZSTD_D,
    RESTORE,
)
