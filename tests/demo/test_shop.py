"""The sample site: rows in the ``-wal`` only, and a writer that never outlives its parent."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from backups_app.demo import shop
from tests.console import wait_until
from tests.demo.processes import processes_naming
from tests.support import PROJECT, connected, integrity_of, names_in, rows_of

EMPTY = {"shop_customer": 0, "shop_product": 0, "shop_order": 0}
FULL = {"shop_customer": shop.CUSTOMERS, "shop_product": shop.PRODUCTS, "shop_order": shop.ORDERS}


def naive_copy(path: Path) -> Path:
    """The main file alone, copied by another process."""
    target = path.with_name(f"naive-{random.getrandbits(40)}.sqlite3")
    subprocess.run([sys.executable, "-c", "import shutil, sys; shutil.copy2(*sys.argv[1:])", path, target], check=True)
    return target


def orders_in(path: Path) -> int:
    with connected(path) as connection:
        return int(connection.execute("SELECT count(*) FROM shop_order").fetchone()[0])


@contextmanager
def writer_on(path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "backups_app.demo.shop", str(path)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def test_the_schema_lies_in_the_main_file_alone(tmp_path: Path):
    path = tmp_path / "shop.sqlite3"
    shop.create_schema(path)
    assert names_in(tmp_path) == {"shop.sqlite3"}
    assert rows_of(path) == EMPTY
    with connected(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_while_the_connection_is_open_the_rows_are_in_the_wal_only(tmp_path: Path):
    path = tmp_path / "shop.sqlite3"
    shop.create_schema(path)
    with closing(sqlite3.connect(path)) as connection:
        shop.fill(connection)
        assert path.with_name("shop.sqlite3-wal").stat().st_size > 100_000
        copy = naive_copy(path)
        assert rows_of(copy) == EMPTY
        assert integrity_of(copy) == "ok", "that is why nobody notices"
    shutil.copy2(path, tmp_path / "later.sqlite3")
    assert rows_of(tmp_path / "later.sqlite3") == FULL, "the last closing checkpoints: the fault hides in quiet tests"


def test_the_sample_is_the_same_each_time_and_its_keys_hold(tmp_path: Path):
    contents = []
    for name in ("one.sqlite3", "two.sqlite3"):
        shop.create_schema(tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            shop.fill(connection)
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            columns = "customer_id, product_id, quantity"
            contents.append(connection.execute(f"SELECT {columns} FROM shop_order ORDER BY id").fetchall())
    assert contents[0] == contents[1]
    assert len(contents[0]) == shop.ORDERS


def test_the_writer_holds_its_rows_in_the_wal_and_is_quiet_until_told(tmp_path: Path):
    path = tmp_path / "shop.sqlite3"
    shop.create_schema(path)
    with writer_on(path) as writer:
        assert rows_of(naive_copy(path)) == EMPTY
        assert orders_in(path) == shop.ORDERS
        assert writer.poll() is None
    assert writer.returncode == 0
    assert orders_in(path) == shop.ORDERS


def test_the_writer_adds_orders_once_it_is_told_and_ends_when_its_input_does(tmp_path: Path):
    path = tmp_path / "shop.sqlite3"
    shop.create_schema(path)
    with writer_on(path) as writer:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
        wait_until(lambda: orders_in(path) >= shop.ORDERS + 2)
    assert writer.returncode == 0


def test_the_writer_ends_in_silence_when_nobody_waits_for_it(tmp_path: Path):
    path = tmp_path / "shop.sqlite3"
    shop.create_schema(path)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "backups_app.demo.shop", str(path)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert (finished.returncode, finished.stderr) == (0, b"")


def test_the_writer_ends_when_its_parent_is_killed(tmp_path: Path):
    path = tmp_path / "shop.sqlite3"
    shop.create_schema(path)
    program = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'backups_app.demo.shop', sys.argv[1]], "
        "stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)\n"
        "child.stdout.readline(); child.stdin.write('go\\n'); child.stdin.flush()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, path], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert child in processes_naming(path)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not processes_naming(path))
    assert integrity_of(path) == "ok"
