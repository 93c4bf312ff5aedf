"""One command for all measurements: the engine beside its peers, then each further section.

The databases and stores are built below ``benchmarks/work``, which is empty again at the end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from . import dbbackup
from .contender import ROOT, ContenderError
from .page import check_page, write_section
from .report import machine, markdown, print_report, tables
from .rounds import run_rounds

PAGE = ROOT / "docs" / "performance.md"
ENGINE = "engine"
MODULES = ("pages", "space")
"""Further sections: modules of this package that print theirs as Markdown on stdout."""

_SECTION_SECONDS = 7200


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the arguments, measure, report. 1 when something of ours or a whole section failed."""
    options = _options(arguments)
    sections = options.sections or [ENGINE, *(each for each in MODULES if _is_there(each))]
    if options.write_docs is not None:
        check_page(options.write_docs, sections)  # a page that cannot be written is refused before the long work
    has_failed = False
    for section in sections:
        lines = _engine(options) if section == ENGINE else _module(section)
        if not lines:
            has_failed = True
        elif options.write_docs is not None:
            write_section(options.write_docs, section, lines)
    return 1 if has_failed else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--megabytes", type=_positive, nargs="+", default=[200, 1000], help="sizes, in MiB (200 1000)")
    parser.add_argument("--rounds", type=_positive, default=3, help="runs of each contender (3)")
    parser.add_argument(
        "--once-above",
        type=_positive,
        default=10,
        metavar="SECONDS",
        help="a contender that takes longer is run in the first round only (10)",
    )
    parser.add_argument(
        "--limit", type=_positive, default=600, metavar="SECONDS", help="when a single run is stopped (600)"
    )
    parser.add_argument(
        "--sections", nargs="+", choices=[ENGINE, *MODULES], help="only these (all that there are), in this order"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(__file__).parent / "work",
        help="folder for databases and stores, on the disk to be measured (benchmarks/work)",
    )
    parser.add_argument("--keep", action="store_true", help="keep what can be used again: databases, environments")
    parser.add_argument(
        "--write-docs",
        type=Path,
        nargs="?",
        const=PAGE,
        metavar="PAGE",
        help="also renew the generated sections of this page (docs/performance.md)",
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _is_there(section: str) -> bool:
    return find_spec(f"{__package__}.{section}") is not None


def _engine(options: argparse.Namespace) -> list[str]:
    """Measure the contenders; the section, or nothing when one of ours failed."""
    work: Path = options.work.resolve()
    is_new = not work.exists()
    work.mkdir(parents=True, exist_ok=True)
    try:
        _install_dbbackup(work)
        results = [
            run_rounds(
                megabytes,
                work=work,
                count=options.rounds,
                once_above_seconds=options.once_above,
                limit_seconds=options.limit,
            )
            for megabytes in options.megabytes
        ]
    finally:
        if not options.keep:
            _clean(work, is_new=is_new)
    sizes = " ".join(map(str, options.megabytes))
    facts = [
        f'Made by `make bench ARGS="--megabytes {sizes} --rounds {options.rounds}"`',
        machine(),
        f"{options.rounds} rounds after a warm-up, every contender once a round in random order, those that take more "
        f"than {options.once_above} s once; source in the page cache; file and folder synced",
    ]
    found = tables(results)
    print_report(found, facts=facts)
    ours_failed = sorted({name for each in results for name in each.failures if name.endswith("(ours)")})
    for name in ours_failed:
        print(f"Ours failed: {name}", file=sys.stderr)
    return [] if ours_failed else markdown(found, facts=facts)


def _install_dbbackup(work: Path) -> None:
    if not dbbackup.is_installed():
        print("Installing django-dbbackup into an environment of its own ...", file=sys.stderr)
        try:
            dbbackup.install(work)
        except ContenderError as exc:
            print(f"It is left out: {exc}", file=sys.stderr)


def _clean(work: Path, *, is_new: bool) -> None:
    """Remove what was made in ``work``, and nothing else that somebody may have there."""
    for pattern in ("sample-*.sqlite3*", "build-*", "stores-*", "run-*", "django-dbbackup-*"):
        for path in work.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    if is_new or not any(work.iterdir()):
        shutil.rmtree(work, ignore_errors=True)


def _module(section: str) -> list[str]:
    """Run another module of this package; its Markdown, or nothing when it failed."""
    Console(stderr=True).rule(section)
    if not _is_there(section):
        print(f"There is no section {section}.", file=sys.stderr)
        return []
    command = [sys.executable, "-m", f"{__package__}.{section}"]
    try:
        done = subprocess.run(
            command, check=False, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=_SECTION_SECONDS
        )
    except subprocess.TimeoutExpired:
        print(f"The section {section} did not end within {_SECTION_SECONDS} s.", file=sys.stderr)
        return []
    print(done.stdout)
    return [] if done.returncode else done.stdout.strip().splitlines()


if __name__ == "__main__":
    sys.exit(main())
