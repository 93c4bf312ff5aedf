"""A chain of archives on a disk, made by the engine without a catalogue."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from backups_app.core import manifest as manifests
from backups_app.core.age import SUFFIX as AGE_SUFFIX
from backups_app.core.age import Recipient
from backups_app.core.archive import DELTA_SUFFIX, ENCRYPTION, SUFFIX, Keys
from backups_app.core.beside import open_archive_file
from backups_app.core.create import (
    CreatedArchive,
    CreateOptions,
    Previous,
    Unchanged,
    create_unless_unchanged,
    prove_stored,
)
from backups_app.core.links import Link
from backups_app.core.manifest import Manifest
from backups_app.core.progress import Watch
from backups_app.core.signature import PublicKey
from backups_app.core.verify import NO_KEYS, Check
from tests.support import manifest_of

_KEY = PublicKey(bytes.fromhex("302a300506032b6570032100") + bytes(range(32)))


@dataclass(kw_only=True)
class Chain:
    """Backups of one database, each made as the service makes it."""

    folder: Path
    longest: int = 100
    recipients: Sequence[Recipient] = ()
    keys: Keys = NO_KEYS
    manifests: list[Manifest] = field(default_factory=list)
    previous: Previous | None = None
    is_reusing: bool = False

    @property
    def kept(self) -> Path:
        """Where the page digests are kept."""
        return self.folder / "state" / "shop.pages"

    @property
    def scratch(self) -> Path:
        """A private folder, empty between two calls."""
        return self.folder / "scratch"

    def create(self, source: Path) -> CreatedArchive | Unchanged:
        """Make an archive in scratch, or find that nothing has changed."""
        self.scratch.mkdir(parents=True, exist_ok=True)
        options = CreateOptions(
            previous=self.previous,
            is_reusing=self.is_reusing,
            longest_chain=self.longest,
            kept_digests=self.kept,
            recipients=self.recipients,
        )
        return create_unless_unchanged(source, self.scratch, options=options, watch=Watch())

    def add(self, source: Path) -> Manifest:
        """Back up ``source``, prove what is stored, and keep what the next one needs."""
        created = self.create(source)
        assert isinstance(created, CreatedArchive)
        return self.keep(created)

    def keep(self, created: CreatedArchive) -> Manifest:
        """Store an archive just made."""
        number = len(self.manifests) + 1
        suffix = DELTA_SUFFIX if created.delta else SUFFIX
        name = f"shop-{number:04}{suffix}{AGE_SUFFIX if self.recipients else ''}"
        path = self.folder / name
        path.hardlink_to(created.archive.path)
        assert all(check.ok for check in self.prove(created, path))
        manifest = manifest_of(created.archive, created, name=name, id=f"{number:012x}", delta=created.delta)
        manifest = signed(manifest, sequence=number, previous=self.manifests[-1] if self.manifests else None)
        if self.recipients:
            manifest = replace(manifest, encryption=ENCRYPTION)
        (self.folder / f"shop-{number:04}{manifests.SUFFIX}").write_bytes(manifest.to_bytes())
        if created.pages is not None:
            created.pages.keep(self.kept, backup=manifest.id, archive_sha256=manifest.archive_sha256)
            created.pages.path.unlink()
        created.archive.path.unlink()
        self.manifests.append(manifest)
        before = self.previous
        is_delta = created.delta is not None and before is not None
        self.previous = Previous(
            backup=manifest.id,
            archive_name=name,
            archive_bytes=manifest.archive_bytes,
            archive_sha256=manifest.archive_sha256,
            size_bytes=manifest.size_bytes,
            sha256=manifest.sha256,
            content_sha256=manifest.content_sha256,
            census=manifest.census,
            links_sha256=manifest.links_sha256,
            position=created.delta.position if created.delta else 0,
            full_bytes=before.full_bytes if is_delta and before else manifest.archive_bytes,
            deltas_bytes=before.deltas_bytes + manifest.archive_bytes if is_delta and before else 0,
        )
        return manifest

    def prove(self, created: CreatedArchive, path: Path) -> list[Check]:
        """Read a stored archive back."""
        return prove_stored(partial(open_archive_file, path), created.archive, watch=Watch(), made=created)

    def path(self, number: int) -> Path:
        """The archive of the backup with a number, from 1."""
        return self.folder / self.manifests[number - 1].archive_name

    def link(self, number: int) -> Link:
        """One stored archive."""
        return Link(
            open_stored=partial(open_archive_file, self.path(number)),
            manifest=self.manifests[number - 1],
            keys=self.keys,
        )

    def below(self, number: int) -> list[Link]:
        """What the backup with a number builds on."""
        delta = self.manifests[number - 1].delta
        return [self.link(each) for each in range(number - delta.position, number)] if delta else []


def signed(manifest: Manifest, *, sequence: int, previous: Manifest | None) -> Manifest:
    """The manifest at its place in a chain, with the key that the tests name."""
    return replace(
        manifest,
        sequence=sequence,
        previous=manifests.digest(previous.to_bytes()) if previous else None,
        public_key=_KEY.text,
    )


def build_pages(path: Path, *, rows: int = 400, page_size: int = 4096) -> Path:
    """A database of many pages, with nobody connected."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(f"PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL;")
        connection.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body BLOB)")
        insert(connection, rows)
    return path


def insert(connection: sqlite3.Connection, rows: int, *, size: int = 1500) -> None:
    """Add rows that do not compress."""
    connection.executemany("INSERT INTO note (body) VALUES (randomblob(?))", [(size,)] * rows)


def change(path: Path, *statements: str) -> None:
    """Run statements, and leave nobody connected."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement).fetchall()
