"""The demonstration's steps: prepare a home, run a live site, copy it twice, judge both."""

from __future__ import annotations

import secrets
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connections

from .. import conf
from ..core.census import Census, take_census
from ..core.errors import BackupError, BusyError, RefusedError
from ..core.files import create_private_folder, file_lock
from ..core.progress import Watch
from ..core.sqlite import open_live, open_snapshot
from ..models import Backup
from ..services.audit import Actor
from ..services.create import create_backup
from ..services.databases import get_database, sync_databases
from ..services.extract import extract_backup
from . import shop

MARKER = ".walsafe-demo"
USER = "demo"
_PACKAGE_PARENT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one copy of the sample site holds."""

    title: str
    rows: int
    administrators: int
    integrity: str
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """The live site beside its two copies."""

    live: Judged
    naive: Judged
    ours: Judged
    backup: Backup

    @property
    def is_convincing(self) -> bool:
        """Whether the old way lost rows and ours lost none."""
        return self.naive.rows < self.live.rows == self.ours.rows and self.backup.state == Backup.State.VERIFIED


def require_site_below(home: Path) -> None:
    """Refuse settings that keep the site's database elsewhere: the demo would write into it.

    Raises:
        RefusedError: nothing was touched.
    """
    files = [
        Path(str(connections[alias].settings_dict["NAME"])).absolute() for alias in ("default", conf.CATALOG_ALIAS)
    ]
    if any(home not in file.parents for file in files):
        raise RefusedError(
            "The demo would write to a database outside its own folder.",
            "Run it in a checkout of the project: `make demo`.",
        )


def claim_home(home: Path) -> None:
    """Make ``home`` a demo home, or refuse a folder that is something else.

    Raises:
        RefusedError: it exists and holds other things.
    """
    if home.exists() and any(home.iterdir()) and not (home / MARKER).exists():
        raise RefusedError(f"{home} is not a demo folder; it was not touched.", "Move it away, or set BACKUPS_HOME.")
    create_private_folder(home)
    (home / MARKER).touch()


@contextmanager
def fresh_home(home: Path) -> Iterator[None]:
    """Empty a claimed demo home and keep other demos out of it until the block ends.

    Raises:
        BusyError: another demo runs there. RefusedError: the settings keep data elsewhere.
    """
    require_site_below(home)
    if not (home / MARKER).exists():
        raise RefusedError(f"{home} is not a demo folder; it was not touched.", "Move it away, or set BACKUPS_HOME.")
    with file_lock(home.parent / f"{home.name}.lock", blocking=False) as is_ours:
        if not is_ours:
            raise BusyError("A demo is running already.", "Stop it first, or set BACKUPS_HOME to another folder.")
        for each in [*home.iterdir(), *(home / "state").iterdir()]:
            # The folder of the secret key stays: this process has read it already.
            if each.name in (MARKER, "state", "secret_key"):
                continue
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            else:
                each.unlink()
        yield


@contextmanager
def live_site(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A sample site with its schema in the file and its rows in the ``-wal``, held by a writer process."""
    call_command("migrate", verbosity=0, interactive=False)
    call_command("migrate", database=conf.CATALOG_ALIAS, verbosity=0, interactive=False)
    connections["default"].close()
    shop.create_schema(path)
    writer = subprocess.Popen(
        [sys.executable, "-m", "backups_app.demo.shop", str(path)],
        cwd=_PACKAGE_PARENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us: we end it
    )
    try:
        if writer.stdout is None or writer.stdout.readline().strip() != "ready":
            raise BackupError("The sample site could not be filled.", "See the messages above.")
        yield writer
    finally:
        if writer.stdin is not None:
            writer.stdin.close()  # the writer ends when its stdin does
        try:
            writer.wait(timeout=5)
        except subprocess.TimeoutExpired:
            writer.kill()
            writer.wait()
        if writer.stdout is not None:
            writer.stdout.close()


def add_administrator() -> str:
    """Create the demo's superuser with a random password, which is returned."""
    password = secrets.token_urlsafe(12)
    get_user_model().objects.create_superuser(username=USER, email="", password=password)
    connections["default"].close()
    return password


def compare(site: Path, home: Path) -> Report:
    """Copy the live site the old way and our way, and judge both copies.

    The writer must be quiet meanwhile, so that all three counts are of the same moment.
    """
    with tempfile.TemporaryDirectory(dir=home) as folder:
        naive_path, ours_path = Path(folder) / "naive.sqlite3", Path(folder) / "ours.sqlite3"
        _copy_the_old_way(site, naive_path)
        sync_databases()
        backup = create_backup(get_database("default"), actor=Actor.system(), trigger=Backup.Trigger.COMMAND)
        if backup.state == Backup.State.VERIFIED:
            extract_backup(backup, ours_path, actor=Actor.system())
        live = _judge_live(site, Path(folder))
        naive = _judge("naive file copy", naive_path, truth=live.rows)
        ours = _judge("our backup", ours_path, truth=live.rows, verdict=str(backup.state))
    return Report(live=live, naive=naive, ours=ours, backup=backup)


def _copy_the_old_way(site: Path, target: Path) -> None:
    # In a process of its own: this one may hold SQLite locks on the file, and reading it here
    # would drop them.
    program = "import shutil, sys; shutil.copy2(sys.argv[1], sys.argv[2])"
    subprocess.run([sys.executable, "-c", program, str(site), str(target)], check=True)


def _judge_live(site: Path, staging: Path) -> Judged:
    with open_live(site, staging=staging, busy_timeout_seconds=5, watch=Watch()) as live:
        census = take_census(live.connection, watch=Watch())
        integrity = str(live.connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
    return _judged("live site", census, integrity, "the truth")


def _judge(title: str, path: Path, *, truth: int, verdict: str = "") -> Judged:
    if not path.exists():
        return Judged(title=title, rows=0, administrators=0, integrity="–", verdict=verdict)
    try:
        with open_snapshot(path) as connection:
            integrity = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
            census = take_census(connection, watch=Watch())
    except sqlite3.Error as exc:
        return Judged(title=title, rows=0, administrators=0, integrity=str(exc), verdict="unreadable")
    judged = _judged(title, census, integrity, verdict)
    return judged if verdict else replace(judged, verdict=_verdict_on_rows(judged.rows, truth=truth))


def _verdict_on_rows(rows: int, *, truth: int) -> str:
    if rows == truth:
        return "complete, this time"
    return "holds the schema only" if rows == 0 else f"lost {truth - rows:,} rows"


def _judged(title: str, census: Census, integrity: str, verdict: str) -> Judged:
    # Migrations write rows of their own; what people entered is what counts.
    entered = {name: rows for name, rows in census.tables.items() if name.startswith("shop_")}
    return Judged(
        title=title,
        rows=sum(entered.values()),
        administrators=census.superusers or 0,
        integrity=integrity,
        verdict=verdict,
    )


def free_port(wanted: int) -> int:
    """``wanted``, or the next port above it on which nothing listens.

    Raises:
        BusyError: the next hundred are taken.
    """
    import socket

    for port in range(wanted, min(wanted + 100, 65536)):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BusyError(f"No port from {wanted} on is free.", "Give another one with --port.")
