"""Archives as other systems leave them behind: naive copies, encrypted containers, ZIPs.

Nothing here imports Django.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.support import connected

SITE = """
    CREATE TABLE django_migrations (id INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT, name TEXT, applied DATETIME);
    CREATE TABLE django_content_type (id INTEGER PRIMARY KEY, app_label TEXT, model TEXT);
    CREATE TABLE auth_permission (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE auth_user (id INTEGER PRIMARY KEY, username TEXT, last_login DATETIME, date_joined DATETIME);
    CREATE TABLE shop_sale (id INTEGER PRIMARY KEY, amount INTEGER, created_at DATETIME);
    CREATE INDEX shop_sale_created ON shop_sale (created_at);
"""
MIGRATED = """
    INSERT INTO django_migrations (app, name, applied) VALUES ('shop', '0001_initial', '2026-01-01 00:00:00');
    INSERT INTO django_content_type (app_label, model) VALUES ('shop', 'sale');
    INSERT INTO auth_permission (name) VALUES ('Can add sale'), ('Can view sale');
"""
DATA = """
    INSERT INTO auth_user (username, last_login, date_joined)
        VALUES ('admin', '2026-02-03 04:05:06.789000', '2025-01-01 00:00:00');
    INSERT INTO shop_sale (amount, created_at) VALUES (5, '2026-02-01 10:00:00'), (7, NULL);
"""
DATA_ROWS, ALL_ROWS, NEWEST = 3, 7, "2026-02-03T04:05:06.789000Z"


@contextmanager
def open_site(path: Path, *, checkpointed: str) -> Iterator[sqlite3.Connection]:
    """A site's WAL database with somebody connected; only ``checkpointed`` has reached the main file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        connection.executescript(checkpointed)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        yield connection


def naive_copy(folder: Path, target: Path, *, checkpointed: str, in_wal: str = MIGRATED + DATA) -> Path:
    """What the old backup button made: the main file alone, while the site was connected."""
    live = folder / "live.db"
    with open_site(live, checkpointed=checkpointed) as connection:
        connection.executescript(in_wal)
        shutil.copy2(live, target)
    remove_live(folder)
    return target


def copy_with_wal(folder: Path, target: Path) -> Path:
    """The main file and its -wal, taken together while the site was connected."""
    live = folder / "live.db"
    with open_site(live, checkpointed=SITE) as connection:
        connection.executescript(MIGRATED + DATA)
        shutil.copy2(live, target)
        shutil.copy2(f"{live}-wal", f"{target}-wal")
    remove_live(folder)
    return target


def good_copy(folder: Path, target: Path) -> Path:
    """What the fixed button made: a copy by SQLite's backup API."""
    live = folder / "live.db"
    with open_site(live, checkpointed=SITE) as connection:
        connection.executescript(MIGRATED + DATA)
        with connected(target) as destination:
            connection.backup(destination)
    remove_live(folder)
    return target


def remove_live(folder: Path) -> None:
    """Remove the live database of a builder."""
    for name in ("live.db", "live.db-wal", "live.db-shm"):
        (folder / name).unlink(missing_ok=True)


def legacy_container(content: bytes, key: bytes, *, metadata: dict[str, Any] | bytes | None = None) -> bytes:
    """The bytes of an ``.enc`` file, as the old system wrote it."""
    if metadata is None:
        metadata = {"version": 1, "algorithm": "AES-256-GCM", "original_size": len(content)}
    header = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    salt, nonce = os.urandom(16), os.urandom(12)
    package = salt + nonce + AESGCM(key).encrypt(nonce, content, header)
    return struct.pack(">IH", len(package), len(header)) + header + package


def flipped(content: bytes, at: int) -> bytes:
    """``content`` with one bit changed."""
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)
