"""Archives that belong to several backups, and archives that build on others.

A backup of an unchanged database *shares* the archive of the one before; a delta *builds on* another
archive. Both name the backup that the archive was made for, never one that shares it. So every stored
archive has one owner, and whoever shares it, or builds on it, *refers* to that owner.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from django.db.models import Q

from ..core import manifest as manifests
from ..core.archive import Keys, OpenStored, read_at_most
from ..core.errors import UnreachableError, VerificationError
from ..core.links import Link
from ..core.manifest import MAX_POSITION, Delta, Manifest
from ..core.verify import NO_KEYS
from ..destinations import reach
from ..models import Backup, Copy
from .names import manifest_name, stored_names

KeysFor = Callable[[Manifest], Keys]


def object_name(backup: Backup, copy: Copy) -> str:
    """The name of the archive that a copy of ``backup`` is restored from: its own, or the one it shares."""
    return backup.archive_name if backup.shares_with else copy.name


def object_names(backup: Backup, copy: Copy) -> tuple[str, ...]:
    """Every object that a copy consists of, its archive first, in the order of publication."""
    _, *others = stored_names(copy.name, has_media=backup.has_media)
    return object_name(backup, copy), *others


def opener(backup: Backup, copy: Copy) -> OpenStored:
    """Opens the archive of a copy."""
    return partial(reach(copy.destination).open, object_name(backup, copy))


def links_below(copy: Copy, manifest: Manifest, *, keys_for: KeysFor = lambda _: NO_KEYS) -> list[Link]:
    """What the archive of ``manifest`` builds on at the destination of ``copy``, the full one first.

    Manifests that the catalogue knows must be those that it knows; that they are the right ones is
    for :func:`~..core.links.require_linked` to find out.

    Raises:
        UnreachableError: a manifest below cannot be read. VerificationError: one was altered, or the
            chain has no end. KeyMissingError: from ``keys_for``.
    """
    return links_under(copy, manifest.delta, keys_for=keys_for) if manifest.delta else []


def links_under(copy: Copy, delta: Delta, *, keys_for: KeysFor = lambda _: NO_KEYS) -> list[Link]:
    """:func:`links_below` for a delta."""
    destination = reach(copy.destination)
    below: list[Link] = []
    each: Delta | None = delta
    while each is not None:
        if len(below) >= min(delta.position, MAX_POSITION):
            raise VerificationError("The chain of archives below is another one.", "Use an older verified backup.")
        base = _read_base(copy, each.base_name, each.base)
        open_stored = partial(destination.open, each.base_name)
        below.append(Link(open_stored=open_stored, manifest=base, keys=keys_for(base)))
        each = base.delta
    return below[::-1]


def _read_base(copy: Copy, name: str, backup: str) -> Manifest:
    try:
        with reach(copy.destination).open(manifest_name(name)) as stream:
            content = read_at_most(stream, manifests.MAX_BYTES + 1)
    except UnreachableError as exc:
        raise UnreachableError(f"It builds on backup {backup}. {exc.message}", exc.hint) from exc
    known = Backup.objects.filter(pk=backup).values_list("manifest_sha256", flat=True).first()
    if known and known != manifests.digest(content):
        raise VerificationError(
            f"It builds on backup {backup}, whose stored manifest is not the one that was written.",
            "It was altered or replaced. Use another copy, or an older verified backup.",
        )
    return Manifest.from_bytes(content)


# Who refers to whom


def chain_of(backup: Backup) -> list[Backup]:
    """The backups that own the archives which a restore of ``backup`` reads, its own one first, the full one last.

    It ends early where the catalogue does not know one.
    """
    owner = Backup.objects.filter(pk=backup.shares_with).first() if backup.shares_with else backup
    chain: list[Backup] = []
    while owner is not None and len(chain) <= MAX_POSITION:
        chain.append(owner)
        owner = Backup.objects.filter(pk=owner.builds_on).first() if owner.builds_on else None
    return chain


def referring(backups: Iterable[str]) -> Q:
    """Condition on backups that share an archive of ``backups``, or build on one, directly."""
    ids = list(backups)
    return Q(shares_with__in=ids) | Q(builds_on__in=ids)


def is_referred_to(backup: Backup) -> bool:
    """Whether another backup needs the archive of ``backup``: one whose files are there, or are being made."""
    living = Backup.objects.filter(referring([backup.pk])).exclude(state__in=Backup.GONE_STATES)
    return living.exclude(pk=backup.pk).exclude(state=Backup.State.CANCELLED).exists()


def is_archive_needed(backup: Backup) -> bool:
    """Whether the archive that ``backup`` is restored from must stay when ``backup`` goes."""
    if not backup.shares_with:
        return is_referred_to(backup)
    owner = Backup.objects.filter(pk=backup.shares_with).exclude(state__in=Backup.GONE_STATES)
    others = Backup.objects.filter(referring([backup.shares_with])).exclude(state__in=Backup.GONE_STATES)
    return owner.exists() or others.exclude(pk=backup.pk).exists()


def all_referring(backup: Backup) -> list[Backup]:
    """The backups that need the archive of ``backup``, however far above it, the nearest first."""
    found: dict[str, Backup] = {}
    layer = [backup.pk]
    while layer:
        rows = Backup.objects.filter(referring(layer)).exclude(state__in=Backup.GONE_STATES).order_by("created_at")
        fresh = {row.pk: row for row in rows.select_related("database") if row.pk not in found and row.pk != backup.pk}
        found.update(fresh)
        layer = list(fresh)
    return list(found.values())


def referring_first(backups: Sequence[Backup]) -> list[Backup]:
    """The same backups in the same order, but for those that need the archive of another one: they go before it."""
    above: dict[str, list[Backup]] = defaultdict(list)
    for each in backups:
        for name in {each.shares_with, each.builds_on} - {""}:
            above[name].append(each)
    ordered: dict[str, Backup] = {}
    for first in backups:
        stack = [first]
        while stack:
            waiting = [each for each in above[stack[-1].pk] if each.pk not in ordered]
            if waiting:
                stack.append(waiting[0])
            else:
                top = stack.pop()
                ordered.setdefault(top.pk, top)
    return list(ordered.values())
