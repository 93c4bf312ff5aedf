"""Figures into tables, for the terminal and for a Markdown page."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median

from rich.console import Console
from rich.table import Table as RichTable

from . import dbbackup
from .contender import Contender, Kind
from .contenders import CONTENDERS, RATIOS
from .measure import Measurement

_MEMORY_AIM_MIB = 96
_NOT_INSTALLED = "not installed"
_KINDS: dict[Kind, str] = {"backup": "Backup", "restore": "Restore to a new file", "verify": "Verification"}


@dataclass(frozen=True, kw_only=True)
class Results:
    """All rounds on one database."""

    database_bytes: int
    measurements: dict[str, list[Measurement]]
    """By name of the contender."""
    failures: dict[str, str]
    """Why a contender has no measurement, or fewer than there were rounds; by its name."""
    other_share: float | None
    """The share of all CPU time that other work took meanwhile; ``None`` when not known."""

    @property
    def title(self) -> str:
        """The database by its size."""
        return f"{_mb(self.database_bytes)} MB"

    def of(self, contender: Contender) -> list[Measurement]:
        """Its measurements, one a round."""
        return self.measurements.get(contender.name, [])

    def seconds(self, contender: Contender) -> list[float]:
        """Its times, one a round."""
        return [each.seconds for each in self.of(contender)]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A title, a header and rows of text; all columns but the first are figures."""

    title: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]


def tables(results: list[Results]) -> list[Table]:
    """Everything found: ratios and aims first, then the figures of each database."""
    return [_ratios(results), _memory(results), *(table for each in results for table in _figures(each))]


def print_report(found: list[Table], *, facts: list[str]) -> None:
    """The report on stdout."""
    console = Console(width=None if Console().is_terminal else 130)
    for fact in facts:
        console.print(fact, markup=False)
    for table in found:
        shown = RichTable(title=table.title, title_justify="left", min_width=60)
        for number, name in enumerate(table.header):
            shown.add_column(name, justify="right" if number else "left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)


def markdown(found: list[Table], *, facts: list[str]) -> list[str]:
    """The report as lines of Markdown."""
    lines = [f"- {fact}" for fact in facts]
    for table in found:
        lines += ["", f"### {table.title}", "", *_markdown(table)]
    return lines


def _markdown(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(table.header)} |"
    yield f"| --- |{' ---: |' * (len(table.header) - 1)}"
    for row in table.rows:
        yield f"| {' | '.join(cell.replace('|', '∣') for cell in row)} |"


def machine() -> str:
    """The software and the machine that the figures belong to; no name of it."""
    found = [f"Python {platform.python_version()}", f"its SQLite {sqlite3.sqlite_version}"]
    for tool in ("sqlite3", "zstd", "age", "restic", "borg"):
        found.append(f"{tool} {_tool_version(tool)}")
    found.append(f"django-dbbackup {dbbackup.VERSION if dbbackup.is_installed() else _NOT_INSTALLED}")
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    found.append(f"{os.cpu_count()} CPUs, {memory_bytes / (1 << 30):.0f} GiB")
    found.append(f"{platform.system()} {platform.release()} {platform.machine()}")
    return ", ".join(found)


def _tool_version(tool: str) -> str:
    if shutil.which(tool) is None:
        return _NOT_INSTALLED
    asking = "version" if tool == "restic" else "--version"
    try:
        printed = subprocess.run([tool, asking], check=False, capture_output=True, text=True, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "of an unknown version"
    words = [word.strip(",v*") for word in printed.split()]
    return next((word for word in words if word[:1].isdigit() and "." in word), "of an unknown version")


def _figures(results: Results) -> Iterator[Table]:
    others = "an unknown share" if results.other_share is None else f"{results.other_share:.0%}"
    note = f"database of {results.title}, other work took {others} of the CPUs meanwhile"
    for kind, title in _KINDS.items():
        yield Table(
            title=f"{title}: {note}",
            header=("durable", "seconds", "slowest", "CPU seconds", "MB/s", "output MB", "peak MiB"),
            rows=[_time_row(results, each) for each in CONTENDERS if each.kind == kind],
        )
    yield Table(
        title=f"A writer beside a backup: {note}",
        header=("latency of its commits, ms", "p50", "p99", "longest", "commits", "seconds of the backup"),
        rows=[_latency_row(results, each) for each in CONTENDERS if each.kind == "latency"],
    )
    yield Table(
        title=f"A writer beside a restore in place: {note}",
        header=("longest wait of a commit, ms", "median", "slowest round"),
        rows=[_wait_row(results, each) for each in CONTENDERS if each.kind == "wait"],
    )


def _failed_row(results: Results, contender: Contender, *, width: int) -> tuple[str, ...]:
    return (contender.name, results.failures.get(contender.name, "not measured"), *[""] * (width - 2))


def _time_row(results: Results, contender: Contender) -> tuple[str, ...]:
    found = results.of(contender)
    if not found:
        return _failed_row(results, contender, width=7)
    seconds = median(results.seconds(contender))
    return (
        contender.name,
        f"{seconds:.2f}",
        f"{max(results.seconds(contender)):.2f}",
        f"{median(each.cpu_seconds for each in found):.2f}",
        f"{results.database_bytes / 1e6 / seconds:.0f}",
        _mb(found[0].output_bytes),
        f"{_peak_mib(found):.0f}",
    )


def _latency_row(results: Results, contender: Contender) -> tuple[str, ...]:
    found = results.of(contender)
    latencies = sorted(latency for each in found for latency in each.latencies)
    if not latencies:
        return _failed_row(results, contender, width=6)
    return (
        contender.name,
        *(f"{each * 1000:.1f}" for each in (percentile(latencies, 50), percentile(latencies, 99), latencies[-1])),
        f"{len(latencies)}",
        f"{median(results.seconds(contender)):.2f}",
    )


def _wait_row(results: Results, contender: Contender) -> tuple[str, ...]:
    seconds = results.seconds(contender)
    if not seconds:
        return _failed_row(results, contender, width=3)
    return (contender.name, f"{median(seconds) * 1000:.0f}", f"{max(seconds) * 1000:.0f}")


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the ordered figures that at least ``percent`` of them do not exceed."""
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def _ratios(results: list[Results]) -> Table:
    rows = [
        (
            f"{ours.name} ÷ {other.name}",
            *(_ratio(each, ours, other, aim) for each in results),
            "" if aim is None else f"≤ {aim}",
        )
        for ours, other, aim in RATIOS
    ]
    return Table(
        title="Ratios: below 1 ours is faster, above 1 we lose",
        header=("medians of seconds (spread of the rounds)", *(each.title for each in results), "aim"),
        rows=rows,
    )


def _ratio(results: Results, ours: Contender, other: Contender, aim: float | None) -> str:
    one, two = results.seconds(ours), results.seconds(other)
    if not one or not two:
        return results.failures.get((other if one else ours).name, "not measured")
    ratio = median(one) / median(two)
    # Figures of one round were taken close together, so these differ less than the times do.
    rounds = [first / second for first, second in zip(one, two, strict=False)]
    verdict = "" if aim is None else (" met" if ratio <= aim else " MISSED")
    return f"{ratio:.2f} ({min(rounds):.2f}-{max(rounds):.2f}){verdict}"


def _memory(results: list[Results]) -> Table:
    ours = [each for each in CONTENDERS if each.is_ours and each.kind in _KINDS]
    rows = [
        (contender.name, *(_mib(each.of(contender)) for each in results), f"≤ {_MEMORY_AIM_MIB}")
        for contender in ours
        if contender.prepare is None  # a command of its own holds Python and Django too
    ]
    return Table(
        title="Memory of ours",
        header=("peak MiB above an idle process", *(each.title for each in results), "aim"),
        rows=rows,
    )


def _mib(found: list[Measurement]) -> str:
    if not found:
        return "not measured"
    peak = _peak_mib(found)
    return f"{peak:.0f} {'met' if peak <= _MEMORY_AIM_MIB else 'MISSED'}"


def _peak_mib(found: list[Measurement]) -> float:
    return max(each.memory_bytes for each in found) / (1 << 20)


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f}"
