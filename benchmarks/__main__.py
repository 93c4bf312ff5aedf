"""Measure every contender on the same databases, round by round in a new random order."""

from __future__ import annotations

import argparse
import random
import shlex
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import sample
from .contenders import ARCHIVE_NAME, CONTENDERS, ENCRYPTED_NAME, Contender, create_encrypted, create_with_proof
from .measure import Measurement, OtherWork, measure
from .report import Results, print_report, split_page, tables, versions, write_report


def main() -> None:
    """Read the arguments, measure, report."""
    arguments = _arguments()
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if arguments.write is not None:
        split_page(arguments.write)  # a page that cannot be written is refused before the long work
    databases = [_database(work, each) for each in arguments.megabytes]
    results = [_rounds(each, count=arguments.rounds, work=work) for each in databases]
    facts = [
        f"Made by `{shlex.join(['python', '-m', 'benchmarks', *sys.argv[1:]])}`",
        versions(),
        f"rounds: {arguments.rounds}, every contender once a round in random order; source in the page cache; "
        "file and folder synced",
    ]
    found = tables(results)
    print_report(found, facts=facts)
    if arguments.write is not None:
        write_report(found, facts=facts, page=arguments.write)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--megabytes", type=_positive, nargs="+", default=[200, 1000], help="sizes, in MiB")
    parser.add_argument("--rounds", type=_positive, default=3, help="runs of each contender (default: 3)")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(__file__).parent / "work",
        help="folder for the databases, which are built once and kept (default: benchmarks/work)",
    )
    parser.add_argument("--write", type=Path, metavar="PAGE", help="also renew the generated section of this page")
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def _database(work: Path, megabytes: int) -> Path:
    """The sample database of this size, built when it is not there yet."""
    path = work / f"sample-{megabytes}.sqlite3"
    if not path.exists():
        print(f"Building {path.name} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=work, prefix="build-") as folder:
            draft = Path(folder) / path.name
            sample.build(draft, megabytes=megabytes)
            draft.replace(path)
    return path


def _rounds(database: Path, *, count: int, work: Path) -> Results:
    contenders = [each for each in CONTENDERS if not each.missing_tools]
    measurements: dict[str, list[Measurement]] = {each.name: [] for each in contenders}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        tempfile.TemporaryDirectory(dir=work, prefix="archive-") as folder,
        Progress(*columns, console=Console(stderr=True), transient=True) as bar,
    ):
        archives = _archives(database, Path(folder))
        task = bar.add_task(database.stem, total=count * len(contenders))
        others = OtherWork()
        for _ in range(count):
            # Another order each round, so that nobody always runs after the heaviest writer.
            for contender in random.sample(contenders, len(contenders)):
                source = _source(contender, database, archives)
                measurements[contender.name].append(measure(contender, source, work=work))
                bar.advance(task)
        share = others.share()
    return Results(database_bytes=database.stat().st_size, measurements=measurements, other_share=share)


def _archives(database: Path, folder: Path) -> tuple[Path, Path]:
    """A plain archive of the database and an encrypted one, each in a folder of its own."""
    plain, encrypted = folder / "plain", folder / "encrypted"
    for each in (plain, encrypted):
        each.mkdir()
    create_with_proof(database, plain)
    create_encrypted(database, encrypted)
    return plain / ARCHIVE_NAME, encrypted / ENCRYPTED_NAME


def _source(contender: Contender, database: Path, archives: tuple[Path, Path]) -> Path:
    if not contender.reads_archive:
        return database
    return archives[contender.reads_encrypted]


if __name__ == "__main__":
    main()
