"""``demo``: see with your own eyes why a file copy is no backup, then try the admin."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from .. import conf
from ..core.errors import CancelledError, RefusedError, VerificationError
from ..demo import stage
from ..demo.stage import Judged, Report
from ..documents import backup_document
from .output import Output

HELP = "a sample site with a live writer: the old copy and ours, judged; then the admin"

_FLAG = "BACKUPS_DEMO"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--no-serve", action="store_true", help="exit after the report")
    parser.add_argument("--port", type=_port, default=8000, metavar="N", help="first port to try (default: 8000)")


def _port(text: str) -> int:
    port = int(text) if text.isdecimal() else 0
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a number from 1 to 65535")
    return port


def run(options: dict[str, Any], output: Output) -> int:
    """Run the demonstration in a home of its own, ``demo`` below BACKUPS_HOME."""
    home = conf.home()
    stage.require_site_below(home)
    if not (home / stage.MARKER).exists():
        _start_again_in(home / "demo")
    port = None if options["no_serve"] else stage.free_port(options["port"])
    site, code = home / "site.sqlite3", 0
    try:
        with _signals_interrupt(), stage.fresh_home(home), stage.live_site(site) as writer:
            password = stage.add_administrator()
            report = stage.compare(site, home)
            if not report.is_convincing:
                failure = VerificationError("The demonstration did not show what it should.", report.backup.reason)
                code = output.error(failure)
            _print(report, output)
            if port is not None and code == 0:
                _serve(writer, password, port, wanted=options["port"], output=output)
    except KeyboardInterrupt as exc:
        raise CancelledError("The demonstration was stopped.", "Run it again: it starts afresh.") from exc
    return code


@contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt, also when a shell started us with SIGINT ignored."""
    before = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _start_again_in(demo_home: Path) -> NoReturn:
    """Replace this process by one whose home is ``demo_home``: real data is never touched."""
    if os.environ.get(_FLAG):
        raise RefusedError(
            "The demo needs settings that follow BACKUPS_HOME.", "Run it in a checkout of the project: `make demo`."
        )
    stage.claim_home(demo_home)
    sys.stdout.flush()
    environment = {**os.environ, _FLAG: "1", "BACKUPS_HOME": str(demo_home)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - the same program


def _print(report: Report, output: Output) -> None:
    output.line("A sample site in WAL mode, with a writer process connected. Each copy was made while it ran.")
    output.table(
        ("", "rows#", "lost#", "administrators#", "integrity_check", "verdict"),
        [_row(each, report.live) for each in (report.live, report.naive, report.ours)],
    )
    output.line(
        "The naive copy took the main file only: the committed rows were still in the -wal beside it. "
        "It passes integrity_check all the same. Our backup was read back and proven row for row."
    )
    output.document(
        {
            "demo": {
                "live": asdict(report.live),
                "naive": asdict(report.naive),
                "ours": asdict(report.ours),
                "backup": backup_document(report.backup),
            }
        }
    )


def _row(judged: Judged, live: Judged) -> tuple[object, ...]:
    lost = "–" if judged is live else f"{live.rows - judged.rows:,}"
    return (judged.title, f"{judged.rows:,}", lost, judged.administrators, judged.integrity, judged.verdict)


def _serve(writer: subprocess.Popen[str], password: str, port: int, *, wanted: int, output: Output) -> None:
    from django.core.wsgi import get_wsgi_application
    from waitress.server import create_server

    if port != wanted:
        output.note(f"Port {wanted} is taken; using {port}.")
    sys.stdout.flush()  # the report comes first, also in a pipe
    server = create_server(get_wsgi_application(), host="127.0.0.1", port=port, threads=4)
    try:
        output.note("")
        output.note(f"The admin is at http://127.0.0.1:{port}/admin/")
        output.note(f"User: {stage.USER}   Password: {password}")
        output.note("The sample shop gets an order a second. Stop with Ctrl-C.")
        if writer.stdin is not None:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        server.run()  # returns after a KeyboardInterrupt
        output.note("Stopped.")
    finally:
        server.close()
