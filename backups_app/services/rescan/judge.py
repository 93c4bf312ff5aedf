"""One stored manifest against the catalogue, the trusted keys, and the place where it lies."""

from __future__ import annotations

from ...core.chain import Link
from ...core.manifest import Manifest
from ...core.signature import PublicKey
from ..names import own_stem
from .known import KnownCopy, stem_of
from .outcome import Found
from .store import Reading


def judge_known(
    reading: Reading, stem: str, known: KnownCopy, *, digests: dict[str, KnownCopy], keys: dict[str, PublicKey]
) -> Found | None:
    """What is wrong with the manifest of a backup that the catalogue knows; None when it is right."""
    if reading.digest != known.manifest_sha256:
        return _replaced(reading, stem, known, digests=digests, keys=keys)
    if known.sequence is None:
        return _about(known, stem, "unsigned_known", "The backup was made before manifests were signed.")
    if reading.signature is None:
        return _about(known, stem, "signature_missing", "The signature of the manifest is missing.")
    key = reading.own_key
    if key is None or key.key_id != known.key_id or not reading.is_signed_by(key):
        return _about(known, stem, "forged", "The signature is not one over the manifest.")
    return None


def _replaced(
    reading: Reading, stem: str, known: KnownCopy, *, digests: dict[str, KnownCopy], keys: dict[str, PublicKey]
) -> Found:
    """Something else lies in the place of a known manifest."""
    other = digests.get(reading.digest)
    if other is not None:
        code = "rolled_back" if other.identity == known.identity else "misplaced"
        return _about(known, stem, code, f"The manifest of backup {other.backup} lies in its place.")
    manifest = reading.manifest
    if manifest is None:
        return _about(known, stem, "manifest_unreadable", reading.problem)
    if not manifest.is_signed or not reading.is_signed_by(keys.get(_key_id(reading))):
        return _about(known, stem, "forged", "The manifest is another one, and its signature is none of ours.")
    code = "rolled_back" if manifest.identity == known.identity else "misplaced"
    return _about(known, stem, code, f"The signed manifest of backup {manifest.id} lies in its place.")


def judge_new(reading: Reading, stem: str, *, keys: dict[str, PublicKey]) -> Found | None:
    """Why a manifest that the catalogue does not know cannot be trusted; None when it can."""
    manifest = reading.manifest
    if manifest is None:
        return Found(code="manifest_unreadable", path=stem, message=reading.problem)
    if not manifest.is_signed:
        return _of(manifest, stem, "unsigned", "The manifest is not signed, and the catalogue does not know it.")
    if reading.signature is None:
        return _of(manifest, stem, "signature_missing", "The signature of the manifest is missing.")
    key = keys.get(_key_id(reading))
    if not reading.is_signed_by(key or reading.own_key):
        return _of(manifest, stem, "forged", "The signature is not one over the manifest.")
    if key is None:
        return _of(manifest, stem, "key_unknown", f"It is signed with the key {_key_id(reading)}, unknown here.")
    if stem_of(manifest.archive_name) != stem and own_stem(manifest) != stem:  # it may share another's archive
        is_same = manifest.archive_name.split("/")[0] == stem.split("/", maxsplit=1)[0]
        code = "rolled_back" if is_same else "misplaced"
        return _of(manifest, stem, code, f"The manifest of {manifest.archive_name} lies in its place.")
    return None


def link_of(reading: Reading, manifest: Manifest) -> Link:
    """A trusted manifest as a part of its chain."""
    return Link(
        sequence=manifest.sequence or 0,
        digest=reading.digest,
        previous=manifest.previous,
        backup=manifest.id,
        pruned=manifest.pruned,
    )


def _key_id(reading: Reading) -> str:
    key = reading.own_key
    return key.key_id if key is not None else ""


def _about(known: KnownCopy, stem: str, code: str, message: str) -> Found:
    return Found(code=code, path=stem, message=message, backup=known.backup, database=known.database)


def _of(manifest: Manifest, stem: str, code: str, message: str) -> Found:
    # What an untrusted manifest says of itself is repeated, but registered nowhere.
    return Found(code=code, path=stem, message=message, backup=manifest.id, database=manifest.database)
