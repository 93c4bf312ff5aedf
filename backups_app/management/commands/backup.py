"""``manage.py backup <verb>``: the one place where failures become messages and exit codes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, cast

from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError

from ... import __version__
from ...checks import TAG
from ...core.errors import BackupError, CancelledError, InputError
from ...core.terminal import discard, interrupt_on_signal, open_closed_streams
from ...services.catalog import catalog_error, require_catalog
from ...verbs import (
    add_database,
    approve,
    cancel,
    create,
    databases,
    demo,
    hold,
    jobs,
    keygen,
    keys,
    notify_test,
    prove,
    prune,
    reject,
    rekey,
    release,
    requests,
    rescan,
    restore,
    serve,
    setup_groups,
    show,
    status,
    tick,
    triage,
    undo,
    verify,
)
from ...verbs import list as list_verb
from ...verbs.output import Output

VERBS: dict[str, ModuleType] = {
    "create": create,
    "list": list_verb,
    "show": show,
    "verify": verify,
    "restore": restore,
    "requests": requests,
    "approve": approve,
    "reject": reject,
    "undo": undo,
    "jobs": jobs,
    "cancel": cancel,
    "prune": prune,
    "hold": hold,
    "release": release,
    "triage": triage,
    "rescan": rescan,
    "databases": databases,
    "add-database": add_database,
    "status": status,
    "keygen": keygen,
    "keys": keys,
    "prove": prove,
    "rekey": rekey,
    "notify-test": notify_test,
    "setup-groups": setup_groups,
    "tick": tick,
    "serve": serve,
    "demo": demo,
}

_EPILOG = """\
exit codes: 0 done, 1 failed, 2 usage, 3 verification failed, 4 busy or locked, 5 key missing or wrong,
6 not found, 7 refused by a guard, 8 needs attention (status), 130 cancelled
"""


def _common() -> CommandParser:
    """What every verb takes; its own arguments of the same name count instead."""
    common = CommandParser(add_help=False)
    common.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document on stdout"
    )
    common.add_argument("--yes", action="store_true", help=argparse.SUPPRESS)  # no harm where nothing is asked
    common.add_argument("-v", "--verbosity", type=int, choices=[0, 1, 2, 3], default=argparse.SUPPRESS)
    common.add_argument("--traceback", action="store_true", default=argparse.SUPPRESS)
    common.add_argument("--settings", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    common.add_argument("--pythonpath", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    common.add_argument("--no-color", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return common


class Command(BaseCommand):
    """Backups of the SQLite databases under care."""

    help = "Verified, WAL-safe backups of the SQLite databases under care."
    requires_system_checks: list[str] = []  # our own run in handle(): warnings do not belong on every run

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        open_closed_streams()
        super().__init__(*args, **kwargs)

    def get_version(self) -> str:
        """The version of the app, for ``--version``."""
        return __version__

    def add_arguments(self, parser: CommandParser) -> None:
        """One sub-parser per verb; the options every command has may follow the verb too."""
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.epilog = _EPILOG
        parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)  # before the verb does as well
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs")
        for name, module in VERBS.items():
            verb = verbs.add_parser(
                name, parents=[_common()], conflict_handler="resolve", help=module.HELP, description=module.__doc__
            )
            module.add_arguments(verb)

    def run_from_argv(self, argv: list[str]) -> None:
        """As Django does; a wrong use is one JSON document, too, where that was asked for."""
        if "--json" in argv[2:]:
            try:
                self.create_parser(argv[0], argv[1]).parse_args(argv[2:])
            except CommandError as exc:
                output = self._output(is_json=True)
                wrong = str(exc).removeprefix("Error: ")
                code = output.error(InputError(f"Wrong use: {wrong}.", "See `manage.py backup VERB --help`."))
                self._end(output)
                sys.exit(code)
        super().run_from_argv(argv)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one verb; exits with its code when that is not 0."""
        output = self._output(is_json=options.get("json", False))
        code = self._run(VERBS[options["verb"]], options, output)
        if code:
            sys.exit(code)

    def _output(self, *, is_json: bool) -> Output:
        return Output(is_json=is_json, stdout=cast(TextIO, self.stdout), stderr=cast(TextIO, self.stderr))

    def _run(self, verb: ModuleType, options: dict[str, Any], output: Output) -> int:
        try:
            with interrupt_on_signal():  # where a verb does not take them itself
                code = _run_verb(verb, options, output)
                output.flush()
                return code
        except KeyboardInterrupt:
            if options["traceback"]:
                raise
            code = output.error(CancelledError("It was stopped.", "Nothing half-done counts; start it again."))
        except BackupError as exc:
            if options["traceback"]:
                raise
            code = output.error(exc)
        except DatabaseError as exc:
            if options["traceback"]:
                raise
            code = output.error(catalog_error(exc))
        except (ImproperlyConfigured, OSError) as exc:
            if options["traceback"]:
                raise
            if isinstance(exc, BrokenPipeError):  # the reader has seen enough
                discard(sys.stdout)
                return 1
            code = output.error(BackupError(f"{type(exc).__name__}: {exc}", "Run it with --traceback to see where."))
        self._end(output)
        return code

    @staticmethod
    def _end(output: Output) -> None:
        """Print what went wrong as the document, if anything can be printed at all."""
        try:
            output.document({})
            output.flush()
        except (BackupError, OSError):
            discard(sys.stdout)


def _run_verb(verb: ModuleType, options: dict[str, Any], output: Output) -> int:
    _require_text(options)
    if verb not in (demo, serve):  # they prepare a home themselves
        _require_sound_settings()
        require_catalog()
    return int(verb.run(options, output))


def _require_text(options: dict[str, Any]) -> None:
    """Refuse arguments that are not UTF-8: the catalogue and the JSON document hold text only."""
    given = [each for value in options.values() for each in (value if isinstance(value, list) else [value])]
    for each in given:
        if isinstance(each, str | Path) and str(each).encode(errors="ignore").decode() != str(each):
            raise InputError(f"The argument {str(each)!r} is not valid UTF-8.", "Use names and paths in UTF-8.")


def _require_sound_settings() -> None:
    errors = [each for each in checks.run_checks(tags=[TAG]) if each.is_serious() and not each.is_silenced()]
    if errors:
        first = min(errors, key=lambda each: str(each.id))  # they come in no order
        raise BackupError(f"The settings are not right ({first.id}): {first.msg}", first.hint or "")
