"""A PostgreSQL server of our own: Debian's programs, a folder that is thrown away, loopback only.

``python -m tests.postgres`` runs one until Ctrl-C, and prints its address for WALSAFE_TEST_CATALOG_URL.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PASSWORD = "p@ss/word:#1"
PASSWORD_IN_URL = "p%40ss%2Fword%3A%231"


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def programs() -> Path | None:
    """The folder with ``postgres`` and ``initdb``, the newest version's; None where there is none."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    found = sorted(versions, key=lambda path: int(path.parent.parent.name))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return Path(on_path).resolve().parent if on_path else None


@dataclass
class Postgres:
    """A running server."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]
    names: list[str] = field(default_factory=list)

    def url(self, name: str = "postgres", *, password: str = PASSWORD_IN_URL) -> str:
        """The address of one of its databases."""
        return f"postgresql://walsafe:{password}@127.0.0.1:{self.port}/{name}"

    def run(self, statement: str, *, name: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement of our own, outside of a transaction; its rows."""
        import psycopg

        with psycopg.connect(self.url(name), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def new_database(self) -> str:
        """Make an empty database; its address."""
        name = f"catalog_{len(self.names) + 1}"
        self.names.append(name)
        self.run(f'CREATE DATABASE "{name}"')
        return self.url(name)


def _unprivileged() -> dict[str, Any]:
    """As whom to run it: the server refuses root."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise RuntimeError("There is no unprivileged account to run PostgreSQL as.")


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A fresh server with a superuser ``walsafe``; ended, and its folder removed, when the block ends."""
    bin_folder = programs()
    assert bin_folder is not None, "PostgreSQL is not installed (Debian: apt-get install postgresql)"
    account = _unprivileged()
    folder = Path(tempfile.mkdtemp(prefix="walsafe-postgres-"))
    process = None
    try:
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if account:
            for path in (folder, secret):
                os.chown(path, account["user"], account["group"])
        options: dict[str, Any] = {"cwd": folder, "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, **account}
        arguments = ["--username=walsafe", f"--pwfile={secret}", "--auth=scram-sha-256", "--encoding=UTF8"]
        subprocess.run(
            [bin_folder / "initdb", *arguments, "--no-sync", folder / "data"],
            check=True,
            capture_output=True,
            timeout=120,
            **options,
        )
        port = free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": folder,
            "fsync": "off",
            "max_connections": 60,
            "shared_buffers": "32MB",
        }
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [
                    bin_folder / "postgres",
                    "-D",
                    folder / "data",
                    *(f"-c{key}={each}" for key, each in settings.items()),
                ],
                stdout=log,
                stderr=log,
                **options,
            )
        server = Postgres(folder=folder, port=port, process=process)
        _wait_until_ready(server)
        yield server
    finally:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGQUIT)  # immediate shutdown: nothing of it is kept
            process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(server: Postgres) -> None:
    import psycopg

    give_up_at = time.monotonic() + 60
    while True:
        try:
            server.run("SELECT 1")
            return
        except psycopg.OperationalError:
            assert server.process.poll() is None, (server.folder / "log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < give_up_at, "PostgreSQL did not answer within a minute"
            time.sleep(0.1)


if __name__ == "__main__":
    with postgres_server() as running:
        print(running.url("walsafe"), flush=True)
        with suppress(KeyboardInterrupt):
            signal.pause()
