"""Sets of numbers as few ranges: what a chain keeps of the backups that retention deleted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""First and last number, both included."""


def merged(*sets: Iterable[Range]) -> tuple[Range, ...]:
    """The union of some sets in its one spelling: in order, without overlap, neighbours joined."""
    found: list[Range] = []
    for first, last in sorted(each for ranges in sets for each in ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def single(numbers: Iterable[int]) -> tuple[Range, ...]:
    """Some numbers as ranges."""
    return merged((each, each) for each in numbers)


def without(first: int, last: int, gone: Iterable[Range]) -> Iterator[Range]:
    """The parts of ``first`` to ``last`` that none of the merged ranges ``gone`` covers."""
    at = first
    for start, end in gone:
        if end < at:
            continue
        if start > last:
            break
        if start > at:
            yield at, start - 1
        at = end + 1
    if at <= last:
        yield at, last


def covers(ranges: Iterable[Range], number: int) -> bool:
    """Whether a number is in one of the ranges."""
    return any(first <= number <= last for first, last in ranges)
