"""The archive of the backup before: whether a new backup may share it, or build on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import conf
from ..core.census import Census
from ..core.create import Previous
from ..core.errors import BackupError, VerificationError
from ..core.manifest import Manifest
from ..models import Backup, Copy, Database, Recipient
from .links import chain_of
from .storing import Place
from .verify import read_manifest

_NEVER = (Backup.Trigger.IMPORT, Backup.Trigger.REKEY)
"""They hold content of another time, or of somebody else."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """The backup that the archive was made for, and what a new one has to know of it."""

    backup: Backup
    previous: Previous

    def manifest_at(self, place: Place) -> Manifest:
        """Its manifest as it is stored at a place.

        Raises:
            VerificationError: it was altered, or cannot be read.
        """
        copy = self.backup.copies.get(destination=place.name)
        return read_manifest(copy, expected_sha256=self.backup.manifest_sha256)


def longest_chain(database: Database) -> int:
    """How many deltas may follow a full archive of ``database``; 0 for none."""
    return int(conf.get("DELTA_CHAIN") if database.delta_chain is None else database.delta_chain)


def owner_for(database: Database, recipients: Sequence[Recipient], places: Sequence[Place]) -> Owner | None:
    """The archive of the last verified backup, when a new backup for ``recipients`` at ``places`` may use it.

    It must be encrypted for the same keys, and it, and all that it builds on, must have a verified copy
    at every place that takes part. None where anything of that is not so: the new archive is a full one.
    """
    verified = Backup.objects.filter(database=database, state=Backup.State.VERIFIED).exclude(trigger__in=_NEVER)
    newest = verified.order_by("-taken_at", "-created_at").first()
    chain = chain_of(newest) if newest is not None else []
    if not chain or chain[-1].builds_on:  # the catalogue does not know the whole of it
        return None
    owner = chain[0]
    if owner.trigger in _NEVER or set(owner.key_ids) != {each.public for each in recipients}:
        return None
    if owner.is_encrypted != bool(recipients) or not _are_all_at(chain, places):
        return None
    try:
        census = Census.from_dict(owner.census or {})
    except VerificationError:
        return None
    return Owner(
        backup=owner,
        previous=Previous(
            backup=owner.pk,
            archive_name=owner.archive_name,
            archive_bytes=owner.archive_bytes or 0,
            archive_sha256=owner.archive_sha256,
            size_bytes=owner.size_bytes or 0,
            sha256=owner.sha256,
            content_sha256=owner.content_sha256,
            census=census,
            links_sha256=owner.restored_sha256,
            position=len(chain) - 1,
            full_bytes=chain[-1].archive_bytes or 0,
            deltas_bytes=sum(each.archive_bytes or 0 for each in chain[:-1]),
        ),
    )


def _are_all_at(chain: Sequence[Backup], places: Sequence[Place]) -> bool:
    """Whether each of the chain is verified, with a verified copy at each place that can be used."""
    if any(each.state != Backup.State.VERIFIED for each in chain):
        return False
    wanted = {place.name for place in places if place.destination is not None}
    found = Copy.objects.filter(
        backup__in=[each.pk for each in chain], destination__in=wanted, state=Copy.State.VERIFIED
    )
    return found.count() == len(wanted) * len(chain)


def manifest_of_owner(owner: Owner, places: Sequence[Place]) -> Manifest:
    """The manifest of the owner, from the first place that gives it.

    Raises:
        VerificationError: none does.
    """
    problem: BackupError | None = None
    for place in places:
        if place.destination is None:
            continue
        try:
            return owner.manifest_at(place)
        except VerificationError as exc:
            problem = problem or exc
    raise problem or VerificationError("No place holds the archive of the backup before.", "Run the backup again.")
