"""What a chain of manifests shows of what was done to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backups_app.core.chain import Head, Link, chain_end, judge_chain, read_head, write_head
from backups_app.core.errors import BackupError, VerificationError
from backups_app.core.ranges import covers, merged, single, without

LINKS = [
    Link(sequence=number, digest=f"d{number}", previous=f"d{number - 1}" if number > 1 else None, backup=f"b{number}")
    for number in range(1, 7)
]
HEAD = Head(sequence=6, manifest_sha256="d6", backup="b6")


def faults(links: list[Link], head: Head | None = HEAD, **options: object) -> list[tuple[str, int, int]]:
    found = judge_chain(links, head=head, **options)  # type: ignore[arg-type]
    return [(each.kind, each.sequence, each.last) for each in found]


def without_numbers(*gone: int) -> list[Link]:
    return [each for each in LINKS if each.sequence not in gone]


def test_a_whole_chain_has_no_fault_in_any_order():
    assert faults(LINKS) == faults(LINKS[::-1]) == faults(LINKS, None) == []


def test_no_chain_has_no_fault():
    assert faults([], None) == []
    assert chain_end([]) is None


def test_gaps_and_the_cut_end_are_told_apart():
    assert faults(without_numbers(1, 3, 4)) == [("gap", 1, 1), ("gap", 3, 4)]
    assert faults(without_numbers(2, 5, 6)) == [("gap", 2, 2), ("cut", 5, 6)]
    assert faults([]) == [("cut", 1, 6)]
    assert faults(without_numbers(5, 6), None) == [], "without a head nobody can know"


def test_what_was_pruned_is_no_gap():
    assert faults(without_numbers(1, 3, 4), pruned=[(1, 1), (3, 4)]) == []
    assert faults(without_numbers(1, 3, 4), pruned=[(3, 3)]) == [("gap", 1, 1), ("gap", 4, 4)]
    last = Link(sequence=6, digest="d6", previous="d5", backup="b6", pruned=((1, 1), (3, 4)))
    assert faults([*without_numbers(1, 3, 4, 6), last]) == []
    head = Head(sequence=6, manifest_sha256="d6", backup="b6", pruned=((5, 6),))
    assert faults(without_numbers(5, 6), head) == []


def test_a_wrong_link_is_broken():
    wrong = Link(sequence=3, digest="d3", previous="other", backup="b3")
    assert faults([*without_numbers(3), wrong]) == [("broken", 3, 3)]
    first = Link(sequence=1, digest="d1", previous="d0", backup="b1")
    assert faults([*without_numbers(1), first]) == [("broken", 1, 1)]


def test_another_end_than_the_head_knows_is_rolled_back():
    assert faults(LINKS, Head(sequence=6, manifest_sha256="other", backup="b6")) == [("rolled_back", 6, 6)]


def test_a_head_that_lags_is_no_fault():
    assert faults(LINKS, Head(sequence=5, manifest_sha256="d5", backup="b5")) == []


def test_of_twins_the_one_that_the_chain_names_counts():
    twin = Link(sequence=3, digest="x", previous="d2", backup="twin")
    for links in ([twin, *LINKS], [*LINKS, twin]):
        (fault,) = judge_chain(links, head=HEAD)
        assert (fault.kind, fault.backup) == ("forked", "twin")


def test_a_head_survives_its_file(tmp_path: Path):
    path = tmp_path / "chain" / "x.json"
    assert read_head(path) is None
    for head in (HEAD, Head(sequence=7, manifest_sha256="d7", backup="b7", pruned=((1, 4), (6, 6)))):
        write_head(path, head)
        assert read_head(path) == head
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", HEAD.to_bytes() + b"\n", HEAD.to_bytes()[:-2]])
def test_a_damaged_head_is_an_error(tmp_path: Path, content: bytes):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(BackupError) as raised:
        read_head(tmp_path / "x.json")
    assert not isinstance(raised.value, VerificationError), "it is no verdict on an archive"


NUMBERS = st.sets(st.integers(1, 30))


@given(NUMBERS, NUMBERS, st.integers(1, 30), st.integers(0, 31))
def test_ranges_are_sets(one: set[int], other: set[int], first: int, last: int):
    both = merged(single(one), single(other))
    assert {each for start, end in both for each in range(start, end + 1)} == one | other
    assert all(covers(both, each) == (each in one | other) for each in range(1, 32))
    left = {each for start, end in without(first, last, single(one)) for each in range(start, end + 1)}
    assert left == set(range(first, last + 1)) - one
    assert all(start <= end for start, end in without(first, last, single(one)))


@given(NUMBERS)
def test_the_faults_of_a_chain_are_the_missing_numbers(present: set[int]):
    links = [
        Link(sequence=each, digest=f"d{each}", previous=f"d{each - 1}" if each > 1 else None, backup="b")
        for each in present
    ]
    found = judge_chain(links, head=Head(sequence=30, manifest_sha256="d30", backup="b"))
    missing = {each for fault in found for each in range(fault.sequence, fault.last + 1)}
    assert missing == set(range(1, 31)) - present
    assert {fault.kind for fault in found} <= {"gap", "cut"}
