"""Tables say what was found, also where we lose and where nothing was measured."""

from __future__ import annotations

import socket
from pathlib import Path

from benchmarks.contenders import (
    AGE_PIPELINE,
    BESIDE_CREATE,
    BESIDE_SHELL,
    BORG,
    CONTENDERS,
    CREATE_ENCRYPTED,
    RATIOS,
    RESTIC_CHECKED,
    RESTORE,
)
from benchmarks.measure import Measurement
from benchmarks.report import Results, machine, markdown, percentile, print_report, tables


def took(*seconds: float, memory_mib: int = 10, latencies: list[float] | None = None) -> list[Measurement]:
    return [
        Measurement(
            seconds=each,
            cpu_seconds=each * 2,
            output_bytes=3_000_000,
            memory_bytes=memory_mib << 20,
            latencies=latencies or [],
        )
        for each in seconds
    ]


RESULTS = Results(
    database_bytes=200_000_000,
    measurements={
        CREATE_ENCRYPTED.name: took(2.6, 2.0, 2.4, memory_mib=97),
        AGE_PIPELINE.name: took(2.0, 2.0, 2.0),
        RESTIC_CHECKED.name: took(8.0),  # once, for it is slow
        BESIDE_CREATE.name: took(2.0, latencies=[each / 1000 for each in range(1, 201)]),
        RESTORE.name: took(0.5, 0.4),
    },
    failures={BORG.name: "not installed: borg", BESIDE_SHELL.name: "did not end within 15 s"},
    other_share=0.25,
)


def lines() -> list[str]:
    return markdown(tables([RESULTS]), facts=["Made so."])


def row(name: str) -> str:
    found = [line for line in lines() if line.startswith(f"| {name} |")]
    assert len(found) == 1
    return found[0]


def test_a_ratio_is_of_the_medians_with_its_spread_and_says_when_the_aim_is_missed():
    cells = row(f"{CREATE_ENCRYPTED.name} ÷ {AGE_PIPELINE.name}").split("|")
    assert [cell.strip() for cell in cells[2:4]] == ["1.20 (1.00-1.30) met", "≤ 1.2"]
    slower = Results(
        database_bytes=1,
        measurements={CREATE_ENCRYPTED.name: took(1.21), AGE_PIPELINE.name: took(1.0)},
        failures={},
        other_share=None,
    )
    assert any("1.21 (1.21-1.21) MISSED" in line for line in markdown(tables([slower]), facts=[]))


def test_a_peer_measured_once_still_has_a_ratio():
    assert "0.30 (0.33-0.33) met" in row(f"{CREATE_ENCRYPTED.name} ÷ {RESTIC_CHECKED.name}")


def test_who_is_not_installed_or_did_not_end_is_named_as_such_everywhere():
    assert "not installed: borg" in row(BORG.name)
    assert "not installed: borg" in row(f"{CREATE_ENCRYPTED.name} ÷ {BORG.name}")
    assert "did not end within 15 s" in row(BESIDE_SHELL.name)


def test_every_contender_and_every_ratio_has_its_row():
    text = lines()
    for contender in CONTENDERS:
        assert any(line.startswith(f"| {contender.name} |") for line in text), contender.name
    for ours, other, _aim in RATIOS:
        assert row(f"{ours.name} ÷ {other.name}")


def test_a_row_of_figures():
    assert row_of_figures(CREATE_ENCRYPTED.name) == ["2.40", "2.60", "4.80", "83", "3", "97"]
    assert row_of_figures(RESTORE.name) == ["450", "500"]
    assert row_of_figures(BESIDE_CREATE.name) == ["100.0", "198.0", "200.0", "200", "2.00"]


def row_of_figures(name: str) -> list[str]:
    found = [line for line in lines() if line.startswith(f"| {name} |") and "≤" not in line]
    assert len(found) == 1
    return [cell.strip() for cell in found[0].split("|")[2:-1]]


def test_memory_above_the_aim_is_said():
    assert any("97 MISSED" in line for line in lines() if line.startswith(f"| {CREATE_ENCRYPTED.name} |"))


def test_all_rows_of_a_table_have_the_width_of_its_header():
    for table in tables([RESULTS, RESULTS]):
        assert {len(cells) for cells in table.rows} == {len(table.header)}, table.title


def test_names_of_contenders_are_unique():
    names = [each.name for each in CONTENDERS]
    assert len(names) == len(set(names))


def test_percentiles_of_few_figures():
    assert percentile([1.0], 50) == percentile([1.0], 99) == 1.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert percentile([float(each) for each in range(1, 101)], 99) == 99.0


def test_the_facts_name_no_machine_and_no_path(capsys):
    facts = machine()
    assert socket.gethostname() not in facts
    assert str(Path.home()) not in facts
    assert "/" not in facts
    assert "CPUs" in facts
    print_report(tables([RESULTS]), facts=[facts])
    assert "not installed: borg" in capsys.readouterr().out.replace("\n", " ")
