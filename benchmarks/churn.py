"""One hour of a site's work on the sample database, the same for everybody who measures it.

Of all purchases, a given share is touched: half are new ones with their event, as many old events are
deleted, a quarter are changed among the newest tenth, and a quarter anywhere. The size stays about the
same. New rows are written at the end of tables and all over the indexes, as in ordinary sites.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path


def work_an_hour(path: Path, *, hour: int, share: float, seed: int = 1) -> int:
    """Change the sample database at ``path``; returns how many rows were written or deleted."""
    rng = random.Random(f"{seed}:{hour}")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        last, rows = connection.execute("SELECT max(id), count(*) FROM purchase").fetchone()
        oldest = connection.execute("SELECT min(id) FROM event").fetchone()[0]
        touched = max(4, int(rows * share))
        connection.execute("BEGIN")
        for number in range(last + 1, last + 1 + touched // 2):
            digest = hashlib.sha256(f"{seed}:{number}".encode()).hexdigest()
            moment = f"2026-{1 + hour % 12:02}-{1 + hour % 28:02}T{hour % 24:02}:00:00Z"
            customer = rng.randrange(last)
            connection.execute(
                "INSERT INTO purchase VALUES (?,?,?,?,?)",
                (number, customer - customer % 10 + 1, moment, rng.randrange(100_000), _detail(rng)),
            )
            connection.execute("INSERT INTO event VALUES (?,?,?,?,?)", (number, number, "sold", digest, _detail(rng)))
        for number in range(touched // 4):
            first = last - last // 10 if number % 2 else 1
            change = (rng.randrange(100_000), _detail(rng), rng.randrange(first, last))
            connection.execute("UPDATE purchase SET total = ?, detail = ? WHERE id = ?", change)
        deleted = connection.execute("DELETE FROM event WHERE id < ?", (oldest + touched // 2,)).rowcount
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return touched // 2 * 2 + touched // 4 + int(deleted)


def _detail(rng: random.Random) -> str:
    return json.dumps({"note": rng.randbytes(90).hex(), "lines": [{"sku": rng.randbytes(8).hex(), "n": 1}]})
