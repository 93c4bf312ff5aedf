"""A backup unpacked into scratch and fully checked: what a preview shows is what a restore uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ...core.age import FileKey
from ...core.archive import Keys
from ...core.census import Census
from ...core.errors import VerificationError
from ...core.manifest import Manifest
from ...core.progress import Watch
from ...core.verify import check_database, failures, has_census, reason_of, unpack
from ...encryption import Keyring
from ...models import Backup, Copy
from ..copies import from_first_good_copy
from ..links import links_below, opener
from ..verify import read_manifest

OnFinding = Callable[[str], None]
"""Told what is wrong with a database that goes back as it was."""


def stage_backup(
    backup: Backup,
    folder: Path,
    *,
    watch: Watch,
    keyring: Keyring | None = None,
    file_key: FileKey | None = None,
    on_finding: OnFinding | None = None,
) -> tuple[Path, Census]:
    """Unpack a proven copy of ``backup`` into ``folder`` (private); returns the file and its census.

    All digests, ``integrity_check`` and the census are compared. Copies are tried in turn. An
    encrypted one is opened with the identities of ``keyring`` (default: those of the settings), or
    with the key of its own that its maker kept in memory.

    A safety backup holds what was live, sound or not, and must go back as it was: with ``on_finding``
    digests and census decide, and what else is wrong is told there.

    Raises:
        KeyMissingError: no identity opens it.
        NotFoundError: there is no stored copy. VerificationError: no copy can be trusted.
        DiskFullError, BackupError, CancelledError, DeadlineError.
    """
    staged = folder / "staged.sqlite3"
    identities = keyring or Keyring.configured()

    def keys_for(manifest: Manifest) -> Keys:
        return identities.keys_for(manifest) if file_key is None else Keys(file_key=file_key)

    def stage(copy: Copy) -> Census:
        try:
            return _stage_copy(backup, copy, staged, keys_for=keys_for, watch=watch, on_finding=on_finding)
        except VerificationError:
            staged.unlink(missing_ok=True)
            raise

    return staged, from_first_good_copy(backup, stage)


def _stage_copy(
    backup: Backup,
    copy: Copy,
    staged: Path,
    *,
    keys_for: Callable[[Manifest], Keys],
    watch: Watch,
    on_finding: OnFinding | None,
) -> Census:
    manifest = read_manifest(copy, expected_sha256=backup.manifest_sha256)
    found = (manifest.archive_sha256, manifest.links_sha256)
    if found != (backup.archive_sha256, backup.restored_sha256):  # what an approval is bound to
        raise VerificationError(
            "The stored manifest is of another archive than the one in the catalogue.",
            "It was altered or replaced. Use another backup.",
        )
    keys, below = keys_for(manifest), links_below(copy, manifest, keys_for=keys_for)
    checks = unpack(opener(backup, copy), manifest, staged, watch=watch, keys=keys, below=below)
    if not failures(checks):
        inside = check_database(staged, expected=manifest.census, is_thorough=True, watch=watch)
        if on_finding and failures(inside) and _is_as_it_was(backup, staged, manifest.census, watch=watch):
            on_finding(f"The database in safety backup {backup.pk} was not sound when it was live: {reason_of(inside)}")
            return manifest.census
        checks += inside
    if failures(checks):
        raise VerificationError(
            f"The copy at {copy.destination} cannot be trusted ({reason_of(checks)}).",
            "Nothing live was touched. Use another backup.",
        )
    return manifest.census


def _is_as_it_was(backup: Backup, staged: Path, census: Census, *, watch: Watch) -> bool:
    return backup.trigger == Backup.Trigger.SAFETY and has_census(staged, census, watch=watch)
