"""Calls in a second thread: in order, bounded, and never a lost failure."""

from __future__ import annotations

import threading
import time

import pytest

from backups_app.core.background import Background


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
