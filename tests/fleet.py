"""A fleet on one machine: a PostgreSQL, a Redis, and hosts that differ by name and home."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.console import Console, environment, wait_until
from tests.jobs.processes import Heard, listening
from tests.keys import Key, age_decrypt
from tests.postgres import Postgres, free_port
from tests.support import needs_tool

JOBS = """
    SELECT database.name AS database, job.kind, job.state, job.host, job.outcome
    FROM backups_app_job AS job JOIN backups_app_database AS database ON database.id = job.database_id
    WHERE job.id = ANY(string_to_array('{ids}', ',')) ORDER BY 1
"""


@dataclass
class Fleet:
    """Two hosts and what they share."""

    server: Postgres
    url: str
    redis_url: str
    alpha: Host
    beta: Host
    key: Key
    stored: Callable[[], dict[str, int]]
    """What the object store holds: key → bytes."""

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of the catalogue."""
        return self.server.run(statement, name=self.url.rpartition("/")[2])

    def jobs(self, *ids: str) -> dict[str, tuple[str, str]]:
        """Database → state and host of these jobs."""
        found = self.rows(JOBS.format(ids=",".join(ids)))
        return {database: (state, host) for database, _kind, state, host, _outcome in found}

    def wait_for_jobs(self, *ids: str, timeout_seconds: float = 120) -> dict[str, tuple[str, str]]:
        """:meth:`jobs`, when all of them have ended."""

        def have_ended() -> bool:
            time.sleep(0.1)
            return not {state for state, _host in self.jobs(*ids).values()} & {"queued", "running"}

        wait_until(have_ended, timeout_seconds=timeout_seconds)
        return self.jobs(*ids)


@dataclass
class Host:
    """One machine of the fleet."""

    name: str
    console: Console

    @property
    def site(self) -> Path:
        """The database of its alias ``default``."""
        return self.console.site

    @contextmanager
    def serving(self) -> Iterator[Heard]:
        """Its worker and supervisor, as ``backup serve --no-web`` runs them; killed at the end."""
        command = self.console.command("serve", "--no-web", "--stop-seconds", "5")
        variables = environment(self.console.home, **self.console.extra)
        with listening(command, variables, cwd=self.console.home.parent) as heard:
            heard.wait_for("The worker runs", timeout_seconds=90)
            yield heard

    def enqueue(self, *arguments: object) -> list[str]:
        """Ask for work and leave it to whoever has to do it; the ids of the jobs."""
        asked = self.console.ok(*arguments, "--enqueue", "--json").document["jobs"]
        return [str(each["id"]) for each in asked]


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A Redis that keeps nothing; its address."""
    folder.mkdir()
    port = free_port()
    command = [
        needs_tool("redis-server"),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with listening(command, environment(folder), cwd=folder) as heard:
        heard.wait_for("Ready to accept connections")
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def object_store(folder: Path) -> Iterator[tuple[dict[str, str], Key, Callable[[], dict[str, int]]]]:
    """An S3 server with a bucket: the environment that sends archives there, their key, and what the bucket holds."""
    from tests.destinations import bucket

    key = Key(folder / "fleet-key.txt")
    with bucket.served() as address:
        name = bucket.new_bucket(address)
        variables = {
            "BACKUPS_DESTINATIONS": "s3",
            "BACKUPS_S3_BUCKET": name,
            "BACKUPS_S3_PREFIX": "fleet",
            "BACKUPS_S3_ENDPOINT_URL": address,
            "BACKUPS_S3_REGION": "us-east-1",
            "BACKUPS_S3_ACCESS_KEY_ID": bucket.KEY["aws_access_key_id"],
            "BACKUPS_S3_SECRET_ACCESS_KEY": bucket.KEY["aws_secret_access_key"],
            # What leaves a host is encrypted.
            "BACKUPS_AGE_RECIPIENTS": key.recipient,
            "BACKUPS_AGE_IDENTITY_FILE": str(key.path),
        }
        yield variables, key, lambda: bucket.keys_in(address, name)


def prove(host: Host, key: Key) -> None:
    """Show that somebody holds the key, once for all hosts."""
    folder = host.console.home.parent
    host.console.ok("prove", "--out", folder / "challenge.age")
    word = age_decrypt(key, folder / "challenge.age", folder / "challenge.txt").read_text().strip()
    host.console.ok("prove", "--answer", word)


def make_host(name: str, folder: Path, *, site_template: Path, url: str, redis_url: str, **more: str) -> Host:
    """A machine with a site of its own, whose catalogue is shared; ``more`` is its environment besides."""
    home = folder / name
    shutil.copytree(site_template, home)
    (home / "catalog.sqlite3").unlink()  # what the template was made with
    secret = folder / "catalog-url"
    secret.write_text(url)
    extra = {
        "BACKUPS_HOST": name,
        "BACKUPS_CATALOG_URL_FILE": str(secret),
        "BACKUPS_REDIS_URL": redis_url,
        "BACKUPS_ROOTS": str(folder),
        "DJANGO_SECRET_KEY": "the same on each host, and longer than fifty characters: x9",
        **more,
    }
    return Host(name=name, console=Console(home, extra))


def people_of(path: Path) -> list[str]:
    """The names of the accounts of a site."""
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        return [row[0] for row in connection.execute("SELECT username FROM auth_user ORDER BY id")]


def rename_person(path: Path, old: str, new: str) -> None:
    """Write to a site, as its application would."""
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        connection.execute("UPDATE auth_user SET username = ? WHERE username = ?", (new, old))
        connection.commit()
