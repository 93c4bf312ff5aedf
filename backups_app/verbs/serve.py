"""``serve``: the web server and the worker, kept running by one process that leaves no orphan."""

from __future__ import annotations

import argparse
from typing import Any

from django.utils import timezone

from ..core.errors import CancelledError, InputError
from ..core.terminal import interrupt_on_signal
from ..services import hosts, serve
from ..services.databases import sync_databases
from ..services.serve import Serving
from .arguments import count, port
from .output import Output

HELP = "migrate, check, then run the web server and the worker until Ctrl-C or SIGTERM"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=8000, metavar="N", help="port to listen on (default: 8000)")
    parser.add_argument("--threads", type=count, default=4, metavar="N", help="threads of the web server (default: 4)")
    parser.add_argument("--no-web", action="store_true", help="run the worker only")
    parser.add_argument("--no-worker", action="store_true", help="run the web server only")
    parser.add_argument(
        "--stop-seconds",
        type=count,
        metavar="N",
        help="how long running jobs may take to end (default: BACKUPS['STOP_SECONDS'])",
    )


def run(options: dict[str, Any], output: Output) -> int:
    """Prepare, run, and end in good order."""
    serving = Serving(
        host=options["host"],
        port=options["port"],
        threads=options["threads"],
        has_web=not options["no_web"],
        has_worker=not options["no_worker"],
        stop_seconds=options["stop_seconds"],
    )
    if not (serving.has_web or serving.has_worker):
        raise InputError("Nothing is left to run.", "Leave out --no-web or --no-worker.")
    if serving.threads < 1:
        raise InputError("The web server needs at least one thread.", "Give --threads 1 or more.")
    try:
        with interrupt_on_signal():
            serve.require_sound_site(output.note)
            with serve.only_serve():
                return _serve(serving, output)
    except KeyboardInterrupt as exc:
        raise CancelledError("It was stopped before it had started.", "Nothing is left running.") from exc


def _serve(serving: Serving, output: Output) -> int:
    if serving.has_web:
        serve.require_free_port(serving)
    serve.migrate(output.note)
    hosts.require_own_name(now=timezone.now())
    sync_databases()  # nobody may ever look at the list of databases of this host

    def say_ready() -> None:
        where = f"The admin is at {serving.address}" if serving.has_web else "The worker runs."
        output.note(f"{where}\nStop with Ctrl-C.")

    code = serve.run(serving, say=output.note, when_ready=say_ready)
    output.note("Stopped." if code == 0 else "Stopped: see the messages above.")
    return code
