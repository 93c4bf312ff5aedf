"""Will the next backup, and the next restore, find enough room? Estimated from the last sizes."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ... import conf
from ...core.restore import SPACE_FACTOR
from ...destinations import LOCAL, local_folders
from ..storing import destination_names
from .facts import FileSystem, Look, Problem

if TYPE_CHECKING:
    from .facts import DatabaseHealth

_HEADROOM = 1.05
"""A database grows while it is copied."""

_MARGIN = 1.1
"""Others write to the disk too: what is only just enough now will not be then."""


@dataclass(frozen=True, kw_only=True)
class _Need:
    """What one database will need in one folder."""

    folder: Path
    place: str
    database: str
    backup_bytes: float
    restore_bytes: float


def look_at_disks(databases: Sequence[DatabaseHealth]) -> list[FileSystem]:
    """Every disk of this host that backups and restores of these databases write to, with room and need.

    A disk that cannot be asked is left out; the missing database is a problem of its own.
    """
    by_disk: dict[int, list[_Need]] = defaultdict(list)
    devices: dict[Path, int | None] = {}
    for need in (need for each in databases if each.is_here for need in _needs(each)):
        if need.folder not in devices:
            devices[need.folder] = _device(need.folder)
        device = devices[need.folder]
        if device is not None:
            by_disk[device].append(need)
    found = [_disk(needs) for needs in by_disk.values()]
    return sorted((each for each in found if each is not None), key=lambda each: each.folder)


def _needs(each: DatabaseHealth) -> list[_Need]:
    last = each.last_verified
    # Not the -wal: a large one mostly holds the same pages over and over.
    content = max(each.size_bytes or 0, (last.size_bytes if last else None) or 0)
    media = last.media_bytes if last else 0
    archive = ((last.archive_bytes if last else None) or content) + media
    name = each.database.name
    return [
        # A restore stores a safety backup first; both are unpacked in scratch.
        *(
            _Need(folder=folder, place=_place(place), database=name, backup_bytes=archive, restore_bytes=archive)
            for place, folder in local_folders().items()
            if place in destination_names(each.database)
        ),
        _Need(
            folder=conf.scratch_folder(),
            place="scratch folder",
            database=name,
            backup_bytes=_HEADROOM * content + archive,
            restore_bytes=(1 + _HEADROOM) * content + archive,
        ),
        _Need(
            folder=Path(each.database.path).parent,
            place=f"database {name}",
            database=name,
            backup_bytes=0,
            restore_bytes=SPACE_FACTOR * content,
        ),
    ]


def _place(destination: str) -> str:
    return "archives" if destination == LOCAL else f"destination {destination}"


def _disk(needs: list[_Need]) -> FileSystem | None:
    folder = _existing(needs[0].folder)
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        backups, restores = _sums(needs, "backup_bytes"), _sums(needs, "restore_bytes")
        hungriest = max(backups, key=lambda name: max(backups[name], restores[name]))
        return FileSystem(
            folder=needs[0].folder,
            places=_places(needs),
            free_bytes=usage.free,
            total_bytes=usage.total,
            backup_bytes=max(backups.values()),
            restore_bytes=max(restores.values()),
            hungriest=hungriest,
        )
    return None


def _sums(needs: list[_Need], measure: str) -> dict[str, int]:
    """What each database needs on one disk, in all its folders there together."""
    sums: dict[str, float] = defaultdict(float)
    for need in needs:
        sums[need.database] += getattr(need, measure)
    return {name: int(_MARGIN * found) for name, found in sums.items()}


def _places(needs: list[_Need]) -> tuple[str, ...]:
    places = list(dict.fromkeys(need.place for need in needs))
    databases = [place for place in places if place.startswith("database ")]
    if len(databases) <= 3:
        return tuple(places)
    return (*(place for place in places if place not in databases), f"{len(databases)} databases")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there: its disk is where it will be made."""
    return next((each for each in (folder, *folder.parents) if each.exists()), folder)


def _device(folder: Path) -> int | None:
    with suppress(OSError):
        return _existing(folder).stat().st_dev
    return None


def find_full_disks(look: Look) -> Iterator[Problem]:
    """Is there room for the next backup and for the next restore?"""
    for disk in look.disks:
        if not disk.is_nearly_full:
            continue
        what = "backup" if disk.free_bytes < disk.backup_bytes else "restore"
        yield Problem(
            code="disk_nearly_full",
            database="",
            subject=str(disk.folder),
            message=f"The disk of {disk.folder} ({', '.join(disk.places)}) has {disk.free_bytes:,} bytes free; the "
            f"next {what} may need {disk.backup_bytes if what == 'backup' else disk.restore_bytes:,} "
            f"(most: {disk.hungriest}).",
            hint="Free some space, or move BACKUPS_HOME or the archives to a larger disk.",
        )
