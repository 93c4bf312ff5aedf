"""What several tests share: databases, real writer processes, stored archives, disks.

Everything here is real: SQLite files, processes that are killed, mounted file systems. Nothing
imports Django.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from backups_app.core import archive as archives
from backups_app.core import manifest as manifests
from backups_app.core.archive import WrittenArchive, write_archive
from backups_app.core.beside import open_archive_file
from backups_app.core.create import CreatedArchive, CreateOptions, create_archive
from backups_app.core.manifest import Manifest
from backups_app.core.progress import Watch

PROJECT = Path(__file__).resolve().parent.parent
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


# Databases


@contextmanager
def connected(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in autocommit mode that is really closed."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def build(path: Path, script: str) -> Path:
    """Create a database by a script and close it."""
    with connected(path) as connection:
        connection.executescript(script)
    return path


SHOP = """
    CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    CREATE TABLE sale (id INTEGER PRIMARY KEY, product INTEGER REFERENCES product, note TEXT);
    CREATE INDEX sale_product ON sale (product);
    INSERT INTO product (name) VALUES ('apple'), ('pear'), ('plum');
    INSERT INTO sale (product, note) VALUES (1, 'first'), (2, 'second'), (3, NULL), (1, 'fourth');
"""


def build_shop(path: Path, *, journal_mode: str = "wal") -> Path:
    """A small database: 3 products, 4 sales."""
    return build(path, f"PRAGMA journal_mode={journal_mode}; {SHOP}")


def build_ledger(path: Path, *, journal_mode: str = "wal", filler_bytes: int = 0) -> Path:
    """The writer's database: in every committed state ``count(events) = counter.value``."""
    with connected(path) as connection:
        connection.execute(f"PRAGMA journal_mode={journal_mode}")
        connection.execute("PRAGMA synchronous=OFF")
        connection.executescript(
            """
            CREATE TABLE events (id INTEGER PRIMARY KEY, what TEXT);
            CREATE TABLE counter (value INTEGER NOT NULL);
            CREATE TABLE filler (id INTEGER PRIMARY KEY, payload BLOB);
            INSERT INTO counter VALUES (0);
            """
        )
        add_filler(connection, filler_bytes)
    return path


def add_filler(connection: sqlite3.Connection, size_bytes: int) -> None:
    """Fill table ``filler`` with blobs that compress a little."""
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        "INSERT INTO filler (payload) SELECT randomblob(2000) || zeroblob(1500) FROM n WHERE ? > 0",
        (max(1, size_bytes // 3600), size_bytes),
    )


def rows_of(path: Path) -> dict[str, int]:
    """Rows per ordinary table of a file that nobody writes, counted without the engine."""
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        names = [
            row[0]
            for row in connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
            )
        ]
        return {name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}


def content_of(path: Path) -> dict[str, object]:
    """The content of a file that nobody writes; see :func:`content_through`."""
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        return content_through(connection)


def content_through(connection: sqlite3.Connection) -> dict[str, object]:
    """Schema, pragmas and every row with storage class and exact bytes, read without the engine."""
    connection.text_factory = bytes
    schema = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY 1, 2").fetchall()
    content: dict[str, object] = {"schema": schema}
    for pragma in ("page_size", "encoding", "user_version", "application_id", "auto_vacuum"):
        content[pragma] = connection.execute(f"PRAGMA {pragma}").fetchone()
    for kind, name, _, _ in schema:
        if kind == b"table":
            table = identifier(name)
            columns = [identifier(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]
            types = [f"typeof({column})" for column in columns]
            found = connection.execute(f"SELECT {', '.join(columns + types)} FROM {table}")
            content[f"rows of {table}"] = sorted(repr(row) for row in found)
    return content


def identifier(name: bytes | str) -> str:
    """A name for use in SQL text."""
    text = name.decode() if isinstance(name, bytes) else name
    return '"' + text.replace('"', '""') + '"'


def integrity_of(path: Path) -> str:
    """What ``integrity_check`` says of a file that nobody writes."""
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def names_in(folder: Path) -> set[str]:
    """The names of everything in a folder, hidden files included."""
    return {each.name for each in folder.iterdir()}


def bytes_in(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content. Never for a folder that holds an open database."""
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


# Processes


def run_python(
    program: str, *arguments: object, check: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program text in a fresh interpreter that can import the project."""
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=check,
        timeout=120,
        **options,
    )


_WRITER = """
import sqlite3, sys, time
path, pause_seconds = sys.argv[1], float(sys.argv[2])
connection = sqlite3.connect(path, isolation_level=None, timeout=5)
connection.execute("PRAGMA synchronous=OFF")
done = 0
while True:
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO events (what) VALUES (?)", ("x" * 200,))
        connection.execute("UPDATE counter SET value = value + 1")
        connection.execute("COMMIT")
        done += 1
        print(done, flush=True)
    except sqlite3.Error as exc:
        print("refused", exc, flush=True)
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    time.sleep(pause_seconds)
"""


class Writer:
    """A process that commits to a ledger until it is killed, and says what was acknowledged."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def _lines(self) -> list[str]:
        return self._log.read_text().split("\n")[:-1]

    @property
    def acknowledged(self) -> int:
        """How many commits SQLite has acknowledged to the writer."""
        return max((int(line) for line in self._lines() if line.isdigit()), default=0)

    @property
    def refusals(self) -> list[str]:
        """The errors that the writer got."""
        return [line for line in self._lines() if not line.isdigit()]

    def wait_for(self, count: int, *, timeout_seconds: float = 20) -> int:
        """Wait until that many commits are acknowledged."""
        give_up_at = time.monotonic() + timeout_seconds
        while (found := self.acknowledged) < count:
            assert self.process.poll() is None, f"the writer ended: {self._lines()[-3:]}"
            assert time.monotonic() < give_up_at, f"the writer made {found} of {count} commits: {self.refusals[:3]}"
            time.sleep(0.005)
        return found

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()


@contextmanager
def writing(path: Path, *, per_second: float = 200) -> Iterator[Writer]:
    """A writer process on a ledger; it is dead when the block ends."""
    log = path.parent.parent / f"{path.parent.name}-writer.log"
    with open(log, "wb") as output:
        process = subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(1 / per_second)], stdout=output)
    writer = Writer(process, log)
    try:
        writer.wait_for(1)
        yield writer
    finally:
        writer.kill()


_HOLDER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("ready", flush=True)
time.sleep(600)
"""


@contextmanager
def holding(path: Path, *statements: str) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has run some statements and keeps its connection; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", _HOLDER, str(path), *statements], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def leave_behind(path: Path, *statements: str) -> None:
    """Run statements in a process that dies by SIGKILL, as a power cut would leave the files."""
    with holding(path, *statements):
        pass


# Archives


@dataclass(frozen=True)
class Stored:
    """An archive file with its manifest beside it, as a destination holds them."""

    archive: Path
    manifest: Manifest
    manifest_path: Path
    created: CreatedArchive

    def open(self) -> Any:
        """Open the archive for reading, as the engine's ``OpenStored``."""
        return open_archive_file(self.archive)


def manifest_of(written: WrittenArchive, created: CreatedArchive, *, name: str, **changed: Any) -> Manifest:
    """The manifest of an archive just created."""
    manifest = Manifest(
        id="0123456789ab",
        database="shop",
        identity="5e6f",
        created_at=NOW,
        taken_at=created.snapshot.taken_at,
        trigger="manual",
        archive_name=name,
        archive_bytes=written.archive_bytes,
        archive_sha256=written.archive_sha256,
        size_bytes=written.content_bytes,
        sha256=written.sha256,
        content_sha256=written.content_sha256,
        census=created.snapshot.census,
        journal_mode=created.snapshot.journal_mode,
        method=created.snapshot.method,
        software={"django-walsafe": "0"},
    )
    return replace(manifest, **changed)


def store(source: Path, folder: Path, *, name: str = "shop", **changed: Any) -> Stored:
    """Create an archive of ``source`` and put it into ``folder`` with its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / "scratch"
    scratch.mkdir()
    created = create_archive(source, scratch, options=CreateOptions(), watch=Watch())
    archive = folder / f"{name}{archives.SUFFIX}"
    created.archive.path.rename(archive)
    scratch.rmdir()
    manifest = manifest_of(created.archive, created, name=archive.name, **changed)
    manifest_path = folder / f"{name}{manifests.SUFFIX}"
    manifest_path.write_bytes(manifest.to_bytes())
    return Stored(archive=archive, manifest=manifest, manifest_path=manifest_path, created=created)


def compressed(content: Path, archive: Path) -> WrittenArchive:
    """Compress any file as the engine would, in place of an archive that is there."""
    archive.unlink(missing_ok=True)
    return write_archive(content, archive, watch=Watch())


def opener(stream: Callable[[], BinaryIO]) -> Callable[[], Any]:
    """``OpenStored`` over a function that makes a stream."""

    @contextmanager
    def opened() -> Iterator[BinaryIO]:
        with closing(stream()) as each:
            yield each

    return opened


# The machine


def needs_tool(name: str) -> str:
    """The path of a stock tool. Where continuous integration runs, a missing tool is a failure."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{name} is not installed; continuous integration must have it")
        pytest.skip(f"{name} is not installed")
    return found


@contextmanager
def mounted_tmpfs(folder: Path, *, size_bytes: int) -> Iterator[Path]:
    """A small disk of its own. Skips, with the reason, where mounting is not permitted."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={size_bytes},mode=0755", "tmpfs"):
        yield folder


@contextmanager
def mounted_again(source: Path, folder: Path) -> Iterator[Path]:
    """A folder once more in another place, as a container has its volumes. Skips as :func:`mounted_tmpfs`."""
    with _mounted(folder, "--bind", str(source)):
        yield folder


@contextmanager
def _mounted(folder: Path, *arguments: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    mount = shutil.which("mount")
    command = [str(mount), *arguments, str(folder)]
    if mount is None or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not permitted here; the tests without a mount cover the same promise")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
