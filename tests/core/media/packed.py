"""An archive of folders, and what to compare it with: the folders themselves, read without the engine."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from backports import zstd

from backups_app.core.archive import MEDIA_SUFFIX, Keys
from backups_app.core.extract import open_archive_file
from backups_app.core.manifest import Media
from backups_app.core.media.index import NAME
from backups_app.core.media.pack import PackedMedia, pack_folders
from backups_app.core.media.unpack import Unpacked, extracting_media, verify_media_full
from backups_app.core.progress import Watch
from backups_app.core.verify import NO_KEYS, Check


@dataclass(frozen=True)
class Packed:
    """An archive file and the facts of it."""

    archive: Path
    made: PackedMedia
    facts: Media
    encryption: str | None

    def open(self) -> Any:
        return open_archive_file(self.archive)

    def verify(self, scratch: Path, *, keys: Keys = NO_KEYS) -> list[Check]:
        """All checks of ``full``."""
        return verify_media_full(
            self.open, self.facts, encryption=self.encryption, scratch=scratch, watch=Watch(), keys=keys
        )

    def extract(self, target: Path, *, keys: Keys = NO_KEYS, watch: Watch | None = None) -> Unpacked:
        with extracting_media(
            self.open, self.facts, target, encryption=self.encryption, watch=watch or Watch(), keys=keys
        ) as unpacked:
            return unpacked

    def tar(self) -> bytes:
        """The tar inside a plain archive."""
        return zstd.decompress(self.archive.read_bytes())

    def index(self) -> list[dict[str, Any]]:
        """The lines of the index inside."""
        with tarfile.open(fileobj=BytesIO(self.tar())) as tar:
            member = tar.extractfile(NAME)
            assert member is not None
            return [json.loads(line) for line in member.read().splitlines()]


def pack(folders: list[Path], store: Path, **options: Any) -> Packed:
    """Pack folders into a store."""
    store.mkdir()
    archive = store / f"shop{MEDIA_SUFFIX}"
    made = pack_folders(folders, archive, watch=options.pop("watch", Watch()), **options)
    encryption = "age" if options.get("recipients") else None
    return Packed(archive=archive, made=made, facts=made.facts(archive.name), encryption=encryption)


def tree_of(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below a folder: kind, permission bits, time in nanoseconds, and content or target."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        key = os.fsencode(path.relative_to(folder))
        if path.is_symlink():
            found[key] = ("link", status.st_mtime_ns, os.fsencode(path.readlink()))
        elif path.is_dir():
            found[key] = ("folder", status.st_mode & 0o777, status.st_mtime_ns)
        else:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[key] = ("file", status.st_mode & 0o777, status.st_mtime_ns, status.st_size, digest)
    return found


def left_in(folder: Path) -> list[str]:
    """What is left of temporary files and folders, hidden ones included."""
    return sorted(each.name for each in folder.iterdir() if each.name.startswith("."))
