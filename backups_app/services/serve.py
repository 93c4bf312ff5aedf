"""Everything under one supervisor: the web server, the worker, and the clock that looks after it.

One serve per home: it holds ``state/locks/serve.lock``, which the kernel frees however it ends.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from signal import SIGINT

from django.conf import settings
from django.core import checks
from django.core.management import call_command
from django.db import DatabaseError, connections
from django.urls import NoReverseMatch, reverse

from .. import conf
from ..core.errors import BackupError, BusyError
from ..core.files import create_private_folder, file_lock
from ..jobs.supervisor import Beat, BeatFunction, ChildSpec, Event, Happening, Supervisor
from . import hosts
from .catalog import catalog_error, make_private_file, making_catalog, require_catalog
from .clock import Clock

logger = logging.getLogger(__name__)

_WORKER = "worker"
_WEB = "web server"
_WEB_STOP_SECONDS = 10.0
_PORT_WAIT_SECONDS = 3.0
_WAITRESS_BODY_BYTES = 1 << 30
"""Waitress's own limit, which other forms of the site may rely on."""
_FORM_BYTES = 1 << 20

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What to run, and where."""

    host: str = "127.0.0.1"
    port: int = 8000
    has_web: bool = True
    has_worker: bool = True
    threads: int = 4
    stop_seconds: float | None = None
    """How long running jobs may take to end; None: ``BACKUPS["STOP_SECONDS"]``."""

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the admin."""
        try:
            path = reverse("admin:index")
        except NoReverseMatch:  # a site without the admin
            path = "/"
        return f"http://{_in_url(_reachable(self.host))}:{self.port}{path}"


# Before anything runs


def require_sound_site(say: Say) -> None:
    """Run Django's system checks; warnings are said.

    Raises:
        BackupError: with every error that was found, and the hint for the first.
    """
    found = [each for each in checks.run_checks() if not each.is_silenced()]
    for each in found:
        if checks.WARNING <= each.level < checks.ERROR:
            say(f"Note: {_in_words(each)}")
    errors = sorted((each for each in found if each.is_serious()), key=lambda each: str(each.id))
    if errors:
        raise BackupError(
            f"The settings are not right: {' '.join(_in_words(each) for each in errors)}", errors[0].hint or ""
        )


def _in_words(message: checks.CheckMessage) -> str:
    where = f"{message.obj}: " if message.obj is not None else ""
    return f"{where}{message.msg} ({message.id})"


@contextmanager
def only_serve() -> Iterator[None]:
    """Be the only one that serves this home until the block ends.

    Raises:
        BusyError: another one serves it.
    """
    create_private_folder(conf.home())
    with file_lock(conf.state_folder() / "locks" / "serve.lock", blocking=False) as is_ours:
        if not is_ours:
            raise BusyError(
                f"Another `backup serve` runs in {conf.home()} already.",
                "Stop that one first, or give this one another BACKUPS_HOME.",
            )
        yield


def migrate(say: Say) -> None:
    """Bring the site's database and the catalogue up to the code, one process at a time.

    Other aliases of the site are its own business.

    Raises:
        BackupError: a migration failed, or the catalogue is newer than the code.
    """
    lock = conf.state_folder() / "locks" / "migrate.lock"
    with file_lock(lock, blocking=False) as is_free:
        if not is_free:
            say("Another process migrates; waiting for it.")
    # The second one is held by whoever makes a missing catalogue.
    with file_lock(lock), making_catalog():
        make_private_file()
        for alias in ("default", conf.CATALOG_ALIAS):
            if connections[alias].vendor == "unknown":
                continue  # a site without a database of its own
            try:
                call_command("migrate", database=alias, interactive=False, verbosity=0)
            except DatabaseError as exc:
                raise BackupError(
                    f"The database {alias!r} could not be migrated: {exc}.",
                    f"Run `manage.py migrate --database {alias}` to see where.",
                ) from exc
    require_catalog()
    connections.close_all()


def require_free_port(serving: Serving) -> None:
    """Make sure that the web server can listen; the children of a serve just killed get a moment to go.

    Raises:
        BusyError: something else listens there. BackupError: the address is none of this machine.
    """
    give_up_at = time.monotonic() + _PORT_WAIT_SECONDS
    while (fault := _fault_in_listening(serving)) is not None:
        where = f"{_in_url(serving.host)}:{serving.port}"
        if isinstance(fault, PermissionError):
            raise BackupError(f"This user may not listen on {where}.", "Choose a port above 1023 with --port.")
        if fault.errno != errno.EADDRINUSE:
            raise BackupError(
                f"Nothing can listen on {where}: {fault.strerror}.", "Give an address of this machine with --host."
            )
        if time.monotonic() >= give_up_at:
            raise BusyError(
                f"Something else listens on {where} already.", "Stop it, or choose another port with --port."
            )
        time.sleep(0.1)


def _fault_in_listening(serving: Serving) -> OSError | None:
    try:
        found = socket.getaddrinfo(serving.host, serving.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _name, address in found:
            with closing(socket.socket(family, kind, protocol)) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as exc:
        return exc
    return None


def _is_listening(host: str, port: int) -> bool:
    try:
        with closing(socket.create_connection((_reachable(host), port), timeout=1)):
            return True
    except OSError:
        return False


def _reachable(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "*": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared only  # nosec B104


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


# What runs


def _children(serving: Serving) -> list[ChildSpec]:
    limit = float(conf.get("STOP_SECONDS") if serving.stop_seconds is None else serving.stop_seconds)
    environment = {"PYTHONPATH": os.pathsep.join(each or os.getcwd() for each in sys.path)}  # noqa: PTH109 - as Python does
    children = []
    if serving.has_web:
        children.append(
            ChildSpec(
                name=_WEB,
                argv=(sys.executable, "-m", "backups_app.jobs.web", *_waitress_arguments(serving)),
                # What is uploaded is spooled to files without a name: on a private disk, not in /tmp.
                env={**environment, "TMPDIR": str(create_private_folder(conf.quarantine_folder()))},
                stop_signal=SIGINT,  # on SIGTERM it drops what it is answering
                stop_seconds=min(limit, _WEB_STOP_SECONDS),
            )
        )
    if serving.has_worker:
        argv = (sys.executable, "-m", "backups_app.jobs.worker")
        children.append(ChildSpec(name=_WORKER, argv=argv, env=environment, stop_seconds=limit))
    return children


def _waitress_arguments(serving: Serving) -> list[str]:
    most = max(_WAITRESS_BODY_BYTES, int(conf.get("UPLOAD_MAX_BYTES")) + _FORM_BYTES)
    listen = [
        f"--listen={_in_url(serving.host)}:{serving.port}",
        f"--threads={serving.threads}",
        f"--max-request-body-size={most}",
    ]
    if getattr(settings, "SECURE_PROXY_SSL_HEADER", None):
        listen.append("--no-clear-untrusted-proxy-headers")  # waitress would take away what the setting trusts
    application = getattr(settings, "WSGI_APPLICATION", None)
    if not application:
        return [*listen, "--call", "django.core.wsgi:get_wsgi_application"]
    module, _, name = application.rpartition(".")
    return [*listen, f"{module}:{name}"]


class _Reporter:
    """What the clock does: writes the row of this host, then looks after the worker."""

    def __init__(self, beat: BeatFunction) -> None:
        self._beat = beat
        self._is_known = False
        self._restarts: deque[tuple[datetime, str]] = deque()

    def note_restart(self, event: Event) -> None:
        """Have a restart of the worker written with the next beat."""
        self._restarts.append((event.at, event.text))

    def __call__(self, now: datetime, /) -> Beat:
        """One beat. Whether the row can be written or not, the worker is looked after."""
        try:
            with _logged_database_errors():
                self._report(now)
            return self._beat(now)
        finally:
            connections.close_all()

    def _report(self, now: datetime) -> None:
        if not self._is_known:
            hosts.report_started(now=now)
            self._is_known = True
        hosts.report_alive(now=now)
        while self._restarts:
            at, problem = self._restarts[0]
            hosts.report_worker_restart(problem, now=at)
            self._restarts.popleft()


@contextmanager
def _logged_database_errors() -> Iterator[None]:
    """Log what the catalogue says against writing the row of this host; it is written again soon."""
    try:
        yield
    except DatabaseError as exc:
        logger.warning("The row of this host could not be written: %s", catalog_error(exc).message)


def run(
    serving: Serving, *, say: Say, when_ready: Callable[[], None] = lambda: None, beat: BeatFunction | None = None
) -> int:
    """Run it all until a signal says to end; returns the exit code.

    The caller holds :func:`only_serve`, and everything is migrated. ``when_ready`` is called in a
    thread, once, when a signal ends it in good order and the web server, if there is one, answers.
    Nothing that was started is left afterwards. 0: told to end. 1: a child kept failing to start.
    """
    reporter = _Reporter(beat or Clock().beat)

    def on_event(event: Event) -> None:
        if event.child == _WORKER and event.happening in (Happening.ENDED, Happening.STALLED):
            reporter.note_restart(event)
        if event.happening is not Happening.STARTED:
            say(event.text)

    is_over = threading.Event()
    announcer = threading.Thread(target=_announce, args=(serving, when_ready, is_over), name="announce", daemon=True)
    supervisor = Supervisor(
        _children(serving), beat=reporter, watched=_WORKER, on_event=on_event, on_attending=announcer.start
    )
    try:
        was_asked = supervisor.run()
    finally:
        is_over.set()
    with _logged_database_errors():
        hosts.report_stopped(now=datetime.now(UTC))
    connections.close_all()
    return 0 if was_asked else BackupError.exit_code


def _announce(serving: Serving, when_ready: Callable[[], None], is_over: threading.Event) -> None:
    while serving.has_web and not _is_listening(serving.host, serving.port):
        if is_over.wait(0.1):
            return
    with suppress(BrokenPipeError):
        when_ready()
