"""The chain of a database's manifests: its head, kept apart from the archives, and what is wrong with it.

Whoever can write to the store can delete, swap and put back old files there. They cannot sign, and
they cannot change the head: so what they did shows as a gap, a wrong link, or an end before the head.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import BackupError, NotFoundError
from .files import create_private_folder, read_bounded, replace_synced
from .manifest import canonical, ranges_from
from .ranges import Range, merged, without

_TYPE = "django-walsafe/chain-head"
_MAX_HEAD_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest manifest of a chain."""

    sequence: int
    manifest_sha256: str
    backup: str
    pruned: tuple[Range, ...] = ()
    """Numbers that were deleted on purpose, all of them; the next manifest will name them."""

    def to_bytes(self) -> bytes:
        """The canonical file content."""
        return canonical(
            {
                "type": _TYPE,
                "sequence": self.sequence,
                "manifest_sha256": self.manifest_sha256,
                "backup": self.backup,
                "pruned": [list(each) for each in self.pruned],
            }
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> Head:
        """Raises BackupError when these are not the bytes of a head."""
        try:
            document = json.loads(content)
            head = cls(
                sequence=document["sequence"],
                manifest_sha256=document["manifest_sha256"],
                backup=document["backup"],
                pruned=ranges_from(document["pruned"]),
            )
            is_whole = isinstance(head.sequence, int) and head.to_bytes() == content
        except (ValueError, KeyError, TypeError, RecursionError) as exc:
            raise _damaged() from exc
        if not is_whole:
            raise _damaged()
        return head


def read_head(path: Path) -> Head | None:
    """The head kept in a file, None when there is none.

    Raises:
        BackupError: the file is damaged, or cannot be read. That is no verdict on any archive.
    """
    try:
        return Head.from_bytes(read_bounded(path, _MAX_HEAD_BYTES))
    except NotFoundError:
        return None


def write_head(path: Path, head: Head) -> None:
    """Replace the head kept in a file, durably. The caller holds the lock of the chain."""
    create_private_folder(path.parent)
    replace_synced(path, head.to_bytes())


def _damaged() -> BackupError:
    return BackupError(
        "The file with the head of a chain is damaged.",
        "Move it away; the head is then taken from the catalogue. Run `manage.py backup rescan` afterwards.",
    )


@dataclass(frozen=True, kw_only=True)
class Link:
    """One manifest as a part of its chain: small, because a chain may have many thousands."""

    sequence: int
    digest: str
    previous: str | None
    backup: str
    pruned: tuple[Range, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that a chain must not show.

    ``gap``: numbers ``sequence`` to ``last`` are missing in the middle. ``cut``: they are missing
    at the end. ``broken``: the link at ``sequence`` does not name the one before. ``rolled_back``:
    it is not the manifest that the head knows. ``forked``: it has the number of another one, which
    the chain goes through.
    """

    kind: Literal["gap", "cut", "broken", "rolled_back", "forked"]
    sequence: int
    last: int
    backup: str = ""


def judge_chain(links: Iterable[Link], *, head: Head | None, pruned: Iterable[Range] = ()) -> list[Fault]:
    """What is wrong with the manifests of one database, whose signatures are right.

    ``pruned`` are numbers known to be deleted on purpose, beside those that the manifests and the
    head name.
    """
    spine, faults = _spine(links, head)
    gone = merged(pruned, head.pruned if head else (), *(link.pruned for link in spine))
    before: Link | None = None
    for link in spine:
        known = before.sequence if before else 0
        faults += _gaps("gap", known + 1, link.sequence - 1, gone)
        is_next = link.sequence == known + 1
        if is_next and link.previous != (before.digest if before else None):
            faults.append(Fault(kind="broken", sequence=link.sequence, last=link.sequence, backup=link.backup))
        before = link
    if head is None:
        return faults
    end = before.sequence if before else 0
    faults += _gaps("cut", end + 1, head.sequence, gone)
    if before is not None and end == head.sequence and before.digest != head.manifest_sha256:
        faults.append(Fault(kind="rolled_back", sequence=end, last=end, backup=before.backup))
    return faults


def chain_end(links: Iterable[Link]) -> Link | None:
    """The newest link, by number."""
    return max(links, key=lambda link: link.sequence, default=None)


def _spine(links: Iterable[Link], head: Head | None) -> tuple[list[Link], list[Fault]]:
    """One link per number, in order, and the others as faults."""
    by_number: dict[int, list[Link]] = {}
    for link in links:
        by_number.setdefault(link.sequence, []).append(link)
    wanted = {link.previous for twins in by_number.values() for link in twins}
    if head is not None:
        wanted.add(head.manifest_sha256)
    spine: list[Link] = []
    faults: list[Fault] = []
    for number in sorted(by_number):
        twins = by_number[number]
        chosen = next((link for link in twins if link.digest in wanted), twins[0])
        spine.append(chosen)
        faults += [
            Fault(kind="forked", sequence=number, last=number, backup=link.backup) for link in twins if link != chosen
        ]
    return spine, faults


def _gaps(kind: Literal["gap", "cut"], first: int, last: int, gone: tuple[Range, ...]) -> Iterator[Fault]:
    for start, end in without(first, last, gone):
        yield Fault(kind=kind, sequence=start, last=end)
