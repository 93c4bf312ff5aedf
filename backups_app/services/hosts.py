"""The machines: which rows are this one's, when each supervisor was last heard of, and how its worker fares.

With a catalogue of its own a machine is alone, and every row is its own. Where several share one,
each does the work on its own databases: their files, locks, scratch and local archives are nowhere
else. Of the others' it knows what the rows say.
"""

from __future__ import annotations

import os
import uuid
from datetime import datetime, timedelta

from django.db.models import F, Q, QuerySet

from .. import conf
from ..core.errors import RefusedError
from ..core.files import create_private_folder, file_lock, replace_synced
from ..models import Database
from ..models.host import Host

SILENCE = timedelta(seconds=30)
"""How long a machine may be silent before it counts as gone; it writes every few seconds."""


def here(field: str = "host") -> Q:
    """The condition that a row is this host's, by the field that names its host."""
    if conf.is_catalog_local():
        return Q(pk__isnull=False)  # every row. An empty Q would vanish from an "or", and turn it into the other half
    return Q(**{f"{field}__in": ["", conf.host_name()]})


def is_here(database: Database) -> bool:
    """Whether the file of ``database``, and the work on it, is this host's."""
    return conf.is_this_host(database.host)


def require_here(database: Database) -> None:
    """Refuse work on a database of another host.

    Raises:
        RefusedError: with the name of its host.
    """
    if not is_here(database):
        raise RefusedError(
            f"The database {database.name!r} is on the host {database.host!r}, and this one is {conf.host_name()!r}.",
            "Run the command there, or leave the work to its worker: with --enqueue, or in the admin.",
        )


def is_anybody_working(now: datetime, *, host: str = "") -> bool:
    """Whether a machine works: heard of lately, and not told to end since. With a name: whether that one does."""
    working = Host.objects.filter(stopped_at=None, seen_at__gte=now - SILENCE)
    if host and not conf.is_catalog_local():
        working = working.filter(name=host)
    return working.exists()


def silent_hosts(*, now: datetime) -> list[Host]:
    """The machines that were not told to end, and of which nothing is heard any more."""
    return list(Host.objects.filter(stopped_at=None, seen_at__lt=now - SILENCE))


def require_own_name(*, now: datetime) -> None:
    """Refuse to work under a name that another machine works under: each would take the other's rows for its own.

    Raises:
        RefusedError: another one was heard of by this name within ``SILENCE``, and was not told to end.
    """
    if conf.is_catalog_local():
        return
    twin = _named().filter(stopped_at=None, seen_at__gte=now - SILENCE).exclude(instance__in=["", _instance()])
    if twin.exists():
        raise RefusedError(
            f"Another machine, or another BACKUPS_HOME, works as {conf.host_name()!r} in this catalogue.",
            "Give each a name of its own with BACKUPS_HOST, or BACKUPS['HOST'].",
        )


def _instance() -> str:
    """A random identity of this home, made on first use."""
    path = conf.state_folder() / "instance"
    create_private_folder(path.parent)
    with file_lock(path.with_suffix(".lock")):
        if not path.is_file():
            replace_synced(path, uuid.uuid4().hex.encode())
        return path.read_text("ascii").strip()[:32]


def report_started(*, now: datetime) -> None:
    """A supervisor has started here; restarts of its worker are counted from now on."""
    begun = {
        "instance": _instance(),
        "supervisor_pid": os.getpid(),
        "seen_at": now,
        "started_at": now,
        "stopped_at": None,
        "worker_restarts": 0,
        "worker_restarted_at": None,
        "worker_problem": "",
    }
    Host.objects.update_or_create(name=conf.host_name(), defaults=begun)


def report_alive(*, now: datetime) -> None:
    """The supervisor here still lives."""
    if not _named().update(seen_at=now, stopped_at=None, supervisor_pid=os.getpid()):
        report_started(now=now)  # somebody put an older catalogue back, or started afresh


def report_worker_restart(problem: str, *, now: datetime) -> None:
    """The worker here was started again because of ``problem``."""
    _named().update(worker_restarts=F("worker_restarts") + 1, worker_restarted_at=now, worker_problem=problem)


def report_stopped(*, now: datetime) -> None:
    """The supervisor here was told to end, and has ended everything."""
    # A newer one may have taken over already.
    _named().filter(supervisor_pid=os.getpid()).update(seen_at=now, stopped_at=now)


def _named() -> QuerySet[Host]:
    return Host.objects.filter(name=conf.host_name())
