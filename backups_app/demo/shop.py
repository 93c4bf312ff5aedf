"""The sample site's tables, and the process that keeps writing to them.

Run as ``python -m backups_app.demo.shop PATH``: it fills the tables, says ``ready`` on stdout and
keeps its connection open, as a web server does. After a line on stdin it adds an order a second.
It ends when stdin closes, so it never outlives its parent.
"""

from __future__ import annotations

import os
import random
import select
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

SCHEMA = """
CREATE TABLE shop_customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, city TEXT NOT NULL);
CREATE TABLE shop_product (id INTEGER PRIMARY KEY, title TEXT NOT NULL, price_cents INTEGER NOT NULL);
CREATE TABLE shop_order (
    id INTEGER PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES shop_customer(id),
    product_id INTEGER NOT NULL REFERENCES shop_product(id),
    quantity INTEGER NOT NULL,
    placed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX shop_order_customer ON shop_order(customer_id);
"""
CUSTOMERS, PRODUCTS, ORDERS = 400, 60, 3000

_FIRST = ("Ada", "Eleni", "Grace", "Kostas", "Linus", "Maria", "Nikos", "Sofia")
_CITIES = ("Athens", "Berlin", "Lisbon", "Oslo", "Patras", "Turin")
_GOODS = ("Lamp", "Chair", "Kettle", "Notebook", "Clock", "Basket")


def create_schema(path: Path) -> None:
    """Create the tables and checkpoint, so that the main file holds the schema and nothing else."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(SCHEMA)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def fill(connection: sqlite3.Connection) -> None:
    """Add the sample rows in many small commits, as visitors of a site would."""
    rng = random.Random(7)  # noqa: S311 - sample data  # nosec B311
    with connection:
        connection.executemany(
            "INSERT INTO shop_customer(name, city) VALUES (?, ?)",
            ((rng.choice(_FIRST), rng.choice(_CITIES)) for _ in range(CUSTOMERS)),
        )
        connection.executemany(
            "INSERT INTO shop_product(title, price_cents) VALUES (?, ?)",
            ((f"{rng.choice(_GOODS)} {number}", rng.randrange(300, 90_000)) for number in range(PRODUCTS)),
        )
    for _ in range(ORDERS // 100):
        with connection:
            for _ in range(100):
                add_order(connection, rng)


def add_order(connection: sqlite3.Connection, rng: random.Random) -> None:
    """Add one order; the caller commits."""
    connection.execute(
        "INSERT INTO shop_order(customer_id, product_id, quantity) VALUES (?, ?, ?)",
        (rng.randint(1, CUSTOMERS), rng.randint(1, PRODUCTS), rng.randint(1, 5)),
    )


def main() -> None:
    """Fill, say ready, wait, then write until stdin closes."""
    rng = random.Random()  # noqa: S311 - sample data  # nosec B311
    with closing(sqlite3.connect(sys.argv[1], timeout=10)) as connection:
        fill(connection)
        try:
            os.write(sys.stdout.fileno(), b"ready\n")
        except BrokenPipeError:  # the demo ended meanwhile
            return
        if not sys.stdin.readline():
            return
        while not select.select([sys.stdin], [], [], 1.0)[0]:
            with connection:
                add_order(connection, rng)


if __name__ == "__main__":
    main()
