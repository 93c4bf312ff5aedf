"""Calls in a second thread: in order, bounded, and never a lost failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from backups_app.core.background import Background, read_in_background


def test_calls_are_made_in_order_in_one_other_thread_and_all_before_the_block_ends():
    seen: list[tuple[int, int]] = []
    with Background() as background:
        for number in range(100):
            background.submit(lambda each: seen.append((each, threading.get_ident())), number)
    assert [number for number, _ in seen] == list(range(100))
    assert len({thread for _, thread in seen}) == 1
    assert threading.get_ident() not in {thread for _, thread in seen}


def test_no_more_calls_wait_than_allowed():
    gate = threading.Event()
    submitted: list[int] = []

    def submit_all(background: Background) -> None:
        for number in range(10):
            background.submit(lambda _: gate.wait(10), number)
            submitted.append(number)

    with Background(max_pending=3) as background:
        thread = threading.Thread(target=submit_all, args=(background,))
        thread.start()
        time.sleep(0.1)
        assert len(submitted) == 3
        gate.set()
        thread.join()


def fail(_: object) -> None:
    raise OSError("the disk is gone")


def test_a_failure_of_the_last_call_is_raised_at_the_end():
    with pytest.raises(OSError, match="the disk is gone"), Background() as background:
        background.submit(fail, None)


def test_a_failure_is_raised_in_the_callers_thread_before_long():
    submitted: list[int] = []

    def submit_all() -> None:
        with Background(max_pending=2) as background:
            background.submit(fail, None)
            for number in range(100):
                background.submit(lambda _: None, None)
                submitted.append(number)

    with pytest.raises(OSError, match="the disk is gone"):
        submit_all()
    assert len(submitted) <= 2


def test_after_an_exception_of_the_block_nothing_runs_any_more():
    made: list[int] = []

    def make(number: int) -> None:
        time.sleep(0.05)
        made.append(number)

    def submit_all() -> None:
        with Background(max_pending=10) as background:
            for number in range(10):
                background.submit(make, number)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        submit_all()
    count = len(made)
    assert count < 10
    time.sleep(0.1)
    assert len(made) == count


# Reading in a second thread what this one makes


def test_a_reader_gets_all_pieces_in_order_in_another_thread():
    seen: list[int] = []
    threads: set[int] = set()

    def read(pieces: Iterator[int]) -> None:
        threads.add(threading.get_ident())
        seen.extend(pieces)

    read_in_background(iter(range(1000)), read)
    assert seen == list(range(1000))
    assert threads.isdisjoint({threading.get_ident()})


def test_no_more_pieces_are_made_than_a_slow_reader_can_hold():
    made: list[int] = []
    ahead: list[int] = []

    def make() -> Iterator[int]:
        for number in range(30):
            made.append(number)
            yield number

    def read(pieces: Iterator[int]) -> None:
        for number in pieces:
            time.sleep(0.005)
            ahead.append(len(made) - number)

    read_in_background(make(), read, max_pending=3)
    assert len(made) == 30
    assert max(ahead) <= 3 + 2, "three that wait, the one being read, the one being made"


def test_what_the_pieces_raise_is_raised_in_the_reader_at_its_place_and_then_here():
    seen: list[int] = []

    def make() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    def read(pieces: Iterator[int]) -> None:
        try:
            seen.extend(pieces)
        except OSError:
            seen.append(-1)
            raise

    with pytest.raises(OSError, match="the disk is gone"):
        read_in_background(make(), read)
    assert seen == [1, 2, -1]


def test_a_failure_that_the_reader_accepts_is_not_raised_again():
    def make() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    def read(pieces: Iterator[int]) -> None:
        with pytest.raises(OSError, match="the disk is gone"):
            list(pieces)

    read_in_background(make(), read)


def test_a_reader_that_ends_early_ends_the_making():
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    read_in_background(make(), lambda pieces: [next(pieces) for _ in range(5)] and None, max_pending=4)
    assert 5 <= len(made) <= 5 + 4 + 1


def test_a_failure_of_the_reader_ends_the_making_and_is_raised_here():
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(1000):
            made.append(number)
            yield number

    def read(pieces: Iterator[int]) -> None:
        next(pieces)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_in_background(make(), read)
    assert len(made) < 1000


@pytest.mark.parametrize("failure", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_a_failure_after_the_reader_ended_is_not_lost(failure: BaseException):
    has_ended = threading.Event()

    def make() -> Iterator[int]:
        yield 1
        assert has_ended.wait(10)
        raise failure

    def read(pieces: Iterator[int]) -> None:
        next(pieces)
        has_ended.set()

    with pytest.raises(type(failure)):
        read_in_background(make(), read)


def test_a_ctrl_c_goes_before_a_failure_of_the_reader_and_another_failure_does_not():
    def both(failure: BaseException) -> None:
        has_ended = threading.Event()

        def make() -> Iterator[int]:
            yield 1
            assert has_ended.wait(10)
            raise failure

        def read(pieces: Iterator[int]) -> None:
            next(pieces)
            has_ended.set()
            raise ZeroDivisionError

        read_in_background(make(), read)

    with pytest.raises(ZeroDivisionError):
        both(OSError("the disk is gone"))
    with pytest.raises(KeyboardInterrupt):
        both(KeyboardInterrupt())


def test_no_thread_is_left():
    before = threading.active_count()
    read_in_background(iter([1, 2]), lambda pieces: next(pieces) and None)
    assert threading.active_count() == before
