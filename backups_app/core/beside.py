"""What lies beside an archive file on a disk: its manifest, and the archives that it needs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath

from . import archive as archives
from . import manifest as manifests
from .archive import Keys, read_at_most
from .errors import InputError, NotFoundError, UnreachableError, VerificationError
from .links import Link
from .manifest import Manifest


def stem_beside(archive: Path) -> str:
    """What the names of all files of a backup begin with, from that of its archive or of its manifest."""
    return archives.stem_of(archive.name.removesuffix(manifests.SUFFIX))


def manifest_beside(archive: Path) -> Manifest | None:
    """The manifest stored beside an archive file, or that is one itself; ``None`` when there is none.

    Raises:
        VerificationError: there is one and it cannot be trusted.
    """
    if not archive.name:
        raise InputError(f"{archive} is not a file.", "Give the path of an archive.")
    path = archive.with_name(stem_beside(archive) + manifests.SUFFIX)
    try:
        with _opened(path, "manifest") as stream:
            return Manifest.from_bytes(read_at_most(stream, manifests.MAX_BYTES + 1))
    except NotFoundError:
        return None


def open_archive_file(archive: Path) -> AbstractContextManager[io.FileIO]:
    """Open a stored archive file for reading; reading errors become ``UnreachableError``.

    Raises:
        NotFoundError, InputError: no regular file is there.
    """
    return _opened(archive, "archive")


@contextmanager
def _opened(path: Path, what: str) -> Iterator[io.FileIO]:
    try:
        if path.is_dir() or (path.exists() and not path.is_file()):  # opening a FIFO would block
            raise InputError(f"{path} is not a file.", f"The {what} must be a plain file.")
        with open(path, "rb", buffering=0) as stream:
            yield stream
    except FileNotFoundError as exc:
        raise NotFoundError(f"There is no {what} at {path}.", "Check the path.") from exc
    except OSError as exc:
        raise UnreachableError(f"The {what} {path} cannot be read: {exc.strerror}.", "Check the disk.") from exc


def archive_beside(archive: Path, manifest: Manifest) -> Path:
    """The archive file of a manifest: ``archive`` when that is one, else the one that the manifest names.

    Raises:
        NotFoundError: it lies neither there nor where it was stored. VerificationError: its name is none.
    """
    if archive.exists() and not archive.name.endswith(manifests.SUFFIX):
        return archive
    return _find(manifest.archive_name, near=archive, needed_by=manifest)


def links_beside(archive: Path, manifest: Manifest, *, keys: Keys) -> list[Link]:
    """The archives that ``archive`` builds on, the full one first; none for a full one.

    They are looked for in its folder, and in the tree of the destination that it lies in.

    Raises:
        NotFoundError: one, or its manifest, is missing. VerificationError: a manifest cannot be trusted,
            or the chain has no end.
    """
    below: list[Link] = []
    here, each = archive, manifest
    while each.delta is not None:
        path = _find(each.delta.base_name, near=here, needed_by=manifest)
        base = manifest_beside(path)
        if base is None:
            raise NotFoundError(
                f"{archive.name} builds on {path.name}, which has no manifest beside it.", "Put it there."
            )
        if base.links_sha256 == each.links_sha256 or (base.delta and base.delta.position >= each.delta.position):
            raise VerificationError(f"The chain that {archive.name} builds on has no end.", "Treat it as altered.")
        below.append(Link(open_stored=partial(open_archive_file, path), manifest=base, keys=keys))
        here, each = path, base
    return below[::-1]


def _find(name: str, *, near: Path, needed_by: Manifest) -> Path:
    """The file of a stored name: in the folder of ``near``, or at its place in the tree around it."""
    parts = PurePosixPath(name).parts
    if not parts or any(part in ("..", "/") or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        raise VerificationError(f"The manifest of backup {needed_by.id} names no archive.", "Treat it as altered.")
    folder = near.absolute().parent
    roots = (folder, *folder.parents[: len(PurePosixPath(needed_by.archive_name).parts) - 1])
    for candidate in (folder / parts[-1], *(root / name for root in roots)):
        if candidate.is_file():
            return candidate
    raise NotFoundError(
        f"The archive {parts[-1]}, which backup {needed_by.id} needs, is not beside it.",
        "Put it, and its manifest, into the same folder.",
    )
