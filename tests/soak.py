"""A long run of everything at once, judged by a ledger that SQLite has no part in.

``python -m tests.soak --minutes 10``. A real ``serve`` backs three databases up, on a schedule of every
minute and by jobs asked for in between, while a writer commits to each, copies are verified, restores
and undos are made, and random processes of the worker are killed. Each writer appends to its ledger,
and syncs it, after SQLite acknowledged a commit. A commit holds a number that is never used again and
the number of the commit before it in the database, so that content is a chain.

In the end every verified backup is unpacked without the engine, and must hold

- an unbroken chain, number by number as in the ledger, with the writer's own counter of them;
- each commit that was acknowledged before ``taken_at`` and begun after the last exchange of content;
- the whole content of the backup that the last exchange brought;
- no commit that was begun after the copy had ended.

A restore beside a writer is held to this by all backups after it. For every other one the writer is
paused, and the live database must be the backup, digest for digest. Anything else is a violation:
exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.console import Console, Finished, wait_until
from tests.jobs.processes import living
from tests.site import digest, make_site, quick_check, run_django
from tests.support import add_filler, connected
from tests.verbs.test_serve import running, serving

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NAMES = ("sales", "stock", "staff")
FINAL = ("succeeded", "failed", "cancelled", "interrupted", "rolled_back")

_SCHEDULES = """
from django.utils import timezone
from backups_app.models import Database, Schedule
from backups_app.services.audit import Actor
from backups_app.services.schedules import save_schedule
for database in Database.objects.exclude(alias="default"):
    schedule = Schedule(database=database, kind="create", cron="* * * * *", time_zone="UTC")
    save_schedule(schedule, actor=Actor.system(), now=timezone.now())
"""

_WRITER = """
import os, pathlib, sqlite3, sys, time
path, ledger, pause, paused, stop = map(pathlib.Path, sys.argv[1:])
connection = sqlite3.connect(path, isolation_level=None, timeout=10)
out = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
number = 0
while not stop.exists():
    if pause.exists():
        paused.touch()
        time.sleep(0.01)
        continue
    paused.unlink(missing_ok=True)
    number, began = number + 1, time.time()
    try:
        connection.execute("BEGIN IMMEDIATE")
        (previous,) = connection.execute("SELECT coalesce(max(id), 0) FROM commits").fetchone()
        connection.execute("INSERT INTO commits VALUES (?, ?, randomblob(300))", (number, previous))
        connection.execute("UPDATE counter SET value = value + 1")
        connection.execute("COMMIT")
    except sqlite3.Error as exc:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        print("refused:", exc, flush=True)
        continue
    os.write(out, f"{number} {previous} {began:.6f} {time.time():.6f}\\n".encode())
    os.fsync(out)
    time.sleep(0.01)
"""


@dataclass(frozen=True)
class Commit:
    """One line of a ledger."""

    number: int
    previous: int
    began: float
    acknowledged: float


@dataclass(frozen=True)
class Exchange:
    """A restore that succeeded, somewhere between two moments, and the newest commit of what it brought."""

    started: float
    ended: float
    tip: int


@dataclass
class Subject:
    """A database, its writer, and what was done to it."""

    name: str
    folder: Path
    exchanges: list[Exchange] = field(default_factory=list)

    def file(self, what: str) -> Path:
        """One of the files that writer and checker share."""
        return self.folder / f"{self.name}.{what}"

    @property
    def live(self) -> Path:
        return self.folder / "live" / f"{self.name}.sqlite3"

    def build(self) -> None:
        self.live.parent.mkdir(exist_ok=True)
        with connected(self.live) as connection:
            connection.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                "CREATE TABLE commits (id INTEGER PRIMARY KEY, previous INTEGER NOT NULL, payload BLOB);"
                "CREATE TABLE counter (value INTEGER NOT NULL); INSERT INTO counter VALUES (0);"
                "CREATE TABLE filler (id INTEGER PRIMARY KEY, payload BLOB);"
            )
            add_filler(connection, 4 << 20)

    def write(self) -> subprocess.Popen[bytes]:
        """Start the writer."""
        files = [self.file(each) for each in ("ledger", "pause", "paused", "stop")]
        log = open(self.file("log"), "wb")  # noqa: SIM115 - the writer's own from now on
        with log:
            return subprocess.Popen([sys.executable, "-c", _WRITER, str(self.live), *map(str, files)], stdout=log)

    def ledger(self) -> dict[int, Commit]:
        """Every acknowledged commit by its number."""
        commits = {}
        for line in self.file("ledger").read_text().splitlines():
            number, previous, began, acknowledged = line.split()
            commits[int(number)] = Commit(int(number), int(previous), float(began), float(acknowledged))
        return commits


class Soak:
    """The run: what is done, what is counted, what is found wrong."""

    def __init__(self, folder: Path, *, minutes: float, seed: int) -> None:
        self.folder, self.ends_at = folder, time.monotonic() + minutes * 60
        self.chance = random.Random(seed)
        self.console = Console(folder / "home", {"BACKUPS_ROOTS": str(folder)})
        self.subjects = [Subject(name, folder) for name in NAMES]
        self.kills = self.restores = self.undos = self.interrupted = 0
        self.violations: list[str] = []

    def run(self) -> None:
        """Everything, then the judgement."""
        make_site(self.console)
        for subject in self.subjects:
            subject.build()
            self.console.ok("add-database", subject.name, subject.live)
        run_django(self.console, _SCHEDULES)
        with ExitStack() as stack:
            writers = []
            for subject in self.subjects:
                writers.append(subject.write())
                stack.callback(writers[-1].wait)
                stack.callback(writers[-1].kill)
            heard = stack.enter_context(serving(self.console.home, "--stop-seconds=30", **self.console.extra))
            self._work()
            wait_until(lambda: not self._open_jobs(), timeout_seconds=180)
            for subject in self.subjects:
                subject.file("stop").touch()
            for writer in writers:
                if writer.wait(timeout=30) != 0:
                    self.violations.append("a writer failed")
            heard.send(signal.SIGTERM)
            if heard.finish(timeout_seconds=60) != 0 or "Traceback" in heard.said:
                self.violations.append(f"serve ended badly: {heard.said[-2000:]}")
        self.console.ok("requests", "--all", "--json")  # a verb that settles what is left
        self._judge()

    # Doing

    def _work(self) -> None:
        due = dict.fromkeys(("backup", "verify", "restore", "kill"), time.monotonic() + 3)
        pauses = {"backup": 3.0, "verify": 11.0, "restore": 9.0, "kill": 6.0}
        while time.monotonic() < self.ends_at:
            for what, pause_seconds in pauses.items():
                if time.monotonic() >= due[what]:
                    getattr(self, f"_{what}")(self.chance.choice(self.subjects))
                    due[what] = time.monotonic() + pause_seconds * self.chance.uniform(0.5, 1.5)
            time.sleep(0.05)

    def _verb(self, *arguments: object) -> Finished:
        """A verb, which may find the database busy."""
        finished = self.console.run(*arguments, "--json")
        if finished.code not in (0, 4):
            self.violations.append(f"{arguments}: exit code {finished.code}: {finished.stderr[-500:]}")
        return finished

    def _backup(self, subject: Subject) -> None:
        self._verb("create", subject.name, "--enqueue")

    def _verify(self, subject: Subject) -> None:
        if backup := self._some_backup(subject):
            self._verb("verify", backup, "--enqueue")

    def _kill(self, _subject: Subject) -> None:
        found = sorted(running(self.console.home, "jobs.worker"))
        with suppress(ProcessLookupError):
            if found:
                os.kill(self.chance.choice(found), signal.SIGKILL)
                self.kills += 1

    def _restore(self, subject: Subject) -> None:
        backup = self._some_backup(subject)
        if backup is None:
            return
        is_paused = self.chance.random() < 0.5
        if is_paused:
            subject.file("pause").touch()
            wait_until(subject.file("paused").exists)
        try:
            asked = self._verb("restore", backup, "--reason", "soak", "--user", "anna")
            if asked.code == 0:
                restore = str(asked.document["restore"]["id"])
                queued = ["--enqueue"] if self.chance.random() < 0.5 else []
                if self._exchange(subject, restore, backup, "approve", restore, "--user", "ben", "--yes", *queued):
                    self.restores += 1
                    self._compare(subject, backup, is_paused=is_paused)
                    self._undo(subject, restore, is_paused=is_paused)
        finally:
            subject.file("pause").unlink(missing_ok=True)

    def _undo(self, subject: Subject, restore: str, *, is_paused: bool) -> None:
        if self.chance.random() < 0.4:
            return
        safety = str(self._row("restore", restore, "safety_backup_id"))
        if self._exchange(subject, restore, safety, "undo", restore, "--user", "anna", "--yes", is_undo=True):
            self.undos += 1
            self._compare(subject, safety, is_paused=is_paused)

    def _exchange(self, subject: Subject, restore: str, backup: str, *arguments: object, is_undo: bool = False) -> bool:
        """Run a restore or an undo and wait for its end; whether the content was exchanged."""
        started = time.time()
        finished = self._verb(*arguments)
        if finished.code != 0:
            return False
        row = str(finished.document["restore"]["id"]) if is_undo else restore
        wait_until(lambda: self._row("restore", row, "state") in FINAL, timeout_seconds=120)
        state = self._row("restore", row, "state")
        if state == "succeeded":
            tip = max((number for number, _ in self._content(backup)[0]), default=0)
            subject.exchanges.append(Exchange(started, time.time(), tip))
            return True
        self.interrupted += 1
        if state != "failed":
            self.violations.append(f"restore {row} ended {state}")
        return False

    def _compare(self, subject: Subject, backup: str, *, is_paused: bool) -> None:
        if not is_paused:
            return
        with self._unpacked(backup) as wanted:
            same = digest(subject.live) == digest(wanted)
        if not same:
            self.violations.append(f"{subject.name} is not backup {backup} after its restore")

    # Looking

    def _row(self, kind: str, key: str, column: str) -> Any:
        (found,) = self.console.query(f"SELECT {column} FROM backups_app_{kind} WHERE id = ?", key)
        return found[0]

    def _open_jobs(self) -> int:
        (found,) = self.console.query("SELECT count(*) FROM backups_app_job WHERE state IN ('queued', 'running')")
        return int(found[0])

    def _some_backup(self, subject: Subject) -> str | None:
        rows = self.console.query(
            "SELECT b.id FROM backups_app_backup b JOIN backups_app_database d ON d.id = b.database_id "
            "WHERE d.name = ? AND b.state = 'verified' ORDER BY b.taken_at DESC LIMIT 4",
            subject.name,
        )
        return str(self.chance.choice(rows)[0]) if rows else None

    @contextmanager
    def _unpacked(self, backup: str) -> Iterator[Path]:
        """A temporary file with the content of a backup, unpacked without the engine."""
        content = zstd.decompress((self.console.home / "archives" / self._archive_name(backup)).read_bytes())
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            path = Path(folder) / "content.sqlite3"
            path.write_bytes(content)
            yield path

    def _archive_name(self, backup: str) -> str:
        (found,) = self.console.query("SELECT name FROM backups_app_copy WHERE backup_id = ?", backup)
        return str(found[0])

    def _content(self, backup: str) -> tuple[list[tuple[int, int]], int]:
        """The chain in a backup, and its counter."""
        with self._unpacked(backup) as path:
            with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
                chain = connection.execute("SELECT id, previous FROM commits ORDER BY id").fetchall()
                (counter,) = connection.execute("SELECT value FROM counter").fetchone()
        return chain, int(counter)

    # Judging

    def _judge(self) -> None:
        rows = self.console.query(
            "SELECT b.id, d.name, b.taken_at, b.finished_at, b.pinned_seconds FROM backups_app_backup b "
            "JOIN backups_app_database d ON d.id = b.database_id WHERE b.state = 'verified'"
        )
        ledgers = {subject.name: subject.ledger() for subject in self.subjects}
        lost = 0
        for backup, name, taken_at, finished_at, pinned in rows:
            (subject,) = [each for each in self.subjects if each.name == name]
            # The copy ended before the row did; the pin lies after taken_at and before this.
            latest = _moment(finished_at) - float(pinned or 0)
            lost += self._judge_backup(backup, subject, ledgers[name], _moment(taken_at), latest)
        for subject in self.subjects:
            if quick_check(subject.live) != "ok":
                self.violations.append(f"{subject.name} is damaged")
        if self.console.scratch():
            self.violations.append(f"left in scratch: {self.console.scratch()}")
        if left := living("BACKUPS_HOME", self.console.home):
            self.violations.append(f"processes are left: {left}")
        stored = {each for each in self.console.archived() if ".sqlite3.zst" in each}
        listed = {name for (name,) in self.console.query("SELECT name FROM backups_app_copy")}
        if stored != listed:
            self.violations.append(f"archives and catalogue differ: {stored ^ listed}")
        jobs = self.console.query("SELECT state, count(*) FROM backups_app_job GROUP BY state")
        verifications = self.console.query("SELECT count(*) FROM backups_app_verification WHERE level = 'full'")[0][0]
        bad = self.console.query("SELECT count(*) FROM backups_app_verification WHERE verdict != 'passed'")[0][0]
        if bad:
            self.violations.append(f"{bad} verifications of good copies did not pass")
        scheduled = self.console.query("SELECT count(*) FROM backups_app_backup WHERE trigger = 'schedule'")[0][0]
        commits = sum(map(len, ledgers.values()))
        for line in (
            f"commits {commits:,}",
            f"backups {len(rows)} verified, {scheduled} of them scheduled",
            f"verifications {verifications}",
            f"restores {self.restores}, undos {self.undos}, interrupted {self.interrupted}",
            f"jobs {dict(jobs)}",
            f"kills {self.kills}",
            f"lost {lost}",
            f"violations {len(self.violations)}",
        ):
            print(line)
        for violation in self.violations:
            print("VIOLATION", violation)

    def _judge_backup(
        self, backup: str, subject: Subject, ledger: dict[int, Commit], taken_at: float, latest: float
    ) -> int:
        """Hold a backup to the ledger; returns how many acknowledged commits it lacks."""
        chain, counter = self._content(backup)
        numbers = {number for number, _ in chain}
        wrong: list[str] = []
        previous = 0
        for number, before in chain:
            if before != previous:
                wrong.append(f"commit {number} follows {previous}, and was made after {before}")
            if number not in ledger or ledger[number].previous != before:
                wrong.append(f"commit {number} is not in the ledger as it is here")
            elif ledger[number].began > latest:
                wrong.append(f"commit {number} was begun after the copy")
            previous = number
        if counter != len(chain):
            wrong.append(f"the counter says {counter}, {len(chain)} commits are there")
        last = max(
            (each for each in subject.exchanges if each.started < taken_at), key=lambda e: e.started, default=None
        )
        if last is None or last.ended < taken_at:  # else it is the safety backup of that very exchange, or beside it
            since, tip = (last.ended, last.tip) if last else (0.0, 0)
            must = {each.number for each in ledger.values() if each.began > since and each.acknowledged < taken_at}
            missing = must - numbers
            if tip and tip not in numbers:
                wrong.append(f"the content of the last restore (commit {tip}) is missing")
        else:
            missing = set()
        if missing:
            wrong.append(f"{len(missing)} acknowledged commits are missing, the first is {min(missing)}")
        self.violations += [f"backup {backup} of {subject.name}: {each}" for each in wrong[:5]]
        return len(missing)


def _moment(text: str) -> float:
    return datetime.fromisoformat(str(text)).replace(tzinfo=UTC).timestamp()


def main(arguments: list[str] | None = None) -> int:
    """Run, print the figures; 1 when anything did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args(arguments)
    seed = given.seed if given.seed is not None else random.randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="walsafe-soak-"))
    print(f"seed {seed}, {given.minutes:g} minutes, {json.dumps(NAMES)}", flush=True)
    soak = Soak(folder, minutes=given.minutes, seed=seed)
    try:
        soak.run()
    finally:
        if soak.violations:
            print(f"what is left of it: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if soak.violations else 0


if __name__ == "__main__":
    sys.exit(main())
