"""``demo``: see with your own eyes why a file copy is no backup, then try the admin."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from .. import conf
from ..core.errors import CancelledError, RefusedError, VerificationError
from ..core.terminal import interrupt_on_signal
from ..demo import stage
from ..demo.stage import Judged, Report
from ..documents import backup_document
from ..services import serve
from ..services.serve import Serving
from .arguments import port
from .output import Output

HELP = "a sample site with a live writer: the old copy and ours, judged; then the admin"

_FLAG = "BACKUPS_DEMO"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--no-serve", action="store_true", help="exit after the report")
    parser.add_argument("--port", type=port, default=8000, metavar="N", help="first port to try (default: 8000)")


def run(options: dict[str, Any], output: Output) -> int:
    """Run the demonstration in a home of its own, ``demo`` below BACKUPS_HOME."""
    home = conf.home()
    stage.require_site_below(home)
    if not (home / stage.MARKER).exists():
        _start_again_in(home / "demo")
    free_port = None if options["no_serve"] else stage.free_port(options["port"])
    site, code = home / "site.sqlite3", 0
    try:
        with interrupt_on_signal(), stage.fresh_home(home), stage.live_site(site) as writer:
            password = stage.add_administrator()
            report = stage.compare(site, home)
            if not report.is_convincing:
                failure = VerificationError("The demonstration did not show what it should.", report.backup.reason)
                code = output.error(failure)
            _print(report, output)
            if free_port is not None and code == 0:
                if free_port != options["port"]:
                    output.note(f"Port {options['port']} is taken; using {free_port}.")
                code = _serve(writer, password, Serving(port=free_port), output)
    except KeyboardInterrupt as exc:
        raise CancelledError("The demonstration was stopped.", "Run it again: it starts afresh.") from exc
    return code


def _start_again_in(demo_home: Path) -> NoReturn:
    """Replace this process by one whose home is ``demo_home``: real data is never touched."""
    if os.environ.get(_FLAG):
        raise RefusedError(
            "The demo needs settings that follow BACKUPS_HOME.", "Run it in a checkout of the project: `make demo`."
        )
    stage.claim_home(demo_home)
    sys.stdout.flush()
    environment = {**os.environ, _FLAG: "1", "BACKUPS_HOME": str(demo_home)}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606 - the same program  # nosec B606


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


def _serve(writer: subprocess.Popen[str], password: str, serving: Serving, output: Output) -> int:
    sys.stdout.flush()  # the report comes first, also in a pipe

    def say_ready() -> None:
        output.note(
            f"\nThe admin is at {serving.address}\n"
            f"User: {stage.USER}   Password: {password}\n"
            "The sample shop gets an order a second. Stop with Ctrl-C."
        )
        if writer.stdin is not None:
            writer.stdin.write("go\n")
            writer.stdin.flush()

    with serve.only_serve():
        code = serve.run(serving, say=output.note, when_ready=say_ready)
    output.note("Stopped." if code == 0 else "Stopped: see the messages above.")
    return code
