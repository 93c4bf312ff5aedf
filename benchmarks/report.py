"""Figures into tables: on the terminal, and between two markers of a Markdown page."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table as RichTable

from .contenders import (
    AGE_PIPELINE,
    AGE_ZSTD_D,
    CONTENDERS,
    CP,
    CREATE,
    CREATE_ENCRYPTED,
    DBBACKUP,
    EXTRACT,
    EXTRACT_ENCRYPTED,
    ONE_STEP,
    PIPELINE,
    RESTIC,
    RESTIC_CHECK,
    RESTORE,
    SHELL,
    SNAPSHOT,
    VACUUM,
    ZSTD_D,
    Contender,
)
from .measure import Measurement

BEGIN_MARKER = "<!-- benchmark: begin (generated, do not edit) -->"
END_MARKER = "<!-- benchmark: end -->"
_MEMORY_AIM_MIB = 96
_NOT_INSTALLED = "not installed"

_RATIOS: tuple[tuple[Contender, Contender, float | None], ...] = (
    (SNAPSHOT, ONE_STEP, 1.1),
    (CREATE, PIPELINE, 1.5),
    (CREATE_ENCRYPTED, AGE_PIPELINE, 1.2),
    (CREATE_ENCRYPTED, RESTIC, None),
    (CREATE_ENCRYPTED, RESTIC_CHECK, 1.0),
    (CREATE_ENCRYPTED, DBBACKUP, None),
    (CREATE, SHELL, None),
    (CREATE, VACUUM, None),
    (CREATE, CP, None),
    (SNAPSHOT, SHELL, None),
    (SNAPSHOT, VACUUM, None),
    (SNAPSHOT, CP, None),
    (EXTRACT, ZSTD_D, None),
    (EXTRACT_ENCRYPTED, AGE_ZSTD_D, None),
    (RESTORE, CP, 2.0),
)
"""Of whom to whom, and the aim."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All rounds on one database; a contender that is not installed has no measurement."""

    database_bytes: int
    measurements: dict[str, list[Measurement]]
    other_share: float | None
    """The share of all CPU time that other work took meanwhile; ``None`` when not known."""

    @property
    def title(self) -> str:
        """The database by its size."""
        return f"{_mb(self.database_bytes)} MB"

    def seconds(self, contender: Contender) -> list[float]:
        """Its times, one a round."""
        return [each.seconds for each in self.measurements.get(contender.name, [])]

    def memory_bytes(self, contender: Contender) -> int:
        """Its highest peak."""
        return max(each.memory_bytes for each in self.measurements[contender.name])


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, a header and rows of text; all columns but the first are figures."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(results: list[Results]) -> list[Table]:
    """Everything found: times for each database, then ratios and memory across them."""
    return [*(_times(each) for each in results), _ratios(results), _memory(results)]


def print_report(found: list[Table], *, facts: list[str]) -> None:
    """The report on stdout."""
    console = Console(width=None if Console().is_terminal else 110)
    for fact in facts:
        console.print(fact, markup=False)
    for table in found:
        shown = RichTable(title=table.title, title_justify="left", min_width=60)
        for number, name in enumerate(table.header):
            shown.add_column(name, justify="right" if number else "left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def write_report(found: list[Table], *, facts: list[str], page: Path) -> None:
    """Put the report between the two markers of ``page``; the rest of the page is kept."""
    before, after = split_page(page)
    lines = [*(f"- {fact}" for fact in facts), ""]
    for table in found:
        lines += [f"### {table.title}", "", *_markdown(table), ""]
    page.write_text("\n".join([before + BEGIN_MARKER, "", *lines, END_MARKER + after]), encoding="utf-8")


def split_page(page: Path) -> tuple[str, str]:
    """What stands before and after the generated section of ``page``.

    Raises:
        SystemExit: there is no such page, or it lacks a marker.
    """
    try:
        text = page.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN_MARKER)
        _, after = rest.split(END_MARKER)
    except (OSError, ValueError) as exc:
        raise SystemExit(f"{page} must hold one line '{BEGIN_MARKER}' and one line '{END_MARKER}'.") from exc
    return before, after


def versions() -> str:
    """The software and the machine that the figures belong to."""
    found = [f"Python {platform.python_version()}", f"its SQLite {sqlite3.sqlite_version}"]
    for tool in ("sqlite3", "zstd", "age", "restic"):
        found.append(f"{tool} {_tool_version(tool)}")
    found += [f"{os.cpu_count()} CPUs", f"{platform.system()} {platform.machine()}"]
    return ", ".join(found)


def _tool_version(tool: str) -> str:
    if shutil.which(tool) is None:
        return _NOT_INSTALLED
    asking = "version" if tool == "restic" else "--version"
    words = subprocess.run([tool, asking], capture_output=True, text=True, check=True).stdout.split()
    return next((word.strip(",v") for word in words if word.strip(",v")[:1].isdigit() and "." in word), "unknown")


def _times(results: Results) -> Table:
    others = "an unknown share" if results.other_share is None else f"{results.other_share:.0%}"
    header = ("Seconds, durable", "median", "fastest", "slowest", "MB/s", "output MB")
    return Table(
        title=f"Database of {results.title} (other work took {others} of the CPUs meanwhile)",
        header=header,
        rows=[_time_row(results, each) for each in CONTENDERS],
    )


def _time_row(results: Results, contender: Contender) -> tuple[str, ...]:
    seconds = results.seconds(contender)
    if not seconds:
        return (contender.name, f"{_NOT_INSTALLED}: {', '.join(contender.missing_tools)}", *[""] * 4)
    return (
        contender.name,
        f"{median(seconds):.2f}",
        f"{min(seconds):.2f}",
        f"{max(seconds):.2f}",
        f"{results.database_bytes / 1e6 / median(seconds):.0f}",
        _mb(results.measurements[contender.name][0].output_bytes),
    )


def _ratios(results: list[Results]) -> Table:
    header = ("Ratio of medians (spread of the rounds)", *(each.title for each in results), "aim")
    rows = [
        (
            f"{ours.name} ÷ {other.name}",
            *(_ratio(each.seconds(ours), each.seconds(other), aim) for each in results),
            "" if aim is None else f"≤ {aim}",
        )
        for ours, other, aim in _RATIOS
    ]
    return Table(title="Ratios", header=header, rows=rows)


def _ratio(ours: list[float], others: list[float], aim: float | None) -> str:
    if not ours or not others:
        return _NOT_INSTALLED
    ratio = median(ours) / median(others)
    # Figures of one round were taken close together, so these differ less than the times do.
    rounds = [one / other for one, other in zip(ours, others, strict=True)]
    verdict = "" if aim is None else (" met" if ratio <= aim else " MISSED")
    return f"{ratio:.2f} ({min(rounds):.2f}-{max(rounds):.2f}){verdict}"


def _memory(results: list[Results]) -> Table:
    header = ("Peak MiB above an idle process", *(each.title for each in results), "aim")
    ours = (contender for contender in CONTENDERS if contender.is_ours)
    rows = [
        (contender.name, *(_mib(each.memory_bytes(contender)) for each in results), f"≤ {_MEMORY_AIM_MIB}")
        for contender in ours
    ]
    return Table(title="Memory", header=header, rows=rows)


def _mib(size_bytes: int) -> str:
    size_mib = size_bytes / (1 << 20)
    return f"{size_mib:.0f} {'met' if size_mib <= _MEMORY_AIM_MIB else 'MISSED'}"


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f}"


def _markdown(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.header)} |"
    yield f"| --- |{' ---: |' * (len(table.header) - 1)}"
    for row in table.rows:
        yield f"| {' | '.join(row)} |"
