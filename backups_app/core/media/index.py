"""The list at the end of a media archive: one line of canonical JSON for each member.

The first line has the type and says where the folders were, the last one counts. Names that are
not UTF-8 are escapes of surrogates, so the file is plain ASCII and one line is one member. Its
SHA-256 is in the manifest, so it stands for every file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .tar import Member

NAME = "walsafe-media-index.jsonl"
"""The last member of the tar. No folder is ever stored under this name."""

TYPE = "django-walsafe/media-index"
FORMAT = 1

MAX_LINE_BYTES = 128 << 10
"""A path and a target of the greatest length, escaped, and more."""

_MAX_LABEL_BYTES = 240  # a name has 255, and a number may follow


@dataclass(kw_only=True)
class Counts:
    """How much there is of each kind."""

    files: int = 0
    folders: int = 0
    links: int = 0
    content_bytes: int = 0

    def add(self, member: Member) -> None:
        """Count one more."""
        if member.kind == "file":
            self.files += 1
            self.content_bytes += member.size_bytes
        elif member.kind == "folder":
            self.folders += 1
        else:
            self.links += 1

    def __str__(self) -> str:
        return f"{self.files:,} files with {self.content_bytes:,} bytes, {self.folders:,} folders, {self.links:,} links"


@dataclass(frozen=True, kw_only=True)
class Root:
    """A folder under care and its name in the archive."""

    label: str
    path: Path


def roots_of(folders: Sequence[Path]) -> list[Root]:
    """The folders in the order of the archive, each with a label of its own: its name, numbered when taken."""
    roots: list[Root] = []
    taken = {NAME}
    for path in folders:
        name = path.name.encode("utf-8", "surrogateescape")[:200].decode("utf-8", "replace") or "root"
        name = name.encode()[:_MAX_LABEL_BYTES].decode("utf-8", "ignore")  # a byte became three
        label, number = name, 1
        while label in taken:
            number += 1
            label = f"{name}-{number}"
        taken.add(label)
        roots.append(Root(label=label, path=path))
    return sorted(roots, key=lambda root: root.label.encode("utf-8", "surrogateescape"))


def head_line(roots: Sequence[Root]) -> bytes:
    """The first line."""
    folders = [{"name": root.label, "path": str(root.path)} for root in roots]
    return _line({"type": TYPE, "format": FORMAT, "folders": folders})


def member_line(member: Member, *, sha256: str = "", is_changed: bool = False) -> bytes:
    """The line of one member; ``is_changed`` when it was written to while it was read."""
    fields: dict[str, object] = {
        "kind": member.kind,
        "mode": member.mode,
        "mtime_ns": member.mtime_ns,
        "path": member.path,
    }
    if member.kind == "file":
        fields |= {"bytes": member.size_bytes, "sha256": sha256}
        if is_changed:
            fields["changed"] = True
    elif member.kind == "link":
        fields["target"] = member.target
    return _line(fields)


def foot_line(counts: Counts) -> bytes:
    """The last line."""
    return _line(
        {
            "files": counts.files,
            "folders": counts.folders,
            "links": counts.links,
            "bytes": counts.content_bytes,
        }
    )


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii") + b"\n"


CHANGED = b'"changed":true,'
"""How a line says that its file was written to while it was read."""
