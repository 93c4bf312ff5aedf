"""Signatures of manifests: with which key they are made here, and whether a stored one is right."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from .. import conf
from ..core import manifest as manifests
from ..core.archive import read_at_most
from ..core.errors import BackupError, InputError, VerificationError
from ..core.manifest import Manifest
from ..core.signature import (
    SIGNATURE_BYTES,
    PublicKey,
    SigningKey,
    open_signing_key,
    trust_key,
    trusted_keys,
)
from ..core.verify import Check
from ..destinations import reach
from ..models import AuditEvent, Backup, Copy
from . import audit
from .audit import Actor
from .names import manifest_name, signature_name

MAKE_KEY = "make-signing-key"
TRUST_KEY = "trust-signing-key"
_REPLACES = "a new signing key was made; older manifests are checked with the public keys in state/signing-keys"


def signing_key(*, actor: Actor) -> SigningKey:
    """The key that signs the manifests made here; made on first use, which is recorded.

    Raises:
        BackupError: the state folder cannot be written, or the key is damaged.
    """
    opened = open_signing_key(conf.state_folder())
    if opened.is_new:
        detail = _REPLACES if opened.is_replacement else "the first signing key was made"
        audit.record(MAKE_KEY, actor=actor, subject=opened.key.public.key_id, detail=detail)
    return opened.key


def known_keys() -> dict[str, PublicKey]:
    """Key id → key of every key whose signatures count here."""
    return trusted_keys(conf.state_folder())


def trust(key: PublicKey, *, actor: Actor, why: str) -> bool:
    """Let the signatures of ``key`` count from now on, and record it; False when they did already."""
    is_new = trust_key(conf.state_folder(), key)
    if is_new:
        audit.record(TRUST_KEY, actor=actor, subject=key.key_id, detail=why)
    return is_new


def replacements() -> QuerySet[AuditEvent]:
    """The times when the signing key was replaced by a new one, the newest first."""
    replaced: QuerySet[AuditEvent] = AuditEvent.objects.filter(action=MAKE_KEY, detail=_REPLACES).order_by("-at")
    return replaced


@dataclass(frozen=True, kw_only=True)
class StoredManifest:
    """The manifest of a copy as it is stored; its bytes are those that the catalogue knows."""

    manifest: Manifest
    content: bytes


def read_stored_manifest(copy: Copy, *, expected_sha256: str) -> StoredManifest:
    """The manifest stored beside a copy, when it is the one that the catalogue knows.

    Raises:
        UnreachableError: it cannot be read. VerificationError: it was altered.
    """
    with reach(copy.destination).open(manifest_name(copy.name)) as stream:
        content = read_at_most(stream, manifests.MAX_BYTES + 1)
    if manifests.digest(content) != expected_sha256:
        raise VerificationError(
            "The stored manifest is not the one that was written with this backup.",
            "It was altered or replaced. Use another copy.",
        )
    return StoredManifest(manifest=Manifest.from_bytes(content), content=content)


def check_signature(backup: Backup, copy: Copy, stored: StoredManifest) -> Check:
    """Whether the signature stored beside a copy is that of its manifest.

    The key is the one that the manifest names, which must be the one that the catalogue knows:
    the bytes of the manifest are pinned by their digest. A manifest from before there were
    signatures is an advisory finding.

    Raises:
        UnreachableError: the signature cannot be read.
    """
    name = "signature"
    if backup.sequence is None or not stored.manifest.is_signed:
        evidence = "the backup was made before manifests were signed; the catalogue knows its digest"
        return Check(name=name, ok=False, is_advisory=True, evidence=evidence)
    with reach(copy.destination).open(signature_name(copy.name)) as stream:
        signature = read_at_most(stream, SIGNATURE_BYTES + 1)
    try:
        key = stored.manifest.key
    except InputError:
        return Check(name=name, ok=False, evidence="the manifest names no key")
    if key.key_id != backup.signing_key_id:
        return Check(name=name, ok=False, evidence=f"key {key.key_id}, the catalogue knows {backup.signing_key_id}")
    if not key.has_signed(stored.content, signature):
        return Check(name=name, ok=False, evidence="the signature is not one over this manifest")
    return Check(name=name, ok=True, evidence=f"Ed25519, key {key.key_id}")


def signature_problem(backup: Backup) -> str:
    """Why the manifest of ``backup`` does not count as signed; empty when one of its copies has it right.

    Copies whose manifest is missing or altered are not asked: whoever uses one is refused anyway.
    """
    problem = ""
    for copy in backup.copies.exclude(state__in=[Copy.State.PENDING, Copy.State.REFUSED]):
        try:
            stored = read_stored_manifest(copy, expected_sha256=backup.manifest_sha256)
        except BackupError:
            continue
        try:
            check = check_signature(backup, copy, stored)
        except BackupError as exc:
            problem = exc.message.rstrip(".")
            continue
        if check.ok:
            return ""
        problem = check.evidence
    return problem
