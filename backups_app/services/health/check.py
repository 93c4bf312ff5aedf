"""Every check in one place: look once, then ask each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from django.utils import timezone

from ... import conf
from . import anomalies, care, copies, databases, drills, elsewhere, findings, keys, news, space, wal, work
from .evidence import gather
from .facts import Health, Look, Problem

Check = Callable[[Look], Iterable[Problem]]
Note = Callable[[Look], Iterable[str]]

CHECKS: tuple[Check, ...] = (
    databases.find_nothing_under_care,
    databases.find_missing_files,
    databases.find_stale_backups,
    databases.find_unproven_backups,
    databases.find_failed_backups,
    anomalies.find_anomalies,
    copies.find_copy_problems,
    findings.find_damage,
    keys.find_key_problems,
    drills.find_failed_drills,
    drills.find_missed_drills,
    wal.find_large_wals,
    space.find_full_disks,
    work.find_failed_runs,
    work.find_silent_hosts,
    work.find_waiting_jobs,
    work.find_overdue_schedules,
    elsewhere.find_problems_elsewhere,
    care.find_deserters,
    care.find_clock_set_back,
    news.find_undelivered,
)
"""What is asked, in the order in which it is told. A new check is a line here, and one for each of
its codes in ``docs/monitoring.md``."""

OF_THIS_HOST: frozenset[Check] = frozenset(
    (
        databases.find_missing_files,
        keys.find_key_problems,
        wal.find_large_wals,
        space.find_full_disks,
        care.find_clock_set_back,
    )
)
"""Those that ask this host's files, disks, settings and clock: no other host of a fleet can."""

NOTES: tuple[Note, ...] = (findings.note_new_signing_key, news.note_sqlite_bug, news.note_missed_runs)
"""What is worth knowing, without anything to do at once."""


def check_health(*, now: datetime | None = None) -> Health:
    """Look at everything under care. Nothing is changed, and no live database is opened.

    Raises:
        DatabaseError: the catalogue cannot be used.
    """
    return judge(gather(now=now or timezone.now()))


def judge(look: Look) -> Health:
    """What the evidence of one moment says; for callers that show some of the evidence too.

    Raises:
        DatabaseError: the catalogue cannot be used.
    """
    problems = [problem for check in CHECKS for problem in _ask(check, look)]
    problems.sort(key=lambda problem: (problem.database == "", problem.database))
    return Health(
        checked_at=look.now,
        databases=[
            replace(each, problems=[problem for problem in problems if problem.database == each.database.name])
            for each in look.databases
        ],
        problems=problems,
        notices=[text for note in NOTES for text in note(look)],
        disks=look.disks,
        warnings=list(keys.warn_of_keys(look)),
    )


def _ask(check: Check, look: Look) -> Iterator[Problem]:
    is_own = check in OF_THIS_HOST and not conf.is_catalog_local()
    for problem in check(look):
        yield replace(problem, host=conf.host_name()) if is_own else problem
