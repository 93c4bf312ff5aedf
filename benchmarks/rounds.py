"""Every contender on one database, round by round, each round in another random order."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import sample
from .contender import Contender, ContenderError
from .contenders import CONTENDERS, CREATE, STORES, make_store, missing
from .measure import Measurement, OtherWork, measure
from .report import Results


def run_rounds(
    megabytes: int,
    *,
    work: Path,
    count: int,
    once_above_seconds: float,
    limit_seconds: float,
    contenders: tuple[Contender, ...] = CONTENDERS,
) -> Results:
    """Build the database and the stores below ``work``, then measure ``count`` rounds.

    A contender that fails is not run again, nor one that took longer than ``once_above_seconds``;
    one that lacks a program is not run at all. The reason of the first and the last is recorded.
    """
    database = _database(work, megabytes)
    measurements: dict[str, list[Measurement]] = {}
    failures: dict[str, str] = {
        each.name: f"not installed: {', '.join(missing(each))}" for each in contenders if missing(each)
    }
    with tempfile.TemporaryDirectory(dir=work, prefix="stores-") as name, _progress() as bar:
        stores = _stores(database, Path(name), contenders, failures)
        task = bar.add_task(database.stem, total=count * len(contenders))
        _warm_up(database, work=work, limit_seconds=limit_seconds)
        others = OtherWork()
        for _ in range(count):
            # Another order each round, so that nobody always runs after the heaviest writer.
            for contender in random.sample(contenders, len(contenders)):
                bar.advance(task)
                before = measurements.setdefault(contender.name, [])
                if contender.name in failures or (before and before[0].seconds > once_above_seconds):
                    continue
                source = database if contender.store is None else stores[contender.store]
                try:
                    before.append(measure(contender, source, work=work, limit_seconds=limit_seconds))
                except ContenderError as exc:
                    failures[contender.name] = str(exc)
        share = others.share()
    return Results(
        database_bytes=database.stat().st_size, measurements=measurements, failures=failures, other_share=share
    )


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


def _stores(
    database: Path, folder: Path, contenders: tuple[Contender, ...], failures: dict[str, str]
) -> dict[str, Path]:
    """A folder for each store that a contender reads; those that cannot be made fail their readers."""
    wanted = {each.store for each in contenders if each.store is not None and each.name not in failures}
    stores = {name: folder / name for name in STORES if name in wanted}
    for name, store in stores.items():
        store.mkdir()
        try:
            make_store(name, database, store)
        except ContenderError as exc:
            reason = f"its store could not be made: {exc}"
            failures |= {each.name: reason for each in contenders if each.store == name and each.name not in failures}
    return stores


def _warm_up(database: Path, *, work: Path, limit_seconds: float) -> None:
    try:
        measure(CREATE, database, work=work, limit_seconds=limit_seconds)
    except ContenderError as exc:
        raise SystemExit(f"Our own backup failed: {exc}") from exc


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield bar
