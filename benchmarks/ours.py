"""Our engine, driven as the services drive it, and the whole command."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from backups_app.core import age
from backups_app.core.archive import ENCRYPTION, SUFFIX, Keys, stem_of
from backups_app.core.beside import manifest_beside, open_archive_file
from backups_app.core.create import CreateOptions, create_archive, prove_stored
from backups_app.core.extract import extract_file
from backups_app.core.files import publish_new_file, sync_folder, write_synced
from backups_app.core.manifest import SUFFIX as MANIFEST_SUFFIX
from backups_app.core.manifest import Manifest
from backups_app.core.progress import Watch
from backups_app.core.snapshot import take_snapshot
from backups_app.core.verify import NO_KEYS, Check, failures, reason_of, verify_full, verify_quick

from .contender import COPY_NAME, ROOT, ContenderError, run_tool

ARCHIVE_NAME = f"sample{SUFFIX}"
ENCRYPTED_NAME = ARCHIVE_NAME + age.SUFFIX
KEY_NAME = "key.txt"


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
    (folder / KEY_NAME).write_bytes(age.identity_file(identity, now=datetime.now(UTC)))


def _create(database: Path, folder: Path, *, recipients: tuple[age.X25519Recipient, ...]) -> None:
    watch = Watch()
    scratch = folder / "scratch"
    scratch.mkdir(mode=0o700)
    created_at = datetime.now(UTC)
    created = create_archive(database, scratch, options=CreateOptions(recipients=recipients), watch=watch)
    stored = folder / (ENCRYPTED_NAME if recipients else ARCHIVE_NAME)
    publish_new_file(created.archive.path, stored)
    _refuse_failures(created.checks + prove_stored(lambda: open_archive_file(stored), created.archive, watch=watch))
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
        raise ContenderError("The stored manifest differs from what was written.")
    scratch.rmdir()


def _refuse_failures(checks: list[Check]) -> None:
    if failures(checks):
        raise ContenderError(f"not proven: {reason_of(checks)}")


def snapshot_alone(database: Path, folder: Path) -> None:
    """Our ``take_snapshot``: pinned, counted, in steps that can be cancelled, each step synced."""
    take_snapshot(database, folder / COPY_NAME, watch=Watch())
    sync_folder(folder)


def extract(store: Path, folder: Path) -> None:
    """Ours: unpack to a new file, compare all digests, ``quick_check``, census, publish."""
    extract_file(store / ARCHIVE_NAME, folder / COPY_NAME, watch=Watch())


def extract_encrypted(store: Path, folder: Path) -> None:
    """Ours: decrypt and unpack to a new file, compare all digests, ``quick_check``, census, publish."""
    extract_file(store / ENCRYPTED_NAME, folder / COPY_NAME, watch=Watch(), keys=_keys(store))


def verify(store: Path, folder: Path) -> None:
    """Ours, level ``full``: all digests, ``integrity_check``, ``foreign_key_check``, census; nothing kept."""
    _verify(store / ARCHIVE_NAME, folder, keys=NO_KEYS)


def verify_encrypted(store: Path, folder: Path) -> None:
    """The same of an encrypted archive."""
    _verify(store / ENCRYPTED_NAME, folder, keys=_keys(store))


def _verify(archive: Path, folder: Path, *, keys: Keys) -> None:
    checks = verify_full(
        lambda: open_archive_file(archive),
        _manifest(archive),
        required_tables=(),
        scratch=folder,
        watch=Watch(),
        keys=keys,
    )
    _refuse_failures(checks)


def verify_stored_bytes(store: Path, _folder: Path) -> None:
    """Ours, level ``quick``: the stored bytes against their proven digest."""
    archive = store / ENCRYPTED_NAME
    _refuse_failures(verify_quick(lambda: open_archive_file(archive), _manifest(archive), watch=Watch()))


def _keys(store: Path) -> Keys:
    return Keys(identities=age.read_identities(store / KEY_NAME))


def _manifest(archive: Path) -> Manifest:
    manifest = manifest_beside(archive)
    if manifest is None:
        raise ContenderError("there is no manifest beside the archive")
    return manifest


def prepare_command(database: Path, folder: Path) -> None:
    """A console of its own that has the database under care."""
    for alias in ("default", "catalog"):
        _manage(database, folder, "migrate", "--database", alias, "--verbosity", "0")
    _manage(database, folder, "backup", "add-database", "sample", str(database))


def create_by_command(database: Path, folder: Path) -> None:
    """``manage.py backup create``: start-up of Python and Django, job and catalogue rows included."""
    _manage(database, folder, "backup", "create", "sample")


def _manage(database: Path, folder: Path, *arguments: str) -> None:
    environment = {
        "BACKUPS_HOME": str(folder / "home"),
        "BACKUPS_ROOTS": str(database.parent),
        "DJANGO_DEBUG": "1",
        "DJANGO_SETTINGS_MODULE": "project.settings",
    }
    run_tool(sys.executable, ROOT / "manage.py", *arguments, folder=ROOT, environment=environment)
