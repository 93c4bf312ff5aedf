"""The checker of the soak notices what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import Commit, Exchange, Soak, Subject

LEDGER = {number: Commit(number, number - 1, number - 0.5, number - 0.1) for number in range(1, 11)}
CHAIN = [(number, number - 1) for number in range(1, 11)]


class Judged(Soak):
    """A soak that has run, with one backup of a given content."""

    chain: list[tuple[int, int]]
    counter: int

    def _content(self, backup: str) -> tuple[list[tuple[int, int]], int]:
        return self.chain, self.counter


def judged(
    folder: Path,
    chain: list[tuple[int, int]],
    *,
    taken_at: float,
    counter: int | None = None,
    **options: list[Exchange],
) -> tuple[int, list[str]]:
    soak = Judged(folder, minutes=0, seed=0)
    soak.chain, soak.counter = chain, len(chain) if counter is None else counter
    lost = soak._judge_backup("b", Subject("sales", folder, **options), LEDGER, taken_at, taken_at + 0.3)
    return lost, soak.violations


@pytest.mark.parametrize("length", [4, 5])
def test_a_backup_holds_what_was_acknowledged_and_may_hold_the_commit_of_its_instant(tmp_path: Path, length: int):
    assert judged(tmp_path, CHAIN[:length], taken_at=4.5) == (0, [])


def test_a_lost_commit_is_counted(tmp_path: Path):
    lost, violations = judged(tmp_path, CHAIN[:3], taken_at=5.0)
    assert lost == 2
    assert "2 acknowledged commits are missing, the first is 4" in violations[0]


def test_a_commit_from_the_future_a_gap_and_a_torn_commit_are_noticed(tmp_path: Path):
    assert "begun after the copy" in judged(tmp_path, CHAIN[:8], taken_at=4.0)[1][0]
    assert "was made after" in judged(tmp_path, [*CHAIN[:2], *CHAIN[3:5]], taken_at=5.0)[1][0]
    assert "counter" in judged(tmp_path, CHAIN[:5], taken_at=5.0, counter=4)[1][0]


def test_after_an_exchange_its_content_counts_and_what_was_begun_since(tmp_path: Path):
    exchanges = [Exchange(started=6.0, ended=7.0, tip=3)]
    assert judged(tmp_path, CHAIN[:3], taken_at=7.2, exchanges=exchanges) == (0, [])
    assert "last restore" in judged(tmp_path, CHAIN[:2], taken_at=7.2, exchanges=exchanges)[1][0]
    assert judged(tmp_path, CHAIN[:3], taken_at=9.0, exchanges=exchanges)[0] == 2
