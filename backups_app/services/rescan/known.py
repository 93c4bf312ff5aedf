"""What the catalogue says of a destination, small enough for many thousands of copies."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import QuerySet

from ... import conf
from ...core import manifest as manifests
from ...models import Backup, Copy
from ..hosts import here
from ..names import manifest_name

_FIELDS = (
    "pk",
    "name",
    "state",
    "backup",
    "backup__database__name",
    "backup__database__identity",
    "backup__manifest_sha256",
    "backup__sequence",
    "backup__signing_key_id",
    "backup__verdict",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownCopy:
    """A stored copy with a manifest, as the catalogue has it."""

    copy_id: int
    archive: str
    backup: str
    database: str
    identity: str
    manifest_sha256: str
    sequence: int | None
    key_id: str
    is_settled: bool
    """Nothing is known against it, so that finding it good again needs no new record."""


def stem_of(archive: str) -> str:
    """What the names of an archive, its manifest and its signature have in common."""
    return manifest_name(archive).removesuffix(manifests.SUFFIX)


def id_in(stem: str) -> str:
    """The id of the backup that a stem was made for."""
    return stem.rpartition("-")[2][:32]


def known_copies(destination: str) -> dict[str, KnownCopy]:
    """Stem → the finished copies that the catalogue has at a destination, of this host's databases."""
    rows = _there().filter(here("backup__database__host"), destination=destination)
    found: dict[str, KnownCopy] = {}
    for each in rows.exclude(backup__manifest_sha256="").order_by("name").values_list(*_FIELDS).iterator():
        copy_id, name, state, backup, database, identity, digest, sequence, key_id, verdict = each
        is_settled = verdict == "passed" and state in (Copy.State.VERIFIED, Copy.State.FAILED)
        found[stem_of(name)] = KnownCopy(
            copy_id=copy_id,
            archive=name,
            backup=backup,
            database=database,
            identity=identity,
            manifest_sha256=digest,
            sequence=sequence,
            key_id=key_id,
            is_settled=is_settled,
        )
    return found


def copies_elsewhere(destination: str) -> frozenset[str]:
    """The stems of the copies of other hosts' databases at a destination that hosts share: those hosts look after."""
    if conf.is_catalog_local():
        return frozenset()
    others = Copy.objects.filter(destination=destination).exclude(here("backup__database__host"))
    return frozenset(stem_of(name) for name in others.values_list("name", flat=True))


def is_still_known(copy: KnownCopy) -> bool:
    """Whether the copy is still to be there: retention may have removed it meanwhile."""
    return _there().filter(pk=copy.copy_id).exists()


def _there() -> QuerySet[Copy]:
    """Copies that should have an archive: neither being made nor given up."""
    stored = Copy.objects.filter(state__in=Copy.STORED_STATES)
    return stored.exclude(backup__state__in=[Backup.State.RUNNING, *Backup.GONE_STATES])


def numbers_elsewhere(destination: str, identity: str) -> list[int]:
    """Numbers of a chain whose backups the catalogue knows, and which need not be at ``destination``.

    A backup has no copy there when the destination was added later, did not answer, or may not hold it.
    """
    rows = Backup.objects.filter(database__identity=identity, sequence__isnull=False)
    here = Copy.objects.filter(destination=destination).exclude(state__in=_NOT_STORED)
    elsewhere = rows.exclude(manifest_sha256="").exclude(pk__in=here.values("backup"))
    return [number for number in elsewhere.values_list("sequence", flat=True) if number is not None]


_NOT_STORED = (Copy.State.PENDING, Copy.State.REFUSED, Copy.State.REPAIRING)
