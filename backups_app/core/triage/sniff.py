"""What a file is, from its first bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..legacy import looks_like_container

HEAD_BYTES = 4096
SQLITE_MAGIC = b"SQLite format 3\x00"

Kind = Literal["nothing", "sqlite", "gzip", "zstd", "age", "legacy enc", "zip", "other"]


@dataclass(frozen=True)
class Sniffed:
    """A kind of content that has a judge of its own, or the verdict on what has none."""

    kind: Kind
    format: str
    reason: str = ""
    is_judged: bool = True


_KEEP_DUMP = "It is a PostgreSQL dump, not an SQLite database. It may hold data: keep it, and read it with"

# Beginnings of what is known and not judged here.
_OTHERS = (
    (b"PGDMP", Sniffed("other", "postgresql dump", f"{_KEEP_DUMP} pg_restore.")),
    (
        b"-----BEGIN AGE ENCRYPTED FILE-----",
        Sniffed("other", "armored age", "It is age in text form: decode it to the binary form first.", is_judged=False),
    ),
    (b"\x37\x7f\x06\x82", Sniffed("other", "sqlite wal", "It is the write-ahead log of an SQLite database.")),
    (b"\x37\x7f\x06\x83", Sniffed("other", "sqlite wal", "It is the write-ahead log of an SQLite database.")),
    (
        b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",
        Sniffed("other", "sqlite journal", "It is the rollback journal of an SQLite database."),
    ),
    (b"BZh", Sniffed("other", "bzip2", "It is compressed with bzip2, which is not read here.", is_judged=False)),
    (b"\xfd7zXZ\x00", Sniffed("other", "xz", "It is compressed with xz, which is not read here.", is_judged=False)),
    (b"7z\xbc\xaf\x27\x1c", Sniffed("other", "7z", "It is a 7z archive, which is not read here.", is_judged=False)),
)


def sniff(head: bytes, *, size_bytes: int | None = None) -> Sniffed:
    """What content that begins with ``head`` (its first ``HEAD_BYTES``, or all of it) is."""
    if not head:
        return Sniffed("nothing", "no bytes")
    if head.startswith(SQLITE_MAGIC) or (len(head) >= 6 and SQLITE_MAGIC.startswith(head)):
        return Sniffed("sqlite", "sqlite")
    if head.startswith(b"\x1f\x8b"):
        return Sniffed("gzip", "gzip")
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F):
        return Sniffed("zstd", "zstd")
    if head.startswith(b"age-encryption.org/v1\n"):
        return Sniffed("age", "age")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Sniffed("zip", "zip")
    for beginning, sniffed in _OTHERS:
        if head.startswith(beginning):
            return sniffed
    if looks_like_container(head, size_bytes=size_bytes):
        return Sniffed("legacy enc", "legacy enc")
    return _unknown(head)


def _unknown(head: bytes) -> Sniffed:
    if head[257:262] == b"ustar":
        return Sniffed("other", "tar", "It is a tar archive, which is not read here.", is_judged=False)
    if b"-- PostgreSQL database dump" in head:
        return Sniffed("other", "postgresql text dump", f"{_KEEP_DUMP} psql.")
    if not any(head):
        return Sniffed("other", "unknown", "It begins with zero bytes where a database has its header.")
    if not _is_text(head):
        return Sniffed("other", "unknown", "Its first bytes are those of no format that is known here.")
    if b"CREATE TABLE" in head.upper():
        return Sniffed("other", "sql text", "It is an SQL script, not a database file. It may hold data: keep it.")
    return Sniffed("other", "text", "It is a text file.")


def _is_text(head: bytes) -> bool:
    try:
        head[: HEAD_BYTES - 4].decode()  # the last letter may be cut
    except UnicodeDecodeError as exc:
        return exc.start >= len(head) - 4 and b"\0" not in head
    return b"\0" not in head
