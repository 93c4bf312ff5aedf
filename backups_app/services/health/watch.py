"""Tell each problem once: remember which are there, tell those that are new, and those that are over.

A problem is told when it is still there 15 seconds after it was first seen, which is at the second
look; a severe one at the first. It is over when it stayed away for a minute; until then its return
is no news. One message tells all problems of one code that are told at the same look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from ... import conf
from ...models import HealthProblem, Notification
from ..hosts import here
from ..notifications import notify
from .check import check_health
from .facts import Health, Problem

PERSISTS_AFTER = timedelta(seconds=15)
"""Looks are 20 seconds or a minute apart; those of several hosts may lie closer together."""

GONE_AFTER = timedelta(minutes=1)
KEPT = timedelta(days=90)

_TOLD_BY_JOBS = frozenset({"last_run_failed", "run_failed"})
"""The end of the job is news already; to tell it again would be noise."""

_MOST_IN_ONE_MESSAGE = 50
_FORGOTTEN_AT_ONCE = 500


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What one look changed."""

    told: list[HealthProblem] = field(default_factory=list)
    recovered: list[HealthProblem] = field(default_factory=list)


def watch(*, now: datetime) -> Watched:
    """Look, remember, and queue the news.

    Safe from several processes at once: each change is told by one of them. Rows and news are
    written in one transaction, so nothing is told twice and nothing forgotten when it dies.

    Raises:
        DatabaseError: the catalogue cannot be used; nothing was changed.
    """
    return remember(check_health(now=now))


def remember(health: Health) -> Watched:
    """:func:`watch` with what somebody has just found."""
    now = health.checked_at
    # What only another host can see, that one remembers and tells.
    problems = {problem.key: problem for problem in health.problems if conf.is_this_host(problem.host)}
    if not problems and not HealthProblem.objects.filter(here(), resolved_at=None).exists():
        return Watched()  # all is well, as before: the catalogue need not be locked
    with transaction.atomic(using=conf.CATALOG_ALIAS):
        rows = _open_rows()
        if any(key not in rows for key in problems):
            _add([problem for key, problem in problems.items() if key not in rows], now=now)
            rows = _open_rows()
        _see([(rows[key], problem) for key, problem in problems.items() if key in rows], now=now)
        watched = Watched(
            told=[row for key, problem in problems.items() if (row := rows.get(key)) and _tell(row, problem, now=now)],
            recovered=_settle([row for key, row in rows.items() if key not in problems], now=now),
        )
        _queue(watched, now=now)
    return watched


def _open_rows() -> dict[tuple[str, str, str, str], HealthProblem]:
    return {row.key: row for row in HealthProblem.objects.select_for_update().filter(here(), resolved_at=None)}


def _add(problems: list[Problem], *, now: datetime) -> None:
    rows = [
        HealthProblem(
            code=problem.key[0],
            database=problem.key[1],
            subject=problem.key[2],
            host=problem.key[3],
            message=problem.message,
            hint=problem.hint,
            first_seen=now,
            last_seen=now,
        )
        for problem in problems
    ]
    # Another host may see it at the same moment; then its row serves both.
    HealthProblem.objects.bulk_create(rows, ignore_conflicts=True)


def _see(pairs: list[tuple[HealthProblem, Problem]], *, now: datetime) -> None:
    HealthProblem.objects.filter(pk__in=[row.pk for row, _ in pairs]).update(last_seen=now, gone_since=None)
    changed: list[HealthProblem] = []
    for row, problem in pairs:
        row.last_seen, row.gone_since = now, None
        if (row.message, row.hint) != (problem.message, problem.hint):
            row.message, row.hint = problem.message, problem.hint
            changed.append(row)
    HealthProblem.objects.bulk_update(changed, ["message", "hint"], batch_size=100)


def _tell(row: HealthProblem, problem: Problem, *, now: datetime) -> bool:
    """Whether this look is the one that tells it."""
    if row.told_at is not None or not (problem.is_severe or abs(now - row.first_seen) >= PERSISTS_AFTER):
        return False
    row.told_at = now
    return bool(HealthProblem.objects.filter(pk=row.pk, told_at=None).update(told_at=now))


def _settle(rows: list[HealthProblem], *, now: datetime) -> list[HealthProblem]:
    """Note which problems are away, and end those that stayed away; returns what was told and is over now."""
    new = [row.pk for row in rows if row.gone_since is None]
    HealthProblem.objects.filter(pk__in=new, gone_since=None).update(gone_since=now)
    over = [row for row in rows if row.gone_since is not None and abs(now - row.gone_since) >= GONE_AFTER]
    ended = [row for row in over if HealthProblem.objects.filter(pk=row.pk, resolved_at=None).update(resolved_at=now)]
    if ended:
        _forget(now)
    return [row for row in ended if row.told_at is not None]


def _forget(now: datetime) -> None:
    old = HealthProblem.objects.filter(resolved_at__lt=now - KEPT).order_by()
    HealthProblem.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:_FORGOTTEN_AT_ONCE])).delete()


# Telling


def _queue(watched: Watched, *, now: datetime) -> None:
    for code, rows in _by_code(watched.told):
        if code not in _TOLD_BY_JOBS:
            event = Notification.Event.FAILED
            notify(event, subject=f"Needs attention: {_about(rows)}", content=_content(code, rows), now=now)
    for code, rows in _by_code(watched.recovered):
        if code not in _TOLD_BY_JOBS:
            event = Notification.Event.RECOVERED
            content = _content(code, rows) | {"outcome": "It is no longer a problem.", "hint": None}
            notify(event, subject=f"No longer a problem: {_about(rows)}", content=content, now=now)


def _by_code(rows: Iterable[HealthProblem]) -> list[tuple[str, list[HealthProblem]]]:
    found: dict[str, list[HealthProblem]] = defaultdict(list)
    for row in rows:
        found[row.code].append(row)
    return list(found.items())


def _about(rows: list[HealthProblem]) -> str:
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return f"{rows[0]}{more}"


def _content(code: str, rows: list[HealthProblem]) -> dict[str, Any]:
    first = rows[0]
    told = [row.message if not row.database else f"{row.database}: {row.message}" for row in rows]
    return {
        "kind": "health",
        "code": code,
        "database": first.database or None if len(rows) == 1 else None,
        "outcome": "\n".join(told[:_MOST_IN_ONE_MESSAGE]),
        "hint": first.hint or None,
        "problems": [
            {"database": row.database or None, "about": row.subject or None, "message": row.message}
            for row in rows[:_MOST_IN_ONE_MESSAGE]
        ],
        "count": len(rows),
    }
