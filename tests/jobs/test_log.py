"""The log of a job: bounded, plain text, of its own thread, and without secrets."""

from __future__ import annotations

import logging
import threading

from backups_app.jobs.log import JobLog


def said(log: JobLog) -> list[str]:
    """The lines without their times."""
    return [line.split(" ", 2)[2] for line in log.text().splitlines()]


def test_lines_carry_their_time_and_its_zone():
    log = JobLog()
    log.add("copy")
    date, clock, text = log.text().split(" ")
    assert (len(date), len(clock), clock[-1], text) == (10, 9, "Z", "copy")


def test_an_earlier_attempt_stays_readable():
    log = JobLog("2026-01-01 00:00:00 first")
    log.add("second")
    assert said(log) == ["first", "second"]


def test_secrets_are_hidden(settings):
    log = JobLog()
    log.add(f"key AGE-SECRET-KEY-1QQQQQQQQ at https://me:pass@host/token and {settings.SECRET_KEY}")
    assert "QQQQ" not in log.text()
    assert "pass" not in log.text()
    assert settings.SECRET_KEY not in log.text()


def test_what_could_forge_a_line_or_drive_a_terminal_is_spelled_out():
    log = JobLog()
    log.add("a\n2026-01-01 00:00:00 succeeded\x1b[2J\ud800")
    assert len(log.text().splitlines()) == 1
    assert "\x1b" not in log.text()
    log.text().encode()


def test_the_oldest_lines_fall_out_and_long_ones_are_cut():
    log = JobLog()
    for number in range(1000):
        log.add(f"{number} {'x' * 2000}")
    assert len(log.text()) < 300_000
    assert said(log)[-1].startswith("999 ")


def test_messages_of_this_thread_are_taken_and_no_traceback():
    log, logger = JobLog(), logging.getLogger("backups_app.services.create")

    def other() -> None:
        logger.warning("of another job")

    with log.capturing():
        logger.warning("of this job")
        try:
            raise ValueError("in memory")
        except ValueError:
            logger.exception("failed")
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    logger.warning("after it")
    assert said(log) == ["warning: of this job", "error: failed"]
