"""What is stored of the archives of a destination: each is read once in a rescan, however many backups need it."""

from __future__ import annotations

from functools import partial

from ...core.errors import UnreachableError
from ...core.manifest import Manifest, Media
from ...core.media.unpack import verify_media_quick
from ...core.progress import Watch
from ...core.verify import failures, hash_stored, reason_of
from ...destinations import Destination
from .known import stem_of
from .store import Listing, Objects, read_manifest


class Archives:
    """The archives of one destination, as they were listed."""

    def __init__(self, destination: Destination, listing: Listing, *, watch: Watch) -> None:
        self._destination = destination
        self._listing = listing
        self._watch = watch
        self._read: dict[str, tuple[int, str] | UnreachableError] = {}
        """Archive → its bytes and their SHA-256, or why they cannot be had."""
        self._bases: dict[str, Manifest | None] = {}

    def problem(self, manifest: Manifest, objects: Objects) -> tuple[str, str]:
        """Code and reason of what is wrong with the archives of a backup; two empty texts when they are right."""
        code, problem = self._chain_problem(manifest)
        if not problem and manifest.media is not None:
            return self._media_problem(manifest.media, objects)
        return code, problem

    def code_of_absent(self, manifest: Manifest, objects: Objects) -> str:
        """The finding about archives that cannot be read: they are not there, or their store does not answer."""
        is_there = self._is_listed(manifest.archive_name) and (manifest.media is None or bool(objects.media))
        return "unreachable" if is_there else "archive_deleted"

    def _chain_problem(self, manifest: Manifest) -> tuple[str, str]:
        """The same for the archive of the database; what it builds on is part of it."""
        code, problem = self._own_problem(manifest)
        each = manifest
        while not problem and each.delta is not None:
            base, delta = self._manifest_of(each.delta.base_name), each.delta
            if base is None or (base.delta is not None and base.delta.position >= delta.position):
                code, problem = "archive_deleted", "its manifest is not there, or is none"
            elif (base.archive_sha256, base.sha256) != (delta.base_archive_sha256, delta.base_sha256):
                code, problem = "archive_replaced", "another one lies in its place"
            else:
                code, problem = self._own_problem(base)
                each = base
            if problem:
                problem = f"It builds on backup {delta.base}: {problem}"
        return code, problem

    def _own_problem(self, manifest: Manifest) -> tuple[str, str]:
        name = manifest.archive_name
        if name not in self._read:
            self._read[name] = self._read_archive(name)
        found = self._read[name]
        if isinstance(found, UnreachableError):
            return ("unreachable" if self._is_listed(name) else "archive_deleted"), found.message
        if found != (manifest.archive_bytes, manifest.archive_sha256):
            written = f"{manifest.archive_bytes:,} bytes with SHA-256 {manifest.archive_sha256}"
            return "archive_replaced", f"stored bytes: {found[0]:,} with SHA-256 {found[1]}, {written} were written"
        return "", ""

    def _read_archive(self, name: str) -> tuple[int, str] | UnreachableError:
        try:
            return hash_stored(partial(self._destination.open, name), total_bytes=0, watch=self._watch)
        except UnreachableError as exc:
            return exc

    def _manifest_of(self, name: str) -> Manifest | None:
        """The manifest of the archive that another one builds on."""
        if name not in self._bases:
            try:
                self._bases[name] = read_manifest(self._destination, stem_of(name)).manifest
            except UnreachableError:
                self._bases[name] = None
        return self._bases[name]

    def _is_listed(self, name: str) -> bool:
        objects = self._listing.stems.get(stem_of(name))
        return objects is not None and bool(objects.archive)

    def _media_problem(self, media: Media, objects: Objects) -> tuple[str, str]:
        """The same for the archive of the folders, which no other backup shares."""
        try:
            checks = verify_media_quick(partial(self._destination.open, media.name), media, watch=self._watch)
        except UnreachableError as exc:
            return ("unreachable" if objects.media else "archive_deleted"), exc.message
        return ("archive_replaced", reason_of(checks)) if failures(checks) else ("", "")
