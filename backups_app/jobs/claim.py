"""Claims: who may do a job, for how long, and how everybody else can tell that they still live.

A claim is a lock file and a row. The lock (one per database, shared by workers and commands) is
taken first and let go last, and the kernel frees it however a process ends. So a row that says
``running`` while its lock is free has no owner any more. The row's fencing token grows with each
claim, and whoever holds an older one can write nothing.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from django.db import Error, connections
from django.db.models import F
from django.utils import timezone

from .. import conf
from ..core.files import file_lock
from ..core.progress import ProgressCallback, Watch
from ..models import Database, Job
from .connection import distrust_connection
from .log import JobLog
from .supervisor import GENERATION_VARIABLE

_LOOK_SECONDS = 0.2
"""How often a running job looks whether it was cancelled; an order is honoured within a second."""

_WRITE_SECONDS = 1.0
"""How often progress is written while it moves."""

_BEAT_SECONDS = 2.0
"""How often it writes a sign of life when nothing changes."""


@contextmanager
def job_lock(database: Database | None) -> Iterator[bool]:
    """Try to take the lock that jobs on ``database`` need, without waiting; yields whether it was got.

    Jobs that concern no database share one lock.
    """
    with file_lock(lock_path(database), blocking=False) as is_ours:
        yield is_ours


def lock_path(database: Database | None) -> Path:
    """The lock file of a database."""
    name = database.identity if database is not None else "no-database"
    return conf.state_folder() / "locks" / f"{name}.lock"


def owner_name() -> str:
    """Who claims: the generation of the worker, or ``command``, and the process id."""
    return f"{os.environ.get(GENERATION_VARIABLE) or 'command'}:{os.getpid()}"


def insert_claimed(job: Job) -> Claim:
    """Add ``job`` as running and claimed by this process, which holds its lock.

    Raises:
        IntegrityError: another row says ``running``; as the lock is ours, its owner is dead.
    """
    now = timezone.now()
    job.state, job.token, job.attempts = Job.State.RUNNING, 1, 1
    job.host, job.owner = conf.host_name(), owner_name()
    job.started_at = job.heartbeat_at = now
    job.save(force_insert=True)
    return Claim(job)


def claim_queued(job_id: str) -> Claim | None:
    """Claim a queued job whose lock this process holds; None when it is not queued any more.

    Raises:
        IntegrityError: as :func:`insert_claimed`.
    """
    now = timezone.now()
    changed = Job.objects.filter(pk=job_id, state=Job.State.QUEUED).update(
        state=Job.State.RUNNING,
        token=F("token") + 1,
        attempts=F("attempts") + 1,
        host=conf.host_name(),
        owner=owner_name(),
        started_at=now,
        heartbeat_at=now,
        phase="",
        phase_started_at=None,
        done_bytes=0,
        total_bytes=0,
    )
    if not changed:
        return None
    return Claim(
        Job.objects.select_related("database", "restore__database", "restore__backup__database").get(pk=job_id)
    )


class Claim:
    """The right to do one job, and its signs of life.

    While :meth:`alive` lasts, a thread writes progress and log to the row and looks for an order
    to cancel. Losing the claim (a newer token) cancels the work too.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.log = JobLog(job.log)
        self._lock = threading.Lock()
        self._progress: tuple[str, datetime | None, int, int] = ("", None, 0, 0)
        self._must_stop = threading.Event()
        self._is_over = threading.Event()

    def watch(
        self, *, on_progress: ProgressCallback | None = None, is_cancelled: Callable[[], bool] | None = None
    ) -> Watch:
        """What the engine is given: progress goes to the row (and ``on_progress``), a cancel comes from either.

        After each look at it, the next query of the thread that calls this is made on a connection that stands.
        """
        caller = threading.get_ident()

        def progress(phase: str, done_bytes: int, total_bytes: int) -> None:
            self._note_progress(phase, done_bytes, total_bytes)
            if on_progress is not None:
                on_progress(phase, done_bytes, total_bytes)

        def must_stop() -> bool:
            if threading.get_ident() == caller:
                distrust_connection()
            return self._must_stop.is_set() or (is_cancelled is not None and is_cancelled())

        return Watch(on_progress=progress, is_cancelled=must_stop, deadline_seconds=conf.get("DEADLINE_SECONDS"))

    @contextmanager
    def alive(self) -> Iterator[None]:
        """Send signs of life until the block ends.

        Inside a transaction nobody else could see them, and a second connection would wait for it:
        none are sent there.
        """
        with self.log.capturing():
            if connections[conf.CATALOG_ALIAS].in_atomic_block:
                yield
                return
            thread = threading.Thread(target=self._beat, name=f"job-{self.job.pk}", daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._is_over.set()
                thread.join()

    def write(self, **changes: Any) -> bool:
        """Write to the row; False when the claim is lost, and nothing was written."""
        mine = Job.objects.filter(pk=self.job.pk, state=Job.State.RUNNING, token=self.job.token)
        return bool(mine.update(**changes))

    def facts(self) -> dict[str, Any]:
        """Progress and log as they stand, as changes to the row."""
        with self._lock:
            phase, started_at, done, total = self._progress
        return {
            "phase": phase,
            "phase_started_at": started_at,
            "done_bytes": done,
            "total_bytes": total,
            "log": self.log.text(),
        }

    def _note_progress(self, phase: str, done_bytes: int, total_bytes: int) -> None:
        with self._lock:
            before, started_at, _done, _total = self._progress
            if phase != before:
                started_at = timezone.now()
                self.log.add(phase)
            self._progress = (phase, started_at, done_bytes, total_bytes)

    def _beat(self) -> None:
        written: dict[str, Any] = {}
        written_at = time.monotonic()
        try:
            while not self._is_over.wait(_LOOK_SECONDS):
                facts, waited = self.facts(), time.monotonic() - written_at
                is_due = waited >= _BEAT_SECONDS or (waited >= _WRITE_SECONDS and facts != written)
                try:
                    self._look()
                    if is_due and self.write(**facts, heartbeat_at=timezone.now()):
                        written, written_at = facts, time.monotonic()
                except Error:
                    # The catalogue may be busy, or lost: the lock says that we live, and the next look comes soon.
                    distrust_connection()
        finally:
            connections[conf.CATALOG_ALIAS].close()

    def _look(self) -> None:
        found = Job.objects.filter(pk=self.job.pk, state=Job.State.RUNNING, token=self.job.token)
        orders = list(found.values_list("cancel_requested_at", flat=True))
        if orders != [None]:  # told to stop, or no longer ours
            self._must_stop.set()
